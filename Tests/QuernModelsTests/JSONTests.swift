import Foundation
import QuernModels
import QuernTesting
import Testing

@Suite struct JSONTests {
  private static func parse(_ text: String) throws -> JSONValue { try JSONDocument(text: text.utf8, file: "f").root }

  @Test func readsEveryKind() throws {
    let root = try Self.parse(
      #" { "i" : -12 , "d":1.5e2, "t":true,"f":false,"n":null,"s":"é\n","a":[1,[2],{}],"o":{"k":0} } "#)
    #expect(try root.required("i").int() == -12)
    #expect(try root.required("d").double() == 150)
    #expect(try root.required("i").double() == -12)
    #expect(try root.required("t").bool() && !root.required("f").bool())
    #expect(try root.required("n").isNull && root.optional("n") == nil && root.optional("zz") == nil)
    #expect(try root.required("s").string() == "é\n")
    #expect(try root.required("a").count == 3 && root.required("o").count == 1 && root.count == 8)
    var kinds: [JSONValue.Kind] = []
    try root.required("a").forEachElement { kinds.append($0.kind) }
    #expect(kinds == [.number, .array, .object])
    var keys: [String] = []
    try root.forEachMember { (key, _) in keys.append(key) }
    #expect(keys == ["i", "d", "t", "f", "n", "s", "a", "o"])
  }

  @Test func integersAreExact() throws {
    #expect(try Self.parse("9223372036854775807").int() == .max)
    #expect(try Self.parse("-9223372036854775808").int() == .min)
    #expect(try Self.parse("-0").int() == 0)
    for text in ["9223372036854775808", "-9223372036854775809", "1.0", "1e3", "\"1\"", "true"] {
      #expect(modelError { _ = try Self.parse(text).int() } != nil, "\(text)")
    }
    #expect(modelError { _ = try Self.parse("1e999").double() } != nil)
    #expect(modelError { _ = try Self.parse("5").int(in: 1...4) }?.reason == "is 5, outside 1...4")
  }

  @Test func decodesEscapes() throws {
    let text = #""\"\\\/\b\f\n\r\tA\u00e9\u4E2D\ud83d\ude00""#
    #expect(try Self.parse(text).string() == "\"\\/\u{8}\u{C}\n\r\tAé中😀")
  }

  @Test(arguments: [
    "", " ", "{", "[", "\"", "\"\\", "\"\\u12", "tru", "nul", "-", "1.", ".5", "1e", "1e+", "01", "--1", "+1", "[1,]",
    "[,1]",
    "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{1:2}", "[1 2]", "{\"a\":1 \"b\":2}", "1 2", "[]]", "'a'", "NaN",
    "Infinity",
    "\"\t\"", "\"\\a\"", "\"\\uD800\"", "\"\\uDC00\"", "\"\\uD800\\u0041\"", "\"\\u00g0\"", "\u{FEFF}1",
    "{\"a\":1,\"a\":2}",
    "{\"\\u0061\":1,\"a\":2}", "[1]\u{0}", "\u{A0}1", "truefalse",
  ])
  func refuses(text: String) throws {
    let error = try #require(modelError { _ = try Self.parse(text) })
    let offset = try #require(error.offset)
    #expect((0...text.utf8.count).contains(offset))
  }

  @Test func depthIsLimited() throws {
    let limit = JSONScanner.depthLimit
    func nested(_ depth: Int) -> String {
      String(repeating: "[", count: depth) + "1" + String(repeating: "]", count: depth)
    }
    _ = try Self.parse(nested(limit))
    #expect(modelError { _ = try Self.parse(nested(limit + 1)) }?.reason.contains("nested") == true)
    #expect(
      modelError { _ = try Self.parse(String(repeating: "[", count: 1_000_000)) }?.reason.contains("nested") == true)
  }

  @Test func errorsNameTheField() throws {
    let text = #"{"vocab":{"hello":[0,{"x y":tru}]}}"#
    let syntax = modelError { _ = try Self.parse(text) }
    #expect(syntax?.description == "f: vocab.hello[1].x y (byte 28): expected true")
    let root = try Self.parse(#"{"vocab":{"a":1,"hello":[0,{"k":"v"}]}}"#)
    var found: ModelError?
    try root.required("vocab").required("hello").forEachElement { (value) throws(ModelError) in
      if value.kind == .object { found = modelError { _ = try value.required("k").int() } }
    }
    #expect(found?.field == "vocab.hello[1].k")
    #expect(found?.offset == 32)
    #expect(modelError { _ = try root.required("vocab").required("none") }?.field == "vocab.none")
  }

  /// Keys that are equal as strings but differ in bytes are two keys.
  @Test func keysAreComparedByteForByte() throws {
    let root = try Self.parse("{\"\u{E9}\":1,\"e\u{301}\":2}")
    #expect(try root.required("\u{E9}").int() == 1)
    #expect(try root.required("e\u{301}").int() == 2)
  }

  /// Mutations of a text: what Foundation reads, this reads to the same value; nothing traps.
  @Test func agreesWithFoundationOnMutations() throws {
    let seed = Array(#"{"a":[1,-2.5e3,true,null,"x\u00e9\n"],"b":{"c":"d","e":[[],{}]}}"#.utf8)
    var random = SeededRandom(seed: 7)
    var accepted = 0
    for _ in 0..<20_000 {
      var bytes = seed
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        let index = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.remove(at: index)
        default: bytes.insert(seed.randomElement(using: &random)!, at: index)
        }
      }
      guard let document = try? JSONDocument(text: bytes, file: "f") else { continue }
      accepted += 1
      // Foundation is laxer in places, so only this direction is a law.
      let foundation = try? JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)
      #expect(foundation != nil || document.root.kind == .number, "\(String(decoding: bytes, as: UTF8.self))")
    }
    #expect(accepted > 1000)
  }
}

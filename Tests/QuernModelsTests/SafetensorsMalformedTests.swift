import Foundation
import QuernModels
import QuernTesting
import Testing

/// Files that must be refused with a field and a byte, and with little memory.
@Suite struct SafetensorsMalformedTests {
  struct Bad: Sendable, CustomTestStringConvertible {
    var name: String
    var field: String
    var bytes: [UInt8]
    var testDescription: String { name }

    init(_ name: String, _ field: String, header: String, data: Int = 8, length: UInt64? = nil) {
      self.init(name, field, header: Array(header.utf8), data: data, length: length)
    }

    init(_ name: String, _ field: String, header: [UInt8], data: Int = 8, length: UInt64? = nil) {
      self.name = name
      self.field = field
      bytes = withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) { Array($0) }
      bytes += header + [UInt8](repeating: 0, count: data)
    }
  }

  private static func entry(
    _ dtype: String = "\"F32\"", _ shape: String = "[2]", _ offsets: String = "[0,8]", more: String = ""
  ) -> String {
    "{\"dtype\":\(dtype),\"shape\":\(shape),\"data_offsets\":\(offsets)\(more)}"
  }

  private static func one(_ entry: String) -> String { "{\"a\":\(entry)}" }

  static let bad: [Bad] = {
    let good = one(entry())
    return [
      // The length
      Bad("length one more than the file", "header length", header: good, data: 0, length: UInt64(good.utf8.count + 1)),
      Bad("length 100,000,001", "header length", header: good, length: 100_000_001),
      Bad("length 2^63", "header length", header: good, length: 1 << 63),
      Bad("length 2^64-1", "header length", header: good, length: .max),
      Bad("length 2^64-8", "header length", header: good, length: .max - 7),
      Bad("length too small", "tensors", header: good, length: UInt64(good.utf8.count - 1)),
      Bad("length 0", "header", header: good, length: 0),
      // The frame of the header
      Bad("begins with a space", "header", header: " " + good),
      Bad("array", "header", header: "[]"),
      Bad("string", "header", header: "\"a\""),
      Bad("padded with new lines", "header", header: good + "\n"),
      Bad("padded with NUL", "tensors", header: good + "\0"),
      Bad("two documents", "tensors", header: good + "{}"),
      Bad("byte order mark", "header", header: "\u{FEFF}" + good),
      Bad("bytes after no tensors", "tensors", header: "{}"),
      // JSON
      Bad("trailing comma", "tensors", header: "{\"a\":\(entry()),}"),
      Bad("single quotes", "tensors", header: "{'a':1}"),
      Bad("comment", "tensors", header: "{/**/\"a\":1}"),
      Bad("unquoted key", "tensors", header: "{a:1}"),
      Bad("NaN", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[NaN]"))),
      Bad("hexadecimal", "tensors.a.shape", header: one(entry("\"F32\"", "[0x2]"))),
      Bad("leading zero", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[02]"))),
      Bad("plus sign", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[+2]"))),
      Bad("control character in a name", "tensors.a\u{1}", header: Array("{\"a\u{1}\":\(entry())}".utf8)),
      Bad("not UTF-8", "tensors.\u{FFFD}", header: Array("{\"".utf8) + [0xFF] + Array("\":\(entry())}".utf8)),
      Bad("overlong UTF-8", "", header: Array("{\"".utf8) + [0xC0, 0x80] + Array("\":\(entry())}".utf8)),
      Bad("surrogate in UTF-8", "", header: Array("{\"".utf8) + [0xED, 0xA0, 0x80] + Array("\":\(entry())}".utf8)),
      Bad("half a surrogate pair", "", header: "{\"\\ud800\":\(entry())}"),
      Bad("unknown escape", "", header: "{\"\\x41\":\(entry())}"),
      Bad("name twice", "tensors.a", header: "{\"a\":\(entry()),\"a\":\(entry())}"),
      Bad("name twice, once escaped", "tensors.a", header: "{\"a\":\(entry()),\"\\u0061\":\(entry())}"),
      Bad("dtype twice", "tensors.a.dtype", header: one(entry(more: ",\"dtype\":\"F32\""))),
      Bad(
        "metadata twice", "tensors.__metadata__", header: "{\"__metadata__\":{},\"__metadata__\":{},\"a\":\(entry())}"),
      Bad(
        "metadata key twice", "tensors.__metadata__.k",
        header: "{\"__metadata__\":{\"k\":\"\",\"k\":\"\"},\"a\":\(entry())}"),
      Bad("depth bomb of arrays", "", header: "{\"a\":" + String(repeating: "[", count: 100_000)),
      Bad("depth bomb of objects", "", header: String(repeating: "{\"a\":", count: 100_000)),
      // Entries
      Bad("metadata is a list", "tensors.__metadata__", header: "{\"__metadata__\":[],\"a\":\(entry())}"),
      Bad("metadata holds a number", "tensors.__metadata__.k", header: "{\"__metadata__\":{\"k\":1},\"a\":\(entry())}"),
      Bad("metadata is null", "tensors.__metadata__", header: "{\"__metadata__\":null,\"a\":\(entry())}"),
      Bad("entry is null", "tensors.a", header: one("null")),
      Bad("entry is a number", "tensors.a", header: one("1")),
      Bad("unknown field", "tensors.a.stride", header: one(entry(more: ",\"stride\":1"))),
      Bad("no dtype", "tensors.a.dtype", header: one("{\"shape\":[2],\"data_offsets\":[0,8]}")),
      Bad("no shape", "tensors.a.shape", header: one("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}")),
      Bad("no data_offsets", "tensors.a.data_offsets", header: one("{\"dtype\":\"F32\",\"shape\":[2]}")),
      Bad("unknown dtype", "tensors.a.dtype", header: one(entry("\"F31\""))),
      Bad("dtype in lower case", "tensors.a.dtype", header: one(entry("\"f32\""))),
      Bad("dtype is a number", "tensors.a.dtype", header: one(entry("32"))),
      Bad("shape is a number", "tensors.a.shape", header: one(entry("\"F32\"", "2"))),
      Bad("negative extent", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[-2]"))),
      Bad("extent is not an integer", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[2.0]"))),
      Bad("extent with exponent", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[2e0]"))),
      Bad("extent is a string", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[\"2\"]"))),
      Bad("extent over 64 bits", "tensors.a.shape[0]", header: one(entry("\"F32\"", "[99999999999999999999]"))),
      Bad(
        "shape wraps to 2", "tensors.a.shape[1]",
        header: one(entry("\"F32\"", "[4294967296,4294967296,2]"))),
      Bad("bits wrap", "tensors.a.shape", header: one(entry("\"F32\"", "[576460752303423490]"))),
      Bad("half a byte", "tensors.a.shape", header: one(entry("\"F4\"", "[3]", "[0,1]")), data: 1),
      Bad("offsets are one number", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[2]", "[8]"))),
      Bad("offsets are three numbers", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[2]", "[0,8,8]"))),
      Bad("offsets are an object", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[2]", "{}"))),
      Bad("negative offset", "tensors.a.data_offsets[0]", header: one(entry("\"F32\"", "[2]", "[-8,0]"))),
      Bad("end before begin", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[2]", "[8,0]"))),
      Bad(
        "offset over 64 bits", "tensors.a.data_offsets[1]",
        header: one(entry("\"F32\"", "[2]", "[0,18446744073709551616]"))),
      Bad("span shorter than the shape", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[3]"))),
      Bad("span longer than the shape", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[1]"))),
      Bad("span of another dtype", "tensors.a.data_offsets", header: one(entry("\"F16\""))),
      // Coverage
      Bad("data cut short", "tensors.a.data_offsets", header: good, data: 7),
      Bad("bytes after the data", "tensors", header: good, data: 9),
      Bad("hole at the start", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[1]", "[4,8]"))),
      Bad(
        "hole in the middle", "tensors.b.data_offsets",
        header: "{\"a\":\(entry("\"F32\"", "[1]", "[0,4]")),\"b\":\(entry("\"F32\"", "[1]", "[8,12]"))}", data: 12),
      Bad(
        "overlap", "tensors.b.data_offsets",
        header: "{\"a\":\(entry()),\"b\":\(entry("\"F32\"", "[2]", "[4,12]"))}", data: 12),
      Bad("same range twice", "tensors.b.data_offsets", header: "{\"a\":\(entry()),\"b\":\(entry())}"),
      Bad(
        "terabytes in a small file", "tensors.a.data_offsets",
        header: one(entry("\"F32\"", "[1099511627776]", "[0,4398046511104]"))),
    ]
  }()

  @Test(arguments: bad)
  func refuses(bad: Bad) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("bad.safetensors", bad.bytes)
    let error = try #require(modelError { _ = try Safetensors(path: path) }, "was accepted")
    if !bad.field.isEmpty { #expect(error.field == bad.field) }
    #expect(error.file == path)
    #expect(!error.field.isEmpty && !error.reason.isEmpty)
    let offset = try #require(error.offset)
    #expect((0...bad.bytes.count).contains(offset))
    #expect(!error.description.contains("\n") && error.description.utf8.count < 4000)
  }

  // MARK: Memory

  /// Headers of about `size` bytes that are refused late, each dense in another way.
  static func bombs(_ size: Int) -> [Bad] {
    func repeated(_ text: String) -> String { String(repeating: text, count: size / text.utf8.count) }
    func numbered(_ value: String, _ width: Int) -> String {
      (0..<size / width).map { "\"\(String($0, radix: 36))\":\(value)," }.joined()
    }
    let empty = entry("\"F32\"", "[0]", "[0,0]")
    return [
      Bad("values", "tensors.a", header: "{\"a\":[" + repeated("0,") + "0]}"),
      Bad("arrays", "tensors.a", header: "{\"a\":[" + repeated("[],") + "0]}"),
      Bad("unclosed", "", header: "{\"a\":[" + repeated("[],")),
      Bad("one long name", "", header: "{\"" + repeated("x")),
      Bad("extents", "tensors.a.data_offsets", header: one(entry("\"F32\"", "[" + repeated("1,") + "1]"))),
      Bad("names, the first twice", "tensors.0", header: "{" + numbered("0", 9) + "\"0\":0}"),
      Bad(
        "tensors, and a hole", "tensors.!.data_offsets",
        header: "{" + numbered(empty, 60) + "\"!\":\(entry("\"U8\"", "[1]", "[1,2]"))}"),
    ]
  }

  /// In a process of its own, where nothing else allocates: at most 64 MiB and 4 times the header.
  @Test(.disabled(if: AllocationTests.isSanitized, "a sanitizer's own memory does not fit the limit"))
  func refusingTakesBoundedMemory() async {
    await #expect(processExitsWith: .success) {
      for bad in Self.bombs(6 << 20) {
        let folder = try TemporaryFolder()
        let path = try folder.write("bomb.safetensors", bad.bytes)
        let used = try PeakMemory.of {
          let error = try #require(modelError { _ = try Safetensors(path: path) })
          precondition(bad.field.isEmpty || error.field == bad.field, error.field)
        }
        // The promise is 64 MiB more; without it a small file can show a breach.
        precondition(used <= 4 << 20 + 4 * bad.bytes.count, "\(bad.name): \(used) bytes")
      }
    }
  }

  @Test func thereAreEnoughCases() { #expect(Self.bad.count >= 60) }

  @Test func theGoodFileOfTheseCasesIsAccepted() throws {
    let folder = try TemporaryFolder()
    let file = try Safetensors(
      path: folder.write("g.safetensors", Bad("", "", header: Self.one(Self.entry()) + "  ").bytes))
    #expect(file.tensorNames == ["a"])
    _ = try Safetensors(path: folder.write("e.safetensors", Bad("", "", header: "{}", data: 0).bytes))
  }

  @Test func refusesEveryTruncation() throws {
    let folder = try TemporaryFolder()
    let good = try Data(contentsOf: URL(fileURLWithPath: Fixture.path("safetensors/good.safetensors")))
    for length in 0..<good.count {
      let path = try folder.write("cut.safetensors", good[0..<length])
      let error = modelError { _ = try Safetensors(path: path) }
      #expect(error?.offset != nil, "cut to \(length) bytes")
    }
  }

  /// Each bit of the header and its length changed: what is accepted, the reference reader accepts too.
  @Test func flippedBitsAreJudgedAsByTheReference() throws {
    struct Flips: Decodable {
      var header: Int
      var accepted: [[Int]]
    }
    let folder = try TemporaryFolder()
    let good = try Data(contentsOf: URL(fileURLWithPath: Fixture.path("safetensors/good.safetensors")))
    let flips = try Fixture.decode(Flips.self, "safetensors/flips.expected.json")
    let reference = Set(flips.accepted.map { $0[0] * 256 + $0[1] })
    var accepted = 0
    for index in 0..<flips.header {
      for bit in 0..<8 {
        var bytes = good
        bytes[index] ^= 1 << UInt8(bit)
        let path = try folder.write("flip.safetensors", bytes)
        if let error = modelError({ _ = try Safetensors(path: path) }) {
          #expect(error.offset != nil && !error.field.isEmpty)
        } else {
          accepted += 1
          #expect(reference.contains(index * 256 + 1 << bit), "byte \(index), bit \(bit)")
        }
      }
    }
    // Names and metadata may change; if nothing is accepted, this test has read nothing.
    #expect(accepted > 100 && accepted <= reference.count)
  }
}

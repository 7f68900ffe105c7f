import Foundation
import QuernModels
import Testing

/// Tokenizers in the layouts of well-known models, against what Hugging Face tokenizers gives for 10,000 hard lines.
@Suite struct HubTokenizerTests {
  static let layouts: [String] = {
    let folder = Fixture.path("tokenizers")
    let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return files.filter { $0.hasSuffix(".hash.bin") }.map { String($0.dropLast(9)) }.sorted()
  }()

  static let corpus: [String] = {
    guard let data = FileManager.default.contents(atPath: Fixture.path("tokenizers/corpus.bin")) else { return [] }
    var lines: [String] = []
    var position = 0
    while position + 4 <= data.count {
      let count = Int(integer(data, position))
      lines.append(String(decoding: data[position + 4..<position + 4 + count], as: UTF8.self))
      position += 4 + count
    }
    return lines
  }()

  private struct Sample: Decodable {
    var size: Int
    var ids: [[Int32]]
    var decoded: [String]
    var pairs: [[[Int32]]]
  }

  private static func integer(_ data: Data, _ position: Int) -> UInt32 {
    data[position..<position + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  static func load(_ name: String) throws -> HubTokenizer {
    try HubTokenizer(path: Fixture.path("tokenizers/\(name).json"))
  }

  private static func hash(_ bytes: some Sequence<UInt8>, _ hash: inout UInt32) {
    for byte in bytes { hash = (hash ^ UInt32(byte)) &* 0x0100_0193 }
    hash = hash &* 0x0100_0193
  }

  private static func hash(_ ids: [Int32], _ value: inout UInt32) {
    ids.withUnsafeBytes { hash($0, &value) }
  }

  @Test func theFixturesAreThere() {
    #expect(Self.layouts.count >= 10)
    #expect(Self.corpus.count == 10_000)
  }

  @Test(arguments: layouts)
  func givesTheIDsAndTextsOfHuggingFace(layout: String) throws {
    let tokenizer = try Self.load(layout)
    let sample = try Fixture.decode(Sample.self, "tokenizers/\(layout).sample.json")
    #expect(tokenizer.vocabularySize == sample.size)
    let plain = EncodingOptions(addSpecialTokens: false)
    for (index, expected) in sample.ids.enumerated() {
      let line = Self.corpus[index]
      #expect(try tokenizer.encode(line, options: plain) == expected, "\(line.debugDescription)")
      let text = try tokenizer.decode(tokenizer.encode(line), skipSpecialTokens: false)
      #expect(Array(text.utf8) == Array(sample.decoded[index].utf8), "\(line.debugDescription)")
    }
    for (index, expected) in sample.pairs.enumerated() {
      let pair = Self.corpus[Self.corpus.count - index - 1]
      let found = try tokenizer.encode(Self.corpus[index], pair: pair, options: EncodingOptions())
      #expect(found.ids == expected[0] && found.typeIDs == expected[1], "pair \(index)")
    }
    let hashes = try Data(contentsOf: URL(fileURLWithPath: Fixture.path("tokenizers/\(layout).hash.bin")))
    try #require(hashes.count == Self.corpus.count * 4)
    var wrong: [Int] = []
    for (index, line) in Self.corpus.enumerated() {
      var hash: UInt32 = 0x811C_9DC5
      Self.hash(try tokenizer.encode(line, options: plain), &hash)
      let ids = try tokenizer.encode(line)
      Self.hash(ids, &hash)
      Self.hash(try tokenizer.decode(ids, skipSpecialTokens: false).utf8, &hash)
      Self.hash(try tokenizer.decode(ids).utf8, &hash)
      if hash != Self.integer(hashes, index * 4) { wrong.append(index) }
    }
    #expect(
      wrong.isEmpty,
      "\(wrong.count) lines, first \(wrong.prefix(10)): \(wrong.first.map { Self.corpus[$0].debugDescription } ?? "")")
  }

  @Test(arguments: layouts)
  func streamsWhatDecodeGives(layout: String) throws {
    let tokenizer = try Self.load(layout)
    for skips in [true, false] {
      var stream = TokenStream(tokenizer, skipSpecialTokens: skips)
      for (index, line) in Self.corpus.enumerated() where index % 3 == 0 || index < 300 {
        var ids = try tokenizer.encode(line)
        // Byte tokens in an order that no text has.
        if index % 2 == 0 { ids.reverse() }
        var text: [UInt8] = []
        for id in ids { text.append(contentsOf: try stream.append(id).utf8) }
        text.append(contentsOf: stream.finish().utf8)
        let whole = try tokenizer.decode(ids, skipSpecialTokens: skips)
        #expect(text == Array(whole.utf8), "\(line.debugDescription)")
      }
    }
  }
}

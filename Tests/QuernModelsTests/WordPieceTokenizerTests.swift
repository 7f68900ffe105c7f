import Foundation
import QuernModels
import Testing

private struct Expected: Decodable {
  var size: Int
  var ids: [[Int32]]
  var specialIDs: [[Int32]]
  var decoded: [String]
  var decodedWithoutSpecial: [String]
}

@Suite struct WordPieceTokenizerTests {
  static let variants = ["uncased", "cased", "cased_stripped", "unclean_lowercase", "sequence"]

  private static func load(_ name: String) throws -> HubTokenizer {
    try HubTokenizer(path: Fixture.path("wordpiece/\(name).json"))
  }

  private static func corpus() throws -> [String] { try Fixture.decode([String].self, "wordpiece/corpus.json") }

  @Test(arguments: variants)
  func givesTheIDsOfHuggingFace(variant: String) throws {
    let tokenizer = try Self.load(variant)
    let lines = try Self.corpus()
    let expected = try Fixture.decode(Expected.self, "wordpiece/\(variant).expected.json")
    try #require(lines.count == expected.ids.count && lines.count > 300)
    #expect(tokenizer.vocabularySize == expected.size)
    let plain = EncodingOptions(addSpecialTokens: false)
    for (line, ids) in zip(lines, expected.ids) {
      #expect(try tokenizer.encode(line, options: plain) == ids, "\(line.debugDescription)")
    }
    for (line, ids) in zip(lines, expected.specialIDs) {
      #expect(try tokenizer.encode(line) == ids, "\(line.debugDescription)")
    }
  }

  @Test(arguments: variants)
  func decodesAsHuggingFace(variant: String) throws {
    let tokenizer = try Self.load(variant)
    let expected = try Fixture.decode(Expected.self, "wordpiece/\(variant).expected.json")
    for (index, ids) in expected.ids.enumerated() {
      let all = try tokenizer.decode(ids, skipSpecialTokens: false)
      #expect(Array(all.utf8) == Array(expected.decoded[index].utf8))
      let skipped = try tokenizer.decode(ids)
      #expect(Array(skipped.utf8) == Array(expected.decodedWithoutSpecial[index].utf8))
    }
  }

  @Test func truncatesPairsAsHuggingFace() throws {
    struct Case: Decodable {
      var strategy: String
      var direction: String
      var length: Int
      var pairs: [[[Int32]]?]
    }
    struct Cases: Decodable {
      var texts: [[String]]
      var cases: [Case]
    }
    let cases = try Fixture.decode(Cases.self, "wordpiece/pairs.expected.json")
    let strategies: [String: Truncation.Strategy] = [
      "longest_first": .longestFirst, "only_first": .onlyFirst, "only_second": .onlySecond,
    ]
    var refused = 0
    var accepted = 0
    for test in cases.cases {
      let json = try Self.replacing(
        "truncation",
        by: """
          {"max_length":\(test.length),"stride":0,"strategy":"\(strategies[test.strategy]!.rawValue)",\
          "direction":"\(test.direction.capitalized)"}
          """)
      let tokenizer = try HubTokenizer(json: json.utf8, file: "tokenizer.json")
      for (texts, expected) in zip(cases.texts, test.pairs) {
        let found = try? tokenizer.encode(texts[0], pair: texts[1], options: EncodingOptions())
        #expect(found?.ids == expected?[0])
        #expect(found?.typeIDs == expected?[1])
        if expected == nil { refused += 1 } else { accepted += 1 }
      }
    }
    #expect(refused > 50 && accepted > 300)
  }

  /// The uncased tokenizer with the null value of a top-level field replaced.
  private static func replacing(_ field: String, by value: String) throws -> String {
    let text = try String(contentsOfFile: Fixture.path("wordpiece/uncased.json"), encoding: .utf8)
    try #require(text.contains("\"\(field)\":null"))
    return text.replacingOccurrences(of: "\"\(field)\":null", with: "\"\(field)\":\(value)")
  }

  @Test(arguments: ["fixed", "longest"])
  func padsBatchesAsHuggingFace(kind: String) throws {
    struct Batch: Decodable {
      var ids: [[Int32]]
      var mask: [[Int32]]
      var types: [[Int32]]
    }
    let expected = try Fixture.decode(Batch.self, "wordpiece/batch_\(kind).expected.json")
    let lines = Array(try Self.corpus().prefix(expected.ids.count))
    let batch = try Self.load("batch_\(kind)").encodeBatch(lines)
    #expect(batch.rows == lines.count && batch.columns == expected.ids[0].count)
    #expect(batch.ids == expected.ids.flatMap(\.self))
    #expect(batch.attentionMask == expected.mask.flatMap(\.self))
    #expect(batch.typeIDs == expected.types.flatMap(\.self))
  }

  @Test func lengthOptions() throws {
    let tokenizer = try Self.load("uncased")
    let all = try tokenizer.encode("hello world hello world")
    #expect(all.count == 6)
    let cut = try tokenizer.encode("hello world hello world", options: EncodingOptions(length: .atMost(4)))
    #expect(cut == [all[0], all[1], all[2], all[5]])
    #expect(throws: TokenizerError.self) {
      try tokenizer.encode("hello world", options: EncodingOptions(length: .atMost(1)))
    }
    #expect(throws: TokenizerError.unknownID(1_000_000, position: 1)) { try tokenizer.decode([5, 1_000_000]) }
    #expect(throws: TokenizerError.unknownID(-1, position: 0)) { try tokenizer.decode([-1]) }
  }

  @Test func looksUpTokens() throws {
    let tokenizer = try Self.load("uncased")
    for id in 0...tokenizer.largestID {
      let token = try #require(tokenizer.token(of: id))
      #expect(tokenizer.id(of: token) == id)
    }
    #expect(tokenizer.id(of: "no such token") == nil)
    #expect(tokenizer.token(of: tokenizer.largestID + 1) == nil)
    #expect(tokenizer.largestID == Int32(tokenizer.vocabularySize - 1))
  }

  /// Each assigned Unicode scalar between two letters, against hashes of what Hugging Face tokenizers makes of it.
  @Test func everyScalarIsNormalizedAndSplitAsHuggingFace() throws {
    struct Block: Decodable {
      var start: UInt32
      var hash: String
    }
    struct Hashes: Decodable {
      var flags: [Bool]
      var blocks: [Block]
    }
    let all = try Fixture.decode([Hashes].self, "wordpiece/scalars.expected.json")
    for expected in all {
      let flags = expected.flags
      let normalizer = BertNormalizer(
        cleanText: flags[0], handleChineseChars: flags[1], stripAccents: flags[2], lowercase: flags[3])
      #expect(expected.blocks.count > 50)
      for block in expected.blocks {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for value in block.start..<block.start + 4096 where Unicode.Scalar(value) != nil {
          Self.fold(value, normalizer, &hash)
        }
        #expect(hash == UInt64(block.hash, radix: 16), "flags \(flags), from \(String(block.start, radix: 16))")
      }
    }
  }

  private static func fold(_ value: UInt32, _ normalizer: BertNormalizer, _ hash: inout UInt64) {
    var text: [UInt8] = [UInt8(ascii: "a")]
    ScalarReader.append(value, to: &text)
    text.append(UInt8(ascii: "b"))
    var normalized: [UInt8] = []
    text.withUnsafeBufferPointer { normalizer.normalize($0, into: &normalized) }
    var words: [UInt8] = []
    normalized.withUnsafeBufferPointer { bytes in
      WordSplitter.forEachWord(bytes) { range in
        if !words.isEmpty { words.append(0x0A) }
        words.append(contentsOf: bytes[range])
      }
    }
    words.append(0)
    for byte in words { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
  }

  // MARK: The real model

  @Test(.enabled(if: Fixture.miniLM != nil, "needs all-MiniLM-L6-v2: set QUERN_MODEL_DIR to its folder"))
  func givesTheIDsOfMiniLM() throws {
    struct MiniLM: Decodable {
      var ids: [[Int32]]
      var truncated: [[Int32]]
    }
    let directory = try #require(Fixture.miniLM)
    let tokenizer = try TokenizerFile.load(directory: directory)
    #expect(tokenizer.vocabularySize == 30522)
    let expected = try Fixture.decode(MiniLM.self, "wordpiece/minilm.expected.json")
    for (index, line) in try Self.corpus().enumerated() {
      let whole = try tokenizer.encode(line, options: EncodingOptions(length: .unlimited))
      #expect(whole == expected.ids[index], "\(line.debugDescription)")
      #expect(try tokenizer.encode(line) == expected.truncated[index])
    }
  }

  // MARK: Cost

  /// 8 times the text: linear is 8 times the processor time, quadratic 64.
  @Test(arguments: [
    "a", "é", "e\u{301}", "\u{302E}\u{1D165}", "中", "[", "[MASK", "<strip> ", " ", "aa##", "<long", "#", "\u{AD}",
  ])
  func timeIsLinear(pattern: String) throws {
    let tokenizer = try Self.load("uncased")
    func seconds(_ bytes: Int) throws -> Double {
      let text = String(repeating: pattern, count: bytes / pattern.utf8.count)
      var best = Double.infinity
      for _ in 0..<3 {
        let start = Self.processorSeconds()
        _ = try tokenizer.encode(text)
        best = min(best, Self.processorSeconds() - start)
      }
      return best
    }
    #if DEBUG
      let size = 5_000
    #else
      let size = 50_000
    #endif
    let ratio = try seconds(size * 8) / seconds(size)
    #expect(ratio < 24, "8 times the text took \(ratio) times as long")
  }

  /// The time this thread has computed, which other programs do not add to.
  private static func processorSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

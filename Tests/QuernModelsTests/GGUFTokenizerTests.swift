import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// The tokenizers of GGUF files, against Hugging Face tokenizers (byte-level) and llama.cpp (SentencePiece).
@Suite struct GGUFTokenizerTests {
  static let names: [String] = {
    let files = try? FileManager.default.contentsOfDirectory(atPath: Fixture.path("gguf-tokenizers"))
    return (files ?? []).filter { $0.hasSuffix(".gguf") }.map { String($0.dropLast(5)) }.sorted()
  }()

  private static func hash(_ ids: [Int32], _ value: inout UInt32) {
    ids.withUnsafeBytes { for byte in $0 { value = (value ^ UInt32(byte)) &* 0x0100_0193 } }
    value = value &* 0x0100_0193
  }

  @Test func theFixturesAreThere() { #expect(Self.names.count == 15) }

  @Test(arguments: names) func givesTheIDsOfTheOriginal(_ name: String) throws {
    let tokenizer = try HubTokenizer(GGUF(path: Fixture.path("gguf-tokenizers/\(name).gguf")))
    let expected = try Data(
      contentsOf: URL(fileURLWithPath: Fixture.path("gguf-tokenizers/\(name).hash.bin")))
    let corpus = HubTokenizerTests.corpus
    try #require(expected.count == corpus.count / 100 * 4)
    var wrong: [Int] = []
    for group in 0..<corpus.count / 100 {
      var value: UInt32 = 0x811C_9DC5
      for line in corpus[group * 100..<group * 100 + 100] {
        Self.hash(try tokenizer.encode(line, options: EncodingOptions(addSpecialTokens: false)), &value)
      }
      let bytes = withUnsafeBytes(of: value.littleEndian) { Data($0) }
      if bytes != expected[group * 4..<group * 4 + 4] { wrong.append(group) }
    }
    #expect(wrong.isEmpty, "\(wrong.count) of 100 groups of lines, first \(wrong.prefix(5))")
  }

  /// What is not cut and has no form of its own comes back as it was.
  @Test(arguments: names) func decodingGivesTheTextBack(_ name: String) throws {
    let tokenizer = try HubTokenizer(GGUF(path: Fixture.path("gguf-tokenizers/\(name).gguf")))
    for text in ["Hello, world!", "a  b\n\n c", "naïve 👩‍👧 東京 \u{7F}", "x = 1234567;\t// done"] {
      let ids = try tokenizer.encode(text, options: EncodingOptions(addSpecialTokens: false))
      #expect(try tokenizer.decode(ids) == text)
    }
  }

  // MARK: Files made here

  /// A vocabulary of SentencePiece's kind, with the bytes.
  static func sentencePiece(_ change: (inout GGUFTokenizerParts) -> Void = { _ in }) -> GGUFBuilder {
    var parts = GGUFTokenizerParts()
    change(&parts)
    return parts.builder
  }

  private static func tokenizer(_ change: (inout GGUFTokenizerParts) -> Void) throws -> HubTokenizer {
    let folder = try TemporaryFolder()
    return try HubTokenizer(GGUF(path: folder.write("v.gguf", sentencePiece(change).bytes)))
  }

  @Test func scoresDecideAndTiesGoLeft() throws {
    func ids(_ text: String, _ scores: [Float]) throws -> [String] {
      let tokenizer = try Self.tokenizer {
        $0.add(["a", "b", "c", "ab", "bc", "aa"], scores: [-9, -9, -9] + scores)
        $0.flags["add_space_prefix"] = false
      }
      return try tokenizer.encode(text, options: EncodingOptions(addSpecialTokens: false)).map {
        try #require(tokenizer.token(of: $0))
      }
    }
    #expect(try ids("abc", [-1, -2, -3]) == ["ab", "c"])
    #expect(try ids("abc", [-2, -1, -3]) == ["a", "bc"])
    #expect(try ids("abc", [-1, -1, -3]) == ["ab", "c"])
    #expect(try ids("abc", [0, -0.0, -3]) == ["ab", "c"])
    #expect(try ids("abc", [-1, 2.5, -3]) == ["a", "bc"])
    #expect(try ids("abc", [1, -.infinity, -3]) == ["ab", "c"])
    #expect(try ids("aaa", [-1, -1, -3]) == ["aa", "a"])
    #expect(try ids("dé", [-1, -1, -3]) == ["<0x64>", "<0xC3>", "<0xA9>"])
  }

  @Test func beginningsAndEndsAreAsTheFileSays() throws {
    func ids(_ flags: [String: Bool]) throws -> [Int32] {
      try Self.tokenizer { $0.flags = flags }.encode("<s>")
    }
    #expect(try ids([:]) == [1, 1])
    #expect(try ids(["add_bos_token": false]) == [1])
    #expect(try ids(["add_eos_token": true]) == [1, 1, 2])
    let missing = modelError { _ = try Self.tokenizer { $0.ids["bos"] = nil } }
    #expect(missing?.field == "metadata.tokenizer.ggml.bos_token_id" && missing?.offset == 24)
  }

  struct Bad: Sendable, CustomTestStringConvertible {
    var field: String
    var change: @Sendable (inout GGUFTokenizerParts) -> Void
    var testDescription: String { field }

    init(_ field: String, _ change: @escaping @Sendable (inout GGUFTokenizerParts) -> Void) {
      (self.field, self.change) = ("metadata.tokenizer.ggml.\(field)", change)
    }
  }

  static let bad: [Bad] = [
    Bad("model") { $0.model = "bert" },
    Bad("pre") {
      $0.model = "gpt2"
      $0.pre = "unheard-of"
    },
    Bad("scores") { $0.scores.removeLast() },
    Bad("scores[5]") { $0.scores[5] = .nan },
    Bad("token_type") { $0.types.append(1) },
    Bad("token_type[3]") { $0.types[3] = 7 },
    Bad("token_type[3]") { $0.types[3] = -1 },
    Bad("tokens") { $0.tokens = [] },
    Bad("tokens[4]") { $0.tokens[4] = "<s>" },
    Bad("tokens[4]") { $0.tokens[4] = String(repeating: "x", count: 1025) },
    Bad("tokens[1]") { $0.tokens[1] = String(repeating: "x", count: 1025) },
    Bad("tokens") {
      $0.tokens[100] = "<0x!!>"
      $0.ids["unknown"] = nil
    },
    Bad("bos_token_id") { $0.ids["bos"] = 259 },
    Bad("unknown_token_id") { $0.ids["unknown"] = .max },
    Bad("merges[1]") { $0.bytePairs(["<s> </s>", "x y"]) },
    Bad("merges[0]") { $0.bytePairs(["<s>"]) },
    Bad("merges[0]") { $0.bytePairs(["<s>  </s>"]) },
  ]

  @Test(arguments: bad) func metadataThatDoesNotFitIsRefused(_ bad: Bad) throws {
    let error = modelError { _ = try Self.tokenizer(bad.change) }
    #expect(error?.field == bad.field, "\(error.map { "\($0)" } ?? "nothing")")
    #expect((error?.offset ?? 0) > 0)
  }

  /// Files of megabytes that turn out to be wrong at their end.
  static func bombs() -> [Bad] {
    @Sendable func names(_ count: Int) -> [String] { (0..<count).map { String($0, radix: 36) } }
    return [
      Bad("token_type[299999]") {
        $0.tokens = [String](repeating: "", count: 300_000)
        ($0.types, $0.scores) = ([Int32](repeating: 1, count: 299_999) + [9], [Float](repeating: 0, count: 300_000))
      },
      Bad("token_type") { $0.types = [Int32](repeating: 1, count: 1_500_000) },
      Bad("scores[299999]") {
        $0.tokens = names(300_000)
        ($0.types, $0.scores) = (
          [Int32](repeating: 1, count: 300_000), [Float](repeating: 0, count: 299_999) + [.nan]
        )
      },
      Bad("token_type[1041]") {
        $0.tokens = (0..<6000).map { String(repeating: "x", count: 1000) + String($0 + 1_000_000) }
        $0.types = [Int32](repeating: 3, count: 6000)
        $0.scores = [Float](repeating: 0, count: 6000)
      },
      Bad("merges[500000]") {
        $0.bytePairs([String](repeating: "<s> </s>", count: 500_000) + ["<s> x"])
      },
      Bad("tokens[299999]") {
        $0.tokens = names(299_999) + ["0"]
        $0.types = [Int32](repeating: 1, count: 300_000)
      },
    ]
  }

  /// In a process of its own, where nothing else allocates: at most 64 MiB and 6 times the header.
  @Test(.disabled(if: AllocationTests.isSanitized, "a sanitizer's own memory does not fit the limit"))
  func refusingTakesBoundedMemory() async {
    await #expect(processExitsWith: .success) {
      for bad in Self.bombs() {
        let folder = try TemporaryFolder()
        let bytes = Self.sentencePiece(bad.change).bytes
        let path = try folder.write("bomb.gguf", bytes)
        let used = try PeakMemory.of {
          let error = try #require(modelError { _ = try HubTokenizer(GGUF(path: path)) })
          precondition(error.field == bad.field, "\(error)")
        }
        precondition(used <= 64 << 20 + 6 * bytes.count, "\(bad.field): \(used) bytes of \(bytes.count)")
      }
    }
  }

  /// Every byte of the metadata, changed: an error or a tokenizer, never a trap.
  @Test func noByteBreaksTheReader() throws {
    let folder = try TemporaryFolder()
    let bytes = Self.sentencePiece { $0.bytePairs(["<s> </s>"], model: "llama") }.bytes
    var (random, refused) = (SeededRandom(), 0)
    for _ in 0..<1500 {
      var copy = bytes
      copy[Int.random(in: 24..<copy.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      let path = try folder.write("v.gguf", copy)
      if modelError({ _ = try HubTokenizer(GGUF(path: path)).encode("a <s>é") }) != nil { refused += 1 }
    }
    #expect(refused > 100)
  }

  /// From the file alone: text, chat template, ends of turns.
  @Test func aModelFileIsEnoughToGenerate() throws {
    let folder = try TemporaryFolder()
    var builder = Self.sentencePiece {
      $0.add(["▁H", "<|im_end|>"], scores: [-1, 0])
    }
    builder.string("tokenizer.chat_template", "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}")
    TinyGGUF.addLlama(to: &builder, vocabulary: 261)
    let path = try folder.write("tiny.gguf", builder.bytes)
    let generator = try TextGenerator(path: path, context: Context())
    #expect(generator.endOfText == [2, 260])
    #expect(try generator.encode("Hello") == [1, 259] + "ello".utf8.map { Int32($0) + 3 })
    func quern(_ arguments: [String]) throws -> BuiltProgram.Output {
      try BuiltProgram("quern").run(["generate", "--model", path, "--ignore-end", "--max-tokens", "6"] + arguments)
    }
    struct Row: Decodable {
      let tokens: [Int32]
      let promptTokens: Int
    }
    let plain = try quern(["--format", "json", "Hello"])
    #expect(plain.status == 0, "\(plain.standardError)")
    var row = try JSONDecoder().decode(Row.self, from: Data(plain.standardOutput.utf8))
    #expect(row.tokens.count == 6 && row.promptTokens == 6)
    let chat = try quern(["--format", "json", "--chat", "Hello"])
    row = try JSONDecoder().decode(Row.self, from: Data(chat.standardOutput.utf8))
    // <s>, a space, [, the word's five bytes and ].
    #expect(row.promptTokens == 1 + 3 + 1 + 5 + 1, "\(chat.standardError)")
  }
}

/// The metadata of a tokenizer, to be put wrong in one place.
struct GGUFTokenizerParts {
  var model = "llama"
  var pre: String?
  var tokens = ["<unk>", "<s>", "</s>"] + (0...255).map { String(format: "<0x%02X>", $0) }
  var scores = [Float](repeating: 0, count: 259)
  var types = [Int32](repeating: 6, count: 259)
  var ids: [String: UInt32] = ["bos": 1, "eos": 2, "unknown": 0]
  var flags: [String: Bool] = [:]
  var merges: [String]?

  init() { types.replaceSubrange(0..<3, with: [2, 3, 3]) }

  mutating func add(_ texts: [String], scores: [Float]) {
    tokens += texts
    self.scores += scores
    types += texts.map { _ in 1 }
  }

  mutating func bytePairs(_ merges: [String], model: String = "gpt2") {
    (self.model, pre, self.merges) = (model, "gpt-2", merges)
    tokens[3] = "<s></s>"
  }

  var builder: GGUFBuilder {
    func key(_ name: String) -> String { "tokenizer.ggml.\(name)" }
    var builder = GGUFBuilder()
    builder.string(key("model"), model)
    if let pre { builder.string(key("pre"), pre) }
    builder.strings(key("tokens"), tokens)
    builder.array(
      key("scores"), of: 6, count: UInt64(scores.count), scores.flatMap { GGUFBuilder.number($0.bitPattern) })
    builder.array(key("token_type"), of: 5, count: UInt64(types.count), types.flatMap { GGUFBuilder.number($0) })
    for (name, id) in ids.sorted(by: { $0.key < $1.key }) {
      builder.key(key("\(name)_token_id"), 4, GGUFBuilder.number(id))
    }
    for (name, flag) in flags.sorted(by: { $0.key < $1.key }) { builder.key(key(name), 7, [flag ? 1 : 0]) }
    if let merges { builder.strings(key("merges"), merges) }
    return builder
  }
}

/// The rest of a GGUF file: a Llama of one layer with random weights.
enum TinyGGUF {
  static func addLlama(to builder: inout GGUFBuilder, vocabulary: Int, width: Int = 32) {
    builder.string("general.architecture", "llama")
    for (name, value) in [
      ("embedding_length", width), ("feed_forward_length", 48), ("attention.head_count", 4),
      ("attention.head_count_kv", 2), ("context_length", 64), ("block_count", 1),
    ] { builder.key("llama.\(name)", 4, GGUFBuilder.number(UInt32(value))) }
    builder.key("llama.attention.layer_norm_rms_epsilon", 6, GGUFBuilder.number(Float(1e-5).bitPattern))
    addTensors(
      to: &builder,
      [
        ("token_embd", [width, vocabulary]), ("output_norm", [width]), ("blk.0.attn_norm", [width]),
        ("blk.0.ffn_norm", [width]), ("blk.0.attn_q", [width, width]), ("blk.0.attn_k", [width, width / 2]),
        ("blk.0.attn_v", [width, width / 2]), ("blk.0.attn_output", [width, width]), ("blk.0.ffn_gate", [width, 48]),
        ("blk.0.ffn_up", [width, 48]), ("blk.0.ffn_down", [48, width]),
      ])
  }

  /// Random weights of these names and extents, in the order of the file.
  static func addTensors(to builder: inout GGUFBuilder, _ shapes: [(name: String, extents: [Int])]) {
    var random = SeededRandom(seed: 5)
    for (name, shape) in shapes {
      let values = (0..<shape.reduce(1, *)).flatMap { _ in GGUFBuilder.number((0.3 * random.normal()).bitPattern) }
      builder.tensor("\(name).weight", shape.map { UInt64($0) }, data: values)
    }
  }
}

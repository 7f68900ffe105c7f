/// The tokenizer of a GGUF file, from its `tokenizer.ggml` metadata.
///
/// - `model` `llama`: SentencePiece's BPE by scores, with byte fallback; ids are those of llama.cpp.
/// - `model` `gpt2`: byte-level BPE by merges, cut into words as `pre` says; ids are those of the tokenizer.json that the file was made
///   from, which for Qwen includes NFC.
///
/// Control tokens and those that users added are looked for in the text first, the longest at each place. Another model or `pre` is
/// refused by name. Source: https://github.com/ggml-org/ggml, `docs/gguf.md`, and https://github.com/ggml-org/llama.cpp.
extension HubTokenizer {
  public convenience init(_ file: GGUF) throws(ModelError) {
    let fields = try GGUFVocabulary(file.metadata, name: file.metadata.string("general.name", default: ""))
    switch try file.metadata.string(GGUFVocabulary.key("model"), oneOf: ["llama", "gpt2"]) {
    case "llama":
      let prefix: [Normalizer] = try fields.flag("add_space_prefix", default: true) ? [.prepend(fields.space)] : []
      self.init(
        model: .sentencePiece(try fields.sentencePiece()), added: fields.added,
        normalizers: prefix + [.replace(.literal([0x20]), by: fields.space)], preTokenizers: [],
        postProcessor: try fields.template(startsByDefault: true),
        decoder: TokenDecoder([
          .replace(TextSearch(fields.space), by: [0x20], whole: false), .byteFallback, .fuse,
          .strip([0x20], start: prefix.count, stop: 0, whole: true),
        ]))
    default:
      let rules = try fields.rules()
      self.init(
        model: .bpe(try fields.bytePairs(rules)), added: fields.added,
        normalizers: rules.isComposed ? [.form(.nfc)] : [], preTokenizers: rules.preTokenizers,
        postProcessor: try fields.template(startsByDefault: rules.addsStart), decoder: TokenDecoder([.byteLevel]))
    }
  }
}

extension HubTokenizer {
  /// The tokens by whose text one knows that they end a model's turn: files often name one end of several. As in llama.cpp, they are
  /// control tokens whatever the file says.
  var endsOfTurn: [Int32] {
    // In the format of gpt-oss, which has these two, <|end|> ends a message of several in a turn.
    let isHarmony = ["<|return|>", "<|call|>"].allSatisfy { vocabulary.id(of: $0) != nil }
    return Self.turnEnds.filter { !isHarmony || $0 != "<|end|>" }.compactMap { vocabulary.id(of: $0) }
  }

  fileprivate static let turnEnds = [
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
    "<|end_of_text|>", "<｜end▁of▁sentence｜>",
  ]
}

/// How a kind of byte-level BPE, which `tokenizer.ggml.pre` names, cuts a text.
private struct BytePairRules {
  var splits: [PreTokenizer]
  /// Whether the last of them is GPT-2's, which comes with the bytes.
  var endsWithGPT2 = false
  var isComposed = false
  var ignoresMerges = false
  var addsStart = false

  var preTokenizers: [PreTokenizer] { splits + [.byteLevel(addPrefixSpace: false, useRegex: endsWithGPT2)] }

  private static func split(_ pattern: SplitPattern) -> PreTokenizer { .split(pattern, .isolated, invert: false) }

  /// The kinds by the names that llama.cpp's converter gives them.
  static let known: [(names: [String], rules: BytePairRules)] = {
    let words = split(.words(digits: 3, marksAreLetters: false))
    let singleDigits = split(.digits(individual: true))
    return [
      (
        ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"],
        BytePairRules(splits: [words], ignoresMerges: true, addsStart: true)
      ),
      (["smaug-bpe", "dbrx", "chatglm-bpe", "glm4"], BytePairRules(splits: [words])),
      (
        ["qwen2", "deepseek-r1-qwen", "megrez"],
        BytePairRules(splits: [split(.words(digits: 1, marksAreLetters: false))], isComposed: true)
      ),
      (["stablelm2", "hunyuan"], BytePairRules(splits: [split(.words(digits: 1, marksAreLetters: false))])),
      (
        ["qwen35"],
        BytePairRules(splits: [split(.words(digits: 1, marksAreLetters: true))], isComposed: true)
      ),
      (["gpt-2", "phi-2", "mpt", "olmo", "jais", "mellum"], BytePairRules(splits: [], endsWithGPT2: true)),
      (
        ["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"],
        BytePairRules(splits: [singleDigits], endsWithGPT2: true)
      ),
      (
        ["falcon"],
        BytePairRules(splits: [
          .split(.punctuation, .contiguous, invert: false), split(.gpt2), split(.digits(individual: false)),
          split(.threeDigits),
        ])
      ),
      (
        ["default"],
        BytePairRules(splits: [
          .split(.ggmlPunctuation, .contiguous, invert: false), split(.gpt2), split(.numbers(limit: .max)),
          split(.threeDigits),
        ])
      ),
      (
        ["tekken"],
        BytePairRules(splits: [split(.cased(digits: 1, contractions: false))], ignoresMerges: true, addsStart: true)
      ),
      (["gpt-4o", "llama4", "kanana2"], BytePairRules(splits: [split(.cased(digits: 3, contractions: true))])),
      (
        ["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        BytePairRules(splits: [split(.numbers(limit: 3)), split(.ideographs), split(.deepSeek)])
      ),
      (
        ["deepseek-llm"],
        BytePairRules(splits: [
          split(.newline), split(.spaced(.casedLetters)), split(.spaced(.signs)), split(.trailingWhitespace),
          split(.wideIdeographs), singleDigits,
        ])
      ),
      (
        ["deepseek-coder"],
        BytePairRules(splits: [
          split(.newline), split(.spaced(.letters)), split(.spaced(.punctuation)), split(.wideIdeographs), singleDigits,
        ])
      ),
    ]
  }()
}

/// The vocabulary of a GGUF file, its arrays checked against one another.
private struct GGUFVocabulary {
  /// U+2581, which stands for a space.
  let space = Array("\u{2581}".utf8)
  let added: AddedVocabulary
  private let metadata: GGUFMetadata
  private let texts: GGUFStrings
  private let vocabulary: Vocabulary

  /// More entries, and more bytes of tokens that are looked for, than any model has.
  private static let countLimit = 1 << 21
  private static let addedBytesLimit = 1 << 20

  static func key(_ name: String) -> String { "tokenizer.ggml.\(name)" }

  init(_ metadata: GGUFMetadata, name: String) throws(ModelError) {
    self.metadata = metadata
    let key = Self.key("tokens")
    let texts = try metadata.strings(key)
    guard !texts.isEmpty, texts.count <= Self.countLimit else {
      throw try metadata.error(key, "has \(texts.count) tokens; 1 to \(Self.countLimit) are read")
    }
    vocabulary = try Vocabulary(texts) { (place, reason) throws(ModelError) in
      try metadata.error(key, reason, at: place)
    }
    self.texts = texts
    let ends = HubTokenizer.turnEnds.compactMap { [vocabulary] name in vocabulary.id(of: name).map(Int.init) }
    added = AddedVocabulary(try Self.added(metadata, texts, ends: Set(ends), isPhi3: Self.isPhi3(name)))
  }

  /// The files of this model do not say that white space after most of its special tokens belongs to them; llama.cpp goes by the name.
  private static func isPhi3(_ name: String) -> Bool {
    let name = name.lowercased()
    return name.contains("phi-3") || name.contains("phi3")
  }

  /// The tokens that are looked for in a text: unknown, control and user-defined ones.
  private static func added(
    _ metadata: GGUFMetadata, _ texts: GGUFStrings, ends: Set<Int>, isPhi3: Bool
  ) throws(ModelError) -> [AddedToken] {
    let key = Self.key("token_type")
    try requireOneEach(metadata, key, texts.count)
    let types = try metadata.ints(key)
    var (tokens, bytes) = ([AddedToken](), 0)
    for (place, type) in types.enumerated() {
      let type = ends.contains(place) ? 3 : type
      guard (0...6).contains(type) else {
        throw try metadata.error(key, "is \(type), which is no type of tokens; they are 0 to 6", at: place)
      }
      guard (2...4).contains(type) else { continue }
      let text = texts[place]
      guard text.utf8.count <= AddedToken.contentLimit else {
        throw try metadata.error(
          Self.key("tokens"), "is \(text.utf8.count) bytes; such a token has at most \(AddedToken.contentLimit)",
          at: place)
      }
      bytes += text.utf8.count
      guard tokens.count < AddedToken.countLimit, bytes <= addedBytesLimit else {
        throw try metadata.error(key, "more tokens that are no text than are read", at: place)
      }
      if text.isEmpty { continue }
      tokens.append(
        AddedToken(
          id: Int32(truncatingIfNeeded: place), content: text,
          rstrip: isPhi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(text), special: type != 4))
    }
    return tokens
  }

  /// Before an array is read, which may be wider in memory than in the file.
  private static func requireOneEach(_ metadata: GGUFMetadata, _ key: String, _ tokens: Int) throws(ModelError) {
    let count = try metadata.count(key)
    guard count == tokens else { throw try metadata.error(key, "has \(count) entries for \(tokens) tokens") }
  }

  func flag(_ name: String, default value: Bool) throws(ModelError) -> Bool {
    try metadata.bool(Self.key(name), default: value)
  }

  private func id(_ name: String) throws(ModelError) -> Int32? {
    let key = Self.key("\(name)_token_id")
    guard metadata.contains(key) else { return nil }
    return Int32(try metadata.int(key, in: 0...vocabulary.count - 1))
  }

  /// The tokens that begin and end a text, as `add_bos_token` and `add_eos_token` say.
  func template(startsByDefault: Bool) throws(ModelError) -> PostProcessor {
    func ids(_ name: String, default isAdded: Bool) throws(ModelError) -> [Int32] {
      guard try flag("add_\(name)_token", default: isAdded) else { return [] }
      guard let id = try id(name) else {
        throw ModelError(
          file: metadata.file, field: "metadata.\(Self.key("\(name)_token_id"))", offset: GGUFHeader.fixedSize,
          reason: "is missing, and texts get this token")
      }
      return [id]
    }
    return PostProcessor(before: try ids("bos", default: startsByDefault), after: try ids("eos", default: false))
  }

  func sentencePiece() throws(ModelError) -> SentencePieceModel {
    let key = Self.key("scores")
    try Self.requireOneEach(metadata, key, texts.count)
    let scores = try metadata.floats(key)
    if let place = scores.firstIndex(where: \.isNaN) { throw try metadata.error(key, "is not a number", at: place) }
    let limit = SentencePieceModel.tokenLimit
    for place in texts.indices where texts.withUTF8(place, { $0.count > limit }) {
      throw try metadata.error(Self.key("tokens"), "is longer than the \(limit) bytes that are read", at: place)
    }
    let model = SentencePieceModel(vocabulary, scores: scores, unknownID: try id("unknown"))
    guard model.isComplete else {
      throw try metadata.error(
        Self.key("tokens"), "lack some of <0x00> to <0xFF>, and there is no unknown_token_id to stand for them")
    }
    return model
  }

  func rules() throws(ModelError) -> BytePairRules {
    let key = Self.key("pre")
    let name = try metadata.string(key, oneOf: BytePairRules.known.flatMap(\.names))
    guard let found = BytePairRules.known.first(where: { $0.names.contains(name) }) else {
      throw try metadata.error(key, "\(name) is not supported")
    }
    return found.rules
  }

  func bytePairs(_ rules: BytePairRules) throws(ModelError) -> BPEModel {
    let key = Self.key("merges")
    let list = try metadata.strings(key)
    guard list.count <= Self.countLimit else {
      throw try metadata.error(key, "has \(list.count) merges; at most \(Self.countLimit) are read")
    }
    var merges = MergeTable(expected: list.count)
    var guess = vocabulary.count
    for place in list.indices {
      let failure = list.withUTF8(place) { (bytes) -> String? in
        guard let (left, right) = BPEModel.halves(bytes.bindMemory(to: UInt8.self)) else {
          return BPEModel.notTwoTokens
        }
        switch BPEModel.append(left, right, vocabulary, [], &merges, &guess) {
        case nil: return "is of a token that is not in the vocabulary, or makes one that is not"
        case false?: return BPEModel.crowded
        default: return nil
        }
      }
      if let failure { throw try metadata.error(key, failure, at: place) }
    }
    return BPEModel(vocabulary, merges: merges, ignoresMerges: rules.ignoresMerges)
  }
}

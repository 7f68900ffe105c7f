/// The `model` section of `tokenizer.json`, or the vocabulary of a GGUF file: what turns a word into ids.
enum TokenModel: Sendable {
  case wordPiece(WordPieceModel)
  case bpe(BPEModel)
  case unigram(UnigramModel)
  case sentencePiece(SentencePieceModel)

  init(_ value: JSONValue) throws(ModelError) {
    guard let type = try value.optional("type") else {
      // Files from before tokenizers 0.10 have no type.
      self = try value.optional("merges") == nil ? .wordPiece(WordPieceModel(value)) : .bpe(BPEModel(value))
      return
    }
    switch try type.string() {
    case "WordPiece": self = .wordPiece(try WordPieceModel(value))
    case "BPE": self = .bpe(try BPEModel(value))
    case "Unigram": self = .unigram(try UnigramModel(value))
    case let other:
      throw type.error("\(other) is not a tokenizer model that Quern reads; it reads BPE, Unigram, WordPiece")
    }
  }

  var vocabulary: Vocabulary {
    switch self {
    case .wordPiece(let model): model.vocabulary
    case .bpe(let model): model.vocabulary
    case .unigram(let model): model.vocabulary
    case .sentencePiece(let model): model.vocabulary
    }
  }

  var unknownID: Int32? {
    switch self {
    case .wordPiece(let model): model.unknownID
    case .bpe(let model): model.unknownID
    case .unigram(let model): model.unknownID
    case .sentencePiece(let model): model.unknownID
    }
  }
}

/// Memory that one call of `encode` uses again for each word.
struct ModelWork {
  var ids: [Int32] = []
  var states: [UInt64] = []
  var merging = MergeWork()
  var paths: [BestPath] = []
  var starts: [Int] = []
}

extension Vocabulary {
  /// Reads `vocab` and the id of the token that the field `key` names, where it names one.
  static func read(
    _ model: JSONValue, unknown key: String, isRequired: Bool
  ) throws(ModelError) -> (vocabulary: Vocabulary, unknownID: Int32?) {
    let name = isRequired ? try model.required(key) : try model.optional(key)
    let vocabulary = try Vocabulary(model.required("vocab"))
    guard let name else { return (vocabulary, nil) }
    let text = try name.string()
    if let id = vocabulary.id(of: text) { return (vocabulary, id) }
    // Some files of GPT-2's kind mean none by this.
    if text.isEmpty && !isRequired { return (vocabulary, nil) }
    throw name.error("\(text) is not in model.vocab")
  }
}

/// `WordPiece`: the longest token that begins the word, then the longest that continues it, and so on; a word that
/// cannot be built so is one unknown token.
struct WordPieceModel: Sendable {
  let vocabulary: Vocabulary
  let unknownID: Int32
  private let continuingSubwordPrefix: [UInt8]
  private let maxInputCharsPerWord: Int
  private let startState: UInt64
  private let continuingState: UInt64

  /// Words longer than a file may set would cost time that is not linear in the text.
  private static let wordLimit = 4096

  init(_ model: JSONValue) throws(ModelError) {
    try model.expectOnly(["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"])
    continuingSubwordPrefix = Array(try model.required("continuing_subword_prefix").string().utf8)
    maxInputCharsPerWord = try model.required("max_input_chars_per_word").int(in: 1...Self.wordLimit)
    let (vocabulary, unknown) = try Vocabulary.read(model, unknown: "unk_token", isRequired: true)
    unknownID = unknown ?? 0
    startState = vocabulary.hashState([])
    continuingState = vocabulary.hashState(continuingSubwordPrefix)
    self.vocabulary = vocabulary
  }

  func encode(_ word: UnsafeBufferPointer<UInt8>, _ work: inout ModelWork) {
    let checkpoint = work.ids.count
    if word.count > maxInputCharsPerWord {
      let characters = word.reduce(0) { $1 & 0xC0 == 0x80 ? $0 : $0 &+ 1 }
      if characters > maxInputCharsPerWord { return work.ids.append(unknownID) }
    }
    var position = 0
    while position < word.count {
      let rest = UnsafeBufferPointer(rebasing: word[position...])
      let match =
        position == 0
        ? vocabulary.longestMatch(prefix: [], state: startState, rest, &work.states)
        : vocabulary.longestMatch(prefix: continuingSubwordPrefix, state: continuingState, rest, &work.states)
      guard let match else {
        work.ids.removeLast(work.ids.count - checkpoint)
        return work.ids.append(unknownID)
      }
      work.ids.append(match.id)
      position &+= match.length
    }
  }
}

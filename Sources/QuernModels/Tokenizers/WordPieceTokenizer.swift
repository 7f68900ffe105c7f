/// BERT's tokenizer, read from `tokenizer.json`: `WordPiece` model, `BertNormalizer`, `BertPreTokenizer`.
///
/// Gives the ids that Hugging Face tokenizers 0.23 gives. A part of the file that is not known here is refused by
/// name, so that a tokenizer is never half understood.
/// Source: https://huggingface.co/docs/tokenizers and https://github.com/huggingface/tokenizers.
public final class WordPieceTokenizer: Tokenizer {
  public let truncation: Truncation?
  public let padding: Padding?
  public let vocabularySize: Int
  public let largestID: Int32
  /// `unk_token`, the token of words that cannot be built.
  public let unknownID: Int32

  private let vocabulary: Vocabulary
  private let continuingSubwordPrefix: [UInt8]
  private let maxInputCharsPerWord: Int
  private let normalizers: [BertNormalizer]
  private let splitsWords: Bool
  private let postProcessor: PostProcessor
  private let decoder: WordPieceDecoder?
  private let addedByID: [Int32: AddedToken]
  private let addedByContent: [UTF8Key: Int32]
  /// Added tokens looked for in the text as it is given, and in the normalised text.
  private let givenMatcher: AddedTokenMatcher
  private let normalizedMatcher: AddedTokenMatcher
  private let startState: UInt64
  private let continuingState: UInt64

  /// Words longer than a file may set would cost time that is not linear in the text.
  private static let wordLimit = 4096

  /// Reads the file at `path`.
  public convenience init(path: String) throws(ModelError) {
    try self.init(JSONDocument(path: path, limit: TokenizerFile.sizeLimit))
  }

  public convenience init(json: some Sequence<UInt8>, file: String) throws(ModelError) {
    try self.init(JSONDocument(text: json, file: file))
  }

  init(_ document: JSONDocument) throws(ModelError) {
    let root = document.root
    try root.expectOnly([
      "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
      "model",
    ])
    if let version = try root.optional("version"), try version.string() != "1.0" {
      throw version.error("is not 1.0, the version that Quern reads")
    }
    truncation = try root.optional("truncation").map { (value) throws(ModelError) in try Truncation(value) }
    padding = try root.optional("padding").map { (value) throws(ModelError) in try Padding(value) }
    normalizers = try root.optional("normalizer").map { (value) throws(ModelError) in
      try Self.readNormalizers(value)
    } ?? []
    splitsWords = try root.optional("pre_tokenizer").map { (value) throws(ModelError) in
      try Self.checkPreTokenizer(value)
    } ?? false
    decoder = try root.optional("decoder").map { (value) throws(ModelError) in try WordPieceDecoder(value) }

    let model = try root.required("model")
    let unknown = try Self.checkModel(model)
    continuingSubwordPrefix = Array(try model.required("continuing_subword_prefix").string().utf8)
    maxInputCharsPerWord = try model.required("max_input_chars_per_word").int(in: 1...Self.wordLimit)
    let added = try root.optional("added_tokens")
    var addedTokens = try added.map { (value) throws(ModelError) in try AddedToken.readAll(value) } ?? []
    let vocabulary = try Vocabulary(model.required("vocab"))
    guard let unknownID = vocabulary.id(of: try unknown.string()) else {
      throw unknown.error("\(try unknown.string()) is not in model.vocab")
    }
    try Self.normalizeContents(&addedTokens, normalizers, added ?? root)
    let table = try Self.indexAdded(addedTokens, vocabulary, added ?? root)
    addedByID = table.byID
    addedByContent = table.byContent
    (givenMatcher, normalizedMatcher) = Self.matchers(addedTokens)
    let addedIDs = Set(addedTokens.map(\.id))
    postProcessor = try root.optional("post_processor").map { (value) throws(ModelError) in
      try PostProcessor(value, vocabulary: vocabulary, addedIDs: addedIDs)
    } ?? PostProcessor()
    self.unknownID = unknownID
    vocabularySize = vocabulary.count + table.newTokens
    largestID = max(vocabulary.largestID, addedIDs.max() ?? -1)
    startState = vocabulary.hashState([])
    continuingState = vocabulary.hashState(continuingSubwordPrefix)
    self.vocabulary = vocabulary
  }

  // MARK: Reading the file

  /// Normalisers in the order they run; a `Sequence` is its members.
  private static func readNormalizers(_ value: JSONValue) throws(ModelError) -> [BertNormalizer] {
    let type = try value.required("type")
    switch try type.string() {
    case "BertNormalizer":
      try value.expectOnly(["type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
      let lowercase = try value.required("lowercase").bool()
      return [
        BertNormalizer(
          cleanText: try value.required("clean_text").bool(),
          handleChineseChars: try value.required("handle_chinese_chars").bool(),
          // Null follows lowercase.
          stripAccents: try value.optional("strip_accents")?.bool() ?? lowercase, lowercase: lowercase)
      ]
    case "Lowercase":
      try value.expectOnly(["type"])
      return [BertNormalizer(cleanText: false, handleChineseChars: false, stripAccents: false, lowercase: true)]
    case "Sequence":
      try value.expectOnly(["type", "normalizers"])
      let members = try value.required("normalizers")
      guard members.count <= 16 else { throw members.error("has more than 16 normalizers") }
      var normalizers: [BertNormalizer] = []
      try members.forEachElement { (member) throws(ModelError) in normalizers += try readNormalizers(member) }
      guard normalizers.count <= 16 else { throw members.error("has more than 16 normalizers") }
      return normalizers
    case let other:
      throw type.error("\(other) is not a normalizer that Quern reads; it reads BertNormalizer, Lowercase, Sequence")
    }
  }

  private static func checkPreTokenizer(_ value: JSONValue) throws(ModelError) -> Bool {
    let type = try value.required("type")
    let name = try type.string()
    guard name == "BertPreTokenizer" else {
      throw type.error("\(name) is not a pre-tokenizer that Quern reads; it reads BertPreTokenizer")
    }
    try value.expectOnly(["type"])
    return true
  }

  /// Checks the fields of `model` and gives `unk_token`.
  private static func checkModel(_ model: JSONValue) throws(ModelError) -> JSONValue {
    // Files from before tokenizers 0.10 have no type.
    if let type = try model.optional("type"), try type.string() != "WordPiece" {
      throw type.error("\(try type.string()) is not WordPiece")
    }
    try model.expectOnly(["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"])
    return try model.required("unk_token")
  }

  private static func indexAdded(
    _ tokens: [AddedToken], _ vocabulary: Vocabulary, _ section: JSONValue
  ) throws(ModelError) -> (byID: [Int32: AddedToken], byContent: [UTF8Key: Int32], newTokens: Int) {
    var byID: [Int32: AddedToken] = [:]
    var byContent: [UTF8Key: Int32] = [:]
    var newTokens = 0
    for token in tokens {
      if let id = vocabulary.id(of: token.content) {
        guard id == token.id else {
          throw section.error("\(token.content) has id \(token.id) here and \(id) in model.vocab")
        }
      } else {
        if let other = vocabulary.token(of: token.id) {
          throw section.error("\(token.content) has id \(token.id), which is \(other) in model.vocab")
        }
        newTokens += 1
      }
      guard byID.updateValue(token, forKey: token.id) == nil,
        byContent.updateValue(token.id, forKey: UTF8Key(token.content)) == nil
      else { throw section.error("\(token.content) or its id \(token.id) is there twice") }
    }
    return (byID, byContent, newTokens)
  }

  private static func normalizeContents(
    _ tokens: inout [AddedToken], _ normalizers: [BertNormalizer], _ section: JSONValue
  ) throws(ModelError) {
    for index in tokens.indices where tokens[index].normalized {
      let content = Array(tokens[index].content.utf8)
      let normalized = content.withUnsafeBufferPointer { normalize($0, normalizers) }
      guard !normalized.isEmpty else {
        throw section.error("nothing is left of \(tokens[index].content) when it is normalized")
      }
      tokens[index].decoded = String(decoding: normalized, as: UTF8.self)
    }
  }

  /// Special tokens come before others, as in Hugging Face tokenizers: of two with one pattern the first is found.
  private static func matchers(_ tokens: [AddedToken]) -> (given: AddedTokenMatcher, normalized: AddedTokenMatcher) {
    var given = AddedTokenMatcher()
    var normalized = AddedTokenMatcher()
    for token in tokens.filter(\.special) + tokens.filter({ !$0.special }) {
      if token.normalized { normalized.insert(token) } else { given.insert(token) }
    }
    return (given, normalized)
  }

  // MARK: Vocabulary

  public func id(of token: String) -> Int32? { addedByContent[UTF8Key(token)] ?? vocabulary.id(of: token) }

  public func token(of id: Int32) -> String? { addedByID[id]?.content ?? vocabulary.token(of: id) }

  // MARK: Encoding

  public func encode(
    _ text: String, pair: String?, options: EncodingOptions
  ) throws(TokenizerError) -> Encoding {
    let limit: Int? =
      switch options.length {
      case .fromFile: truncation?.maximumLength
      case .atMost(let length): max(0, length)
      case .unlimited: nil
      }
    return try postProcessor.assemble(
      tokens(text), pair.map(tokens), addSpecialTokens: options.addSpecialTokens, limit: limit, truncation)
  }

  /// The ids of `text` alone, whole.
  private func tokens(_ text: String) -> [Int32] {
    var work = EncodingWork()
    var text = text
    text.withUTF8 { bytes in
      work.ids.reserveCapacity(bytes.count / 4 + 8)
      givenMatcher.split(bytes) { piece in
        switch piece {
        case .token(let id): work.ids.append(id)
        case .text(let range): encodeGiven(UnsafeBufferPointer(rebasing: bytes[range]), &work)
        }
      }
    }
    return work.ids
  }

  private func encodeGiven(_ bytes: UnsafeBufferPointer<UInt8>, _ work: inout EncodingWork) {
    let normalized: [UInt8]
    if normalizers.count == 1 {
      // The buffer of the last piece serves again.
      var buffer = work.normalized
      work.normalized = []
      buffer.removeAll(keepingCapacity: true)
      normalizers[0].normalize(bytes, into: &buffer)
      normalized = buffer
    } else {
      normalized = Self.normalize(bytes, normalizers)
    }
    normalized.withUnsafeBufferPointer { bytes in
      normalizedMatcher.split(bytes) { piece in
        switch piece {
        case .token(let id): work.ids.append(id)
        case .text(let range): encodeNormalized(UnsafeBufferPointer(rebasing: bytes[range]), &work)
        }
      }
    }
    work.normalized = normalized
  }

  private static func normalize(_ bytes: UnsafeBufferPointer<UInt8>, _ normalizers: [BertNormalizer]) -> [UInt8] {
    var text = Array(bytes)
    for normalizer in normalizers {
      var next: [UInt8] = []
      text.withUnsafeBufferPointer { normalizer.normalize($0, into: &next) }
      text = next
    }
    return text
  }

  private func encodeNormalized(_ bytes: UnsafeBufferPointer<UInt8>, _ work: inout EncodingWork) {
    if splitsWords {
      WordSplitter.forEachWord(bytes) { range in encodeWord(UnsafeBufferPointer(rebasing: bytes[range]), &work) }
    } else if !bytes.isEmpty {
      encodeWord(bytes, &work)
    }
  }

  /// The longest token that begins the word, then the longest that continues it, and so on; a word that cannot be
  /// built so is one unknown token.
  private func encodeWord(_ word: UnsafeBufferPointer<UInt8>, _ work: inout EncodingWork) {
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

  // MARK: Decoding

  public func decode(_ ids: [Int32], skipSpecialTokens: Bool) throws(TokenizerError) -> String {
    var tokens: [String] = []
    tokens.reserveCapacity(ids.count)
    for (position, id) in ids.enumerated() {
      guard let token = token(of: id) else { throw .unknownID(id, position: position) }
      let added = addedByID[id]
      if skipSpecialTokens && added?.special == true { continue }
      tokens.append(added?.decoded ?? token)
    }
    return decoder?.decode(tokens) ?? tokens.joined(separator: " ")
  }
}

/// Memory that one call of `encode` uses again for each piece of the text.
private struct EncodingWork {
  var ids: [Int32] = []
  var normalized: [UInt8] = []
  var states: [UInt64] = []
}

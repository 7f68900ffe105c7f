/// A tokenizer read from the `tokenizer.json` of Hugging Face tokenizers: normalizers, pre-tokenizers, a model
/// (`WordPiece`, `BPE` or `Unigram`), a post-processor and a decoder.
///
/// Gives the ids that Hugging Face tokenizers 0.23 gives, in time linear in the text but for a logarithm. A part of the
/// file that is not known here is refused by name, so that a tokenizer is never half understood.
/// `init(_: GGUF)` makes one of the vocabulary of a GGUF file instead.
/// Source: https://huggingface.co/docs/tokenizers and https://github.com/huggingface/tokenizers.
public final class HubTokenizer: Tokenizer {
  public let truncation: Truncation?
  public let padding: Padding?
  public let vocabularySize: Int
  public let largestID: Int32
  /// `unk_token`, the token of what cannot be built, where the model has one.
  public let unknownID: Int32?

  let model: TokenModel
  let vocabulary: Vocabulary
  let added: AddedVocabulary
  let decoder: TokenDecoder
  private let normalizers: [Normalizer]
  private let preTokenizers: [PreTokenizer]
  private let postProcessor: PostProcessor

  /// Reads the file at `path`.
  public convenience init(path: String) throws(ModelError) {
    try self.init(JSONDocument(path: path, limit: TokenizerFile.sizeLimit, leaving: Self.vocabulary))
  }

  /// Reads `json`; `file` is the name that errors carry.
  public convenience init(json: some Sequence<UInt8>, file: String) throws(ModelError) {
    try self.init(JSONDocument(text: json, file: file, leaving: Self.vocabulary))
  }

  /// The way to the object of all tokens, which `Vocabulary` reads.
  private static let vocabulary = ["model", "vocab"]

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
    normalizers =
      try root.optional("normalizer").map { (value) throws(ModelError) in try Normalizer.read(value) } ?? []
    preTokenizers =
      try root.optional("pre_tokenizer").map { (value) throws(ModelError) in try PreTokenizer.read(value) } ?? []
    decoder = try TokenDecoder(root.optional("decoder"))
    model = try TokenModel(root.required("model"))
    unknownID = model.unknownID
    vocabulary = model.vocabulary
    added = try AddedVocabulary(root.optional("added_tokens") ?? root, vocabulary, normalizers)
    let (vocabulary, addedIDs) = (vocabulary, added.ids)
    postProcessor =
      try root.optional("post_processor").map { (value) throws(ModelError) in
        try PostProcessor(value, vocabulary: vocabulary, addedIDs: addedIDs)
      } ?? PostProcessor()
    vocabularySize = vocabulary.count + added.newTokens
    largestID = max(vocabulary.largestID, addedIDs.max() ?? -1)
  }

  /// A tokenizer of parts that were read elsewhere.
  init(
    model: TokenModel, added: AddedVocabulary, normalizers: [Normalizer], preTokenizers: [PreTokenizer],
    postProcessor: PostProcessor, decoder: TokenDecoder
  ) {
    (self.model, self.added, self.decoder, self.postProcessor) = (model, added, decoder, postProcessor)
    (self.normalizers, self.preTokenizers) = (normalizers, preTokenizers)
    (vocabulary, unknownID, truncation, padding) = (model.vocabulary, model.unknownID, nil, nil)
    vocabularySize = vocabulary.count + added.newTokens
    largestID = max(vocabulary.largestID, added.ids.max() ?? -1)
  }

  // MARK: Vocabulary

  public func id(of token: String) -> Int32? { added.byContent[UTF8Key(token)] ?? vocabulary.id(of: token) }

  public func token(of id: Int32) -> String? { added.byID[id]?.content ?? vocabulary.token(of: id) }

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
      work.model.ids.reserveCapacity(bytes.count / 4 + 8)
      added.givenMatcher.split(bytes) { piece in
        switch piece {
        case .token(let id): work.model.ids.append(id)
        case .text(let range):
          encodeGiven(UnsafeBufferPointer(rebasing: bytes[range]), startsText: range.lowerBound == 0, &work)
        }
      }
    }
    return work.model.ids
  }

  private func encodeGiven(_ bytes: UnsafeBufferPointer<UInt8>, startsText: Bool, _ work: inout EncodingWork) {
    switch normalizers.count {
    case 0: encodeNormalized(bytes, startsText: startsText, &work)
    case 1:
      // The buffer of the last piece serves again.
      var buffer = work.normalized
      work.normalized = []
      buffer.removeAll(keepingCapacity: true)
      normalizers[0].apply(bytes, into: &buffer)
      buffer.withUnsafeBufferPointer { encodeNormalized($0, startsText: startsText, &work) }
      work.normalized = buffer
    default:
      Normalizer.apply(normalizers, bytes).withUnsafeBufferPointer {
        encodeNormalized($0, startsText: startsText, &work)
      }
    }
  }

  private func encodeNormalized(_ bytes: UnsafeBufferPointer<UInt8>, startsText: Bool, _ work: inout EncodingWork) {
    added.normalizedMatcher.split(bytes) { piece in
      switch piece {
      case .token(let id): work.model.ids.append(id)
      case .text(let range):
        let text = UnsafeBufferPointer(rebasing: bytes[range])
        guard !preTokenizers.isEmpty else { return encodeWord(text, &work.model) }
        work.pieces.reset(text, startsText: startsText && range.lowerBound == 0)
        for step in preTokenizers { step.apply(&work.pieces) }
        work.pieces.bytes.withUnsafeBufferPointer { bytes in
          for word in work.pieces.ranges { encodeWord(UnsafeBufferPointer(rebasing: bytes[word]), &work.model) }
        }
      }
    }
  }

  @inline(__always)
  private func encodeWord(_ word: UnsafeBufferPointer<UInt8>, _ work: inout ModelWork) {
    switch model {
    case .wordPiece(let model): model.encode(word, &work)
    case .bpe(let model): model.encode(word, &work)
    case .unigram(let model): model.encode(word, &work)
    case .sentencePiece(let model): model.encode(word, &work)
    }
  }

  // MARK: Decoding

  public func decode(_ ids: [Int32], skipSpecialTokens: Bool) throws(TokenizerError) -> String {
    var run = DecodingRun(decoder)
    for (position, id) in ids.enumerated() {
      try push(id, at: position, skipSpecialTokens: skipSpecialTokens, into: &run)
    }
    run.finish()
    return run.takeText()
  }

  /// Hands the token `id` to `run`, unless it is a special one to be skipped.
  func push(
    _ id: Int32, at position: Int, skipSpecialTokens: Bool, into run: inout DecodingRun
  ) throws(TokenizerError) {
    if let token = added.byID[id] {
      if skipSpecialTokens && token.special { return }
      return token.decodedBytes.withUnsafeBufferPointer { run.push($0) }
    }
    if skipSpecialTokens && !added.specialTwins.isEmpty && added.specialTwins.contains(id) { return }
    guard vocabulary.withToken(id, { run.push($0) }) != nil else { throw .unknownID(id, position: position) }
  }
}

/// Memory that one call of `encode` uses again for each piece of the text.
private struct EncodingWork {
  var model = ModelWork()
  var normalized: [UInt8] = []
  var pieces = Pieces()
}

import Dispatch
import Quern
import Synchronization

/// Text from a language model: tokenizer, model, sampling and stop strings. A decoder continues a prompt; T5 answers it.
///
/// ```swift
/// let generator = try TextGenerator(path: "Qwen3-0.6B", context: Context())
/// for try await piece in generator.stream("Once upon a time") { print(piece.text, terminator: "") }
/// ```
public final class TextGenerator: Sendable {
  public let model: any GenerativeModel
  public let tokenizer: HubTokenizer
  /// Ids that end a text: those of `config.json` and `generation_config.json`, or of a GGUF file's metadata and vocabulary.
  public let endOfText: [Int32]

  /// A step of a generation.
  public struct Piece: Sendable, Equatable {
    /// The new token; `nil` where the text ended without one.
    public let token: Int32?
    /// The text that is certain by now and has not come yet; it may be empty.
    public let text: String
    /// Why the text has ended, if it has.
    public let finish: FinishReason?
  }

  /// How a text is continued.
  public struct Options: Sendable {
    public var generation: GenerationOptions
    /// Strings that end the text and are not part of it.
    public var stopStrings: [String]
    /// Tokens of prompt and text together, or of the text alone where an encoder reads the prompt; as many as are needed where it is
    /// `nil`.
    public var capacity: Int?
    /// How keys and values are stored.
    public var cacheType: CacheType
    /// A model that drafts, where there is one; see ``SpeculativeGenerator``.
    public var draft: Draft?

    public init(
      generation: GenerationOptions = GenerationOptions(), stopStrings: [String] = [], capacity: Int? = nil,
      cacheType: CacheType = .f32, draft: Draft? = nil
    ) {
      (self.generation, self.stopStrings) = (generation, stopStrings)
      (self.capacity, self.cacheType, self.draft) = (capacity, cacheType, draft)
    }
  }

  /// A model that drafts for another of the same vocabulary, and how many tokens at a time.
  public struct Draft: Sendable {
    public var model: DecoderModel
    public var tokens: Int

    public init(model: DecoderModel, tokens: Int = 4) { (self.model, self.tokens) = (model, tokens) }

    /// Refuses a draft whose ids stand for other tokens.
    ///
    /// - Parameter file: the draft's, for the error.
    public static func check(_ tokenizer: HubTokenizer, against other: HubTokenizer, file: String) throws(ModelError) {
      let shared = min(tokenizer.largestID, other.largestID)
      for id in 0...max(shared, 0) {
        let (token, expected) = (tokenizer.token(of: id), other.token(of: id))
        // Models pad their vocabularies with tokens of their own, or with none.
        guard let token, let expected, UTF8Key(token) != UTF8Key(expected) else { continue }
        throw ModelError(
          file: file, field: "model.vocab",
          reason: "token \(id) is \(token), but \(expected) in the model it drafts for; the two need one vocabulary")
      }
    }
  }

  /// - Parameters:
  ///   - path: a Hugging Face model directory with a `tokenizer.json`, or a GGUF file with its vocabulary.
  ///   - precision: as for ``GenerativeModels/load(path:context:precision:)``.
  /// - Throws: ``ModelError`` naming file, field and offset.
  public convenience init(path: String, context: Context, precision: DataType? = nil) throws {
    let tokenizer = try Self.tokenizer(path: path)
    try self.init(
      path: path, model: GenerativeModels.load(path: path, context: context, precision: precision),
      tokenizer: tokenizer)
  }

  /// The tokenizer of a Hugging Face model directory or of a GGUF file.
  public static func tokenizer(path: String) throws(ModelError) -> HubTokenizer {
    try path.hasSuffix(".gguf") ? HubTokenizer(GGUF(path: path)) : TokenizerFile.load(directory: path)
  }

  /// The same with a model and a tokenizer that have been read from `path` before.
  public convenience init(path: String, model: any GenerativeModel, tokenizer: HubTokenizer) throws {
    if path.hasSuffix(".gguf") {
      try self.init(model: model, tokenizer: tokenizer, endOfText: tokenizer.endsOfTurn, tokenizerFile: path)
      return
    }
    let more = try HubConfig.ifPresent(directory: path, name: "generation_config.json")?.tokenIDs("eos_token_id")
    try self.init(
      model: model, tokenizer: tokenizer, endOfText: more ?? [], tokenizerFile: "\(path)/tokenizer.json")
  }

  /// - Parameter endOfText: ids that end a text, beside those of the model.
  public init(
    model: any GenerativeModel, tokenizer: HubTokenizer, endOfText: [Int32] = [], tokenizerFile: String
  ) throws {
    guard Int(tokenizer.largestID) < model.vocabSize else {
      throw ModelError(
        file: tokenizerFile, field: "model.vocab",
        reason: "token id \(tokenizer.largestID) is outside the \(model.vocabSize) rows of the model's "
          + "embeddings; tokenizer and weights do not belong together")
    }
    (self.model, self.tokenizer) = (model, tokenizer)
    self.endOfText = model.endOfText + endOfText
  }

  /// Continues `prompt`, a piece at a time. Cancelling the task that loops over it, or letting go of
  /// the stream, ends the work within a layer's time.
  ///
  /// - Parameter addSpecialTokens: whether the tokenizer puts its special tokens around the prompt; false for a prompt that a chat
  ///   template made.
  public func stream(
    _ prompt: String, addSpecialTokens: Bool = true, options: Options = Options()
  ) -> AsyncThrowingStream<Piece, any Error> {
    AsyncThrowingStream { continuation in
      let isCancelled = Cancellation()
      continuation.onTermination = { _ in isCancelled.cancel() }
      // Neither a task nor the global queue: on Linux both draw on as many threads as there are cores, and two texts on two cores
      // would leave none to whoever reads them. A queue of its own has a thread of its own.
      DispatchQueue(label: "quern.generation").async { [self] in
        do {
          let ids = try encode(prompt, addSpecialTokens: addSpecialTokens)
          try generate(ids, options: options, proceed: isCancelled.check) { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
    }
  }

  /// The ids of a prompt, cut nowhere.
  public func encode(_ prompt: String, addSpecialTokens: Bool = true) throws(TokenizerError) -> [Int32] {
    try tokenizer.encode(prompt, options: EncodingOptions(addSpecialTokens: addSpecialTokens, length: .unlimited))
  }

  /// The same on the caller's thread, from token ids.
  ///
  /// - Parameters:
  ///   - proceed: asked before each layer; what it throws ends the generation.
  ///   - body: called with each piece.
  /// - Returns: what became of drafted tokens, where there is a draft.
  @discardableResult
  public func generate(
    _ prompt: [Int32], options: Options = Options(), proceed: () throws -> Void = {}, _ body: (Piece) throws -> Void
  ) throws -> SpeculativeGenerator.Acceptance? {
    let generator = try model.tokenGenerator(prompt: prompt.count, options: options)
    var generation = options.generation
    generation.stopIDs = generation.stopIDs ?? endOfText
    let request = try generator.add(prompt, options: generation)
    var text = TokenStream(tokenizer)
    var stops = StopScanner(options.stopStrings)
    while !generator.isIdle {
      pass: for event in try generator.step(proceed: proceed) {
        var fresh = try event.token.map { (id) throws(TokenizerError) in try text.append(id) } ?? ""
        if event.finish != nil { fresh += text.finish() }
        let (certain, isStopped) = stops.append(fresh)
        if isStopped { generator.cancel(request) }
        let rest = isStopped || event.finish == nil ? "" : stops.finish()
        try body(
          Piece(token: event.token, text: certain + rest, finish: isStopped ? .stopString : event.finish))
        if isStopped { break pass }
      }
    }
    return (generator as? SpeculativeGenerator)?.acceptance
  }
}

/// A flag that one thread raises and another asks for.
private final class Cancellation: Sendable {
  private let isRaised = Atomic(false)

  func cancel() { isRaised.store(true, ordering: .relaxed) }

  func check() throws { if isRaised.load(ordering: .relaxed) { throw CancellationError() } }
}

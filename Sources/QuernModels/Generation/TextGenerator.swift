import Dispatch
import Quern
import Synchronization

/// Text from a language model: tokenizer, decoder, sampling and stop strings.
///
/// ```swift
/// let generator = try TextGenerator(path: "Qwen3-0.6B", context: Context())
/// for try await piece in generator.stream("Once upon a time") { print(piece.text, terminator: "") }
/// ```
public final class TextGenerator: Sendable {
  public let model: DecoderModel
  public let tokenizer: HubTokenizer
  /// Ids that end a text: those of `config.json` and `generation_config.json`.
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
    /// Tokens of prompt and text together; as many as both need where it is `nil`.
    public var capacity: Int?
    /// How keys and values are stored.
    public var cacheType: DataType

    public init(
      generation: GenerationOptions = GenerationOptions(), stopStrings: [String] = [], capacity: Int? = nil,
      cacheType: DataType = .f32
    ) {
      (self.generation, self.stopStrings) = (generation, stopStrings)
      (self.capacity, self.cacheType) = (capacity, cacheType)
    }
  }

  /// - Parameters:
  ///   - path: a Hugging Face model directory with a `tokenizer.json`.
  ///   - precision: the storage of matrices; as the files have them where it is `nil`.
  /// - Throws: ``ModelError`` naming file, field and offset.
  public convenience init(path: String, context: Context, precision: DataType? = nil) throws {
    let tokenizer = try TokenizerFile.load(directory: path)
    let more = try HubConfig.ifPresent(directory: path, name: "generation_config.json")?.tokenIDs("eos_token_id")
    try self.init(
      model: DecoderModel(path: path, context: context, precision: precision), tokenizer: tokenizer,
      endOfText: more ?? [], tokenizerFile: "\(path)/tokenizer.json")
  }

  /// - Parameter endOfText: ids that end a text, beside those of the model.
  public init(model: DecoderModel, tokenizer: HubTokenizer, endOfText: [Int32] = [], tokenizerFile: String) throws {
    guard Int(tokenizer.largestID) < model.configuration.vocabSize else {
      throw ModelError(
        file: tokenizerFile, field: "model.vocab",
        reason: "token id \(tokenizer.largestID) is outside the \(model.configuration.vocabSize) rows of the model's "
          + "embeddings; tokenizer and weights do not belong together")
    }
    (self.model, self.tokenizer) = (model, tokenizer)
    self.endOfText = model.configuration.endOfText + endOfText
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
  public func generate(
    _ prompt: [Int32], options: Options = Options(), proceed: () throws -> Void = {}, _ body: (Piece) throws -> Void
  ) throws {
    let capacity =
      options.capacity
      ?? model.configuration.capacity(prompt: prompt.count, maximumTokens: options.generation.maximumTokens)
    let generator = try BatchGenerator(model: model, capacity: capacity, cacheType: options.cacheType)
    var generation = options.generation
    generation.stopIDs = generation.stopIDs ?? endOfText
    let request = try generator.add(prompt, options: generation)
    var text = TokenStream(tokenizer)
    var stops = StopScanner(options.stopStrings)
    while !generator.isIdle {
      for event in try generator.step(proceed: proceed) {
        var fresh = try event.token.map { (id) throws(TokenizerError) in try text.append(id) } ?? ""
        if event.finish != nil { fresh += text.finish() }
        let (certain, isStopped) = stops.append(fresh)
        if isStopped { generator.cancel(request) }
        let rest = isStopped || event.finish == nil ? "" : stops.finish()
        try body(
          Piece(token: event.token, text: certain + rest, finish: isStopped ? .stopString : event.finish))
      }
    }
  }
}

/// A flag that one thread raises and another asks for.
private final class Cancellation: Sendable {
  private let isRaised = Atomic(false)

  func cancel() { isRaised.store(true, ordering: .relaxed) }

  func check() throws { if isRaised.load(ordering: .relaxed) { throw CancellationError() } }
}

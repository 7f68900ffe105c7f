import Quern

/// What generation asks of a model: a decoder that continues a prompt, or an encoder and a decoder that answers it.
public protocol GenerativeModel: Sendable {
  var context: Context { get }
  /// Rows of the table of embeddings: token ids lie below.
  var vocabSize: Int { get }
  /// Ids that end a text, by the model's own configuration.
  var endOfText: [Int32] { get }

  /// What generates by these options behind a prompt of so many tokens.
  ///
  /// - Throws: ``GenerationError/invalidOption(name:value:expected:)`` for what such a model does not do, ``QuernError``.
  func tokenGenerator(prompt: Int, options: TextGenerator.Options) throws -> any TokenGenerator
}

extension DecoderModel: GenerativeModel {
  public var endOfText: [Int32] { configuration.endOfText }

  public func tokenGenerator(prompt: Int, options: TextGenerator.Options) throws -> any TokenGenerator {
    let capacity =
      options.capacity
      ?? configuration.capacity(prompt: prompt, maximumTokens: options.generation.maximumTokens)
    guard let draft = options.draft else {
      return try BatchGenerator(model: self, capacity: capacity, cacheType: options.cacheType)
    }
    return try SpeculativeGenerator(
      model: self, draft: draft.model, draftTokens: draft.tokens, capacity: capacity, cacheType: options.cacheType)
  }
}

extension T5Model: GenerativeModel {
  public var context: Context { encoder.context }
  public var vocabSize: Int { configuration.encoder.vocabSize }
  public var endOfText: [Int32] { configuration.endOfText }

  public func tokenGenerator(prompt: Int, options: TextGenerator.Options) throws -> any TokenGenerator {
    guard options.draft == nil else {
      throw GenerationError.invalidOption(
        name: "draft", value: "a model", expected: "none for a model with an encoder: only decoders have drafts")
    }
    return try EncoderDecoderGenerator(
      model: self, capacity: options.capacity ?? options.generation.maximumTokens, cacheType: options.cacheType)
  }
}

/// Models that generate text, of whichever kind a path holds.
public enum GenerativeModels {
  /// Whether a path is that of a model with an encoder and a decoder: `t5` in its `config.json`.
  public static func hasEncoder(path: String) throws(ModelError) -> Bool {
    guard !path.hasSuffix(".gguf") else { return false }
    return try HubConfig(directory: path).root.optional("model_type")?.string() == "t5"
  }

  /// - Parameters:
  ///   - path: a Hugging Face model directory, or a GGUF file.
  ///   - precision: the storage of matrices; where it is `nil`, a decoder's are as the files have them, and others f32.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public static func load(path: String, context: Context, precision: DataType? = nil) throws -> any GenerativeModel {
    try hasEncoder(path: path)
      ? T5Model(directory: path, context: context, precision: precision ?? .f32)
      : DecoderModel(path: path, context: context, precision: precision)
  }
}

import Quern

/// A model that gives every token of several sequences a hidden state: what ``SentenceEmbedder`` pools.
public protocol HiddenStateModel: Sendable {
  var context: Context { get }
  /// Elements of a hidden state.
  var hiddenSize: Int { get }
  /// Ids are less than this.
  var vocabSize: Int { get }
  /// The most tokens of a sequence.
  var maximumLength: Int { get }

  /// A pass with memory of its own, to be called again and again: from the tokens of several sequences to their hidden states
  /// `[tokens, hidden_size]`, valid until the next call, and the rows of each.
  func makePass() throws -> ([[Int32]]) throws -> (hidden: MutableTensor, segments: Segments)
}

extension EncoderModel: HiddenStateModel {
  public var hiddenSize: Int { configuration.hiddenSize }
  public var vocabSize: Int { configuration.vocabSize }
  public var maximumLength: Int { configuration.maximumLength }

  public func makePass() throws -> ([[Int32]]) throws -> (hidden: MutableTensor, segments: Segments) {
    let workspace = try Workspace()
    return { [self] sequences in
      let batch = try EncoderBatch(sequences)
      return (try forward(batch, workspace: workspace), batch.segments)
    }
  }
}

extension DecoderModel: HiddenStateModel {
  public var hiddenSize: Int { configuration.hiddenSize }
  public var vocabSize: Int { configuration.vocabSize }
  public var maximumLength: Int { configuration.maxPositionEmbeddings }

  public func makePass() throws -> ([[Int32]]) throws -> (hidden: MutableTensor, segments: Segments) {
    let workspace = try Workspace()
    return { [self] sequences in
      let segments = try Segments(lengths: sequences.map(\.count))
      return (try forward(sequences.flatMap { $0 }, segments: segments, workspace: workspace), segments)
    }
  }
}

/// Sentence embeddings from a sentence-transformers directory: tokenizer, encoder or decoder, pooling, normalisation.
///
/// ```swift
/// let embedder = try SentenceEmbedder(directory: ".model/all-MiniLM-L6-v2", context: Context())
/// let vectors = try embedder.embed(["a sentence", "another"])   // unit vectors
/// ```
public final class SentenceEmbedder: Sendable {
  /// How token vectors become one vector.
  public enum Pooling: String, Sendable {
    case mean
    /// The first token's.
    case cls
    /// The last token's, which of a causal model alone has seen the whole text.
    case lastToken
  }

  public let model: any HiddenStateModel
  public let tokenizer: any Tokenizer
  public let pooling: Pooling
  /// Whether `modules.json` ends in a Normalize module.
  public let normalizes: Bool
  /// Tokens kept of a longer text, special ones included: the documented truncation.
  public let maximumLength: Int
  /// What is put before a text, by the name of its purpose, such as `query`.
  public let prompts: [String: String]
  /// The name of the prompt that is put before texts where none is asked for.
  public let defaultPrompt: String?
  private let directory: String
  /// Elements of a vector.
  public var dimension: Int { model.hiddenSize }

  /// - Parameters:
  ///   - directory: as sentence-transformers saves it. Without `modules.json`: mean pooling, no normalisation.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states; vectors are f32 always.
  /// - Throws: ``ModelError`` naming file, field and offset, also for modules and pooling modes that are not supported.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    let modules = try SentenceModules(directory: directory)
    let family = try ModelFamilies.read(directory: directory)
    switch family {
    case let configuration as EncoderConfiguration:
      model = try EncoderModel(
        configuration, source: SafetensorsDirectory.weights(of: directory), file: directory, context: context,
        precision: precision)
    case let configuration as DecoderConfiguration:
      model = try DecoderModel(
        configuration, source: configuration.source(directory: directory), file: directory, context: context,
        precision: precision, hasHead: false)
    default:
      throw try HubConfig(directory: directory).root.required("model_type")
        .error("models of this type give no hidden states of texts")
    }
    tokenizer = try TokenizerFile.load(directory: directory)
    (self.directory, pooling, normalizes) = (directory, modules.pooling, modules.normalizes)
    (prompts, defaultPrompt) = (modules.prompts, modules.defaultPrompt)
    maximumLength = min(
      modules.maximumLength ?? tokenizer.truncation?.maximumLength ?? Int.max, model.maximumLength)
    guard Int(tokenizer.largestID) < model.vocabSize else {
      throw ModelError(
        file: "\(directory)/tokenizer.json", field: "model.vocab",
        reason: "token id \(tokenizer.largestID) is outside the embedding table of "
          + "\(model.vocabSize) rows; tokenizer and weights do not belong together")
    }
  }

  /// The token ids of a text behind a prompt, cut to ``maximumLength``. An empty text is its special tokens alone.
  ///
  /// - Parameter prompt: the name of one of ``prompts``; ``defaultPrompt`` where it is `nil`.
  /// - Throws: ``ModelError`` naming the prompts, for one that is not there.
  public func tokens(_ text: String, prompt: String? = nil) throws -> [Int32] {
    try tokenizer.encode(try start(prompt) + text, options: EncodingOptions(length: .atMost(maximumLength)))
  }

  private func start(_ prompt: String?) throws(ModelError) -> String {
    guard let name = prompt ?? defaultPrompt else { return "" }
    guard let text = prompts[name] else {
      let known = prompts.isEmpty ? "none" : prompts.keys.sorted().joined(separator: ", ")
      throw ModelError(
        file: "\(directory)/\(SentenceModules.promptFile)", field: "prompts.\(name)",
        reason: "no such prompt; the model has \(known)")
    }
    return text
  }

  /// One vector of ``dimension`` elements for each text.
  ///
  /// - Parameters:
  ///   - prompt: as in ``tokens(_:prompt:)``.
  ///   - tokensPerPass: texts are run in batches of about this many tokens, which bounds the memory.
  ///   - progress: called after each batch with the number of texts done.
  public func embed(
    _ texts: [String], prompt: String? = nil, tokensPerPass: Int = 16384, progress: (Int) -> Void = { _ in }
  ) throws -> [[Float]] {
    let pass = try model.makePass()
    var vectors: [[Float]] = []
    vectors.reserveCapacity(texts.count)
    var sequences: [[Int32]] = []
    var count = 0
    for (index, text) in texts.enumerated() {
      sequences.append(try tokens(text, prompt: prompt))
      count += sequences[sequences.count - 1].count
      guard count >= tokensPerPass || index == texts.count - 1 else { continue }
      let states = try pass(sequences)
      vectors += try pool(states.hidden, states.segments)
      progress(index + 1)
      sequences.removeAll(keepingCapacity: true)
      count = 0
    }
    return vectors
  }

  private func pool(_ hidden: MutableTensor, _ segments: Segments) throws -> [[Float]] {
    let pooled = try MutableTensor(zeros: Shape(segments.count, dimension))
    let context = model.context
    if pooling != .mean, let empty = (0..<segments.count).first(where: { segments[$0].isEmpty }) {
      throw QuernError.invalidShape("text \(empty) of this batch has no tokens, and so no first or last one")
    }
    switch pooling {
    case .mean: try context.meanPool(hidden.view, segments: segments, into: pooled)
    case .cls: try context.embedding(segments.offsets.dropLast().map { $0 }, table: hidden.view, into: pooled)
    case .lastToken:
      try context.embedding(segments.offsets.dropFirst().map { $0 - 1 }, table: hidden.view, into: pooled)
    }
    if normalizes { try context.l2Normalize(pooled.view, into: pooled) }
    return (0..<segments.count).map { pooled.rows($0..<$0 + 1).elements }
  }
}

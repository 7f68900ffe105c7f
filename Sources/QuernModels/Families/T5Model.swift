import Quern

/// T5 (Raffel et al., arXiv 1910.10683): text to text, by an encoder and a decoder that attends to what the encoder made.
///
/// ```swift
/// let model = try T5Model(directory: "flan-t5-small", context: Context())
/// let outputs = try model.generate(EncoderBatch([ids]), maximumTokens: 64)
/// ```
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``State`` and a ``Workspace`` of its own. A directory
/// of the encoder alone is an ``EncoderModel``.
public final class T5Model: Sendable {
  public let configuration: T5Configuration
  public let encoder: EncoderModel
  private let decoder: EncoderStack
  private let head: PackedMatrix

  /// Memory of a pass. Grows to the most tokens it has met.
  public final class Workspace {
    fileprivate let encoder, decoder: EncoderWorkspace

    public init() throws { (encoder, decoder) = (try EncoderWorkspace(), try EncoderWorkspace()) }
  }

  /// Outputs as far as they have come: the decoder's keys and values, and those of the inputs, computed once.
  ///
  /// Belongs to the model that made it; not `Sendable`, so that the compiler keeps it within one task at a time.
  public final class State {
    fileprivate let cache: KeyValueCache
    fileprivate let inputs: CrossAttentionInputs

    fileprivate init(_ cache: KeyValueCache, _ inputs: CrossAttentionInputs) {
      (self.cache, self.inputs) = (cache, inputs)
    }

    /// Tokens of each output.
    public var lengths: [Int32] { cache.lengths }
  }

  /// - Parameters:
  ///   - directory: a Hugging Face model directory: `config.json` and safetensors weights, quantised ones included.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states; logits are f32 always.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    try self.init(
      T5Configuration(HubConfig(directory: directory)), source: SafetensorsDirectory.weights(of: directory),
      file: directory, context: context, precision: precision)
  }

  /// - Parameter source: weights named as in the `transformers` package.
  public init(
    _ configuration: T5Configuration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    self.configuration = configuration
    encoder = try EncoderModel(
      configuration.encoder, source: source, file: file, context: context, precision: precision)
    let weights = try Weights(source, file: file, of: configuration)
    decoder = try EncoderStack(configuration.decoder, weights: weights, precision: precision, context: context)
    head =
      source.contains(configuration.head.parts[0].weight)
      ? try weights.packed(configuration.head, as: precision, context: context)
      : try context.pack(encoder.words.view)
  }

  /// Runs the encoder and computes the keys and values that every step of the outputs attends to.
  ///
  /// - Parameters:
  ///   - batch: the inputs; a text ends in its end token.
  ///   - capacity: tokens of each output, its start token included.
  ///   - cacheType: how the decoder's own keys and values are stored; as ``EncoderModel/precision`` says where it is `nil`.
  /// - Throws: ``QuernError``, also for an id outside the vocabulary.
  public func start(
    _ batch: EncoderBatch, capacity: Int, cacheType: CacheType? = nil, workspace: Workspace
  ) throws -> State {
    let stack = configuration.decoder
    let hidden = try encoder.forward(batch, workspace: workspace.encoder)
    let inputs = try decoder.crossAttentionInputs(hidden.view, segments: batch.segments, encoder.context)
    let cache = try KeyValueCache(
      layers: stack.numHiddenLayers, heads: stack.numAttentionHeads, headDim: stack.headDim,
      sequences: batch.segments.count, capacity: capacity, type: cacheType ?? CacheType(encoder.precision))
    return State(cache, inputs)
  }

  /// Runs the next tokens of the outputs, which the state then holds.
  ///
  /// - Parameters:
  ///   - ids: the new tokens of the outputs, end to end; the first of each is `decoderStartTokenID`.
  ///   - segments: how many each output has; 0 for one that stands still. Those that move hold as many tokens as each other.
  /// - Returns: the last hidden state after the final norm, `[tokens, d_model]`, in the workspace: valid until its next use.
  /// - Throws: ``QuernError/cacheFull(sequence:held:new:capacity:)``, and
  ///   ``QuernError/invalidOperand(operation:reason:)`` for an id outside the vocabulary.
  public func forward(
    _ ids: [Int32], segments: Segments, state: State, workspace: Workspace
  ) throws(QuernError) -> MutableTensor {
    let (cache, memory) = (state.cache, workspace.decoder)
    guard segments.count == cache.sequences, segments.total == ids.count else {
      throw .invalidShape(
        "\(ids.count) tokens in \(segments.count) segments of \(segments.total) for \(cache.sequences) outputs")
    }
    let moving = (0..<segments.count).filter { !segments[$0].isEmpty }
    let held = moving.first.map { cache.lengths[$0] } ?? 0
    for output in moving {
      guard cache.lengths[output] == held else {
        throw .invalidShape("output \(output) holds \(cache.lengths[output]) tokens, another \(held)")
      }
      guard Int(held) + segments[output].count <= cache.capacity else {
        throw .cacheFull(
          sequence: output, held: Int(held), new: segments[output].count, capacity: cache.capacity)
      }
    }
    try memory.reserve(tokens: ids.count, positions: 0, decoder, encoder.precision)
    let hidden = memory.hidden.rows(0..<ids.count)
    try encoder.context.embedding(ids, table: encoder.words.view, into: hidden)
    try decoder(
      memory, segments: segments, first: Int(held), cache: cache, inputs: state.inputs, encoder.context)
    cache.grow(segments)
    return hidden
  }

  /// The logits of the next token for chosen rows of ``forward(_:segments:state:workspace:)``'s result, `[rows, vocab_size]`, f32.
  public func logits(_ hidden: MutableTensor, rows: [Int32]) throws(QuernError) -> MutableTensor {
    let width = configuration.decoder.hiddenSize
    let last = try MutableTensor(zeros: Shape(rows.count, width))
    let logits = try MutableTensor(zeros: Shape(checking: [rows.count, configuration.encoder.vocabSize]))
    try encoder.context.embedding(rows, table: hidden.view, into: last)
    let scale = configuration.scalesLogits ? 1 / Float(width).squareRoot() : 1
    try encoder.context.linear(last.view, weights: head, epilogue: Epilogue(scale: scale), into: logits)
    return logits
  }

  /// The most likely output of each input, token by token, without start and end tokens.
  ///
  /// - Parameters:
  ///   - maximumTokens: tokens of an output at most.
  ///   - proceed: asked before each token; what it throws ends the generation.
  public func generate(
    _ batch: EncoderBatch, maximumTokens: Int = 256, proceed: () throws -> Void = {}
  ) throws -> [[Int32]] {
    guard maximumTokens > 0 else {
      throw GenerationError.invalidOption(name: "maximumTokens", value: "\(maximumTokens)", expected: "more than 0")
    }
    let workspace = try Workspace()
    let state = try start(batch, capacity: maximumTokens, workspace: workspace)
    var outputs = [[Int32]](repeating: [], count: batch.segments.count)
    var active = Array(outputs.indices)
    while !active.isEmpty {
      try proceed()
      let ids = active.map { outputs[$0].last ?? configuration.decoderStartTokenID }
      var lengths = [Int](repeating: 0, count: outputs.count)
      for output in active { lengths[output] = 1 }
      let hidden = try forward(ids, segments: Segments(lengths: lengths), state: state, workspace: workspace)
      let logits = try logits(hidden, rows: active.indices.map { Int32($0) })
      var best = [Int32](repeating: 0, count: active.count)
      try encoder.context.argmax(logits.view, into: &best)
      let next = zip(active, best).filter { !configuration.endOfText.contains($1) }
      for (output, id) in next { outputs[output].append(id) }
      active = next.map(\.0).filter { outputs[$0].count < maximumTokens }
    }
    return outputs
  }
}

import Quern

/// Tokens of several sequences laid end to end, with nothing computed for padding.
public struct EncoderBatch: Sendable {
  public let ids: [Int32]
  public let typeIDs: [Int32]
  public let positions: [Int32]
  public let segments: Segments

  /// - Parameters:
  ///   - sequences: the token ids of each sequence.
  ///   - typeIDs: `token_type_ids` of each; zeros where none are given.
  ///   - positions: the position of each token; 0, 1, 2, … where none are given.
  public init(
    _ sequences: [[Int32]], typeIDs: [[Int32]]? = nil, positions: [[Int32]]? = nil
  ) throws(QuernError) {
    segments = try Segments(lengths: sequences.map(\.count))
    ids = sequences.flatMap { $0 }
    self.typeIDs = typeIDs?.flatMap { $0 } ?? [Int32](repeating: 0, count: ids.count)
    self.positions = positions?.flatMap { $0 } ?? sequences.flatMap { (0..<Int32($0.count)).map { $0 } }
    guard self.typeIDs.count == ids.count, self.positions.count == ids.count else {
      throw .invalidShape("token types and positions need one entry for each of \(ids.count) tokens")
    }
  }
}

/// The BERT encoder: learned positions, post-norm blocks, GELU (Devlin et al., arXiv 1810.04805).
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``Workspace`` of its own.
public final class BertModel: Sendable {
  public let configuration: BertConfiguration
  public let context: Context
  /// How matrices and hidden states are stored; norms and biases are f32. Quantised matrices stay as their files have them.
  public let precision: DataType
  private let words, positions, types: Tensor
  private let embeddingNorm: Norm
  private let layers: [Layer]

  private struct Layer: Sendable {
    /// Queries, keys and values in one product: x is read once.
    let qkv, output, up, down: Linear
    let attentionNorm, outputNorm: Norm
  }

  /// Memory of a forward pass. Grows to the largest batch it has met; a steady state allocates nothing.
  public final class Workspace {
    fileprivate var capacity = 0
    fileprivate var hidden, sum, qkv, mixed, up: MutableTensor

    public init() throws {
      let empty = try MutableTensor(zeros: Shape(0, 0))
      (hidden, sum, qkv, mixed, up) = (empty, empty, empty, empty, empty)
    }

    fileprivate func reserve(
      _ tokens: Int, _ configuration: BertConfiguration, _ precision: DataType
    ) throws(QuernError) {
      guard
        tokens > capacity || hidden.shape[1] != configuration.hiddenSize
          || up.shape[1] != configuration.intermediateSize || hidden.dataType != precision
      else { return }
      let width = configuration.hiddenSize
      hidden = try MutableTensor(zeros: Shape(tokens, width), dataType: precision)
      sum = try MutableTensor(zeros: Shape(tokens, width), dataType: precision)
      qkv = try MutableTensor(zeros: Shape(tokens, 3 * width), dataType: precision)
      mixed = try MutableTensor(zeros: Shape(tokens, width), dataType: precision)
      up = try MutableTensor(zeros: Shape(tokens, configuration.intermediateSize), dataType: precision)
      capacity = tokens
    }
  }

  /// - Parameters:
  ///   - directory: a Hugging Face model directory: `config.json` and safetensors weights, quantised ones included.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    let configuration = try BertConfiguration(HubConfig(directory: directory))
    try self.init(
      configuration, source: SafetensorsDirectory(path: directory), file: directory, context: context,
      precision: precision)
  }

  /// - Parameter source: weights named as in the `transformers` package, with or without the `bert.` prefix.
  public init(
    _ configuration: BertConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    let weights = try Weights(source, file: file, of: configuration)
    let width = configuration.hiddenSize
    (self.configuration, self.context, self.precision) = (configuration, context, precision)
    func table(_ name: String, _ rows: Int) throws -> Tensor {
      try weights.tensor("embeddings.\(name)_embeddings.weight", Shape(rows, width), as: precision)
    }
    words = try table("word", configuration.vocabSize)
    positions = try table("position", configuration.maxPositionEmbeddings)
    types = try table("token_type", configuration.typeVocabSize)

    func norm(_ name: String) throws -> Norm {
      Norm(
        weight: try weights.tensor("\(name).weight", Shape(width)),
        bias: try weights.tensor("\(name).bias", Shape(width)),
        epsilon: configuration.layerNormEps)
    }
    func linear(_ layer: LinearLayer, _ activation: Activation = .identity) throws -> Linear {
      try weights.linear(layer, as: precision, hasBias: true, activation: activation, context: context)
    }
    embeddingNorm = try norm("embeddings.LayerNorm")
    layers = try (0..<configuration.numHiddenLayers).map { index in
      let (name, linears) = (BertConfiguration.layerName(index), configuration.linears(ofLayer: index))
      return Layer(
        qkv: try linear(linears.qkv), output: try linear(linears.output),
        up: try linear(linears.up, configuration.hiddenAct), down: try linear(linears.down),
        attentionNorm: try norm("\(name).attention.output.LayerNorm"),
        outputNorm: try norm("\(name).output.LayerNorm"))
    }
  }

  /// The last hidden state, `[tokens, hidden_size]`, in the workspace: valid until its next use.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for an id, a type or a position outside its table.
  public func forward(_ batch: EncoderBatch, workspace: Workspace) throws(QuernError) -> MutableTensor {
    let rows = 0..<batch.ids.count
    let width = configuration.hiddenSize
    try workspace.reserve(rows.count, configuration, precision)
    let (hidden, sum) = (workspace.hidden.rows(rows), workspace.sum.rows(rows))
    let (qkv, mixed, up) = (workspace.qkv.rows(rows), workspace.mixed.rows(rows), workspace.up.rows(rows))
    let layout = AttentionLayout(batch.segments)

    func heads<T: Strided>(_ tensor: T, part: Int) -> T {
      tensor.columns(part * width..<(part + 1) * width).heads(configuration.numAttentionHeads)
    }

    try context.embedding(batch.ids, table: words.view, into: hidden)
    try context.embedding(batch.positions, table: positions.view, accumulate: true, into: hidden)
    try context.embedding(batch.typeIDs, table: types.view, accumulate: true, into: hidden)
    try embeddingNorm(hidden, context)
    for layer in layers {
      try layer.qkv(hidden.view, into: qkv, context)
      try context.attention(
        queries: heads(qkv.view, part: 0), keys: heads(qkv.view, part: 1), values: heads(qkv.view, part: 2),
        layout: layout, into: heads(mixed, part: 0))
      try layer.output(mixed.view, residual: hidden.view, into: sum, context)
      try layer.attentionNorm(sum, context)
      try layer.up(sum.view, into: up, context)
      try layer.down(up.view, residual: sum.view, into: hidden, context)
      try layer.outputNorm(hidden, context)
    }
    return hidden
  }
}

import Quern

/// Tokens of several sequences laid end to end, with nothing computed for padding.
public struct EncoderBatch: Sendable {
  public let ids: [Int32]
  public let typeIDs: [Int32]
  /// Rows of the model's table of positions; `nil` for those that the model gives each token.
  public let positions: [Int32]?
  public let segments: Segments

  /// - Parameters:
  ///   - sequences: the token ids of each sequence.
  ///   - typeIDs: `token_type_ids` of each; zeros where none are given.
  ///   - positions: the position of each token; those of the model where none are given: 0, 1, 2, … for most.
  public init(
    _ sequences: [[Int32]], typeIDs: [[Int32]]? = nil, positions: [[Int32]]? = nil
  ) throws(QuernError) {
    segments = try Segments(lengths: sequences.map(\.count))
    ids = sequences.flatMap { $0 }
    self.typeIDs = typeIDs?.flatMap { $0 } ?? [Int32](repeating: 0, count: ids.count)
    self.positions = positions?.flatMap { $0 }
    guard self.typeIDs.count == ids.count, self.positions?.count ?? ids.count == ids.count else {
      throw .invalidShape("token types and positions need one entry for each of \(ids.count) tokens")
    }
  }
}

/// A text encoder: BERT, RoBERTa, XLM-RoBERTa, ModernBERT, CLIP's text tower, T5's encoder; see ``EncoderConfiguration``.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``Workspace`` of its own.
public final class EncoderModel: Sendable {
  public typealias Workspace = EncoderWorkspace

  public let configuration: EncoderConfiguration
  public let context: Context
  /// How matrices and hidden states are stored; norms and biases are f32. Quantised matrices stay as their files have them.
  public let precision: DataType
  let words: Tensor
  private let positions, types: Tensor?
  private let embeddingNorm: Norm?
  private let stack: EncoderStack

  /// - Parameters:
  ///   - directory: a Hugging Face model directory: `config.json` and safetensors weights, quantised ones included.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    let configuration = try EncoderConfiguration(HubConfig(directory: directory))
    try self.init(
      configuration, source: SafetensorsDirectory.weights(of: directory), file: directory, context: context,
      precision: precision)
  }

  /// - Parameter source: weights named as in the `transformers` package, with or without the prefix of the family, such as `bert.`.
  public init(
    _ configuration: EncoderConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    let (weights, names) = (try Weights(source, file: file, of: configuration), configuration.names)
    let width = configuration.hiddenSize
    (self.configuration, self.context, self.precision) = (configuration, context, precision)
    func table(_ name: String, _ rows: Int) throws -> Tensor {
      try weights.tensor("\(name).weight", Shape(rows, width), as: precision)
    }
    words = try table(names.words, configuration.vocabSize)
    positions =
      configuration.hasLearnedPositions ? try table(names.positions, configuration.maxPositionEmbeddings) : nil
    types = configuration.typeVocabSize > 0 ? try table(names.types, configuration.typeVocabSize) : nil
    embeddingNorm =
      configuration.hasEmbeddingNorm ? try weights.norm(names.norm, width, configuration.stack.norm) : nil
    stack = try EncoderStack(configuration.stack, weights: weights, precision: precision, context: context)
  }

  /// The hidden state behind the last layer, or behind fewer of them, `[tokens, hidden_size]`, in the workspace: valid until its
  /// next use.
  ///
  /// - Parameters:
  ///   - layers: how many layers are run; all where it is `nil`. One less than all gives the penultimate hidden state.
  ///   - finalNorm: whether the norm behind the last layer is applied, where the family has one.
  ///   - earlier: where the hidden state behind fewer layers than are run goes, `[tokens, hidden_size]` of any storage, without
  ///     the final norm: one pass gives both.
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for an id, a type or a position outside its table, and
  ///   ``QuernError/invalidShape(_:)`` for more layers than there are.
  public func forward(
    _ batch: EncoderBatch, workspace: Workspace, layers: Int? = nil, finalNorm: Bool = true,
    keeping earlier: (layers: Int, states: MutableTensor)? = nil
  ) throws(QuernError) -> MutableTensor {
    let count = layers ?? configuration.numHiddenLayers
    guard count >= 0, count <= configuration.numHiddenLayers else {
      throw .invalidShape("\(count) layers of an encoder that has \(configuration.numHiddenLayers)")
    }
    let kept = earlier?.layers ?? 0
    guard kept >= 0, kept <= count else {
      throw .invalidShape("the hidden state behind \(kept) layers, where \(count) are run")
    }
    let positions = batch.positions ?? ownPositions(batch, workspace)
    let last = positions.max() ?? 0
    guard last < configuration.maxPositionEmbeddings else {
      throw .invalidOperand(
        operation: .embedding,
        reason: "position \(last) is outside the \(configuration.maxPositionEmbeddings) positions of the model")
    }
    try workspace.reserve(tokens: batch.ids.count, positions: Int(last) + 1, stack, precision)
    let hidden = workspace.hidden.rows(0..<batch.ids.count)
    try context.embedding(batch.ids, table: words.view, into: hidden)
    if let table = self.positions {
      try context.embedding(positions, table: table.view, accumulate: true, into: hidden)
    }
    if let types { try context.embedding(batch.typeIDs, table: types.view, accumulate: true, into: hidden) }
    try embeddingNorm?(hidden, context)
    func run(_ layers: Range<Int>, finalNorm: Bool) throws(QuernError) {
      try stack(
        workspace, segments: batch.segments, positions: positions, layers: layers, finalNorm: finalNorm, context)
    }
    if let earlier {
      try run(0..<kept, finalNorm: false)
      try context.copy(hidden.view, into: earlier.states)
    }
    try run(kept..<count, finalNorm: finalNorm)
    return hidden
  }

  /// The positions that the family gives the tokens, in the workspace's memory.
  private func ownPositions(_ batch: EncoderBatch, _ workspace: Workspace) -> [Int32] {
    workspace.positions.removeAll(keepingCapacity: true)
    for sequence in 0..<batch.segments.count {
      configuration.appendPositions(of: batch.ids[batch.segments[sequence]], to: &workspace.positions)
    }
    return workspace.positions
  }
}

import Quern

/// A decoder-only language model: Llama, Mistral, Mixtral, Qwen, Gemma, Phi-3, GPT-2; see ``DecoderConfiguration``.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``KeyValueCache`` and a ``Workspace`` of its own.
/// Hidden states are f32 whatever the storage of the matrices.
public final class DecoderModel: Sendable {
  public let configuration: DecoderConfiguration
  public let context: Context
  private let embedding: Embedding
  private let positions: Tensor?
  private let layers: [DecoderLayer]
  private let finalNorm: Norm
  private let head: PackedMatrix

  /// Where a token's first hidden state comes from.
  private enum Embedding: Sendable {
    case table(Tensor)
    /// The rows of packed weights: the head's, or a quantised table.
    case packed(PackedMatrix)
  }

  /// Memory of a pass. Grows to the most tokens it has met.
  public final class Workspace {
    fileprivate var capacity = 0
    fileprivate var hidden, normed, qkv, mixed, up: MutableTensor
    fileprivate var last, logits: MutableTensor
    fileprivate let experts: MixtureOfExperts.Workspace

    public init() throws {
      let empty = try MutableTensor(zeros: Shape(0, 0))
      (hidden, normed, qkv, mixed, up, last, logits) = (empty, empty, empty, empty, empty, empty, empty)
      experts = try MixtureOfExperts.Workspace()
    }

    fileprivate func reserve(_ tokens: Int, _ configuration: DecoderConfiguration) throws(QuernError) {
      if let mixture = configuration.experts {
        try experts.reserve(tokens, hiddenSize: configuration.hiddenSize, mixture)
      }
      let innerWidth = configuration.intermediateSize * (configuration.isGated ? 2 : 1)
      let qkvWidth = configuration.queryWidth + 2 * configuration.keyWidth
      guard
        tokens > capacity || hidden.shape[1] != configuration.hiddenSize || up.shape[1] != innerWidth
          || qkv.shape[1] != qkvWidth || mixed.shape[1] != configuration.queryWidth
      else { return }
      hidden = try MutableTensor(zeros: Shape(tokens, configuration.hiddenSize))
      normed = try MutableTensor(zeros: Shape(tokens, configuration.hiddenSize))
      qkv = try MutableTensor(zeros: Shape(tokens, qkvWidth))
      mixed = try MutableTensor(zeros: Shape(tokens, configuration.queryWidth))
      up = try MutableTensor(zeros: Shape(tokens, innerWidth))
      capacity = tokens
    }

    fileprivate func reserve(rows: Int, _ configuration: DecoderConfiguration) throws(QuernError) {
      guard
        rows > logits.shape[0] || logits.shape[1] != configuration.vocabSize
          || last.shape[1] != configuration.hiddenSize
      else { return }
      last = try MutableTensor(zeros: Shape(rows, configuration.hiddenSize))
      logits = try MutableTensor(zeros: Shape(rows, configuration.vocabSize))
    }
  }

  /// - Parameters:
  ///   - path: a Hugging Face model directory, `config.json` and safetensors weights, quantised ones included; or a GGUF file.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices that are not quantised; as the files have them where it is `nil`.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(path: String, context: Context, precision: DataType? = nil) throws {
    if path.hasSuffix(".gguf") {
      try self.init(gguf: GGUF(path: path), context: context, precision: precision)
    } else {
      try self.init(
        DecoderConfiguration(HubConfig(directory: path)), source: SafetensorsDirectory(path: path), file: path,
        context: context, precision: precision)
    }
  }

  /// The same from a GGUF file that is open. Quantised matrices of experts are widened to `precision`, or to bf16.
  public convenience init(gguf: GGUF, context: Context, precision: DataType? = nil) throws {
    try self.init(
      DecoderConfiguration(gguf), source: GGUFExperts(gguf: gguf), file: gguf.path, context: context,
      precision: precision)
  }

  /// - Parameter source: weights under the names of `configuration`'s family.
  public init(
    _ configuration: DecoderConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType? = nil
  ) throws {
    let weights = try Weights(source, file: file, of: configuration)
    let loader = DecoderLoader(configuration: configuration, weights: weights, context: context, precision: precision)
    (self.configuration, self.context) = (configuration, context)
    let names = configuration.names
    let width = configuration.hiddenSize
    func table() throws -> PackedMatrix {
      try weights.packed(
        LinearLayer(parts: [.init(name: names.embedding, outputs: configuration.vocabSize)], inputs: width),
        as: precision, context: context)
    }
    head =
      try configuration.tieWordEmbeddings
      ? table() : weights.packed(configuration.head, as: precision, context: context)
    if configuration.tieWordEmbeddings {
      embedding = .packed(head)
    } else if try source.info(weights.full(configuration.probe)).quantization != nil {
      embedding = .packed(try table())
    } else {
      embedding = .table(
        try weights.tensor(configuration.probe, Shape(configuration.vocabSize, width), as: precision))
    }
    positions =
      names.positions.isEmpty
      ? nil : try weights.tensor("\(names.positions).weight", Shape(configuration.maxPositionEmbeddings, width))
    layers = try configuration.layers.indices.map(loader.layer)
    finalNorm = try loader.norm(names.finalNorm, width)
  }

  /// A cache for this model; see ``KeyValueCache``.
  public func makeCache(sequences: Int = 1, capacity: Int, dataType: DataType = .f32) throws -> KeyValueCache {
    try KeyValueCache(configuration, sequences: sequences, capacity: capacity, dataType: dataType)
  }

  /// Runs new tokens behind those that the cache holds, which it then holds too.
  ///
  /// - Parameters:
  ///   - ids: the new tokens of the cache's sequences, end to end.
  ///   - segments: how many each sequence has; 0 for one that stands still.
  ///   - proceed: asked before each layer; what it throws ends the pass, and the cache is as it was.
  /// - Returns: the last hidden state after the final norm, `[tokens, hidden_size]`, in the workspace: valid until its next use.
  /// - Throws: ``QuernError/cacheFull(sequence:held:new:capacity:)``, and
  ///   ``QuernError/invalidOperand(operation:reason:)`` for an id outside the vocabulary.
  public func forward(
    _ ids: [Int32], segments: Segments, cache: KeyValueCache, workspace: Workspace, proceed: () throws -> Void = {}
  ) throws -> MutableTensor {
    guard segments.count == cache.sequences, segments.total == ids.count else {
      throw QuernError.invalidShape(
        "\(ids.count) tokens in \(segments.count) segments of \(segments.total) for a cache of \(cache.sequences) sequences"
      )
    }
    var tokenPositions: [Int32] = []
    tokenPositions.reserveCapacity(ids.count)
    var counts: [Int] = []
    for (sequence, held) in cache.lengths.enumerated() {
      let new = segments[sequence].count
      guard Int(held) + new <= cache.capacity else {
        throw QuernError.cacheFull(sequence: sequence, held: Int(held), new: new, capacity: cache.capacity)
      }
      for offset in 0..<Int32(new) { tokenPositions.append(held + offset) }
      counts.append(Int(held) + new)
    }
    try workspace.reserve(ids.count, configuration)
    let rows = 0..<ids.count
    let step = DecoderStep(
      context: context, hidden: workspace.hidden.rows(rows), normed: workspace.normed.rows(rows),
      qkv: workspace.qkv.rows(rows), mixed: workspace.mixed.rows(rows), up: workspace.up.rows(rows),
      gate: configuration.isGated ? configuration.hiddenAct : nil, experts: workspace.experts, segments: segments,
      positions: tokenPositions, held: cache.lengths,
      layout: try AttentionLayout(queries: segments, cache: cache.segments, counts: counts), cache: cache)
    try embed(ids, tokenPositions, into: step.hidden)
    for (index, layer) in layers.enumerated() {
      try proceed()
      try layer(step, layer: index)
    }
    try finalNorm(step.hidden, context)
    cache.grow(segments)
    return step.hidden
  }

  /// The logits of the next token for chosen rows of ``forward(_:segments:cache:workspace:proceed:)``'s result, `[rows, vocab_size]`,
  /// in the workspace: valid until its next use.
  public func logits(_ hidden: MutableTensor, rows: [Int32], workspace: Workspace) throws -> MutableTensor {
    try workspace.reserve(rows: rows.count, configuration)
    let (last, logits) = (workspace.last.rows(0..<rows.count), workspace.logits.rows(0..<rows.count))
    try context.embedding(rows, table: hidden.view, into: last)
    try context.linear(last.view, weights: head, into: logits)
    if configuration.finalSoftCap > 0 {
      try context.scale(logits.view, by: 1 / configuration.finalSoftCap, into: logits)
      try context.activation(.tanh, logits.view, into: logits)
      try context.scale(logits.view, by: configuration.finalSoftCap, into: logits)
    }
    return logits
  }

  private func embed(_ ids: [Int32], _ positions: [Int32], into hidden: MutableTensor) throws(QuernError) {
    switch embedding {
    case .table(let table): try context.embedding(ids, table: table.view, into: hidden)
    case .packed(let rows): try context.embedding(ids, weights: rows, into: hidden)
    }
    if configuration.embeddingScale != 1 {
      try context.scale(hidden.view, by: configuration.embeddingScale, into: hidden)
    }
    if let table = self.positions {
      try context.embedding(positions, table: table.view, accumulate: true, into: hidden)
    }
  }
}

/// Makes the layers of a decoder from its weights.
private struct DecoderLoader {
  let configuration: DecoderConfiguration
  let weights: Weights
  let context: Context
  let precision: DataType?

  func layer(_ index: Int) throws -> DecoderLayer {
    let (names, place) = (configuration.names, configuration.layerName(index))
    let width = configuration.hiddenSize
    func postNorm(_ name: String) throws -> Norm? {
      configuration.hasPostNorms ? try norm("\(place).\(name)", width) : nil
    }
    func headNorm(_ name: String) throws -> Norm? {
      configuration.hasHeadNorms ? try norm("\(place).\(name)", configuration.headDim) : nil
    }
    let attention = DecoderAttention(
      queriesKeysValues: try linear(configuration.queriesKeysValues(index), hasBias: configuration.hasAttentionBias),
      output: try linear(configuration.attentionOutput(index), hasBias: configuration.hasAttentionOutputBias),
      queryNorm: try headNorm(names.queryNorm), keyNorm: try headNorm(names.keyNorm),
      heads: configuration.numAttentionHeads, keyHeads: configuration.numKeyValueHeads, headDim: configuration.headDim,
      scale: configuration.attentionScale, softCap: configuration.attentionSoftCap,
      window: configuration.layers[index].window, pairing: configuration.rotary?.pairing ?? .split)
    return DecoderLayer(
      attentionNorm: try norm("\(place).\(names.attentionNorm)", width),
      feedForwardNorm: try norm("\(place).\(names.feedForwardNorm)", width),
      postAttentionNorm: try postNorm(names.postAttentionNorm),
      postFeedForwardNorm: try postNorm(names.postFeedForwardNorm),
      attention: attention, feedForward: try feedForward(index))
  }

  private func feedForward(_ index: Int) throws -> DecoderLayer.FeedForward {
    if configuration.layers[index].isSparse, let experts = configuration.experts {
      func matrices(_ layer: (Int) -> LinearLayer) throws -> [PackedMatrix] {
        try (0..<experts.count).map { try weights.packed(layer($0), as: precision, context: context) }
      }
      return .sparse(
        MixtureOfExperts(
          router: try linear(configuration.router(index), hasBias: false),
          gateUp: try matrices { configuration.gateUp(index, expert: $0) },
          down: try matrices { configuration.down(index, expert: $0) }, perToken: experts.perToken,
          normalizes: experts.normalizes, activation: configuration.hiddenAct))
    }
    let hasBias = configuration.hasFeedForwardBias
    let activation = configuration.isGated ? Activation.identity : configuration.hiddenAct
    return .dense(
      gateUp: try linear(configuration.gateUp(index), hasBias: hasBias, activation),
      down: try linear(configuration.down(index), hasBias: hasBias))
  }

  func norm(_ name: String, _ width: Int) throws -> Norm {
    let (kind, stored) = (configuration.norm, try weights.tensor("\(name).weight", Shape(width)))
    let weight = kind.offset == 0 ? stored : try Tensor(stored.elements.map { $0 + kind.offset })
    let bias = kind.isCentred ? try weights.tensor("\(name).bias", Shape(width)) : nil
    return Norm(weight: weight, bias: bias, epsilon: kind.epsilon)
  }

  private func linear(_ layer: LinearLayer, hasBias: Bool, _ activation: Activation = .identity) throws -> Linear {
    try weights.linear(layer, as: precision, hasBias: hasBias, activation: activation, context: context)
  }
}

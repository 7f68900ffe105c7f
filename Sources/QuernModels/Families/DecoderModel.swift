import Quern

/// A decoder-only language model: Llama, Mistral, Mixtral, Qwen, Gemma, Phi-3, GPT-2, DeepSeek, gpt-oss; see ``DecoderConfiguration``.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``KeyValueCache`` and a ``Workspace`` of its own.
/// Hidden states are f32 whatever the storage of the matrices.
public final class DecoderModel: Sendable {
  public let configuration: DecoderConfiguration
  public let context: Context
  private let embedding: TokenEmbedding
  private let positions: Tensor?
  private let layers: [DecoderLayer]
  /// Columns of memory of the widest feed-forward part.
  private let innerWidth: Int
  private let finalNorm: Norm
  /// `nil` where it was not asked for.
  private let head: Linear?

  /// Memory of a pass. Grows to the most tokens it has met.
  public final class Workspace {
    fileprivate var capacity = 0
    fileprivate var hidden, normed, qkv, mixed, up: MutableTensor
    fileprivate var last, logits: MutableTensor
    /// The rows of the embedding's update.
    fileprivate var low: MutableTensor
    fileprivate let experts: MixtureOfExperts.Workspace
    fileprivate let latent: LatentAttention.Workspace
    fileprivate var positions, counts: [Int32]
    /// Of passes without a cache, which has its own.
    fileprivate var rotary = RotaryTables()

    public init() throws {
      let empty = try MutableTensor(zeros: Shape(0, 0))
      (hidden, normed, qkv, mixed, up, last, logits) = (empty, empty, empty, empty, empty, empty, empty)
      low = empty
      (experts, latent) = (try MixtureOfExperts.Workspace(), try LatentAttention.Workspace())
      (positions, counts) = ([], [])
    }

    fileprivate func reserve(
      _ tokens: Int, _ configuration: DecoderConfiguration, innerWidth: Int, rank: Int
    ) throws(QuernError) {
      if let mixture = configuration.experts {
        try experts.reserve(tokens, hiddenSize: configuration.hiddenSize, mixture)
      }
      if let sizes = configuration.latent {
        try latent.reserve(tokens, heads: configuration.numAttentionHeads, sizes)
      }
      let qkvWidth = configuration.attentionWidth
      guard
        tokens > capacity || hidden.shape[1] != configuration.hiddenSize || up.shape[1] != innerWidth
          || qkv.shape[1] != qkvWidth || mixed.shape[1] != configuration.mixedWidth || low.shape[1] != rank
      else { return }
      hidden = try MutableTensor(zeros: Shape(tokens, configuration.hiddenSize))
      normed = try MutableTensor(zeros: Shape(tokens, configuration.hiddenSize))
      qkv = try MutableTensor(zeros: Shape(tokens, qkvWidth))
      mixed = try MutableTensor(zeros: Shape(tokens, configuration.mixedWidth))
      up = try MutableTensor(zeros: Shape(tokens, innerWidth))
      low = try MutableTensor(zeros: Shape(tokens, rank))
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
  ///   - precision: the storage of matrices that are not quantised; as the files have them where it is `nil`, but FP8 as bf16.
  ///   - hasHead: whether logits are wanted; the files of a model that gives embeddings may have no head.
  ///   - adapters: run beside the layers that they change, all at once; for a GGUF file too, they name the layers of Hugging Face
  ///     directories.
  ///   - mergingAdapters: add them to the weights instead, which then cost nothing more and cannot be quantised.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(
    path: String, context: Context, precision: DataType? = nil, hasHead: Bool = true, adapters: [LoRAAdapter] = [],
    mergingAdapters: Bool = false
  ) throws {
    let (configuration, source) = try Self.open(path)
    try self.init(
      configuration, source: source, file: path, context: context, precision: precision, hasHead: hasHead,
      adapters: adapters, mergingAdapters: mergingAdapters)
  }

  /// The configuration and weights of a model directory or a GGUF file.
  static func open(_ path: String) throws(ModelError) -> (DecoderConfiguration, any TensorSource) {
    if path.hasSuffix(".gguf") {
      let gguf = try GGUF(path: path)
      return (try DecoderConfiguration(gguf), GGUFExperts(gguf: gguf))
    }
    let configuration = try DecoderConfiguration(HubConfig(directory: path))
    return (configuration, try configuration.source(directory: path))
  }

  /// The same from a GGUF file that is open.
  public convenience init(gguf: GGUF, context: Context, precision: DataType? = nil) throws {
    try self.init(
      DecoderConfiguration(gguf), source: GGUFExperts(gguf: gguf), file: gguf.path, context: context,
      precision: precision)
  }

  /// - Parameter source: weights under the names of `configuration`'s family.
  public init(
    _ configuration: DecoderConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType? = nil, hasHead: Bool = true, adapters: [LoRAAdapter] = [], mergingAdapters: Bool = false
  ) throws {
    let updates =
      adapters.isEmpty
      ? nil : AdapterSet(adapters, merging: mergingAdapters, modules: configuration.adapterModules)
    let weights = try Weights(source, file: file, of: configuration, adapters: updates)
    let loader = DecoderLoader(configuration: configuration, weights: weights, context: context, precision: precision)
    (self.configuration, self.context) = (configuration, context)
    let names = configuration.names
    let width = configuration.hiddenSize
    // Packed once where the head is tied to it.
    let shared =
      hasHead && configuration.tieWordEmbeddings
      ? try weights.packed(configuration.embeddings, as: precision, context: context) : nil
    head =
      try hasHead
      ? Linear(parts: [
        .init(
          matrix: weights.adapted(
            configuration.head, tiedTo: shared.map { (configuration.embeddings, $0) }, as: precision, context: context),
          epilogue: Epilogue())
      ]) : nil
    embedding = try weights.embedding(configuration.embeddings, shared: shared, as: precision, context: context)
    positions =
      names.positions.isEmpty
      ? nil : try weights.tensor("\(names.positions).weight", Shape(configuration.maxPositionEmbeddings, width))
    layers = try configuration.layers.indices.map(loader.layer)
    innerWidth = layers.reduce(0) { max($0, $1.innerWidth) }
    try updates?.requireAllUsed()
    finalNorm = try loader.norm(names.finalNorm, width)
  }

  /// A cache for this model; see ``KeyValueCache``.
  public func makeCache(sequences: Int = 1, capacity: Int, type: CacheType = .f32) throws -> KeyValueCache {
    try KeyValueCache(configuration, sequences: sequences, capacity: capacity, type: type)
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
    workspace.positions.removeAll(keepingCapacity: true)
    workspace.counts.removeAll(keepingCapacity: true)
    for (sequence, held) in cache.lengths.enumerated() {
      let new = segments[sequence].count
      guard Int(held) + new <= cache.capacity else {
        throw QuernError.cacheFull(sequence: sequence, held: Int(held), new: new, capacity: cache.capacity)
      }
      for offset in 0..<Int32(new) { workspace.positions.append(held + offset) }
      workspace.counts.append(held + Int32(new))
    }
    let layout = try AttentionLayout(queries: segments, cache: cache.segments, counts: workspace.counts)
    let hidden = try forward(
      ids, segments, positions: workspace.positions, layout, cache.rotary, cache, workspace, proceed: proceed)
    cache.grow(segments)
    return hidden
  }

  /// Runs whole sequences that nothing is to follow: no keys and values are kept.
  ///
  /// - Parameters:
  ///   - ids: the tokens of the sequences, end to end; each sees itself and those before it.
  ///   - segments: how many each sequence has, at most `max_position_embeddings`.
  /// - Returns: the last hidden state after the final norm, `[tokens, hidden_size]`, in the workspace: valid until its next use.
  /// - Throws: ``QuernError``, also for an id outside the vocabulary.
  public func forward(_ ids: [Int32], segments: Segments, workspace: Workspace) throws -> MutableTensor {
    guard segments.total == ids.count, segments.maximumLength <= configuration.maxPositionEmbeddings else {
      throw QuernError.invalidShape(
        "\(ids.count) tokens in segments of \(segments.total), the longest of \(segments.maximumLength); the model has "
          + "\(configuration.maxPositionEmbeddings) positions")
    }
    workspace.positions.removeAll(keepingCapacity: true)
    for sequence in 0..<segments.count { workspace.positions += 0..<Int32(segments[sequence].count) }
    try workspace.rotary.reserve(
      segments.maximumLength, global: configuration.rotary, local: configuration.localRotary)
    return try forward(
      ids, segments, positions: workspace.positions, AttentionLayout(segments), workspace.rotary, nil, workspace,
      proceed: {})
  }

  private func forward(
    _ ids: [Int32], _ segments: Segments, positions: [Int32], _ layout: AttentionLayout, _ rotary: RotaryTables,
    _ cache: KeyValueCache?, _ workspace: Workspace, proceed: () throws -> Void
  ) throws -> MutableTensor {
    try workspace.reserve(ids.count, configuration, innerWidth: innerWidth, rank: embedding.rank)
    let rows = 0..<ids.count
    let step = DecoderStep(
      context: context, hidden: workspace.hidden.rows(rows), normed: workspace.normed.rows(rows),
      qkv: workspace.qkv.rows(rows), mixed: workspace.mixed.rows(rows), up: workspace.up.rows(rows),
      experts: workspace.experts, latent: workspace.latent, segments: segments, positions: positions, layout: layout,
      rotary: rotary, cache: cache)
    try embed(ids, positions, low: workspace.low.rows(rows), into: step.hidden)
    for (index, layer) in layers.enumerated() {
      try proceed()
      try layer(step, layer: index)
    }
    try finalNorm(step.hidden, context)
    return step.hidden
  }

  /// The logits of the next token for chosen rows of ``forward(_:segments:cache:workspace:proceed:)``'s result, `[rows, vocab_size]`,
  /// in the workspace: valid until its next use.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` where the model was loaded without its head.
  public func logits(_ hidden: MutableTensor, rows: [Int32], workspace: Workspace) throws -> MutableTensor {
    guard let head else {
      throw QuernError.invalidOperand(operation: .linear, reason: "this model was loaded without its head")
    }
    try workspace.reserve(rows: rows.count, configuration)
    let (last, logits) = (workspace.last.rows(0..<rows.count), workspace.logits.rows(0..<rows.count))
    try context.embedding(rows, table: hidden.view, into: last)
    try head(last.view, into: logits, context)
    if configuration.finalSoftCap > 0 {
      try context.scale(logits.view, by: 1 / configuration.finalSoftCap, into: logits)
      try context.activation(.tanh, logits.view, into: logits)
      try context.scale(logits.view, by: configuration.finalSoftCap, into: logits)
    }
    return logits
  }

  private func embed(
    _ ids: [Int32], _ positions: [Int32], low: MutableTensor, into hidden: MutableTensor
  ) throws(QuernError) {
    try embedding(ids, low: low, into: hidden, context)
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
    return DecoderLayer(
      attentionNorm: try norm("\(place).\(names.attentionNorm)", width),
      feedForwardNorm: try norm("\(place).\(names.feedForwardNorm)", width),
      postAttentionNorm: try postNorm(names.postAttentionNorm),
      postFeedForwardNorm: try postNorm(names.postFeedForwardNorm),
      attention: try configuration.latent.map { .latent(try latent(index, $0)) } ?? .heads(attention(index)),
      part: try part(index))
  }

  private func attention(_ index: Int) throws -> DecoderAttention {
    let (names, place) = (configuration.names, configuration.layerName(index))
    func headNorm(_ name: String) throws -> Norm? {
      configuration.hasHeadNorms ? try norm("\(place).\(name)", configuration.headDim) : nil
    }
    return DecoderAttention(
      queriesKeysValues: try linear(configuration.queriesKeysValues(index), hasBias: configuration.hasAttentionBias),
      output: try linear(configuration.attentionOutput(index), hasBias: configuration.hasAttentionOutputBias),
      queryNorm: try headNorm(names.queryNorm), keyNorm: try headNorm(names.keyNorm),
      heads: configuration.numAttentionHeads, keyHeads: configuration.numKeyValueHeads, headDim: configuration.headDim,
      scale: configuration.attentionScale, softCap: configuration.attentionSoftCap,
      window: configuration.layers[index].window,
      sinks: configuration.hasSinks
        ? try weights.tensor("\(place).\(names.sinks)", Shape(configuration.numAttentionHeads)) : nil,
      pairing: configuration.rotary?.pairing ?? .split)
  }

  private func latent(_ index: Int, _ sizes: DecoderConfiguration.Latent) throws -> LatentAttention {
    let (names, place) = (configuration.names, configuration.layerName(index))
    let heads = configuration.numAttentionHeads
    let products = names.latentHeads.map { "\(place).\($0).weight" }
    let type = try precision ?? weights.stored(products[0])
    let matrices = try LatentAttention.matrices(
      latentHeads(products, heads, sizes, as: type), sizes, as: type, context: context)
    return LatentAttention(
      down: try linear(configuration.latentDown(index), hasBias: configuration.hasAttentionBias),
      queryNorm: try sizes.qLoraRank.map { try norm("\(place).\(names.latentQueries[1])", $0) },
      queries: try configuration.latentQueries(index).map { try linear($0, hasBias: false) },
      latentNorm: try norm("\(place).\(names.latent[1])", sizes.kvLoraRank),
      absorbed: matrices.absorbed, values: matrices.values,
      output: try linear(configuration.attentionOutput(index), hasBias: configuration.hasAttentionOutputBias),
      sizes: sizes, scale: configuration.attentionScale, pairing: configuration.rotary?.pairing ?? .interleaved)
  }

  /// Of each head, what makes keys and values of a latent vector: `[latent, key]` and `[value, latent]`.
  private func latentHeads(
    _ products: [String], _ heads: Int, _ sizes: DecoderConfiguration.Latent, as type: DataType
  ) throws -> [(keys: TensorView, values: TensorView)] {
    let (plain, latent, value) = (sizes.qkNopeHeadDim, sizes.kvLoraRank, sizes.vHeadDim)
    if products.count == 1 {
      let rows = try weights.widened(products[0], Shape(heads * (plain + value), latent), as: type).view
      return (0..<heads).map { head in
        let first = head * (plain + value)
        return (rows.rows(first..<first + plain).transposed(), rows.rows(first + plain..<first + plain + value))
      }
    }
    let keys = try weights.widened(products[0], Shape(heads, latent, plain), as: type).view
      .reshaped(Shape(heads * latent, plain))
    let values = try weights.widened(products[1], Shape(heads, value, latent), as: type).view
      .reshaped(Shape(heads * value, latent))
    return (0..<heads).map { head in
      (keys.rows(head * latent..<(head + 1) * latent), values.rows(head * value..<(head + 1) * value))
    }
  }

  private func part(_ index: Int) throws -> DecoderLayer.Part {
    if configuration.layers[index].isSparse, let experts = configuration.experts {
      func matrices(_ layer: (Int) -> LinearLayer) throws -> [PackedMatrix] {
        try (0..<experts.count).map { try weights.packed(layer($0), as: precision, context: context) }
      }
      let (correction, place) = (configuration.names.correction, configuration.layerName(index))
      func bias(_ names: [String], _ outputs: Int) throws -> Tensor? {
        guard experts.hasBias else { return nil }
        return try weights.columns(
          names.map { "\(place).\(configuration.names.experts).\($0)_bias" }, Shape(experts.count, outputs))
      }
      return .sparse(
        MixtureOfExperts(
          router: try linear(configuration.router(index), hasBias: experts.hasBias),
          correction: correction.isEmpty
            ? nil : try weights.tensor("\(place).\(correction)", Shape(experts.count)),
          gateUp: try matrices { configuration.gateUp(index, expert: $0) },
          down: try matrices { configuration.down(index, expert: $0) },
          gateUpBias: try bias(configuration.names.expertGateUp, 2 * experts.intermediateSize),
          downBias: try bias([configuration.names.expertDown], configuration.hiddenSize),
          gate: Gate(activation: configuration.hiddenAct, limit: configuration.gateLimit),
          shared: try configuration.sharedExperts(index).map { try feedForward($0.gateUp, $0.down) }, options: experts))
    }
    return .dense(try feedForward(configuration.gateUp(index), configuration.down(index)))
  }

  private func feedForward(_ gateUp: LinearLayer, _ down: LinearLayer) throws -> FeedForward {
    try weights.feedForward(
      gateUp: gateUp, down: down, isGated: configuration.isGated, activation: configuration.hiddenAct, as: precision,
      hasBias: configuration.hasFeedForwardBias, context: context)
  }

  func norm(_ name: String, _ width: Int) throws -> Norm {
    let (kind, stored) = (configuration.norm, try weights.tensor("\(name).weight", Shape(width)))
    let weight = kind.offset == 0 ? stored : try Tensor(stored.elements.map { $0 + kind.offset })
    let bias = kind.isCentred ? try weights.tensor("\(name).bias", Shape(width)) : nil
    return Norm(isCentred: kind.isCentred, weight: weight, bias: bias, epsilon: kind.epsilon)
  }

  private func linear(_ layer: LinearLayer, hasBias: Bool) throws -> Linear {
    try weights.linear(layer, as: precision, hasBias: hasBias, context: context)
  }
}

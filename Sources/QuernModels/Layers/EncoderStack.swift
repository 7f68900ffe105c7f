import Quern

/// The layers of an encoder, or of a decoder that attends to one: attention among the tokens of each sequence, then, in such a
/// decoder, to an encoder's output, then a feed-forward part, each with a norm and added to the residual; see
/// ``EncoderStackConfiguration``.
struct EncoderStack: Sendable {
  let configuration: EncoderStackConfiguration
  private let layers: [Layer]
  /// Columns of memory of the widest feed-forward part.
  fileprivate let innerWidth: Int
  private let finalNorm: Norm?
  private let relativeBias: RelativeBias?

  private struct Layer: Sendable {
    /// Queries, keys and values in one product: x is read once.
    let queriesKeysValues, output: Linear
    let feedForward: FeedForward
    let attentionNorm: Norm?
    let feedForwardNorm: Norm
    let reach: Int?
    let cross: CrossAttention?
  }

  private struct CrossAttention: Sendable {
    let norm: Norm
    let queries, keysValues, output: Linear
  }

  init(
    _ configuration: EncoderStackConfiguration, weights: Weights, precision: DataType, context: Context
  ) throws {
    let (names, kind) = (configuration.names, configuration.norm)
    func norm(_ name: String) throws -> Norm { try weights.norm(name, configuration.hiddenSize, kind) }
    func linear(_ layer: LinearLayer, hasBias: Bool) throws -> Linear {
      try weights.linear(layer, as: precision, hasBias: hasBias, context: context)
    }
    self.configuration = configuration
    layers = try configuration.layers.enumerated().map { index, layer in
      let place = configuration.layerName(index)
      return Layer(
        queriesKeysValues: try linear(
          configuration.queriesKeysValues(index), hasBias: configuration.hasAttentionBias),
        output: try linear(configuration.attentionOutput(index), hasBias: configuration.hasAttentionOutputBias),
        feedForward: try weights.feedForward(
          gateUp: configuration.gateUp(index), down: configuration.down(index), isGated: configuration.isGated,
          activation: configuration.hiddenAct, as: precision, hasBias: configuration.hasFeedForwardBias,
          context: context),
        attentionNorm: layer.hasAttentionNorm ? try norm("\(place).\(names.attentionNorm)") : nil,
        feedForwardNorm: try norm("\(place).\(names.feedForwardNorm)"), reach: layer.reach,
        cross: try names.cross.map { cross in
          CrossAttention(
            norm: try norm("\(place).\(cross.norm)"),
            queries: try linear(
              configuration.crossQueries(index, cross), hasBias: configuration.hasAttentionBias),
            keysValues: try linear(
              configuration.crossKeysValues(index, cross), hasBias: configuration.hasAttentionBias),
            output: try linear(
              configuration.crossOutput(index, cross), hasBias: configuration.hasAttentionOutputBias))
        })
    }
    innerWidth = layers.reduce(0) { max($0, $1.feedForward.width) }
    relativeBias = try configuration.relativePositions.map {
      let shape = Shape($0.buckets, configuration.numAttentionHeads)
      return RelativeBias(
        $0, heads: configuration.numAttentionHeads,
        table: try weights.tensor("\(names.relativeBias).weight", shape))
    }
    finalNorm = configuration.hasFinalNorm ? try norm(names.finalNorm) : nil
  }

  /// Runs some of the layers on `workspace.hidden`, which becomes their result.
  func callAsFunction(
    _ workspace: EncoderWorkspace, segments: Segments, positions: [Int32], layers range: Range<Int>,
    finalNorm isFinal: Bool, _ context: Context
  ) throws(QuernError) {
    let bias = try relativeBias.map { (bias) throws(QuernError) in
      try workspace.mask(bias, first: 0, queries: segments.maximumLength, keys: segments.maximumLength)
    }
    let pass = Pass(
      workspace, segments: segments, positions: positions, layout: AttentionLayout(segments), bias: bias,
      context: context)
    for index in range { try run(layers[index], index, pass) }
    if isFinal { try finalNorm?(pass.hidden, context) }
  }

  /// Runs a decoder's new tokens on `workspace.hidden`, behind the `first` ones that the cache holds of each sequence that has any.
  func callAsFunction(
    _ workspace: EncoderWorkspace, segments: Segments, first: Int, cache: KeyValueCache, inputs: CrossAttentionInputs,
    _ context: Context
  ) throws(QuernError) {
    let counts = zip(cache.lengths, 0..<segments.count).map { $0 + Int32(segments[$1].count) }
    let layout = try AttentionLayout(queries: segments, cache: cache.segments, counts: counts)
    // Sequences that stand still see nothing, whatever they hold.
    let bias = try relativeBias.map { (bias) throws(QuernError) in
      try workspace.mask(bias, first: first, queries: segments.maximumLength, keys: layout.longestKeys)
    }
    var pass = Pass(workspace, segments: segments, positions: [], layout: layout, bias: bias, context: context)
    pass.decoding = (cache, inputs, AttentionLayout(queries: segments, keys: inputs.segments))
    for (index, layer) in layers.enumerated() { try run(layer, index, pass) }
    try finalNorm?(pass.hidden, context)
  }

  private func run(_ layer: Layer, _ index: Int, _ pass: Pass) throws(QuernError) {
    if configuration.isPreNorm { try preNorm(layer, index, pass) } else { try postNorm(layer, index, pass) }
  }

  /// What every layer of a decoder attends to, from an encoder's output: computed once for all of its steps.
  func crossAttentionInputs(
    _ encoded: TensorView, segments: Segments, _ context: Context
  ) throws(QuernError) -> CrossAttentionInputs {
    var keysValues: [MutableTensor] = []
    for layer in layers {
      guard let cross = layer.cross else { continue }
      let both = try MutableTensor(
        zeros: Shape(checking: [encoded.shape[0], 2 * configuration.attentionWidth]), dataType: encoded.dataType)
      try cross.keysValues(encoded, into: both, context)
      keysValues.append(both)
    }
    return CrossAttentionInputs(keysValues: keysValues, segments: segments)
  }

  /// What the layers of one pass share: the rows of its tokens.
  private struct Pass {
    let hidden, sum, qkv, mixed, up: MutableTensor
    let segments: Segments
    let layout: AttentionLayout
    let positions: [Int32]
    let rotary: RotaryTables
    /// Added to the scores.
    let bias: TensorView?
    let context: Context
    /// Of a decoder: what it keeps, and what it attends to beside it.
    var decoding: (cache: KeyValueCache, inputs: CrossAttentionInputs, layout: AttentionLayout)?

    init(
      _ workspace: EncoderWorkspace, segments: Segments, positions: [Int32], layout: AttentionLayout, bias: TensorView?,
      context: Context
    ) {
      let rows = 0..<segments.total
      (hidden, sum) = (workspace.hidden.rows(rows), workspace.sum.rows(rows))
      (qkv, mixed) = (workspace.qkv.rows(rows), workspace.mixed.rows(rows))
      (up, rotary) = (workspace.up.rows(rows), workspace.rotary)
      (self.segments, self.positions, self.layout) = (segments, positions, layout)
      (self.bias, self.context) = (bias, context)
    }
  }

  /// `hidden = norm(hidden + part(hidden))`, for both parts.
  private func postNorm(_ layer: Layer, _ index: Int, _ pass: Pass) throws(QuernError) {
    let (hidden, sum, context) = (pass.hidden, pass.sum, pass.context)
    try attend(hidden.view, layer, index, pass)
    try layer.output(pass.mixed.view, residual: hidden.view, into: sum, context)
    try layer.attentionNorm?(sum, context)
    let inner = try layer.feedForward.inner(sum.view, in: pass.up, context)
    try layer.feedForward.down(inner.view, residual: sum.view, into: hidden, context)
    try layer.feedForwardNorm(hidden, context)
  }

  /// `hidden += part(norm(hidden))`, for each part.
  private func preNorm(_ layer: Layer, _ index: Int, _ pass: Pass) throws(QuernError) {
    let (hidden, normed, context) = (pass.hidden, pass.sum, pass.context)
    if let norm = layer.attentionNorm { try norm(hidden.view, into: normed, context) }
    try attend(layer.attentionNorm == nil ? hidden.view : normed.view, layer, index, pass)
    try layer.output(pass.mixed.view, residual: hidden.view, into: hidden, context)
    if let cross = layer.cross { try attendToInputs(cross, index, pass) }
    try layer.feedForwardNorm(hidden.view, into: normed, context)
    let inner = try layer.feedForward.inner(normed.view, in: pass.up, context)
    try layer.feedForward.down(inner.view, residual: hidden.view, into: hidden, context)
  }

  /// The heads' values, mixed, to `pass.mixed`.
  private func attend(_ x: TensorView, _ layer: Layer, _ index: Int, _ pass: Pass) throws(QuernError) {
    let (width, heads, context) = (configuration.attentionWidth, configuration.numAttentionHeads, pass.context)
    try layer.queriesKeysValues(x, into: pass.qkv, context)
    if let table = pass.rotary[isLocal: layer.reach != nil] {
      let turned = pass.qkv.columns(0..<2 * width).heads(2 * heads)
      try context.rope(turned.view, table: table, positions: pass.positions, into: turned)
    }
    let qkv = pass.qkv.view.heads(3 * heads)
    func part(_ index: Int) -> TensorView { qkv.slice(axis: 1, index * heads..<(index + 1) * heads) }
    var seen = KeysValues.tensors(keys: part(1), values: part(2))
    if let cache = pass.decoding?.cache {
      seen = try cache.append(part(1), part(2), pass.segments, layer: index, context)
    }
    try context.attention(
      queries: part(0), seen, layout: pass.layout,
      mask: AttentionMask(
        isCausal: configuration.isCausal, before: layer.reach, after: layer.reach, additive: pass.bias),
      scale: configuration.attentionScale, into: pass.mixed.heads(heads))
  }

  /// `hidden += output(attention(norm(hidden), inputs))`.
  private func attendToInputs(_ cross: CrossAttention, _ index: Int, _ pass: Pass) throws(QuernError) {
    guard let (_, inputs, layout) = pass.decoding else { return }
    let (width, heads, context) = (configuration.attentionWidth, configuration.numAttentionHeads, pass.context)
    let queries = pass.qkv.columns(0..<width)
    let keysValues = inputs.keysValues[index].view
    try cross.norm(pass.hidden.view, into: pass.sum, context)
    try cross.queries(pass.sum.view, into: queries, context)
    try context.attention(
      queries: queries.view.heads(heads), keys: keysValues.columns(0..<width).heads(heads),
      values: keysValues.columns(width..<2 * width).heads(heads), layout: layout,
      scale: configuration.attentionScale, into: pass.mixed.heads(heads))
    try cross.output(pass.mixed.view, residual: pass.hidden.view, into: pass.hidden, context)
  }
}

/// The keys and values that each layer of a decoder makes of an encoder's output: beside each other, `[tokens, 2 * width]`.
struct CrossAttentionInputs {
  let keysValues: [MutableTensor]
  /// The rows of each sequence.
  let segments: Segments
}

/// Memory of an encoder's pass. Grows to the largest batch it has met; a steady state allocates nothing.
public final class EncoderWorkspace {
  private var capacity = 0
  private(set) var hidden, sum, qkv, mixed, up: MutableTensor
  private(set) var rotary = RotaryTables()
  private var bias: RelativeBias.Workspace
  /// The position of each token of the pass.
  var positions: [Int32] = []

  public init() throws {
    let empty = try MutableTensor(zeros: Shape(0, 0))
    (hidden, sum, qkv, mixed, up) = (empty, empty, empty, empty, empty)
    bias = try RelativeBias.Workspace()
  }

  /// See ``RelativeBias/Workspace/mask(_:first:queries:keys:)``.
  fileprivate func mask(
    _ relative: RelativeBias, first: Int, queries: Int, keys: Int
  ) throws(QuernError) -> TensorView {
    try bias.mask(relative, first: first, queries: queries, keys: keys)
  }

  /// Makes room for this many tokens of these layers, and for rotary positions below `positions`.
  func reserve(
    tokens: Int, positions: Int, _ layers: EncoderStack, _ precision: DataType
  ) throws(QuernError) {
    let stack = layers.configuration
    try rotary.reserve(positions, global: stack.rotary, local: stack.localRotary)
    guard
      tokens > capacity || hidden.shape[1] != stack.hiddenSize || up.shape[1] != layers.innerWidth
        || mixed.shape[1] != stack.attentionWidth || hidden.dataType != precision
    else { return }
    func rows(_ width: Int) throws(QuernError) -> MutableTensor {
      try MutableTensor(zeros: Shape(checking: [tokens, width]), dataType: precision)
    }
    (hidden, sum) = (try rows(stack.hiddenSize), try rows(stack.hiddenSize))
    (qkv, mixed) = (try rows(3 * stack.attentionWidth), try rows(stack.attentionWidth))
    up = try rows(layers.innerWidth)
    capacity = tokens
  }
}

import Quern

/// The layers of an encoder: attention among the tokens of each sequence, then a feed-forward part, each with a norm and added to
/// the residual; see ``EncoderStackConfiguration``.
struct EncoderStack: Sendable {
  let configuration: EncoderStackConfiguration
  private let layers: [Layer]
  private let finalNorm: Norm?

  private struct Layer: Sendable {
    /// Queries, keys and values in one product: x is read once.
    let queriesKeysValues, output, gateUp, down: Linear
    let attentionNorm: Norm?
    let feedForwardNorm: Norm
    let reach: Int?
  }

  init(
    _ configuration: EncoderStackConfiguration, weights: Weights, precision: DataType, context: Context
  ) throws {
    let (names, kind) = (configuration.names, configuration.norm)
    func norm(_ name: String) throws -> Norm { try weights.norm(name, configuration.hiddenSize, kind) }
    func linear(
      _ layer: LinearLayer, hasBias: Bool, _ activation: Activation = .identity
    ) throws -> Linear {
      try weights.linear(layer, as: precision, hasBias: hasBias, activation: activation, context: context)
    }
    self.configuration = configuration
    layers = try configuration.layers.enumerated().map { index, layer in
      let place = configuration.layerName(index)
      return Layer(
        queriesKeysValues: try linear(
          configuration.queriesKeysValues(index), hasBias: configuration.hasAttentionBias),
        output: try linear(configuration.attentionOutput(index), hasBias: configuration.hasAttentionOutputBias),
        gateUp: try linear(
          configuration.gateUp(index), hasBias: configuration.hasFeedForwardBias,
          configuration.isGated ? .identity : configuration.hiddenAct),
        down: try linear(configuration.down(index), hasBias: configuration.hasFeedForwardBias),
        attentionNorm: layer.hasAttentionNorm ? try norm("\(place).\(names.attentionNorm)") : nil,
        feedForwardNorm: try norm("\(place).\(names.feedForwardNorm)"), reach: layer.reach)
    }
    finalNorm = configuration.hasFinalNorm ? try norm(names.finalNorm) : nil
  }

  /// Runs the first `count` layers on `workspace.hidden`, which becomes their result.
  func callAsFunction(
    _ workspace: EncoderWorkspace, segments: Segments, positions: [Int32], layers count: Int, finalNorm isFinal: Bool,
    _ context: Context
  ) throws(QuernError) {
    let rows = 0..<segments.total
    let pass = Pass(
      hidden: workspace.hidden.rows(rows), sum: workspace.sum.rows(rows), qkv: workspace.qkv.rows(rows),
      mixed: workspace.mixed.rows(rows), up: workspace.up.rows(rows), layout: AttentionLayout(segments),
      positions: positions, rotary: workspace.rotary, context: context)
    for layer in layers.prefix(count) {
      if configuration.isPreNorm { try preNorm(layer, pass) } else { try postNorm(layer, pass) }
    }
    if isFinal { try finalNorm?(pass.hidden, context) }
  }

  /// What the layers of one pass share: the rows of its tokens.
  private struct Pass {
    let hidden, sum, qkv, mixed, up: MutableTensor
    let layout: AttentionLayout
    let positions: [Int32]
    let rotary: RotaryTables
    let context: Context
  }

  /// `hidden = norm(hidden + part(hidden))`, for both parts.
  private func postNorm(_ layer: Layer, _ pass: Pass) throws(QuernError) {
    let (hidden, sum, context) = (pass.hidden, pass.sum, pass.context)
    try attend(hidden.view, layer, pass)
    try layer.output(pass.mixed.view, residual: hidden.view, into: sum, context)
    try layer.attentionNorm?(sum, context)
    try layer.down(widen(sum.view, layer, pass).view, residual: sum.view, into: hidden, context)
    try layer.feedForwardNorm(hidden, context)
  }

  /// `hidden += part(norm(hidden))`, for both parts.
  private func preNorm(_ layer: Layer, _ pass: Pass) throws(QuernError) {
    let (hidden, normed, context) = (pass.hidden, pass.sum, pass.context)
    if let norm = layer.attentionNorm { try norm(hidden.view, into: normed, context) }
    try attend(layer.attentionNorm == nil ? hidden.view : normed.view, layer, pass)
    try layer.output(pass.mixed.view, residual: hidden.view, into: hidden, context)
    try layer.feedForwardNorm(hidden.view, into: normed, context)
    try layer.down(widen(normed.view, layer, pass).view, residual: hidden.view, into: hidden, context)
  }

  /// The heads' values, mixed, to `pass.mixed`.
  private func attend(_ x: TensorView, _ layer: Layer, _ pass: Pass) throws(QuernError) {
    let (width, heads, context) = (configuration.attentionWidth, configuration.numAttentionHeads, pass.context)
    try layer.queriesKeysValues(x, into: pass.qkv, context)
    if let table = pass.rotary[isLocal: layer.reach != nil] {
      let turned = pass.qkv.columns(0..<2 * width).heads(2 * heads)
      try context.rope(turned.view, table: table, positions: pass.positions, into: turned)
    }
    let qkv = pass.qkv.view.heads(3 * heads)
    func part(_ index: Int) -> TensorView { qkv.slice(axis: 1, index * heads..<(index + 1) * heads) }
    try context.attention(
      queries: part(0), keys: part(1), values: part(2), layout: pass.layout,
      mask: AttentionMask(isCausal: configuration.isCausal, before: layer.reach, after: layer.reach),
      scale: configuration.attentionScale, into: pass.mixed.heads(heads))
  }

  /// The inner state of the feed-forward part.
  private func widen(_ x: TensorView, _ layer: Layer, _ pass: Pass) throws(QuernError) -> MutableTensor {
    try layer.gateUp(x, into: pass.up, pass.context)
    guard configuration.isGated else { return pass.up }
    let width = configuration.intermediateSize
    let inner = pass.up.columns(0..<width)
    try pass.context.gated(
      configuration.hiddenAct, gate: inner.view, value: pass.up.columns(width..<2 * width).view, into: inner)
    return inner
  }
}

/// Memory of an encoder's pass. Grows to the largest batch it has met; a steady state allocates nothing.
public final class EncoderWorkspace {
  private var capacity = 0
  private(set) var hidden, sum, qkv, mixed, up: MutableTensor
  private(set) var rotary = RotaryTables()
  /// The position of each token of the pass.
  var positions: [Int32] = []

  public init() throws {
    let empty = try MutableTensor(zeros: Shape(0, 0))
    (hidden, sum, qkv, mixed, up) = (empty, empty, empty, empty, empty)
  }

  /// Makes room for this many tokens of these layers, and for rotary positions below `positions`.
  func reserve(
    tokens: Int, positions: Int, _ stack: EncoderStackConfiguration, _ precision: DataType
  ) throws(QuernError) {
    try rotary.reserve(positions, global: stack.rotary, local: stack.localRotary)
    guard
      tokens > capacity || hidden.shape[1] != stack.hiddenSize || up.shape[1] != stack.gateUpWidth
        || mixed.shape[1] != stack.attentionWidth || hidden.dataType != precision
    else { return }
    func rows(_ width: Int) throws(QuernError) -> MutableTensor {
      try MutableTensor(zeros: Shape(checking: [tokens, width]), dataType: precision)
    }
    (hidden, sum) = (try rows(stack.hiddenSize), try rows(stack.hiddenSize))
    (qkv, mixed) = (try rows(3 * stack.attentionWidth), try rows(stack.attentionWidth))
    up = try rows(stack.gateUpWidth)
    capacity = tokens
  }
}

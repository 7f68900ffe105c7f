import Quern

/// One block of a decoder: attention over a cache, then a feed-forward part, each with norms and added to the residual.
struct DecoderLayer: Sendable {
  let attentionNorm, feedForwardNorm: Norm
  let postAttentionNorm, postFeedForwardNorm: Norm?
  let attention: Attention
  let part: Part

  enum Attention: Sendable {
    case heads(DecoderAttention)
    case latent(LatentAttention)
  }

  enum Part: Sendable {
    case dense(FeedForward)
    case sparse(MixtureOfExperts)
  }

  /// Columns of memory of a feed-forward part that every token takes.
  var innerWidth: Int {
    switch part {
    case .dense(let feedForward): feedForward.width
    case .sparse(let experts): experts.shared?.width ?? 0
    }
  }

  /// `hidden += part(norm(hidden))`, for both parts.
  func callAsFunction(_ step: DecoderStep, layer: Int) throws(QuernError) {
    let (hidden, normed, context) = (step.hidden, step.normed, step.context)
    try attentionNorm(hidden.view, into: normed, context)
    let output: Linear
    switch attention {
    case .heads(let attention):
      try attention(step, layer: layer)
      output = attention.output
    case .latent(let attention):
      try attention(step, layer: layer)
      output = attention.output
    }
    try add(output, step.mixed.view, postAttentionNorm, step)

    try feedForwardNorm(hidden.view, into: normed, context)
    switch part {
    case .dense(let feedForward):
      let inner = try feedForward.inner(normed.view, in: step.up, context)
      try add(feedForward.down, inner.view, postFeedForwardNorm, step)
    case .sparse(let experts):
      try experts(normed.view, addingTo: hidden, step.experts, up: step.up, context)
    }
  }

  /// `hidden += norm(linear(x))`.
  private func add(_ linear: Linear, _ x: TensorView, _ norm: Norm?, _ step: DecoderStep) throws(QuernError) {
    guard let norm else { return try linear(x, residual: step.hidden.view, into: step.hidden, step.context) }
    try linear(x, into: step.normed, step.context)
    try norm(step.normed, step.context)
    try step.context.add(step.hidden.view, step.normed.view, into: step.hidden)
  }
}

/// What the layers of one pass share: the rows of its tokens, and where their keys go.
struct DecoderStep {
  let context: Context
  /// `[tokens, width]` each, f32.
  let hidden, normed, qkv, mixed, up: MutableTensor
  let experts: MixtureOfExperts.Workspace
  let latent: LatentAttention.Workspace
  let segments: Segments
  /// The position of each token.
  let positions: [Int32]
  /// The layout of attention once the cache holds this pass.
  let layout: AttentionLayout
  let rotary: RotaryTables
  /// `nil` where the tokens of each sequence see each other alone.
  let cache: KeyValueCache?
}

/// Causal attention of new tokens over everything a cache holds, or over each other (Vaswani et al., arXiv 1706.03762; grouped queries:
/// Ainslie et al., arXiv 2305.13245).
struct DecoderAttention: Sendable {
  let queriesKeysValues, output: Linear
  let queryNorm, keyNorm: Norm?
  let heads, keyHeads, headDim: Int
  let scale, softCap: Float
  let window: Int?
  let sinks: Tensor?
  let pairing: RotaryPairing

  /// The heads' values, mixed, to `step.mixed`.
  func callAsFunction(_ step: DecoderStep, layer: Int) throws(QuernError) {
    let context = step.context
    try queriesKeysValues(step.normed.view, into: step.qkv, context)
    let (width, keyWidth) = (heads * headDim, keyHeads * headDim)
    let queries = step.qkv.columns(0..<width).heads(heads)
    let keys = step.qkv.columns(width..<width + keyWidth).heads(keyHeads)
    let values = step.qkv.columns(width + keyWidth..<width + 2 * keyWidth).heads(keyHeads)
    try queryNorm?.ofHeads(queries, context)
    try keyNorm?.ofHeads(keys, context)
    if let table = step.rotary[isLocal: window != nil] {
      try context.rope(queries.view, table: table, positions: step.positions, pairing: pairing, into: queries)
      try context.rope(keys.view, table: table, positions: step.positions, pairing: pairing, into: keys)
    }
    var seen = KeysValues.tensors(keys: keys.view, values: values.view)
    if let cache = step.cache { seen = try cache.append(keys.view, values.view, step.segments, layer: layer, context) }
    try context.attention(
      queries: queries.view, seen, layout: step.layout,
      mask: AttentionMask(isCausal: true, before: window.map { $0 - 1 }, sinks: sinks), scale: scale, softCap: softCap,
      into: step.mixed.heads(heads))
  }
}

extension Norm {
  /// Normalises every head of x `[tokens, heads, size]` by itself: along whichever axis takes fewer calls.
  fileprivate func ofHeads(_ x: MutableTensor, _ context: Context) throws(QuernError) {
    let axis = x.shape[0] <= x.shape[1] ? 0 : 1
    for index in 0..<x.shape[axis] { try self(x.slice(axis: axis, index..<index + 1), context) }
  }
}

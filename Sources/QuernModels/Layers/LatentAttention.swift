import Quern

/// Causal attention whose cache holds one small vector a token, from which every head's keys and values are products (multi-head latent
/// attention: DeepSeek-V2, arXiv 2405.04434, section 2.1).
///
/// The products are applied to the queries and the mixed values instead, so all heads read the same rows, and nothing is expanded.
struct LatentAttention: Sendable {
  /// What queries are made of, then the latent vector and the rotary key that all heads share.
  let down: Linear
  /// Of the vector that queries are made of; `nil` where `down` gives queries themselves.
  let queryNorm: Norm?
  let queries: Linear?
  let latentNorm: Norm
  /// Of each head: from a query `[plain, rotary]` to one for cache rows, `[latent, rotary]`, and from a mix of rows to the head's values.
  let absorbed, values: [PackedMatrix]
  let output: Linear
  let sizes: DecoderConfiguration.Latent
  let scale: Float
  let pairing: RotaryPairing

  /// Memory of a pass, which grows to the most tokens it has met.
  final class Workspace {
    fileprivate var queries, absorbed, mixed: MutableTensor

    init() throws {
      let empty = try MutableTensor(zeros: Shape(0, 0))
      (queries, absorbed, mixed) = (empty, empty, empty)
    }

    func reserve(_ tokens: Int, heads: Int, _ sizes: DecoderConfiguration.Latent) throws(QuernError) {
      let (query, row) = (heads * sizes.queryHeadDim, heads * sizes.cacheWidth)
      guard tokens > queries.shape[0] || queries.shape[1] != query || absorbed.shape[1] != row else { return }
      queries = try MutableTensor(zeros: Shape(tokens, query))
      absorbed = try MutableTensor(zeros: Shape(tokens, row))
      mixed = try MutableTensor(zeros: Shape(tokens, row))
    }
  }

  /// The heads' values, mixed, to `step.mixed`.
  func callAsFunction(_ step: DecoderStep, layer: Int) throws(QuernError) {
    let (context, heads) = (step.context, absorbed.count)
    let rows = 0..<step.normed.shape[0]
    try down(step.normed.view, into: step.qkv, context)
    let first = step.qkv.shape[1] - sizes.cacheWidth
    var query = step.qkv.columns(0..<first)
    if let queries {
      try queryNorm?(query, context)
      let wide = step.latent.queries.rows(rows)
      try queries(query.view, into: wide, context)
      query = wide
    }
    let row = step.qkv.columns(first..<first + sizes.cacheWidth)
    try latentNorm(row.columns(0..<sizes.kvLoraRank), context)
    if let table = step.rotary[isLocal: false] {
      let turned = query.heads(heads).slice(axis: 2, sizes.qkNopeHeadDim..<sizes.queryHeadDim)
      try context.rope(turned.view, table: table, positions: step.positions, pairing: pairing, into: turned)
      let key = row.columns(sizes.kvLoraRank..<sizes.cacheWidth).heads(1)
      try context.rope(key.view, table: table, positions: step.positions, pairing: pairing, into: key)
    }
    let rowHead = row.heads(1).view
    let seen =
      try step.cache?.append(rowHead, nil, step.segments, layer: layer, context)
      ?? .tensors(keys: rowHead, values: rowHead)
    let (absorbed, mixed) = (step.latent.absorbed.rows(rows), step.latent.mixed.rows(rows))
    try context.groupedLinear(query.view, weights: self.absorbed, into: absorbed)
    try context.attention(
      queries: absorbed.heads(heads).view, seen, layout: step.layout, mask: .causal, scale: scale,
      into: mixed.heads(heads))
    try context.groupedLinear(mixed.view, weights: values, into: step.mixed)
  }
}

extension LatentAttention {
  /// The matrices of each head, stored as `type`, from those that make keys and values of a latent vector.
  ///
  /// Rotary elements of a query pass through; those of a mix of cache rows are dropped.
  static func matrices(
    _ heads: [(keys: TensorView, values: TensorView)], _ sizes: DecoderConfiguration.Latent, as type: DataType,
    context: Context
  ) throws -> (absorbed: [PackedMatrix], values: [PackedMatrix]) {
    let (plain, latent) = (sizes.qkNopeHeadDim, sizes.kvLoraRank)
    var (absorbed, values): ([PackedMatrix], [PackedMatrix]) = ([], [])
    for head in heads {
      let key = try MutableTensor(zeros: Shape(sizes.cacheWidth, sizes.queryHeadDim), dataType: type)
      try context.copy(head.keys, into: key.slice(axis: 0, 0..<latent).slice(axis: 1, 0..<plain))
      for element in 0..<sizes.qkRopeHeadDim { key[latent + element, plain + element] = 1 }
      absorbed.append(try context.pack(key.view))
      let mix = try MutableTensor(zeros: Shape(sizes.vHeadDim, sizes.cacheWidth), dataType: type)
      try context.copy(head.values, into: mix.slice(axis: 1, 0..<latent))
      values.append(try context.pack(mix.view))
    }
    return (absorbed, values)
  }
}

/// Scaled dot-product attention. See ``Backend`` for what every requirement may rely on.
public protocol AttentionOperations {
  /// `o = softmax(scale q kᵀ + mask) v` for each head of each sequence: queries `[tokens, heads, size]`, keys and
  /// values `[tokens, kvHeads, size]`, unit stride along the last axis. A query that sees no key becomes zeros.
  func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, into o: MutableTensor)
}

extension Backend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, into o: MutableTensor
  ) {
    handOn(.attention).attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, into: o)
  }
}

extension Context {
  /// Scaled dot-product attention, `softmax(scale q kᵀ + mask) v`, for every head of every sequence
  /// (Vaswani et al., arXiv 1706.03762). `multithreaded` makes one pass with an online softmax and never stores the scores;
  /// `blas` holds those of 128 queries at a time.
  ///
  /// - Parameters:
  ///   - queries: `[tokens, heads, size]`, sequences end to end; unit stride along the last axis.
  ///   - keys: `[tokens, kvHeads, size]`; heads is a multiple of kvHeads, and query head h reads
  ///     `h / (heads / kvHeads)`: multi-head, grouped-query and multi-query attention.
  ///   - values: the shape of the keys.
  ///   - layout: which rows form a sequence.
  ///   - mask: causal, additive, or both.
  ///   - scale: `1/√size` where none is given.
  ///   - o: `[tokens, heads, size]`; overlaps no input. A query that sees no key becomes zeros.
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout,
    mask: AttentionMask = .none, scale: Float? = nil, into o: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .attention)
    try check.heads(queries, "queries")
    try check.heads(keys, "keys")
    try check.heads(values, "values")
    try check.heads(o, "o")
    try check.same(o.shape, "o", queries.shape, "queries")
    try check.same(values.shape, "values", keys.shape, "keys")
    let (heads, kvHeads, size) = (queries.shape[1], keys.shape[1], queries.shape[2])
    try check.require(keys.shape[2] == size, "queries \(queries.shape) and keys \(keys.shape) differ in head size")
    try check.require(
      heads == 0 || (kvHeads > 0 && heads % kvHeads == 0),
      "\(heads) query heads are no multiple of \(kvHeads) key heads")
    try check.require(layout.queries.count == layout.keys.count, "queries and keys have different numbers of sequences")
    try check.require(
      layout.queries.total == queries.shape[0] && layout.keys.total == keys.shape[0],
      "the layout has \(layout.queries.total) queries and \(layout.keys.total) keys, "
        + "the operands \(queries.shape[0]) and \(keys.shape[0])")
    if let additive = mask.additive {
      try requireMask(additive, layout, heads: heads, check)
      try check.disjoint(additive, "mask", from: o)
    }
    try check.destination(o, "o")
    try check.disjoint(queries, "queries", from: o)
    try check.disjoint(keys, "keys", from: o)
    try check.disjoint(values, "values", from: o)
    runner(.attention, queries.types, keys.types, values.types, o.types, mask.additive.types).attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask,
      scale: scale ?? 1 / Float(max(size, 1)).squareRoot(), into: o)
  }

  private func requireMask(
    _ mask: TensorView, _ layout: AttentionLayout, heads: Int, _ check: Check
  ) throws(QuernError) {
    let rank = mask.shape.rank
    let (sequences, queries, keys) = (layout.queries.count, layout.queries.maximumLength, layout.keys.maximumLength)
    try check.require((2...4).contains(rank), "mask \(mask.shape) needs rank 2, 3 or 4")
    try check.require(
      mask.shape[rank - 1] >= keys && (mask.shape.last <= 1 || mask.strides[rank - 1] == 1),
      "mask \(mask.shape) needs \(keys) keys with unit stride")
    try check.require(
      mask.shape[rank - 2] == 1 || mask.shape[rank - 2] >= queries,
      "mask \(mask.shape) needs \(queries) queries, or 1")
    if rank >= 3 {
      try check.require(
        mask.shape[0] == 1 || mask.shape[0] == sequences, "mask \(mask.shape) needs \(sequences) sequences, or 1")
    }
    if rank == 4 {
      try check.require(mask.shape[1] == 1 || mask.shape[1] == heads, "mask \(mask.shape) needs \(heads) heads, or 1")
    }
  }
}

extension Check {
  /// `[tokens, heads, size]` with unit stride along the last axis.
  fileprivate func heads(_ tensor: some Strided, _ name: String) throws(QuernError) {
    try require(tensor.shape.rank == 3, "\(name) \(tensor.shape) need rank 3: [tokens, heads, size]")
    try require(
      tensor.shape[2] <= 1 || tensor.strides[2] == 1, "\(name) \(tensor.shape) need unit stride along their last axis")
  }
}

/// Which rows of the packed queries and keys belong together.
public struct AttentionLayout: Sendable {
  public let queries: Segments
  public let keys: Segments

  /// Cross-attention: sequence s of the queries reads sequence s of the keys.
  public init(queries: Segments, keys: Segments) { (self.queries, self.keys) = (queries, keys) }

  /// Self-attention.
  public init(_ segments: Segments) { self.init(queries: segments, keys: segments) }
}

/// What a query may see.
public struct AttentionMask {
  /// Query i of a sequence sees keys up to `i + (keys - queries)`.
  public var isCausal: Bool
  /// Added to the scores: `[queries, keys]`, `[sequences, queries, keys]` or `[sequences, heads, queries, keys]`, where an
  /// extent of 1 serves all. Rows and columns count from the start of each sequence. Use `-infinity` to hide a key.
  public var additive: TensorView?

  public init(isCausal: Bool = false, additive: TensorView? = nil) {
    (self.isCausal, self.additive) = (isCausal, additive)
  }

  public static var none: AttentionMask { AttentionMask() }
  public static var causal: AttentionMask { AttentionMask(isCausal: true) }
}

extension AttentionMask {
  /// The first element for a sequence and head, and the row stride, of a mask that ``Context`` has checked.
  func addressing() -> (base: TensorView, sequence: Int, head: Int, row: Int)? {
    guard let additive else { return nil }
    func stride(fromLast position: Int) -> Int {
      let axis = additive.shape.rank - 1 - position
      return axis < 0 || additive.shape[axis] == 1 ? 0 : additive.strides[axis]
    }
    let headed = additive.shape.rank == 4
    return (
      additive, stride(fromLast: headed ? 3 : 2), headed ? stride(fromLast: 2) : 0, stride(fromLast: 1)
    )
  }
}

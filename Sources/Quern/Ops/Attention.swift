/// Scaled dot-product attention. See ``Backend`` for what every requirement may rely on.
public protocol AttentionOperations {
  /// `o = softmax(s) v`, `s = scale q kᵀ + mask`, for each head of each sequence: queries `[tokens, heads, size]`, keys and
  /// values `[tokens, kvHeads, size]`, unit stride along the last axis. A query that sees no key becomes zeros.
  ///
  /// - Parameters:
  ///   - softCap: scores become `softCap tanh(scale q kᵀ / softCap)` before the mask is added; 0 leaves them alone.
  ///   - logSumExp: `[tokens, heads]`, f32: `log Σ exp(s)`, and `-infinity` for a query that sees no key and has no sink.
  func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor)

  /// The same over keys and values in 8 bits, whose sequences lie end to end, those positions that are not in use included.
  func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor)
}

extension Backend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    handOn(.attention).attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
      logSumExp: logSumExp, into: o)
  }

  public func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    handOn(.int8Attention).attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
      logSumExp: logSumExp, into: o)
  }
}

extension Context {
  /// Scaled dot-product attention, `softmax(scale q kᵀ + mask) v`, for every head of every sequence
  /// (Vaswani et al., arXiv 1706.03762). `multithreaded` makes one pass with an online softmax, never stores the scores and
  /// skips blocks of keys that no query sees, those that ``AttentionMask/blocks`` does not list among them; a single query of a
  /// sequence reads each key and value once where it lies, fastest where those of a head are contiguous, and its last bits may
  /// differ from those it has among others. Where all four tensors are bf16, processors that multiply bf16 take pairs of elements
  /// and round the weights to bf16 for their product with the values: the error is in `docs/accuracy.md`. `blas` holds the scores
  /// of 128 queries at a time, and hands on windows, blocks, ALiBi, `softCap` and `logSumExp`.
  ///
  /// - Parameters:
  ///   - queries: `[tokens, heads, size]`, sequences end to end; unit stride along the last axis.
  ///   - keys: `[tokens, kvHeads, size]`; heads is a multiple of kvHeads, and query head h reads
  ///     `h / (heads / kvHeads)`: multi-head, grouped-query and multi-query attention.
  ///   - values: the shape of the keys.
  ///   - layout: which rows form a sequence, and how many keys of a cache are in use.
  ///   - mask: causal, a window, ALiBi, sinks, additive, blocks, or several of them.
  ///   - scale: `1/√size` where none is given.
  ///   - softCap: keeps scores within it, `softCap tanh(scale q kᵀ / softCap)`, before the mask is added (Gemma 2,
  ///     arXiv 2408.00118); 0 for none.
  ///   - logSumExp: `[tokens, heads]`, f32: becomes the logarithm of each query's sum of exponentials, its sink's among them, by
  ///     which parts of an attention over different keys can be put together; `-infinity` for a query that sees no key and has
  ///     no sink.
  ///   - o: `[tokens, heads, size]`; overlaps no input. A query that sees no key becomes zeros.
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout,
    mask: AttentionMask = .none, scale: Float? = nil, softCap: Float = 0, logSumExp: MutableTensor? = nil,
    into o: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .attention)
    try check.heads(keys, "keys")
    try check.heads(values, "values")
    try check.same(values.shape, "values", keys.shape, "keys")
    try requireAttention(check, queries, keys: keys.shape, layout, mask, softCap, logSumExp, o)
    if let logSumExp {
      try check.disjoint(keys, "keys", from: logSumExp)
      try check.disjoint(values, "values", from: logSumExp)
    }
    try check.disjoint(keys, "keys", from: o)
    try check.disjoint(values, "values", from: o)
    try run(runner(.attention, queries.types, keys.types, values.types, o.types, mask.additive.types)) {
      $0.attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask,
        scale: scale ?? 1 / Float(max(queries.shape[2], 1)).squareRoot(), softCap: softCap, logSumExp: logSumExp,
        into: o)
    }
  }

  /// The same over a cache in 8 bits: `score[j] = scale kscale[j] (q kcode[j])`, `o = Σ (p[j] vscale[j]) vcode[j] / Σ p[j]`.
  ///
  /// A single query of a sequence reads codes where they lie, widened in registers; several have them widened to f32 some at a time.
  /// Codes are exact here: what they are off from the vectors that were appended changes a score by at most
  /// `δ = scale Σ|q| kscale / 2` of its key and, with the largest δ, `o` by at most `max vscale / 2 + (exp(2 δ) - 1) Σ p |v| / Σ p`.
  ///
  /// - Parameters:
  ///   - keys: their sequences are those of `layout`'s keys, ``Int8Cache/capacity`` positions each.
  ///   - values: of the same extents; may be the keys.
  public func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout,
    mask: AttentionMask = .none, scale: Float? = nil, softCap: Float = 0, logSumExp: MutableTensor? = nil,
    into o: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .int8Attention)
    try check.same(values.shape, "values", keys.shape, "keys")
    try requireAttention(check, queries, keys: keys.shape, layout, mask, softCap, logSumExp, o)
    try run(runner(.int8Attention, queries.types, o.types, mask.additive.types)) {
      $0.attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask,
        scale: scale ?? 1 / Float(max(queries.shape[2], 1)).squareRoot(), softCap: softCap, logSumExp: logSumExp,
        into: o)
    }
  }

  private func requireAttention(
    _ check: Check, _ queries: TensorView, keys: Shape, _ layout: AttentionLayout, _ mask: AttentionMask,
    _ softCap: Float, _ logSumExp: MutableTensor?, _ o: MutableTensor
  ) throws(QuernError) {
    try check.heads(queries, "queries")
    try check.heads(o, "o")
    try check.same(o.shape, "o", queries.shape, "queries")
    let (heads, kvHeads) = (queries.shape[1], keys[1])
    try check.require(
      keys[2] == queries.shape[2], "queries \(queries.shape) and keys \(keys) differ in head size")
    try check.require(
      heads == 0 || (kvHeads > 0 && heads % kvHeads == 0),
      "\(heads) query heads are no multiple of \(kvHeads) key heads")
    try check.require(layout.queries.count == layout.keys.count, "queries and keys have different numbers of sequences")
    try check.require(
      layout.queries.total == queries.shape[0] && layout.keys.total == keys[0],
      "the layout has \(layout.queries.total) queries and \(layout.keys.total) keys, "
        + "the operands \(queries.shape[0]) and \(keys[0])")
    if let additive = mask.additive {
      try requireMask(additive, layout, heads: heads, check)
      try check.disjoint(additive, "mask", from: o)
    }
    try check.require(softCap >= 0 && softCap.isFinite, "softCap is \(softCap); it is 0 or positive")
    try check.require(
      mask.before ?? 0 >= 0 && mask.after ?? 0 >= 0 && max(mask.before ?? 0, mask.after ?? 0) <= Int(Int32.max),
      "the window reaches \(mask.before ?? 0) keys back and \(mask.after ?? 0) ahead; neither is negative")
    try check.vector(mask.slopes, "slopes", count: heads)
    try check.vector(mask.sinks, "sinks", count: heads)
    if let blocks = mask.blocks {
      try check.require(
        blocks.heads == 1 || blocks.heads == heads, "the block mask has \(blocks.heads) heads; expected \(heads), or 1")
      try check.require(
        blocks.queries >= layout.queries.maximumLength && blocks.keys >= layout.longestKeys,
        "the block mask covers \(blocks.queries) queries and \(blocks.keys) keys; "
          + "sequences have up to \(layout.queries.maximumLength) and \(layout.longestKeys)")
    }
    if let logSumExp {
      try check.same(logSumExp.shape, "logSumExp", Shape(queries.shape[0], heads), "tokens and heads")
      try check.require(logSumExp.dataType == .f32, "logSumExp is \(logSumExp.dataType.rawValue); it is f32")
      try check.destination(logSumExp, "logSumExp")
      try check.disjoint(logSumExp.view, "logSumExp", from: o)
      try check.disjoint(queries, "queries", from: logSumExp)
      if let additive = mask.additive { try check.disjoint(additive, "mask", from: logSumExp) }
    }
    try check.destination(o, "o")
    try check.disjoint(queries, "queries", from: o)
  }

  private func requireMask(
    _ mask: TensorView, _ layout: AttentionLayout, heads: Int, _ check: Check
  ) throws(QuernError) {
    let rank = mask.shape.rank
    let (sequences, queries, keys) = (layout.queries.count, layout.queries.maximumLength, layout.longestKeys)
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
  func heads(_ tensor: some Strided, _ name: String) throws(QuernError) {
    try require(tensor.shape.rank == 3, "\(name) \(tensor.shape) need rank 3: [tokens, heads, size]")
    try require(
      tensor.shape[2] <= 1 || tensor.strides[2] == 1, "\(name) \(tensor.shape) need unit stride along their last axis")
  }
}

/// Which rows of the packed queries and keys belong together.
public struct AttentionLayout: Sendable {
  public let queries: Segments
  /// Where the keys and values of each sequence lie.
  public let keys: Segments
  /// How many of them are in use, from the first on; `nil` for all.
  public let keyCounts: [Int32]?
  /// The most keys of a sequence.
  public let longestKeys: Int

  /// Cross-attention: sequence s of the queries reads sequence s of the keys.
  public init(queries: Segments, keys: Segments) {
    (self.queries, self.keys, keyCounts, longestKeys) = (queries, keys, nil, keys.maximumLength)
  }

  /// Self-attention.
  public init(_ segments: Segments) { self.init(queries: segments, keys: segments) }

  /// Attention over a cache with room to spare: sequence s reads the first `counts[s]` of its rows.
  ///
  /// - Parameters:
  ///   - cache: the rows that belong to each sequence, those not in use included.
  ///   - counts: rows in use, those of the queries' own keys included.
  /// - Throws: ``QuernError/invalidShape(_:)`` where a count is negative or more than the sequence's rows.
  public init(queries: Segments, cache: Segments, counts: [Int32]) throws(QuernError) {
    guard counts.count == cache.count else {
      throw .invalidShape("\(counts.count) counts of keys for a cache of \(cache.count) sequences")
    }
    for (sequence, count) in counts.enumerated() where count < 0 || Int(count) > cache[sequence].count {
      throw .invalidShape("\(count) keys in use of sequence \(sequence), whose cache has \(cache[sequence].count) rows")
    }
    (self.queries, keys, keyCounts) = (queries, cache, counts)
    longestKeys = Int(counts.max() ?? 0)
  }

  /// The rows of the keys that sequence s reads.
  public func keyRows(_ sequence: Int) -> Range<Int> {
    let rows = keys[sequence]
    guard let keyCounts else { return rows }
    return rows.lowerBound..<rows.lowerBound + Int(keyCounts[sequence])
  }
}

/// What a query may see. Query i of a sequence stands at position `i + (keys - queries)`.
public struct AttentionMask {
  /// A query sees no key after its position.
  public var isCausal: Bool
  /// Keys before its position that a query sees; `nil` for all.
  public var before: Int?
  /// Keys after its position that a query sees; `nil` for all. With `isCausal` there are none.
  public var after: Int?
  /// ALiBi (Press et al., arXiv 2108.12409): `slopes[head] |key - position|` is subtracted from the scores. f32, `[heads]`;
  /// ``Tensor/alibiSlopes(heads:)`` makes those of the paper.
  public var slopes: Tensor?
  /// One more score for each head, of a key whose value is zero, so that the weights of the keys add up to less than 1: the
  /// attention sinks of gpt-oss (arXiv 2508.10925). f32, `[heads]`.
  public var sinks: Tensor?
  /// Added to the scores: `[queries, keys]`, `[sequences, queries, keys]` or `[sequences, heads, queries, keys]`, where an
  /// extent of 1 serves all. Rows and columns count from the start of each sequence. Use `-infinity` to hide a key.
  public var additive: TensorView?
  /// Block-sparse attention: of each block of queries, the blocks of keys that it attends to. The others cost nothing, and what
  /// keys and values hold there has no effect. The rest of the mask applies inside the blocks; a query whose blocks hide every
  /// key from it is one that sees none. Blocks of 64 keys or more keep the kernel busy. Where every block is listed, the bits are
  /// those without a mask of blocks.
  public var blocks: BlockMask?

  public init(
    isCausal: Bool = false, before: Int? = nil, after: Int? = nil, slopes: Tensor? = nil, sinks: Tensor? = nil,
    additive: TensorView? = nil, blocks: BlockMask? = nil
  ) {
    (self.isCausal, self.before, self.after) = (isCausal, before, after)
    (self.slopes, self.sinks, self.additive, self.blocks) = (slopes, sinks, additive, blocks)
  }

  public static var none: AttentionMask { AttentionMask() }
  public static var causal: AttentionMask { AttentionMask(isCausal: true) }
  /// Causal, and only the latest `window` keys, the query's own among them: the sliding window of Mistral and Gemma.
  public static func slidingWindow(_ window: Int) -> AttentionMask {
    AttentionMask(isCausal: true, before: window - 1)
  }
  /// Keys up to `reach` positions away on either side: the local layers of ModernBERT, with half its `local_attention`.
  public static func symmetricWindow(_ reach: Int) -> AttentionMask { AttentionMask(before: reach, after: reach) }
}

extension AttentionMask {
  /// The keys that query i of a sequence sees.
  func visible(_ i: Int, queries: Int, keys: Int) -> Range<Int> {
    let position = i + keys - queries
    let first = before.map { min(max(position - $0, 0), keys) } ?? 0
    let last = (isCausal ? 0 : after).map { min(max(position + 1 + $0, 0), keys) } ?? keys
    return first..<last
  }

  /// Whether causal and additive masks are all there is.
  var isPlain: Bool {
    before == nil && slopes == nil && sinks == nil && blocks == nil && (isCausal || after == nil)
  }

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

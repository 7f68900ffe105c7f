import Quern

/// `attention`: ragged sequences, grouped heads, masks.
public struct AttentionShape: Sendable, CustomStringConvertible {
  public enum Mask: String, Sendable {
    case none, causal, additive, padding, causalAdditive
  }

  /// Which blocks of keys a block of queries attends to.
  public enum Pattern: Sendable, CustomStringConvertible {
    case full
    /// Those up to `reach` away and the first `global`; causal where the mask is.
    case window(reach: Int, global: Int)
    case strided(Int)
    /// One of so many, at random: a pattern for all heads, or one for each.
    case dice(of: Int, isForEachHead: Bool)

    public var description: String {
      switch self {
      case .full: "full"
      case .window(let reach, let global): "reach=\(reach) global=\(global)"
      case .strided(let stride): "stride=\(stride)"
      case .dice(let of, let isForEachHead): "1of\(of)" + (isForEachHead ? " each" : "")
      }
    }
  }

  public var queries: [Int]
  public var keys: [Int]
  public var heads, kvHeads, size: Int
  public var mask: Mask
  /// Keys before and after a query's position that it sees.
  public var before, after: Int?
  /// With the slopes of ALiBi.
  public var alibi = false
  public var sinks = false
  public var softCap: Float = 0
  /// Blocks of so many queries by so many keys.
  public var blocks: (queries: Int, keys: Int, pattern: Pattern)?
  /// Rows that each sequence's cache has beyond the keys in use.
  public var spare = 0
  /// The data type of keys and values where it is not the case's.
  public var cacheType: DataType?
  /// Keys and values are in 8 bits: the operation is `int8Attention`.
  public var isInt8 = false
  /// The result looked at is the log-sum-exp.
  public var logSumExp = false

  var isCausal: Bool { mask == .causal || mask == .causalAdditive }

  /// Positions of each sequence of a cache in 8 bits, which has as many of all.
  var roomOfInt8: Int { (keys.max() ?? 0) + spare }

  /// A single query's keys are cut into parts of 512 at least, which are then put together.
  var kernels: [String] {
    let isCut = zip(queries, keys).contains { $0 == 1 && $1 > 512 }
    return ["f32_attention_block"] + (isCut ? ["f32_attention_merge"] : [])
  }

  /// This shape with changes.
  public func with(_ change: (inout AttentionShape) -> Void) -> AttentionShape {
    var copy = self
    change(&copy)
    return copy
  }

  /// - Parameter keys: key counts of each sequence; the query counts where none are given.
  public init(_ queries: [Int], keys: [Int]? = nil, heads: Int, kvHeads: Int? = nil, size: Int, mask: Mask = .none) {
    (self.queries, self.keys, self.heads, self.size) = (queries, keys ?? queries, heads, size)
    (self.kvHeads, self.mask) = (kvHeads ?? heads, mask)
  }

  public var description: String {
    func lengths(_ list: [Int]) -> String {
      Set(list).count == 1 && list.count > 1 ? "\(list.count)x\(list[0])" : list.map(String.init).joined(separator: "+")
    }
    return "q=\(lengths(queries)) kv=\(lengths(keys)) heads=\(heads)"
      + (kvHeads == heads ? "" : "/\(kvHeads)") + " d=\(size)" + (mask == .none ? "" : " \(mask.rawValue)")
      + (before.map { " before=\($0)" } ?? "") + (after.map { " after=\($0)" } ?? "") + (alibi ? " alibi" : "")
      + (sinks ? " sinks" : "") + (blocks.map { " blocks=\($0.queries)x\($0.keys) \($0.pattern)" } ?? "")
      + (softCap == 0 ? "" : " cap=\(softCap)") + (spare == 0 ? "" : " spare=\(spare)")
      + (cacheType.map { " cache=\($0)" } ?? "") + (isInt8 ? " cache=int8" : "") + (logSumExp ? " lse" : "")
  }
}

extension Workload {
  public static func attention(_ shape: AttentionShape, name: String? = nil, operands: Operands) throws -> Workload {
    let (queries, keys) = (shape.queries.reduce(0, +), shape.keys.reduce(0) { $0 + $1 + shape.spare })
    let q = try operands.make(Shape(queries, shape.heads, shape.size))
    func cached() throws -> AttentionRows {
      guard shape.isInt8 else {
        return .tensor(
          try operands.make(Shape(keys, shape.kvHeads, shape.size), as: shape.cacheType).view)
      }
      return .int8(
        try operands.int8Cache(
          shape.keys.count, capacity: shape.roomOfInt8, heads: shape.kvHeads, size: shape.size))
    }
    let (k, v) = (try cached(), try cached())
    let output = shape.logSumExp ? try operands.make(Shape(queries, shape.heads), as: .f32) : try operands.make(q.shape)
    return try attention(shape, name, operands, q: q.view, k: k, v: v, output: output)
  }

  private static func attention(
    _ shape: AttentionShape, _ name: String?, _ operands: Operands, q: TensorView, k: AttentionRows, v: AttentionRows,
    output: MutableTensor
  ) throws -> Workload {
    let cache = try Segments(lengths: shape.keys.map { shape.isInt8 ? shape.roomOfInt8 : $0 + shape.spare })
    let layout =
      shape.spare == 0 && !shape.isInt8
      ? AttentionLayout(queries: try Segments(lengths: shape.queries), keys: cache)
      : try AttentionLayout(
        queries: try Segments(lengths: shape.queries), cache: cache, counts: shape.keys.map(Int32.init))
    let additive = try additiveMask(shape, layout, operands)
    let blocks = try blockMask(shape, layout, operands)
    let mask = AttentionMask(
      isCausal: shape.isCausal, before: shape.before, after: shape.after,
      slopes: shape.alibi ? try Tensor.alibiSlopes(heads: shape.heads) : nil,
      sinks: shape.sinks ? try operands.vector(shape.heads) : nil, additive: additive?.view, blocks: blocks)
    let scale = 1 / Float(max(shape.size, 1)).squareRoot()
    let unused = shape.logSumExp ? try MutableTensor(zeros: q.shape) : output
    func run(_ context: Context, _ o: MutableTensor) throws {
      let (logSumExp, o) = (shape.logSumExp ? o : nil, shape.logSumExp ? unused : o)
      switch (k, v) {
      case (.tensor(let k), .tensor(let v)):
        try context.attention(
          queries: q, keys: k, values: v, layout: layout, mask: mask, scale: scale, softCap: shape.softCap,
          logSumExp: logSumExp, into: o)
      case (.int8(let k), .int8(let v)):
        try context.attention(
          queries: q, keys: k, values: v, layout: layout, mask: mask, scale: scale, softCap: shape.softCap,
          logSumExp: logSumExp, into: o)
      default: preconditionFailure("keys and values are stored alike")
      }
    }
    let pairs = zip(shape.queries, shape.keys).reduce(0.0) {
      $0 + visiblePairs(shape, blocks, queries: $1.0, keys: $1.1)
    }
    let workload = Workload(
      shape.isInt8 ? .int8Attention : .attention, name ?? "\(shape)", kernels: shape.kernels,
      flops: 4 * pairs * Double(shape.heads * shape.size),
      bytes: 8 * Double(q.shape.count) + 2 * Double(k.bytes), operands: operands, output: output,
      prepare: { context in { o in try run(context, o) } },
      bound: { bounds, expected in
        let call = AttentionOperands(
          queries: q, keys: k, values: v, layout: layout, mask: mask, scale: scale, softCap: shape.softCap)
        return try shape.logSumExp
          ? bounds.logSumExp(call, expected: expected) : bounds.attention(call, into: output.dataType)
      })
    guard case (.tensor(let keys), .tensor(let values)) = (k, v), additive == nil, q.shape[0] > 0, !shape.alibi,
      !shape.sinks, shape.spare == 0, blocks?.heads ?? 1 == 1
    else { return workload }
    let row = pairs / Double(q.shape[0]) * Double(shape.heads * (3 * shape.size + 30))
    workload.sampling = Sampling(rows: q.shape[0], work: row) { rows in
      // Each query becomes a sequence of its own, with the keys it sees.
      var part = shape
      (part.queries, part.keys, part.mask) = ([Int](repeating: 1, count: rows.count), [], .none)
      (part.before, part.after, part.blocks) = (nil, nil, nil)
      var seen: [Int] = []
      for row in rows {
        guard let sequence = (0..<layout.queries.count).first(where: { layout.queries[$0].contains(row) }) else {
          continue
        }
        let (queries, keys) = (layout.queries[sequence], layout.keys[sequence])
        let query = row - queries.lowerBound
        let visible = visibleKeys(shape, query, queries: queries.count, keys: keys.count).filter {
          blocks?.allows(head: 0, query: query, key: $0) ?? true
        }
        part.keys.append(visible.count)
        seen += visible.map { keys.lowerBound + $0 }
      }
      let output = try MutableTensor(
        zeros: shape.logSumExp ? Shape(rows.count, shape.heads) : Shape(rows.count, shape.heads, shape.size))
      return try attention(
        part, name, operands, q: try gatherSlices(rows, of: q), k: .tensor(try gatherSlices(seen, of: keys)),
        v: .tensor(try gatherSlices(seen, of: values)), output: output)
    }
    return workload
  }

  /// Keys that query i sees.
  private static func visibleKeys(_ shape: AttentionShape, _ i: Int, queries: Int, keys: Int) -> Range<Int> {
    let position = i + keys - queries
    let first = max(0, min(keys, position - (shape.before ?? keys + queries)))
    let last = max(0, min(keys, position + 1 + (shape.isCausal ? 0 : shape.after ?? keys + queries)))
    return first..<last
  }

  /// Pairs of a query and a key that it sees, of a head on average.
  private static func visiblePairs(_ shape: AttentionShape, _ blocks: BlockMask?, queries: Int, keys: Int) -> Double {
    (0..<queries).reduce(0.0) { sum, query in
      let visible = visibleKeys(shape, query, queries: queries, keys: keys)
      guard let blocks else { return sum + Double(visible.count) }
      let seen = (0..<blocks.heads).reduce(0) { seen, head in
        seen + visible.count { blocks.allows(head: head, query: query, key: $0) }
      }
      return sum + Double(seen) / Double(blocks.heads)
    }
  }

  private static func blockMask(
    _ shape: AttentionShape, _ layout: AttentionLayout, _ operands: Operands
  ) throws -> BlockMask? {
    guard let (blockQueries, blockKeys, pattern) = shape.blocks else { return nil }
    let (queries, keys) = (layout.queries.maximumLength, layout.longestKeys)
    switch pattern {
    case .full:
      return try BlockMask(queries: queries, keys: keys, blockQueries: blockQueries, blockKeys: blockKeys) { _, _, _ in
        true
      }
    case .window(let reach, let global):
      return try .window(
        length: max(queries, keys), block: blockKeys, reach: reach, global: global, isCausal: shape.isCausal)
    case .strided(let stride): return try .strided(length: max(queries, keys), block: blockKeys, stride: stride)
    case .dice(let of, let isForEachHead):
      let (down, across) = ((queries + blockQueries - 1) / blockQueries, (keys + blockKeys - 1) / blockKeys)
      let heads = isForEachHead ? shape.heads : 1
      return try BlockMask(
        queries: queries, keys: keys, blockQueries: blockQueries, blockKeys: blockKeys, heads: heads,
        dense: operands.ids(heads * down * across, below: of).map { $0 == 0 })
    }
  }

  private static func additiveMask(
    _ shape: AttentionShape, _ layout: AttentionLayout, _ operands: Operands
  ) throws -> MutableTensor? {
    let (queries, keys) = (layout.queries.maximumLength, layout.longestKeys)
    switch shape.mask {
    case .none, .causal: return nil
    case .additive, .causalAdditive:
      return try operands.make(Shape(layout.queries.count, shape.heads, queries, keys))
    case .padding:
      // Hides every third key, and every key of the last sequence.
      let mask = try MutableTensor(zeros: Shape(layout.queries.count, 1, keys))
      for sequence in 0..<layout.queries.count {
        for key in 0..<keys where key % 3 == 2 || sequence == layout.queries.count - 1 {
          mask.base[sequence * keys + key] = -.infinity
        }
      }
      return mask
    }
  }
}

extension AttentionRows {
  fileprivate var bytes: Int {
    switch self {
    case .tensor(let view): view.shape.count * view.dataType.size
    case .int8(let cache):
      Int8Cache.byteCount(
        sequences: cache.sequences, capacity: cache.capacity, heads: cache.heads, size: cache.size)
    }
  }
}

extension Suite {
  static let attention = Suite(
    tests: attentionTests, benchmarks: attentionBenchmarks,
    mutants: [
      mutant("a window one key too long", { $0.before = 6 }, wrong: { $0.before = 7 }),
      mutant("ignores the keys after", { $0.after = 3 }, wrong: { $0.after = 2 }),
      mutant("ignores the slopes", { $0.alibi = true }, wrong: { $0.alibi = false }),
      mutant("ignores the blocks", { $0.blocks = (8, 8, .window(reach: 1, global: 1)) }, wrong: { $0.blocks = nil }),
      mutant(
        "a block too many", { $0.blocks = (8, 8, .window(reach: 1, global: 0)) },
        wrong: { $0.blocks = (8, 8, .window(reach: 2, global: 0)) }),
      mutant("ignores the sinks", { $0.sinks = true }, wrong: { $0.sinks = false }),
      mutant("ignores the soft cap", { $0.softCap = 2 }, wrong: { $0.softCap = 0 }),
      mutant("ignores the last key in 8 bits", { $0.isInt8 = true }, wrong: { ($0.isInt8, $0.before) = (true, 28) }),
      mutant(
        "log-sum-exp of all keys", { ($0.logSumExp, $0.mask) = (true, .causal) },
        wrong: { ($0.logSumExp, $0.mask) = (true, .none) }),
    ])

  private static func mutant(
    _ fault: String, _ right: @escaping @Sendable (inout AttentionShape) -> Void,
    wrong: @escaping @Sendable (inout AttentionShape) -> Void
  ) -> Mutant {
    let shape = AttentionShape([20, 3], keys: [30, 9], heads: 4, kvHeads: 2, size: 16)
    return Mutant(
      shape.with(right).isInt8 ? .int8Attention : .attention, fault,
      right: { try .attention(shape.with(right), operands: $0) },
      wrong: { try .attention(shape.with(wrong), operands: $0) })
  }

  private static let attentionTests: [TestCases.Entry] = {
    var shapes: [AttentionShape] = []
    for size in [1, 3, 8, 16, 31, 32, 40, 64, 80, 128] {
      shapes.append(AttentionShape([size % 7 + 1], keys: [size + 5], heads: 2, size: size))
    }
    for mask in [AttentionShape.Mask.none, .causal, .additive, .padding, .causalAdditive] {
      shapes += [
        AttentionShape([5, 1, 17, 0, 33], heads: 2, size: 32, mask: mask),
        AttentionShape([1, 4], keys: [50, 131], heads: 4, kvHeads: 2, size: 24, mask: mask),
        AttentionShape([130], keys: [260], heads: 3, kvHeads: 1, size: 64, mask: mask),
        AttentionShape([9], keys: [4], heads: 1, size: 16, mask: mask),
        AttentionShape([200], heads: 1, size: 8, mask: mask),
      ]
    }
    shapes += [AttentionShape([3, 2], keys: [0, 7], heads: 2, size: 16), AttentionShape([], heads: 1, size: 4)]
    let ragged = AttentionShape([5, 1, 17, 0, 33], heads: 2, size: 32)
    let grouped = AttentionShape([1, 40], keys: [50, 131], heads: 6, kvHeads: 2, size: 24)
    let long = AttentionShape([270], keys: [300], heads: 2, kvHeads: 1, size: 16)
    for shape in [ragged, grouped, long, AttentionShape([9], keys: [4], heads: 3, kvHeads: 1, size: 8)] {
      shapes += [
        shape.with { ($0.mask, $0.before) = (.causal, 0) },
        shape.with { ($0.mask, $0.before) = (.causal, 7) },
        shape.with { ($0.mask, $0.before) = (.causalAdditive, 130) },
        shape.with { ($0.before, $0.after) = (3, 3) },
        shape.with { ($0.before, $0.after) = (64, 5) },
        shape.with { $0.after = 2 },
        shape.with { ($0.alibi, $0.mask) = (true, .causal) },
        shape.with { ($0.alibi, $0.before, $0.after) = (true, 20, 20) },
        shape.with { ($0.sinks, $0.mask) = (true, .causal) },
        shape.with { ($0.sinks, $0.before, $0.after, $0.logSumExp) = (true, 5, 5, true) },
        shape.with { ($0.sinks, $0.mask, $0.cacheType) = (true, .padding, .bf16) },
        shape.with { ($0.softCap, $0.mask) = (1.5, .padding) },
        shape.with { ($0.softCap, $0.alibi) = (30, true) },
        shape.with { ($0.spare, $0.mask) = (9, .causal) },
        shape.with { ($0.cacheType, $0.mask) = (.bf16, .causal) },
        shape.with { ($0.logSumExp, $0.mask) = (true, .causal) },
        shape.with { ($0.logSumExp, $0.before, $0.alibi, $0.softCap) = (true, 11, true, 5) },
      ]
    }
    let decodes = AttentionShape([1, 1, 2], keys: [700, 5, 1300], heads: 6, kvHeads: 2, size: 24)
    for shape in [decodes, AttentionShape([1], keys: [9000], heads: 2, kvHeads: 1, size: 8)] {
      shapes += [
        shape, shape.with { ($0.sinks, $0.logSumExp) = (true, true) },
        shape.with { ($0.alibi, $0.before) = (true, 650) },
        shape.with { ($0.softCap, $0.mask, $0.cacheType, $0.spare) = (3, .additive, .bf16, 3) },
      ]
    }
    let blocked: [AttentionShape] = [ragged, grouped, long, decodes].flatMap { (shape) -> [AttentionShape] in
      [
        shape.with { ($0.mask, $0.blocks) = (.causal, (64, 64, .window(reach: 1, global: 1))) },
        shape.with { ($0.blocks, $0.logSumExp) = ((16, 32, .dice(of: 3, isForEachHead: false)), true) },
        shape.with { ($0.blocks, $0.mask, $0.sinks) = ((7, 5, .dice(of: 2, isForEachHead: true)), .padding, true) },
        shape.with { ($0.blocks, $0.alibi, $0.softCap) = ((20, 50, .dice(of: 2, isForEachHead: false)), true, 3) },
        shape.with { ($0.blocks, $0.before, $0.after) = ((1, 1, .dice(of: 2, isForEachHead: true)), 40, 3) },
        shape.with { ($0.blocks, $0.mask, $0.cacheType) = ((32, 32, .strided(3)), .causal, .bf16) },
        shape.with { ($0.blocks, $0.spare, $0.isInt8) = ((16, 16, .dice(of: 2, isForEachHead: false)), 3, true) },
        shape.with { ($0.blocks, $0.mask) = ((300, 2000, .full), .causalAdditive) },
      ]
    }
    shapes += blocked
    let int8: [AttentionShape] = [
      AttentionShape([3, 0, 2], keys: [0, 4, 7], heads: 2, size: 16), AttentionShape([], heads: 1, size: 4),
      AttentionShape([1, 1, 5], keys: [50, 131, 9], heads: 4, kvHeads: 2, size: 24).with { $0.spare = 4 },
      ragged, grouped, long, decodes,
    ].flatMap { (shape) -> [AttentionShape] in
      [
        shape.with { $0.mask = .causal }, shape.with { ($0.mask, $0.before) = (.causal, 7) },
        shape.with { ($0.mask, $0.sinks, $0.logSumExp) = (.padding, true, true) },
        shape.with { ($0.alibi, $0.softCap) = (true, 4) },
      ]
    }
    for size in [1, 3, 8, 31, 33, 64, 80, 128] {
      shapes.append(
        AttentionShape([1, size % 7 + 1], keys: [size + 5, 40], heads: 2, size: size).with { $0.isInt8 = true })
    }
    shapes += int8.map { $0.with { $0.isInt8 = true } }
    return shapes.map { shape in
      TestCases.Entry(shape.isInt8 ? .int8Attention : .attention) { try .attention(shape, operands: $0) }
    }
  }()

  private static let attentionBenchmarks: [BenchmarkCases.Entry] =
    [
      ("MiniLM 32x128", AttentionShape([Int](repeating: 128, count: 32), heads: 12, size: 32)),
      ("MiniLM 1x16", AttentionShape([16], heads: 12, size: 32)),
      ("Llama-3.2-1B causal", AttentionShape([512], heads: 32, kvHeads: 8, size: 64, mask: .causal)),
      ("Qwen3-0.6B causal", AttentionShape([256], heads: 16, kvHeads: 8, size: 128, mask: .causal)),
      ("prefill", AttentionShape([2048], heads: 32, size: 128, mask: .causal)),
      ("SD-1.5 self", AttentionShape([1024], heads: 8, size: 40)),
      (
        "Llama-3.2-1B decode",
        AttentionShape([1], keys: [2048], heads: 32, kvHeads: 8, size: 64).with { $0.cacheType = .bf16 }
      ),
      (
        "Llama-3.2-1B decode",
        AttentionShape([1], keys: [2048], heads: 32, kvHeads: 8, size: 64).with { $0.isInt8 = true }
      ),
      ("decode of one key head", AttentionShape([1], keys: [8192], heads: 16, kvHeads: 1, size: 128)),
      (
        "ModernBERT local",
        AttentionShape([1024], heads: 12, size: 64).with { ($0.before, $0.after) = (64, 64) }
      ),
      ("SD-1.5 cross", AttentionShape([4096], keys: [77], heads: 8, size: 40)),
      (
        "block-sparse prefill",
        AttentionShape([2048], heads: 32, size: 128, mask: .causal).with {
          $0.blocks = (64, 64, .window(reach: 2, global: 1))
        }
      ),
    ].map { model, shape in
      let kernels = shape.kernels + (shape.cacheType == nil ? [] : ["f32_widen"])
      return BenchmarkCases.Entry(
        shape.isInt8 ? .int8Attention : .attention, "\(model): \(shape)", kernels: kernels
      ) {
        try .attention(shape, name: $0, operands: $1)
      }
    } + [narrowPrefill]

  private static let narrowPrefill: BenchmarkCases.Entry = {
    let shape = AttentionShape([2048], heads: 32, size: 128, mask: .causal)
    return BenchmarkCases.Entry(
      .attention, "prefill: \(shape) bf16", kernels: ["f32_attention_block", "f32_widen"], dataType: .bf16
    ) { try .attention(shape, name: $0, operands: $1) }
  }()
}

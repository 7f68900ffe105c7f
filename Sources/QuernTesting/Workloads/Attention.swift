import Foundation
import Quern

/// `attention`: ragged sequences, grouped heads, masks.
public struct AttentionShape: Sendable, CustomStringConvertible {
  public enum Mask: String, Sendable {
    case none, causal, additive, padding, causalAdditive
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
  /// Rows that each sequence's cache has beyond the keys in use.
  public var spare = 0
  /// The data type of keys and values where it is not the case's.
  public var cacheType: DataType?
  /// The result looked at is the log-sum-exp.
  public var logSumExp = false

  var isCausal: Bool { mask == .causal || mask == .causalAdditive }

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
      + (sinks ? " sinks" : "")
      + (softCap == 0 ? "" : " cap=\(softCap)") + (spare == 0 ? "" : " spare=\(spare)")
      + (cacheType.map { " cache=\($0)" } ?? "") + (logSumExp ? " lse" : "")
  }
}

extension Workload {
  public static func attention(_ shape: AttentionShape, name: String? = nil, operands: Operands) throws -> Workload {
    let (queries, keys) = (shape.queries.reduce(0, +), shape.keys.reduce(0) { $0 + $1 + shape.spare })
    let q = try operands.make(Shape(queries, shape.heads, shape.size))
    let k = try operands.make(Shape(keys, shape.kvHeads, shape.size), as: shape.cacheType)
    let v = try operands.make(Shape(keys, shape.kvHeads, shape.size), as: shape.cacheType)
    let output = shape.logSumExp ? try operands.make(Shape(queries, shape.heads), as: .f32) : try operands.make(q.shape)
    return try attention(shape, name, operands, q: q.view, k: k.view, v: v.view, output: output)
  }

  private static func attention(
    _ shape: AttentionShape, _ name: String?, _ operands: Operands, q: TensorView, k: TensorView, v: TensorView,
    output: MutableTensor
  ) throws -> Workload {
    let cache = try Segments(lengths: shape.keys.map { $0 + shape.spare })
    let layout =
      shape.spare == 0
      ? AttentionLayout(queries: try Segments(lengths: shape.queries), keys: cache)
      : try AttentionLayout(
        queries: try Segments(lengths: shape.queries), cache: cache, counts: shape.keys.map(Int32.init))
    let additive = try additiveMask(shape, layout, operands)
    let mask = AttentionMask(
      isCausal: shape.isCausal, before: shape.before, after: shape.after,
      slopes: shape.alibi ? try Tensor.alibiSlopes(heads: shape.heads) : nil,
      sinks: shape.sinks ? try operands.vector(shape.heads) : nil, additive: additive?.view)
    let scale = 1 / Float(max(shape.size, 1)).squareRoot()
    let unused = shape.logSumExp ? try MutableTensor(zeros: q.shape) : output
    func run(_ context: Context, _ values: TensorView, _ o: MutableTensor) throws {
      try context.attention(
        queries: q, keys: k, values: values, layout: layout, mask: mask, scale: scale, softCap: shape.softCap,
        logSumExp: shape.logSumExp ? o : nil, into: shape.logSumExp ? unused : o)
    }
    let pairs = zip(shape.queries, shape.keys).reduce(0.0) { $0 + visiblePairs(shape, queries: $1.0, keys: $1.1) }
    let workload = Workload(
      .attention, name ?? "\(shape)", kernels: ["f32_attention_block"],
      flops: 4 * pairs * Double(shape.heads * shape.size),
      bytes: 8 * Double(q.shape.count + k.shape.count), operands: operands, output: output,
      prepare: { context in { o in try run(context, v, o) } },
      bound: { rounding, expected in
        let norm = largestNorm(q) * largestNorm(k)
        let offset = additive.map { $0.elements.filter(\.isFinite).map(abs).max() ?? 0 } ?? 0
        let farthest = shape.alibi ? Double((shape.queries + shape.keys).max() ?? 0) : 0
        // Products, scale; the cap's quotient and product with tanh (4 u, and its argument's roundings again); slopes are at
        // most 1, and the bias rounds once at the size of the farthest key, as do the sums with it.
        let score =
          (rounding.product(shape.size) + (shape.softCap == 0 ? 2 : 10) * Rounding.unit) * Double(scale) * norm
          + 2 * Rounding.unit * (Double(offset) + farthest)
        let keys = layout.longestKeys
        // Each block of keys rescales the sums once; exp is within 2 ulp (4 u).
        let sums = Rounding.gamma(2 * keys + 3 * (keys / 32 + 1) + 12)
        if shape.logSumExp {
          // The sum's relative errors become absolute; its logarithm is within an ulp, and is added to the largest score.
          return expected.map {
            2 * score + sums * (1 + sums) + 2 * Rounding.unit * (log(Double(max(keys, 2))) + abs(Double($0)))
          }
        }
        // Σ p|v| / Σ p times twice the error of a score, exp's and the sums' relative errors.
        let weighted = try MutableTensor(zeros: q.shape)
        try run(Context(backend: ReferenceBackend()), try absolute(v), weighted)
        let relative = 2 * score + sums
        return weighted.view.values.map { relative * Double($0) * (1 + relative) }
      })
    guard additive == nil, q.shape[0] > 0, !shape.alibi, !shape.sinks, shape.spare == 0 else { return workload }
    let row = pairs / Double(q.shape[0]) * Double(shape.heads * (3 * shape.size + 30))
    workload.sampling = Sampling(rows: q.shape[0], work: row) { rows in
      // Each query becomes a sequence of its own, with the keys it sees.
      var part = shape
      (part.queries, part.keys, part.mask) = ([Int](repeating: 1, count: rows.count), [], .none)
      (part.before, part.after) = (nil, nil)
      var seen: [Int] = []
      for row in rows {
        guard let sequence = (0..<layout.queries.count).first(where: { layout.queries[$0].contains(row) }) else {
          continue
        }
        let (queries, keys) = (layout.queries[sequence], layout.keys[sequence])
        let visible = visibleKeys(shape, row - queries.lowerBound, queries: queries.count, keys: keys.count)
        part.keys.append(visible.count)
        seen += visible.map { keys.lowerBound + $0 }
      }
      let output = try MutableTensor(
        zeros: shape.logSumExp ? Shape(rows.count, shape.heads) : Shape(rows.count, shape.heads, shape.size))
      return try attention(
        part, name, operands, q: try gatherSlices(rows, of: q), k: try gatherSlices(seen, of: k),
        v: try gatherSlices(seen, of: v), output: output)
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

  private static func visiblePairs(_ shape: AttentionShape, queries: Int, keys: Int) -> Double {
    Double((0..<queries).reduce(0) { $0 + visibleKeys(shape, $1, queries: queries, keys: keys).count })
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

/// The largest Euclidean norm of a head's vector, which with another bounds Σ|q k| (Cauchy and Schwarz).
private func largestNorm(_ view: TensorView) -> Double {
  var largest = 0.0
  let elements = view.values
  for start in stride(from: 0, to: elements.count, by: max(view.shape.last, 1)) {
    var squares = 0.0
    for value in elements[start..<start + view.shape.last] { squares += Double(value) * Double(value) }
    largest = max(largest, squares.squareRoot())
  }
  return largest
}

extension Suite {
  static let attention = Suite(
    tests: attentionTests, benchmarks: attentionBenchmarks,
    mutants: [
      mutant("a window one key too long", { $0.before = 6 }, wrong: { $0.before = 7 }),
      mutant("ignores the keys after", { $0.after = 3 }, wrong: { $0.after = 2 }),
      mutant("ignores the slopes", { $0.alibi = true }, wrong: { $0.alibi = false }),
      mutant("ignores the sinks", { $0.sinks = true }, wrong: { $0.sinks = false }),
      mutant("ignores the soft cap", { $0.softCap = 2 }, wrong: { $0.softCap = 0 }),
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
      .attention, fault, right: { try .attention(shape.with(right), operands: $0) },
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
    return shapes.map { shape in TestCases.Entry(.attention) { try .attention(shape, operands: $0) } }
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
        "ModernBERT local",
        AttentionShape([1024], heads: 12, size: 64).with { ($0.before, $0.after) = (64, 64) }
      ),
      ("SD-1.5 cross", AttentionShape([4096], keys: [77], heads: 8, size: 40)),
    ].map { model, shape in
      let kernels = ["f32_attention_block"] + (shape.cacheType == nil ? [] : ["f32_widen"])
      return BenchmarkCases.Entry(.attention, "\(model): \(shape)", kernels: kernels) {
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

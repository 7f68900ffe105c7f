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
  }
}

extension Workload {
  public static func attention(_ shape: AttentionShape, name: String? = nil, operands: Operands) throws -> Workload {
    let (queries, keys) = (shape.queries.reduce(0, +), shape.keys.reduce(0, +))
    let q = try operands.make(Shape(queries, shape.heads, shape.size))
    let k = try operands.make(Shape(keys, shape.kvHeads, shape.size))
    let v = try operands.make(Shape(keys, shape.kvHeads, shape.size))
    let output = try operands.make(q.shape)
    return try attention(shape, name, operands, q: q.view, k: k.view, v: v.view, output: output)
  }

  private static func attention(
    _ shape: AttentionShape, _ name: String?, _ operands: Operands, q: TensorView, k: TensorView, v: TensorView,
    output: MutableTensor
  ) throws -> Workload {
    let layout = AttentionLayout(
      queries: try Segments(lengths: shape.queries), keys: try Segments(lengths: shape.keys))
    let mask = try additiveMask(shape, layout, operands)
    let scale = 1 / Float(max(shape.size, 1)).squareRoot()
    func run(_ context: Context, _ values: TensorView, _ o: MutableTensor) throws {
      try context.attention(
        queries: q, keys: k, values: values, layout: layout,
        mask: AttentionMask(isCausal: shape.mask == .causal || shape.mask == .causalAdditive, additive: mask?.view),
        scale: scale, into: o)
    }
    let pairs = zip(shape.queries, shape.keys).reduce(0.0) { $0 + Double($1.0 * $1.1) }
    let visible = shape.mask == .causal || shape.mask == .causalAdditive ? 0.5 : 1
    let workload = Workload(
      .attention, name ?? "\(shape)", kernels: ["f32_attention_block"],
      flops: 4 * pairs * visible * Double(shape.heads * shape.size),
      bytes: 8 * Double(q.shape.count + k.shape.count), operands: operands, output: output,
      prepare: { context in { o in try run(context, v, o) } },
      bound: { rounding, _ in
        // Σ p|v| / Σ p times twice the error of a score, exp's and the sums' relative errors.
        let weighted = try MutableTensor(zeros: q.shape)
        try run(Context(backend: ReferenceBackend()), try absolute(v), weighted)
        let norm = largestNorm(q) * largestNorm(k)
        let offset = mask.map { $0.elements.filter(\.isFinite).map(abs).max() ?? 0 } ?? 0
        let score =
          (rounding.product(shape.size) * Double(scale) + 2 * Rounding.unit * Double(scale)) * norm
          + 2 * Rounding.unit * Double(offset)
        let keys = layout.keys.maximumLength
        // Each block of keys rescales the sums once; exp is within 2 ulp (4 u).
        let relative = 2 * score + Rounding.gamma(2 * keys + 3 * (keys / 32 + 1) + 12)
        return weighted.view.values.map { relative * Double($0) * (1 + relative) }
      })
    guard mask == nil, q.shape[0] > 0 else { return workload }
    let row = pairs * visible / Double(q.shape[0]) * Double(shape.heads * (3 * shape.size + 30))
    workload.sampling = Sampling(rows: q.shape[0], work: row) { rows in
      // Each query becomes a sequence of its own, with the keys it sees.
      var part = shape
      (part.queries, part.keys, part.mask) = ([Int](repeating: 1, count: rows.count), [], .none)
      var seen: [Int] = []
      for row in rows {
        guard let sequence = (0..<layout.queries.count).first(where: { layout.queries[$0].contains(row) }) else {
          continue
        }
        let (queries, keys) = (layout.queries[sequence], layout.keys[sequence])
        let last = row - queries.lowerBound + 1 + keys.count - queries.count
        let count = shape.mask == .causal ? min(keys.count, max(0, last)) : keys.count
        part.keys.append(count)
        seen += keys.prefix(count)
      }
      return try attention(
        part, name, operands, q: try gatherSlices(rows, of: q), k: try gatherSlices(seen, of: k),
        v: try gatherSlices(seen, of: v), output: try MutableTensor(zeros: Shape(rows.count, shape.heads, shape.size)))
    }
    return workload
  }

  private static func additiveMask(
    _ shape: AttentionShape, _ layout: AttentionLayout, _ operands: Operands
  ) throws -> MutableTensor? {
    let (queries, keys) = (layout.queries.maximumLength, layout.keys.maximumLength)
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
  static let attention = Suite(tests: attentionTests, benchmarks: attentionBenchmarks)

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
    return shapes.map { shape in TestCases.Entry(.attention) { try .attention(shape, operands: $0) } }
  }()

  private static let attentionBenchmarks: [BenchmarkCases.Entry] = [
    ("MiniLM 32x128", AttentionShape([Int](repeating: 128, count: 32), heads: 12, size: 32)),
    ("MiniLM 1x16", AttentionShape([16], heads: 12, size: 32)),
    ("Llama-3.2-1B causal", AttentionShape([512], heads: 32, kvHeads: 8, size: 64, mask: .causal)),
    ("Qwen3-0.6B causal", AttentionShape([256], heads: 16, kvHeads: 8, size: 128, mask: .causal)),
    ("SD-1.5 self", AttentionShape([1024], heads: 8, size: 40)),
    ("SD-1.5 cross", AttentionShape([4096], keys: [77], heads: 8, size: 40)),
  ].map { model, shape in
    BenchmarkCases.Entry(.attention, "\(model): \(shape)", kernels: ["f32_attention_block"]) {
      try .attention(shape, name: $0, operands: $1)
    }
  }
}

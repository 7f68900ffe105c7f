import Quern

/// A learned bias of attention by the distance of key and query, in buckets that widen with it (T5: Raffel et al., arXiv 1910.10683).
final class RelativeBias: Sendable {
  private let kind: EncoderStackConfiguration.RelativePositions
  private let heads: Int
  /// `[buckets, heads]`.
  private let table: [Float]

  init(_ kind: EncoderStackConfiguration.RelativePositions, heads: Int, table: Tensor) {
    (self.kind, self.heads, self.table) = (kind, heads, table.elements)
  }

  /// Memory for biases, which grows to the most it has met.
  struct Workspace {
    private var memory: MutableTensor
    private var owner: ObjectIdentifier?
    private var first = 0
    private var extents = (queries: 0, keys: 0)

    init() throws { memory = try MutableTensor(zeros: Shape(0)) }

    /// What is added to the scores of `queries` tokens from position `first` on, `[1, heads, queries, keys]` or larger.
    mutating func mask(
      _ bias: RelativeBias, first: Int, queries: Int, keys: Int
    ) throws(QuernError) -> TensorView {
      let isThere =
        owner == ObjectIdentifier(bias) && self.first == first && queries <= extents.queries && keys <= extents.keys
      if !isThere {
        let shape = try Shape(checking: [bias.heads, queries, keys])
        if memory.shape.count < shape.count { memory = try MutableTensor(zeros: Shape(shape.count)) }
        (owner, self.first, extents) = (ObjectIdentifier(bias), first, (queries, keys))
        bias.fill(memory, first: first, queries: queries, keys: keys)
      }
      let shape = Shape(1, bias.heads, extents.queries, extents.keys)
      let strides = Shape(shape.count, extents.queries * extents.keys, extents.keys, 1)
      return memory.view.reinterpreted(offset: 0, shape: shape, strides: strides)
    }
  }

  private func fill(_ memory: MutableTensor, first: Int, queries: Int, keys: Int) {
    // One bucket for each distance: the logarithms are few.
    let distances = (1 - first - queries)..<max(keys - first, 1 - first)
    let buckets = distances.map { kind.bucket($0) }
    for head in 0..<heads {
      for query in 0..<queries {
        let row = memory.base + (head * queries + query) * keys
        let start = -(first + query) - distances.lowerBound
        for key in 0..<keys { row[key] = table[buckets[start + key] * heads + head] }
      }
    }
  }
}

extension EncoderStackConfiguration.RelativePositions {
  /// The bucket of a key that lies `distance` tokens after the query: one for each small distance, then logarithmically wider ones.
  ///
  /// In f32, as `transformers` computes it: a bucket's first distance depends on the rounding.
  func bucket(_ distance: Int) -> Int {
    let count = isBidirectional ? buckets / 2 : buckets
    let base = isBidirectional && distance > 0 ? count : 0
    let reach = isBidirectional ? abs(distance) : max(-distance, 0)
    let exact = count / 2
    guard reach >= exact else { return base + reach }
    let share =
      Real.log(Float(reach) / Float(exact)) / Float(Real.log(Double(maxDistance) / Double(exact)))
    return base + min(exact + Int(share * Float(count - exact)), count - 1)
  }
}

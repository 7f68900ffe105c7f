#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension ReferenceBackend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    attend(queries, keys, values, layout, mask, scale, softCap, logSumExp, o)
  }

  public func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    attend(queries, keys, values, layout, mask, scale, softCap, logSumExp, o)
  }

  private func attend(
    _ queries: TensorView, _ keys: some HeadRows, _ values: some HeadRows, _ layout: AttentionLayout,
    _ mask: AttentionMask, _ scale: Float, _ softCap: Float, _ logSumExp: MutableTensor?, _ o: MutableTensor
  ) {
    let (heads, size) = (queries.shape[1], queries.shape[2])
    let additive = mask.addressing()
    for sequence in 0..<layout.queries.count {
      let (queryRows, keyRows) = (layout.queries[sequence], layout.keyRows(sequence))
      for head in 0..<heads {
        let keyHead = head / (heads / keys.shape[1])
        for (i, query) in queryRows.enumerated() {
          let visible = mask.visible(i, queries: queryRows.count, keys: keyRows.count).filter {
            mask.blocks?.allows(head: head, query: i, key: $0) ?? true
          }
          let position = i + keyRows.count - queryRows.count
          let q = queries.line(query * queries.strides[0] + head * queries.strides[1])

          func score(_ j: Int) -> Double {
            let k = keys.vector(keyRows.lowerBound + j, keyHead)
            var sum = 0.0
            for d in 0..<size { sum += q[d] * k[d] }
            var score = Double(scale) * sum
            if softCap > 0 { score = Double(softCap) * tanh(score / Double(softCap)) }
            if let slopes = mask.slopes { score -= slopes.view[head] * Double(abs(j - position)) }
            guard let additive else { return score }
            let offset = sequence * additive.sequence + head * additive.head + i * additive.row + j
            return score + Double(additive.base.load(offset))
          }

          // Two passes over the keys: the largest score, then the exponentials with the values they weigh.
          let sink = mask.sinks.map { Double($0.view[head]) } ?? -Double.infinity
          var largest = sink
          for j in visible { largest = max(score(j), largest) }
          withUnsafeTemporaryAllocation(of: Double.self, capacity: size) { sums in
            sums.initialize(repeating: 0)
            var total = weight(sink, largest)
            for j in visible {
              let weight = weight(score(j), largest)
              let v = values.vector(keyRows.lowerBound + j, keyHead)
              total += weight
              for d in 0..<size { sums[d] += weight * v[d] }
            }
            if let logSumExp { logSumExp[query, head] = total == 0 ? -.infinity : largest + log(total) }
            let isUnseen = visible.isEmpty || total == 0
            for d in 0..<size { o[query, head, d] = isUnseen ? 0 : sums[d] / total }
          }
        }
      }
    }
  }

  /// exp(score - largest); a hidden key weighs nothing even where every key is hidden.
  private func weight(_ score: Double, _ largest: Double) -> Double {
    score == -.infinity ? 0 : exp(score - largest)
  }
}

/// Keys or values, `[rows, heads, size]`.
private protocol HeadRows {
  associatedtype Vector: HeadVector
  var shape: Shape { get }
  func vector(_ row: Int, _ head: Int) -> Vector
}

private protocol HeadVector {
  subscript(index: Int) -> Double { get }
}

extension Elements: HeadVector {}

extension TensorView: HeadRows {
  fileprivate func vector(_ row: Int, _ head: Int) -> Elements { line(row * strides[0] + head * strides[1]) }
}

extension Int8Cache: HeadRows {
  fileprivate struct CodedVector: HeadVector {
    let codes: UnsafeRawPointer
    let scale: Double

    subscript(index: Int) -> Double { scale * Double(codes.load(fromByteOffset: index, as: Int8.self)) }
  }

  fileprivate func vector(_ row: Int, _ head: Int) -> CodedVector {
    let place = vector(0, row, head)
    return CodedVector(codes: codes + place * size, scale: Double(scales[place]))
  }
}

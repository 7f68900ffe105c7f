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
    let (heads, size) = (queries.shape[1], queries.shape[2])
    let additive = mask.addressing()
    for sequence in 0..<layout.queries.count {
      let (queryRows, keyRows) = (layout.queries[sequence], layout.keyRows(sequence))
      for head in 0..<heads {
        let keyHead = head / (heads / keys.shape[1])
        for (i, query) in queryRows.enumerated() {
          let visible = mask.visible(i, queries: queryRows.count, keys: keyRows.count)
          let position = i + keyRows.count - queryRows.count
          let q = queries.line(query * queries.strides[0] + head * queries.strides[1])

          func score(_ j: Int) -> Double {
            let k = keys.line((keyRows.lowerBound + j) * keys.strides[0] + keyHead * keys.strides[1])
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
              let v = values.line((keyRows.lowerBound + j) * values.strides[0] + keyHead * values.strides[1])
              total += weight
              for d in 0..<size { sums[d] += weight * v[d] }
            }
            if let logSumExp { logSumExp[query, head] = total == 0 ? -.infinity : largest + log(total) }
            for d in 0..<size { o[query, head, d] = total == 0 ? 0 : sums[d] / total }
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

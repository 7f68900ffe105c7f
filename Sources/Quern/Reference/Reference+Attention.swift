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
    scale: Float, into o: MutableTensor
  ) {
    let (heads, size) = (queries.shape[1], queries.shape[2])
    let additive = mask.addressing()
    for sequence in 0..<layout.queries.count {
      let (queryRows, keyRows) = (layout.queries[sequence], layout.keys[sequence])
      for head in 0..<heads {
        let keyHead = head / (heads / keys.shape[1])
        for (i, query) in queryRows.enumerated() {
          let visible = mask.isCausal ? min(keyRows.count, max(0, i + 1 + keyRows.count - queryRows.count)) : keyRows.count
          let q = queries.base + query * queries.strides[0] + head * queries.strides[1]
          let target = o.base + query * o.strides[0] + head * o.strides[1]

          func score(_ j: Int) -> Double {
            let k = keys.base + (keyRows.lowerBound + j) * keys.strides[0] + keyHead * keys.strides[1]
            var sum = 0.0
            for d in 0..<size { sum += Double(q[d]) * Double(k[d]) }
            guard let additive else { return Double(scale) * sum }
            let offset = sequence * additive.sequence + head * additive.head + i * additive.row + j
            return Double(scale) * sum + Double(additive.base[offset])
          }

          // Three passes over the keys need no memory: the largest score, the sum of exponentials, the weighted values.
          var largest = -Double.infinity
          for j in 0..<visible { largest = max(score(j), largest) }
          var total = 0.0
          for j in 0..<visible { total += weight(score(j), largest) }
          for d in 0..<size {
            var sum = 0.0
            for j in 0..<visible {
              let v = values.base + (keyRows.lowerBound + j) * values.strides[0] + keyHead * values.strides[1]
              sum += weight(score(j), largest) * Double(v[d])
            }
            target[d] = total == 0 ? 0 : Float(sum / total)
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

extension ReferenceBackend {
  public func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing, into y: MutableTensor
  ) {
    let half = table.size / 2
    for (token, position) in positions.enumerated() {
      let angles = table.values.view.row(Int(position))
      for head in 0..<x.shape[1] {
        for j in 0..<half {
          let (first, second) = pairing == .split ? (j, j + half) : (2 * j, 2 * j + 1)
          let (a, b) = (x[token, head, first], x[token, head, second])
          y[token, head, first] = a * angles[j] - b * angles[half + j]
          y[token, head, second] = b * angles[j] + a * angles[half + j]
        }
        for j in table.size..<x.shape[2] { y[token, head, j] = x[token, head, j] }
      }
    }
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor) {
    for sequence in 0..<sequences.count {
      for (i, token) in sequences[sequence].enumerated() {
        for head in 0..<x.shape[1] {
          for j in 0..<x.shape[2] { cache[sequence, Int(lengths[sequence]) + i, head, j] = x[token, head, j] }
        }
      }
    }
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache) {
    for sequence in 0..<sequences.count {
      for (i, token) in sequences[sequence].enumerated() {
        for head in 0..<x.shape[1] {
          cache.store(
            { Float(x[token, head, $0]) }, at: cache.vector(sequence, Int(lengths[sequence]) + i, head))
        }
      }
    }
  }
}

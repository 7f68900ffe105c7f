extension ReferenceBackend {
  public func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
    for (i, id) in ids.enumerated() {
      for j in 0..<table.shape[1] { y[i, j] = (accumulate ? y[i, j] : 0) + table[Int(id), j] }
    }
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    for s in 0..<segments.count {
      let rows = segments[s]
      for j in 0..<x.shape[1] {
        var sum = 0.0
        for i in rows { sum += x[i, j] }
        y[s, j] = rows.isEmpty ? 0 : sum / Double(rows.count)
      }
    }
  }
}

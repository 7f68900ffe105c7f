extension ReferenceBackend {
  public func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32]) {
    let k = values.shape[1]
    for i in 0..<x.shape[0] {
      let row = x.row(i)
      let sorted = (0..<x.shape[1]).sorted { a, b in
        if row[a].isNaN || row[b].isNaN { return row[a].isNaN == row[b].isNaN ? a < b : row[a].isNaN }
        return row[a] == row[b] ? a < b : row[a] > row[b]
      }
      for j in 0..<k {
        values[i, j] = row[sorted[j]]
        indices[i * k + j] = Int32(sorted[j])
      }
    }
  }

  public func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, into y: MutableTensor) {
    for (destination, rows) in Dictionary(grouping: ids.indices, by: { Int(ids[$0]) }) {
      for j in 0..<x.shape[1] {
        y[destination, j] = rows.reduce(y[destination, j]) { $0 + (weights?[$1] ?? 1) * x[$1, j] }
      }
    }
  }

  public func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) {
    expertLinearByLinear(x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }
}

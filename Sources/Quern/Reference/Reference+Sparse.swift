extension ReferenceBackend {
  public func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix { try .transposed(weights) }

  public func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    for j in 0..<weights.outputs {
      for i in 0..<x.shape[0] {
        var sum = 0.0
        for block in weights.blocks(of: j) {
          let first = Int(weights.columns[block]) * weights.blockInputs
          let weight = weights.elements(of: j, block: block)
          for p in first..<min(first + weights.blockInputs, weights.inputs) { sum += x[i, p] * weight[p - first] }
        }
        y[i, j] = epilogue.applied(to: sum, column: j) + (residual?[i, j] ?? 0)
      }
    }
  }

  public func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    groupedLinearByLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }

  public func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor
  ) {
    /// Row j of a matrix.
    func row(_ matrix: PackedMatrix, _ j: Int) -> [Double] {
      guard let values = matrix.values(of: j) else {
        preconditionFailure("a backend that packs weights opaquely implements lowRankLinear itself")
      }
      return values
    }
    func dot(_ x: [Double], _ weights: [Double]) -> Double { zip(x, weights).reduce(0) { $0 + $1.0 * $1.1 } }
    let rows = (0..<x.shape[0]).map { i in
      let elements = x.row(i)
      return (0..<x.shape[1]).map { elements[$0] }
    }
    let downRows = (0..<down.outputs).map { row(down, $0) }
    let narrow = rows.map { x in downRows.map { dot(x, $0) } }
    for j in 0..<up.outputs {
      let (base, update) = (weights.map { row($0, j) }, row(up, j))
      for i in 0..<rows.count {
        y[i, j] =
          epilogue.applied(
            to: base.map { dot(rows[i], $0) } ?? 0, held: Double(scale) * dot(narrow[i], update), column: j)
          + (residual?[i, j] ?? 0)
      }
    }
  }
}

extension ReferenceBackend {
  public func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix { try .transposed(weights) }

  public func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    for j in 0..<weights.outputs {
      let blockRow = j / weights.blockOutputs
      let blocks = Int(weights.offsets[blockRow])..<Int(weights.offsets[blockRow + 1])
      for i in 0..<x.shape[0] {
        var sum = 0.0
        for block in blocks {
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
    _ x: TensorView, weights: PackedMatrix, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor
  ) {
    /// x[i] · row j of a matrix.
    func product(_ x: (Int) -> Double, _ matrix: PackedMatrix, _ j: Int) -> Double {
      guard let weight = matrix.row(j) else {
        preconditionFailure("a backend that packs weights opaquely implements lowRankLinear itself")
      }
      return (0..<matrix.inputs).reduce(0) { $0 + x($1) * weight[$1] }
    }
    for i in 0..<x.shape[0] {
      let row = x.row(i)
      let narrow = (0..<down.outputs).map { product({ row[$0] }, down, $0) }
      for j in 0..<weights.outputs {
        let update = Double(scale) * product({ narrow[$0] }, up, j)
        let sum = product({ row[$0] }, weights, j)
        y[i, j] = epilogue.applied(to: sum, held: update, column: j) + (residual?[i, j] ?? 0)
      }
    }
  }
}

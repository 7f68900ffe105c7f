extension ReferenceBackend {
  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    for j in 0..<weights.outputs {
      guard let weight = weights.row(j) else { return }
      for i in 0..<x.shape[0] {
        let row = x.base + i * x.strides[0]
        var sum = 0.0
        for p in 0..<weights.inputs { sum += Double(row[p]) * Double(weight.base[p * weight.stride]) }
        store(
          sum, epilogue, residual.map { $0.base[i * $0.strides[0] + j] }, column: j, to: y.base + i * y.strides[0] + j)
      }
    }
  }

  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    for z in 0..<c.shape[0] {
      for i in 0..<c.shape[1] {
        for j in 0..<c.shape[2] {
          let row = a.base + z * a.strides[0] + i * a.strides[1]
          let column = b.base + z * b.strides[0] + j * b.strides[2]
          var sum = 0.0
          for p in 0..<a.shape[2] { sum += Double(row[p * a.strides[2]]) * Double(column[p * b.strides[1]]) }
          let target = c.base + z * c.strides[0] + i * c.strides[1] + j
          let held = beta == 0 ? 0 : Double(beta) * Double(target.pointee)
          let added = residual.map { $0.base[z * $0.strides[0] + i * $0.strides[1] + j] }
          store(sum, epilogue, added, column: j, held: held, to: target)
        }
      }
    }
  }

  /// activation(scale sum + held + bias) + residual, rounded once.
  private func store(
    _ sum: Double, _ epilogue: Epilogue, _ residual: Float?, column: Int, held: Double = 0,
    to target: UnsafeMutablePointer<Float>
  ) {
    let bias = epilogue.bias.map { Double($0.view.base[column]) } ?? 0
    let value = epilogue.activation.exact(Double(epilogue.scale) * sum + held + bias)
    target.pointee = Float(value + Double(residual ?? 0))
  }
}

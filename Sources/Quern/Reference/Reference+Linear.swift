extension ReferenceBackend {
  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    for j in 0..<weights.outputs {
      guard let weight = weights.values(of: j) else {
        preconditionFailure("a backend that packs weights opaquely implements linear itself")
      }
      for i in 0..<x.shape[0] {
        let row = x.row(i)
        var sum = 0.0
        for p in 0..<weights.inputs { sum += row[p] * weight[p] }
        y[i, j] = epilogue.applied(to: sum, column: j) + (residual?[i, j] ?? 0)
      }
    }
  }

  public func gatedLinear(_ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor) {
    for j in 0..<weights.outputs {
      guard let gate = weights.gate.values(of: j), let value = weights.value.values(of: j) else {
        preconditionFailure("a backend that packs weights opaquely implements linear itself")
      }
      for i in 0..<x.shape[0] {
        let row = x.row(i)
        var (first, second) = (weights.gateBias?.view[j] ?? 0, weights.valueBias?.view[j] ?? 0)
        for p in 0..<weights.inputs {
          first += row[p] * gate[p]
          second += row[p] * value[p]
        }
        y[i, j] = activation.exact(first) * second
      }
    }
  }

  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    for z in 0..<c.shape[0] {
      for i in 0..<c.shape[1] {
        let row = a.line(z * a.strides[0] + i * a.strides[1])
        for j in 0..<c.shape[2] {
          let column = b.transposed().line(z * b.strides[0] + j * b.strides[2])
          var sum = 0.0
          for p in 0..<a.shape[2] { sum += row[p] * column[p] }
          let held = beta == 0 ? 0 : Double(beta) * c[z, i, j]
          c[z, i, j] = epilogue.applied(to: sum, held: held, column: j) + (residual?[z, i, j] ?? 0)
        }
      }
    }
  }
}

extension Epilogue {
  /// activation(scale sum + held + bias), in Double.
  package func applied(to sum: Double, held: Double = 0, column: Int) -> Double {
    activation.exact(Double(scale) * sum + held + (bias?.view[column] ?? 0))
  }
}

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension ReferenceBackend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    for i in 0..<x.shape[0] {
      let (source, target) = (x.base + i * x.strides[0], y.base + i * y.strides[0])
      let n = x.shape[1]
      let visible = diagonal.map { min(n, max(0, $0.addingReportingOverflow(i + 1).partialValue)) } ?? n

      func score(_ j: Int) -> Double {
        Double(scale) * Double(source[j]) + Double(mask.map { $0.base[i * $0.strides[0] + j] } ?? 0)
      }

      var largest = -Double.infinity
      for j in 0..<visible { largest = max(score(j), largest) }
      var total = 0.0
      for j in 0..<visible where score(j) != -.infinity { total += exp(score(j) - largest) }
      for j in 0..<n {
        target[j] = j >= visible || score(j) == -.infinity ? 0 : Float(exp(score(j) - largest) / total)
      }
    }
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    let n = x.shape[1]
    for i in 0..<x.shape[0] {
      let z = Row(x, residual, row: i)
      var (sum, squares) = (0.0, 0.0)
      for j in 0..<n { sum += z[j] }
      let mean = sum / Double(n)
      for j in 0..<n { squares += (z[j] - mean) * (z[j] - mean) }
      let factor = 1 / (squares / Double(n) + Double(epsilon)).squareRoot()
      let target = y.base + i * y.strides[0]
      for j in 0..<n {
        let scaled = (z[j] - mean) * factor * Double(weight?.view.base[j] ?? 1)
        target[j] = Float(scaled + Double(bias?.view.base[j] ?? 0))
      }
    }
  }

  public func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor) {
    let n = x.shape[1]
    for i in 0..<x.shape[0] {
      let z = Row(x, residual, row: i)
      var squares = 0.0
      for j in 0..<n { squares += z[j] * z[j] }
      let factor = 1 / (squares / Double(n) + Double(epsilon)).squareRoot()
      let target = y.base + i * y.strides[0]
      for j in 0..<n { target[j] = Float(z[j] * factor * Double(weight?.view.base[j] ?? 1)) }
    }
  }

  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    forEachElement(x, y) { Float(activation.exact(Double($0))) }
  }

  public func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
    for (i, id) in ids.enumerated() {
      let (source, target) = (table.base + Int(id) * table.strides[0], y.base + i * y.strides[0])
      for j in 0..<table.shape[1] { target[j] = accumulate ? target[j] + source[j] : source[j] }
    }
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    forEachPair(a, b, y) { Float(Double($0) + Double($1)) }
  }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    forEachPair(a, b, y) { Float(Double($0) * Double($1)) }
  }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    forEachElement(x, y) { Float(Double(factor) * Double($0)) }
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    for s in 0..<segments.count {
      let rows = segments[s]
      for j in 0..<x.shape[1] {
        var sum = 0.0
        for i in rows { sum += Double(x.base[i * x.strides[0] + j]) }
        y.base[s * y.strides[0] + j] = rows.isEmpty ? 0 : Float(sum / Double(rows.count))
      }
    }
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    for i in 0..<x.shape[0] {
      let (source, target) = (x.base + i * x.strides[0], y.base + i * y.strides[0])
      var squares = 0.0
      for j in 0..<x.shape[1] { squares += Double(source[j]) * Double(source[j]) }
      let length = squares.squareRoot()
      let divisor = length < Double(epsilon) ? Double(epsilon) : length
      for j in 0..<x.shape[1] { target[j] = Float(Double(source[j]) / divisor) }
    }
  }

  private func forEachElement(_ x: TensorView, _ y: MutableTensor, _ function: (Float) -> Float) {
    forEachPair(x, x, y) { value, _ in function(value) }
  }

  private func forEachPair(_ a: TensorView, _ b: TensorView, _ y: MutableTensor, _ function: (Float, Float) -> Float) {
    for i in 0..<a.shape[0] {
      for j in 0..<a.shape[1] {
        y.base[i * y.strides[0] + j] = function(a.base[i * a.strides[0] + j], b.base[i * b.strides[0] + j])
      }
    }
  }
}

/// One row of x + residual, in Double.
private struct Row {
  let x: UnsafePointer<Float>
  let residual: UnsafePointer<Float>?

  init(_ x: TensorView, _ residual: TensorView?, row: Int) {
    self.x = x.base + row * x.strides[0]
    self.residual = residual.map { $0.base + row * $0.strides[0] }
  }

  subscript(column: Int) -> Double { Double(x[column]) + Double(residual?[column] ?? 0) }
}

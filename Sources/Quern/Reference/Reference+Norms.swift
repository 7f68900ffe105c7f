#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension ReferenceBackend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    let n = x.shape[1]
    for i in 0..<x.shape[0] {
      let source = x.row(i)
      let visible = diagonal.map { min(n, max(0, $0.addingReportingOverflow(i + 1).partialValue)) } ?? n

      func score(_ j: Int) -> Double { Double(scale) * source[j] + (mask?[i, j] ?? 0) }

      var largest = -Double.infinity
      for j in 0..<visible { largest = max(score(j), largest) }
      var total = 0.0
      for j in 0..<visible where score(j) != -.infinity { total += exp(score(j) - largest) }
      for j in 0..<n {
        y[i, j] = j >= visible || score(j) == -.infinity ? 0 : exp(score(j) - largest) / total
      }
    }
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
    into y: MutableTensor
  ) {
    let n = x.shape[1]
    for i in 0..<x.shape[0] {
      let z = Sum(x, residual, row: i)
      var (total, squares) = (0.0, 0.0)
      for j in 0..<n { total += z[j] }
      let mean = total / Double(n)
      for j in 0..<n { squares += (z[j] - mean) * (z[j] - mean) }
      let factor = 1 / (squares / Double(n) + Double(epsilon)).squareRoot()
      for j in 0..<n {
        let value = z[j]
        sum?[i, j] = value
        y[i, j] = (value - mean) * factor * (weight?.view[j] ?? 1) + (bias?.view[j] ?? 0)
      }
    }
  }

  public func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    let n = x.shape[1]
    for i in 0..<x.shape[0] {
      let z = Sum(x, residual, row: i)
      var squares = 0.0
      for j in 0..<n { squares += z[j] * z[j] }
      let factor = 1 / (squares / Double(n) + Double(epsilon)).squareRoot()
      for j in 0..<n {
        let value = z[j]
        sum?[i, j] = value
        y[i, j] = value * factor * (weight?.view[j] ?? 1)
      }
    }
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    for i in 0..<x.shape[0] {
      var squares = 0.0
      for j in 0..<x.shape[1] { squares += x[i, j] * x[i, j] }
      let length = squares.squareRoot()
      let divisor = length < Double(epsilon) ? Double(epsilon) : length
      for j in 0..<x.shape[1] { y[i, j] = x[i, j] / divisor }
    }
  }
}

extension ReferenceBackend {
  public func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation, into y: MutableTensor
  ) {
    let size = ImageAxes(x, layout)
    let width = size.channels / groups
    for b in 0..<size.batch {
      for group in 0..<groups {
        let channels = group * width..<(group + 1) * width
        func sum(_ term: (Double) -> Double) -> Double {
          var total = 0.0
          for c in channels {
            for i in 0..<size.height {
              for j in 0..<size.width { total += term(x[layout, b, c, i, j]) }
            }
          }
          return total
        }
        let count = Double(width * size.height * size.width)
        let mean = sum { $0 } / count
        let factor = 1 / (sum { ($0 - mean) * ($0 - mean) } / count + Double(epsilon)).squareRoot()
        for c in channels {
          for i in 0..<size.height {
            for j in 0..<size.width {
              let scaled = (x[layout, b, c, i, j] - mean) * factor * (weight?.view[c] ?? 1)
              y[layout, b, c, i, j] = activation.exact(scaled + (bias?.view[c] ?? 0))
            }
          }
        }
      }
    }
  }
}

/// One row of x + residual.
private struct Sum {
  let x: Elements
  let residual: Elements?

  init(_ x: TensorView, _ residual: TensorView?, row: Int) {
    (self.x, self.residual) = (x.row(row), residual?.row(row))
  }

  subscript(column: Int) -> Double { x[column] + (residual?[column] ?? 0) }
}

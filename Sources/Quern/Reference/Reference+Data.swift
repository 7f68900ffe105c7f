#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension ReferenceBackend {
  public func copy(_ x: TensorView, into y: MutableTensor) {
    for position in 0..<x.shape.count { y.store(x.load(x.offset(of: position)), at: y.offset(of: position)) }
  }

  public func binary(_ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    y.fill { function.exact(a[$0, $1], b[$0, $1]) }
  }

  public func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor) {
    y.fill { i, j in x[i, j].isNaN ? x[i, j] : min(max(x[i, j], Double(low)), Double(high)) }
  }

  public func select(_ x: TensorView, mask: TensorView, into y: MutableTensor) {
    y.fill { abs(mask[$0, $1]) > 0 ? x[$0, $1] : y[$0, $1] }
  }

  public func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    let t = Double(fraction)
    y.fill { straight(a[$0, $1], b[$0, $1], t) }
  }

  public func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    let t = Double(fraction)
    for i in 0..<y.shape[0] {
      var (aa, bb, ab) = (0.0, 0.0, 0.0)
      for j in 0..<y.shape[1] {
        aa += a[i, j] * a[i, j]
        bb += b[i, j] * b[i, j]
        ab += a[i, j] * b[i, j]
      }
      let cosine = ab / (aa * bb).squareRoot()
      let angle = acos(cosine)
      for j in 0..<y.shape[1] {
        let onCircle = (sin((1 - t) * angle) * a[i, j] + sin(t * angle) * b[i, j]) / sin(angle)
        y[i, j] = abs(cosine) <= sphericalLimit ? onCircle : straight(a[i, j], b[i, j], t)
      }
    }
  }
}

/// `a + t (b - a)` from the nearer end.
private func straight(_ a: Double, _ b: Double, _ t: Double) -> Double {
  abs(t) < 0.5 ? a + t * (b - a) : b - (1 - t) * (b - a)
}

extension BinaryFunction {
  /// The function in Double.
  fileprivate func exact(_ a: Double, _ b: Double) -> Double {
    switch self {
    case .subtract: a - b
    case .divide: a / b
    case .maximum: a.isNaN || b.isNaN ? .nan : max(a, b)
    case .minimum: a.isNaN || b.isNaN ? .nan : min(a, b)
    }
  }
}

extension MutableTensor {
  /// Every element of `[rows, n]`, from its row and column.
  fileprivate func fill(_ value: (Int, Int) -> Double) {
    for i in 0..<shape[0] {
      for j in 0..<shape[1] { self[i, j] = value(i, j) }
    }
  }
}

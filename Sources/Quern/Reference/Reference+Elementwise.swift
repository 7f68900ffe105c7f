#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension ReferenceBackend {
  public func elementFunction(_ function: ElementFunction, _ x: TensorView, into y: MutableTensor) {
    forEach(y) { i, j in
      let value = x[i, j]
      return switch function {
      case .exp: exp(value)
      case .erf: erf(value)
      case .softplus: value.isNaN ? value : max(value, 0) + log1p(exp(-abs(value)))
      }
    }
  }

  public func repu(_ x: TensorView, power: Int, into y: MutableTensor) {
    forEach(y) { i, j in
      let value = x[i, j]
      return value.isNaN ? value : pow(max(value, 0), Double(power))
    }
  }

  public func gated(_ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor) {
    forEach(y) { i, j in activation.exact(gate[i, j]) * value[i, j] }
  }

  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    forEach(y) { i, j in activation.exact(x[i, j]) }
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) { forEach(y) { a[$0, $1] + b[$0, $1] } }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) { forEach(y) { a[$0, $1] * b[$0, $1] } }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    forEach(y) { Double(factor) * x[$0, $1] }
  }

  /// `y[i, j] = function(i, j)`.
  func forEach(_ y: MutableTensor, _ function: (Int, Int) -> Double) {
    for i in 0..<y.shape[0] {
      for j in 0..<y.shape[1] { y[i, j] = function(i, j) }
    }
  }
}

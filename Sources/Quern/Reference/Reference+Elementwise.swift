extension ReferenceBackend {
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

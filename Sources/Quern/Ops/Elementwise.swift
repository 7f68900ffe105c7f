/// Functions of each element. See ``Backend`` for what every requirement may rely on.
public protocol ElementwiseOperations {
  /// `y = activation(x)`. y may be x.
  func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor)

  /// `y = a + b`; b may have one row for all. y may be a or b.
  func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = a b`, element by element; b may have one row for all. y may be a or b.
  func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = factor x`. y may be x.
  func scale(_ x: TensorView, by factor: Float, into y: MutableTensor)
}

extension Backend {
  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    handOn(.activation).activation(activation, x, into: y)
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) { handOn(.add).add(a, b, into: y) }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    handOn(.multiply).multiply(a, b, into: y)
  }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    handOn(.scale).scale(x, by: factor, into: y)
  }
}

extension Context {
  /// `y = activation(x)`, element by element. y may be x.
  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .activation).pair(x, y)
    runner(.activation, x.types, y.types).activation(activation, x, into: y)
  }

  /// `y = a + b`; b may have one row for all rows of a. y may be a or b.
  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .add)
    let (a, y) = try check.pair(a, y)
    let b = try check.second(b, "b", of: y, repeats: true, mayBeSame: true)
    runner(.add, a.types, b.types, y.types).add(a, b, into: y)
  }

  /// `y = a b`, element by element; b may have one row for all rows of a. y may be a or b.
  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .multiply)
    let (a, y) = try check.pair(a, y)
    let b = try check.second(b, "b", of: y, repeats: true, mayBeSame: true)
    runner(.multiply, a.types, b.types, y.types).multiply(a, b, into: y)
  }

  /// `y = factor x`. y may be x.
  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .scale).pair(x, y)
    runner(.scale, x.types, y.types).scale(x, by: factor, into: y)
  }
}

/// Functions of each element. See ``Backend`` for what every requirement may rely on.
public protocol ElementwiseOperations {
  /// `y = activation(x)`. y may be x.
  func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor)

  /// `y = a + b`; b may have one row for all. y may be a or b.
  func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = a b`, element by element; b may have one row for all. y may be a or b.
  func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = function(x)`. y may be x.
  func elementFunction(_ function: ElementFunction, _ x: TensorView, into y: MutableTensor)

  /// `y = max(x, 0)^power`, power at least 1. y may be x.
  func repu(_ x: TensorView, power: Int, into y: MutableTensor)

  /// `y = activation(gate) value`. y may be gate or value.
  func gated(_ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor)

  /// `y = factor x`. y may be x.
  func scale(_ x: TensorView, by factor: Float, into y: MutableTensor)
}

/// Element-wise functions that are no activation of an epilogue.
public enum ElementFunction: String, Sendable, CaseIterable {
  /// `e^x`.
  case exp
  /// The error function.
  case erf
  /// `log(1 + e^x)`, exact for large x.
  case softplus
}

extension Backend {
  public func elementFunction(_ function: ElementFunction, _ x: TensorView, into y: MutableTensor) {
    handOn(.elementFunction).elementFunction(function, x, into: y)
  }

  public func repu(_ x: TensorView, power: Int, into y: MutableTensor) {
    handOn(.repu).repu(x, power: power, into: y)
  }

  public func gated(_ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor) {
    handOn(.gated).gated(activation, gate: gate, value: value, into: y)
  }

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
  /// `y = function(x)`, element by element. y may be x.
  public func elementFunction(
    _ function: ElementFunction, _ x: TensorView, into y: MutableTensor
  ) throws(QuernError) {
    let (x, y) = try Check(operation: .elementFunction).pair(x, y)
    try run(runner(.elementFunction, x.types, y.types)) { $0.elementFunction(function, x, into: y) }
  }

  /// `y = max(x, 0)^power`, element by element (RePU: Li, Tang and Yu, arXiv 1903.05858). y may be x.
  ///
  /// - Parameter power: at least 1, which is ReLU.
  public func repu(_ x: TensorView, power: Int, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .repu)
    let (x, y) = try check.pair(x, y)
    try check.require(power >= 1, "power is \(power); it is at least 1")
    try run(runner(.repu, x.types, y.types)) { $0.repu(x, power: power, into: y) }
  }

  /// `y = activation(gate) value`, element by element (Shazeer, arXiv 2002.05202): GLU with the sigmoid, SwiGLU with SiLU,
  /// GEGLU with GELU, ReGLU with ReLU.
  ///
  /// Gate and value may be column ranges of one tensor, in either order: PyTorch's `glu` has the value first, Llama the
  /// gate. y may be either.
  public func gated(
    _ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .gated)
    try check.same(y.shape, "y", gate.shape, "gate")
    try check.same(y.shape, "y", value.shape, "value")
    let (gate, y) = try check.pair(gate, y)
    let operand = try check.second(value, "value", of: y, repeats: false, mayBeSame: true)
    try run(runner(.gated, gate.types, operand.types, y.types)) {
      $0.gated(activation, gate: gate, value: operand, into: y)
    }
  }

  /// `y = activation(x)`, element by element. y may be x.
  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .activation).pair(x, y)
    try run(runner(.activation, x.types, y.types)) { $0.activation(activation, x, into: y) }
  }

  /// `y = a + b`; b may have one row for all rows of a. y may be a or b.
  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .add)
    let (a, y) = try check.pair(a, y)
    let b = try check.second(b, "b", of: y, repeats: true, mayBeSame: true)
    try run(runner(.add, a.types, b.types, y.types)) { $0.add(a, b, into: y) }
  }

  /// `y = a b`, element by element; b may have one row for all rows of a. y may be a or b.
  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .multiply)
    let (a, y) = try check.pair(a, y)
    let b = try check.second(b, "b", of: y, repeats: true, mayBeSame: true)
    try run(runner(.multiply, a.types, b.types, y.types)) { $0.multiply(a, b, into: y) }
  }

  /// `y = factor x`. y may be x.
  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .scale).pair(x, y)
    try run(runner(.scale, x.types, y.types)) { $0.scale(x, by: factor, into: y) }
  }
}

import CKernels

extension MultithreadedBackend {
  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_activation, x, into: y, configure: { $0.activation = activation.code }) {
      handOn(.activation).activation(activation, x, into: y)
    }
  }

  public func elementFunction(_ function: ElementFunction, _ x: TensorView, into y: MutableTensor) {
    let kernel =
      switch function {
      case .exp: table.kernels.f32_exp
      case .erf: table.kernels.f32_erf
      case .softplus: table.kernels.f32_softplus
      }
    if !run(kernel, x, into: y) { handOn(.elementFunction).elementFunction(function, x, into: y) }
  }

  public func repu(_ x: TensorView, power: Int, into y: MutableTensor) {
    if !run(table.kernels.f32_repu, x, into: y, configure: { $0.power = power }) {
      handOn(.repu).repu(x, power: power, into: y)
    }
  }

  public func gated(_ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_gated, gate, other: value, into: y, configure: { $0.activation = activation.code }) {
      handOn(.gated).gated(activation, gate: gate, value: value, into: y)
    }
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_add, a, other: b, into: y) { handOn(.add).add(a, b, into: y) }
  }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_mul, a, other: b, into: y) { handOn(.multiply).multiply(a, b, into: y) }
  }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    if !run(table.kernels.f32_scale, x, into: y, configure: { $0.scale = factor }) {
      handOn(.scale).scale(x, by: factor, into: y)
    }
  }
}

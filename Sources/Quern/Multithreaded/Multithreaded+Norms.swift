import CKernels

extension MultithreadedBackend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    let done = run(table.kernels.f32_softmax, x, other: mask, into: y) { call in
      call.scale = scale
      if let diagonal { call.diagonal = diagonal }
    }
    if !done { handOn(.softmax).softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y) }
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    let done = run(table.kernels.f32_layernorm, x, other: residual, into: y) { call in
      (call.weight, call.bias, call.epsilon) = (weight?.view.base, bias?.view.base, epsilon)
    }
    if !done {
      handOn(.layerNorm).layerNorm(x, residual: residual, weight: weight, bias: bias, epsilon: epsilon, into: y)
    }
  }

  public func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor) {
    let done = run(table.kernels.f32_rmsnorm, x, other: residual, into: y) { call in
      (call.weight, call.epsilon) = (weight?.view.base, epsilon)
    }
    if !done { handOn(.rmsNorm).rmsNorm(x, residual: residual, weight: weight, epsilon: epsilon, into: y) }
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    if !run(table.kernels.f32_l2norm, x, into: y, configure: { $0.epsilon = epsilon }) {
      handOn(.l2Normalize).l2Normalize(x, epsilon: epsilon, into: y)
    }
  }
}

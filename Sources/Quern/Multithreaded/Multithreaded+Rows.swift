import CKernels

extension MultithreadedBackend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    run(table.kernels.f32_softmax, x, other: mask, into: y) { call in
      call.scale = scale
      if let diagonal { call.diagonal = diagonal }
    }
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    run(table.kernels.f32_layernorm, x, other: residual, into: y) { call in
      (call.weight, call.bias, call.epsilon) = (weight?.view.base, bias?.view.base, epsilon)
    }
  }

  public func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor) {
    run(table.kernels.f32_rmsnorm, x, other: residual, into: y) { call in
      (call.weight, call.epsilon) = (weight?.view.base, epsilon)
    }
  }

  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    run(table.kernels.f32_activation, x, into: y) { $0.activation = activation.code }
  }

  public func embedding(_ ids: [Int32], table rows: TensorView, accumulate: Bool, into y: MutableTensor) {
    ids.withUnsafeBufferPointer { ids in
      run(table.kernels.f32_gather, rows, into: y) { call in
        (call.index, call.accumulate) = (ids.baseAddress, accumulate ? 1 : 0)
      }
    }
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    run(table.kernels.f32_add, a, other: b, into: y)
  }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    run(table.kernels.f32_mul, a, other: b, into: y)
  }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    run(table.kernels.f32_scale, x, into: y) { $0.scale = factor }
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    segments.offsets.withUnsafeBufferPointer { offsets in
      run(table.kernels.f32_mean_pool, x, into: y) { $0.index = offsets.baseAddress }
    }
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    run(table.kernels.f32_l2norm, x, into: y) { $0.epsilon = epsilon }
  }
}

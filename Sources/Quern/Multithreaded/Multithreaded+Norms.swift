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
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
    into y: MutableTensor
  ) {
    let done = run(table.kernels.f32_layernorm, x, other: residual, into: y) { call in
      call.setSum(sum)
      (call.weight, call.bias, call.epsilon) = (weight?.view.base, bias?.view.base, epsilon)
    }
    if !done {
      handOn(.layerNorm).layerNorm(
        x, residual: residual, sum: sum, weight: weight, bias: bias, epsilon: epsilon, into: y)
    }
  }

  public func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    let done = run(table.kernels.f32_rmsnorm, x, other: residual, into: y) { call in
      call.setSum(sum)
      (call.weight, call.epsilon) = (weight?.view.base, epsilon)
    }
    if !done { handOn(.rmsNorm).rmsNorm(x, residual: residual, sum: sum, weight: weight, epsilon: epsilon, into: y) }
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    if !run(table.kernels.f32_l2norm, x, into: y, configure: { $0.epsilon = epsilon }) {
      handOn(.l2Normalize).l2Normalize(x, epsilon: epsilon, into: y)
    }
  }

  public func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation, into y: MutableTensor
  ) {
    let (from, to) = (ImageAxes(x, layout), ImageAxes(y, layout))
    var call = ck_group_norm()
    (call.batch, call.channels, call.h, call.w) = (from.batch, from.channels, from.height, from.width)
    (call.groups, call.channels_last) = (groups, layout == .channelsLast ? 1 : 0)
    (call.x, call.x_type) = (UnsafeRawPointer(x.pointer), x.dataType.code)
    (call.x_bs, call.x_cs, call.x_hs, call.x_ws) = (
      from.batchStride, from.channelStride, from.rowStride, from.columnStride
    )
    (call.y, call.y_type) = (UnsafeMutableRawPointer(y.pointer), y.dataType.code)
    (call.y_bs, call.y_cs, call.y_hs, call.y_ws) = (to.batchStride, to.channelStride, to.rowStride, to.columnStride)
    (call.weight, call.bias, call.epsilon) = (weight?.view.base, bias?.view.base, epsilon)
    call.activation = activation.code
    if ck_f32_group_norm(table.pointer, &call, threads) != 0 {
      handOn(.groupNorm).groupNorm(
        x, layout: layout, groups: groups, weight: weight, bias: bias, epsilon: epsilon, activation: activation, into: y
      )
    }
  }
}

extension ck_rows {
  /// The second output of a norm.
  fileprivate mutating func setSum(_ sum: MutableTensor?) {
    guard let sum else { return }
    (z, z_rs, z_type) = (sum.pointer, sum.strides[0], sum.dataType.code)
  }
}

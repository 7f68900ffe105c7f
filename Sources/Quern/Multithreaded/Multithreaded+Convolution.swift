import CKernels

extension MultithreadedBackend {
  public func packConvolution(_ weights: TensorView, _ convolution: Convolution) throws -> PackedConvolution {
    try PackedConvolution(weights, convolution, pack: pack)
  }

  public func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, into y: MutableTensor
  ) {
    let packed = weights.isDepthwise ? .panels(width: weights.outputs) : self.layout(of: weights.dataType)
    guard weights.matrices.allSatisfy({ $0.layout == packed }),
      run(x, weights, layout, epilogue, add, residual, y)
    else {
      return handOn(.conv2d).conv2d(
        x, weights: weights, layout: layout, epilogue: epilogue, add: add, residual: residual, into: y)
    }
  }

  /// One call for each group; false, with nothing written, where memory cannot be had.
  private func run(
    _ x: TensorView, _ weights: PackedConvolution, _ layout: ImageLayout, _ epilogue: Epilogue, _ add: TensorView?,
    _ residual: TensorView?, _ y: MutableTensor
  ) -> Bool {
    let c = weights.convolution
    let groups = weights.matrices.count
    var call = ck_conv()
    (call.batch, call.channels, call.outputs) = (x.shape[0], weights.channels / groups, weights.outputs / groups)
    call.h = ck_conv_axis(
      input: c.imageExtent(x.shape[layout.height], y.shape[layout.height]), output: y.shape[layout.height],
      kernel: weights.kernel.height,
      stride: c.stride.height, dilation: c.dilation.height, padding: c.padding.top)
    call.w = ck_conv_axis(
      input: c.imageExtent(x.shape[layout.width], y.shape[layout.width]), output: y.shape[layout.width],
      kernel: weights.kernel.width,
      stride: c.stride.width, dilation: c.dilation.width, padding: c.padding.left)
    (call.transposed, call.channels_last) = (c.isTransposed ? 1 : 0, layout == .channelsLast ? 1 : 0)
    call.doubled = c.upsampling == 2 ? 1 : 0
    (call.x_s, call.x_type) = (layout.strides(of: x), x.dataType.code)
    (call.y_s, call.y_type) = (layout.strides(of: y), y.dataType.code)
    (call.scale, call.activation, call.weights_type) = (epilogue.scale, epilogue.activation.code, weights.dataType.code)
    (call.winograd, call.split) = (convolution == .winograd && c.allowsWinograd ? 1 : 0, split)
    if let add { (call.add_rs, call.add_type) = (add.strides[0], add.dataType.code) }
    if let residual { (call.residual_s, call.residual_type) = (layout.strides(of: residual), residual.dataType.code) }
    for group in 0..<groups {
      let (input, output) = (group * call.channels, group * call.outputs)
      call.x = x.address + input * call.x_s.channel * x.dataType.size
      call.y = y.address + output * call.y_s.channel * y.dataType.size
      (call.weights, call.weights_range) = (
        weights.matrices[group].storage.view.address, weights.matrices[group].range
      )
      if let bias = epilogue.bias { call.bias = bias.view.base + output }
      if let add { call.add = add.address + output * add.dataType.size }
      if let residual { call.residual = residual.address + output * call.residual_s.channel * residual.dataType.size }
      let outcome =
        weights.isDepthwise
        ? ck_f32_depthwise(table.pointer, &call, threads) : ck_f32_conv(table.pointer, &call, threads)
      if outcome != 0 { return false }
    }
    return true
  }
}

extension ImageLayout {
  fileprivate func strides(of tensor: some Strided) -> ck_conv_strides {
    let strides = tensor.strides
    return ck_conv_strides(image: strides[0], row: strides[height], pixel: strides[width], channel: strides[channels])
  }
}

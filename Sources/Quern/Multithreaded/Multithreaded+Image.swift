import CKernels

extension MultithreadedBackend {
  public func averagePool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    if !run(table.kernels.f32_avg_pool, x, layout, into: y, configure: { $0.setWindow(window) }) {
      handOn(.averagePool).averagePool(x, window: window, layout: layout, into: y)
    }
  }

  public func maxPool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    if !run(table.kernels.f32_max_pool, x, layout, into: y, configure: { $0.setWindow(window) }) {
      handOn(.maxPool).maxPool(x, window: window, layout: layout, into: y)
    }
  }

  public func resize(_ x: TensorView, by resampling: Resampling, layout: ImageLayout, into y: MutableTensor) {
    let kernel = resampling == .nearest ? table.kernels.f32_resize_nearest : table.kernels.f32_resize_bilinear
    let aligned: Int32 = resampling == .bilinearAlignedCorners ? 1 : 0
    if !run(kernel, x, layout, into: y, configure: { $0.align_corners = aligned }) {
      handOn(.resize).resize(x, by: resampling, layout: layout, into: y)
    }
  }

  public func pad(
    _ x: TensorView, margins: ImageMargins, border: ImageBorder, layout: ImageLayout, into y: MutableTensor
  ) {
    let done = run(table.kernels.f32_pad, x, layout, into: y) { call in
      (call.pad_h, call.pad_w) = (margins.top, margins.left)
      switch border {
      case .constant(let value): (call.border, call.value) = (CK_BORDER_CONSTANT, value)
      case .reflect: call.border = CK_BORDER_REFLECT
      case .replicate: call.border = CK_BORDER_REPLICATE
      }
    }
    if !done { handOn(.pad).pad(x, margins: margins, border: border, layout: layout, into: y) }
  }

  /// Runs an image kernel of the table; false, with nothing written, where scratch memory cannot be had.
  private func run(
    _ kernel: ck_image_kernel?, _ x: TensorView, _ layout: ImageLayout, into y: MutableTensor,
    configure: (inout ck_image) -> Void
  ) -> Bool {
    let (from, to) = (ImageAxes(x, layout), ImageAxes(y, layout))
    var call = ck_image()
    (call.batch, call.channels, call.channels_last) = (from.batch, from.channels, layout == .channelsLast ? 1 : 0)
    (call.x_h, call.x_w, call.y_h, call.y_w) = (from.height, from.width, to.height, to.width)
    (call.x, call.x_type) = (UnsafeRawPointer(x.pointer), x.dataType.code)
    (call.x_bs, call.x_cs, call.x_hs, call.x_ws) = (
      from.batchStride, from.channelStride, from.rowStride, from.columnStride
    )
    (call.y, call.y_type) = (UnsafeMutableRawPointer(y.pointer), y.dataType.code)
    (call.y_bs, call.y_cs, call.y_hs, call.y_ws) = (to.batchStride, to.channelStride, to.rowStride, to.columnStride)
    configure(&call)
    return ck_image_run(table.pointer, kernel, &call, threads) == 0
  }
}

extension ck_image {
  fileprivate mutating func setWindow(_ window: PoolWindow) {
    (kernel_h, kernel_w) = (window.size.height, window.size.width)
    (stride_h, stride_w) = (window.stride.height, window.stride.width)
    (dilation_h, dilation_w) = (window.dilation.height, window.dilation.width)
    (pad_h, pad_w, include_pad) = (window.padding.height, window.padding.width, window.countsPadding ? 1 : 0)
  }
}

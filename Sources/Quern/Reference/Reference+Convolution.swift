extension ReferenceBackend {
  public func packConvolution(_ weights: TensorView, _ convolution: Convolution) throws -> PackedConvolution {
    try PackedConvolution(weights, convolution, pack: pack)
  }

  public func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, into y: MutableTensor
  ) {
    let c = weights.convolution
    let (each, through) = (weights.outputs / c.groups, weights.channels / c.groups)
    let rows = (0..<y.shape[layout.height]).map { i in
      c.inputs(
        of: i, kernel: weights.kernel.height, stride: c.stride.height, dilation: c.dilation.height,
        before: c.padding.top, extent: c.imageExtent(x.shape[layout.height], y.shape[layout.height]))
    }
    let columns = (0..<y.shape[layout.width]).map { j in
      c.inputs(
        of: j, kernel: weights.kernel.width, stride: c.stride.width, dilation: c.dilation.width, before: c.padding.left,
        extent: c.imageExtent(x.shape[layout.width], y.shape[layout.width]))
    }
    for output in 0..<weights.outputs {
      guard let taps = weights.taps(of: output) else {
        preconditionFailure("a backend that packs weights opaquely implements conv2d itself")
      }
      for image in 0..<y.shape[0] {
        let added = add?[image, output] ?? 0
        for (i, rowTaps) in rows.enumerated() {
          for (j, columnTaps) in columns.enumerated() {
            var sum = 0.0
            for channel in 0..<through {
              for row in rowTaps {
                for column in columnTaps {
                  let at = layout.offset(x, image, row.input, column.input, output / each * through + channel)
                  sum += taps[channel][row.tap * weights.kernel.width + column.tap] * Double(x.load(at))
                }
              }
            }
            let held = residual.map { Double($0.load(layout.offset($0, image, i, j, output))) } ?? 0
            let value = epilogue.applied(to: sum, held: added, column: output) + held
            y.store(Float(value), at: layout.offset(y, image, i, j, output))
          }
        }
      }
    }
  }
}

extension Convolution {
  /// The taps of one axis that meet the image at an output position, and where.
  fileprivate func inputs(
    of output: Int, kernel: Int, stride: Int, dilation: Int, before: Int, extent: Int
  ) -> [(tap: Int, input: Int)] {
    (0..<kernel).compactMap { tap in
      var input = output * stride + tap * dilation - before
      if isTransposed {
        let apart = output + before - tap * dilation
        guard apart >= 0, apart % stride == 0 else { return nil }
        input = apart / stride
      }
      return input >= 0 && input < extent ? (tap, input / upsampling) : nil
    }
  }
}

extension ImageLayout {
  /// Where an element of an image lies.
  package func offset(_ tensor: some Strided, _ image: Int, _ row: Int, _ column: Int, _ channel: Int) -> Int {
    let strides = tensor.strides
    return image * strides[0] + row * strides[height] + column * strides[width] + channel * strides[channels]
  }
}

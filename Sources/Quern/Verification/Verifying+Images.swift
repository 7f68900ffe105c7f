extension VerifyingBackend {
  public func averagePool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    verify(.averagePool, y, ["x": x]) {
      $0.averagePool(x, window: window, layout: layout, into: $1)
    } bound: { bounds, _ throws(QuernError) in
      try bounds.averagePool(x, window: window, layout: layout, output: y.shape)
    }
  }

  public func maxPool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    verify(.maxPool, y, ["x": x], isExact: true) {
      $0.maxPool(x, window: window, layout: layout, into: $1)
    } bound: {
      $0.exact($1)
    }
  }

  public func resize(_ x: TensorView, by resampling: Resampling, layout: ImageLayout, into y: MutableTensor) {
    verify(.resize, y, ["x": x], isExact: resampling == .nearest) {
      $0.resize(x, by: resampling, layout: layout, into: $1)
    } bound: { bounds, _ throws(QuernError) in
      try bounds.resize(x, by: resampling, layout: layout, output: y.shape)
    }
  }

  public func pad(
    _ x: TensorView, margins: ImageMargins, border: ImageBorder, layout: ImageLayout, into y: MutableTensor
  ) {
    verify(.pad, y, ["x": x], isExact: true) {
      $0.pad(x, margins: margins, border: border, layout: layout, into: $1)
    } bound: {
      $0.exact($1)
    }
  }
}

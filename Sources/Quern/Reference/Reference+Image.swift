extension TensorView {
  /// Element (b, c, i, j) of an image.
  subscript(layout: ImageLayout, b: Int, c: Int, i: Int, j: Int) -> Double {
    layout == .channelsLast ? self[b, i, j, c] : self[b, c, i, j]
  }
}

extension MutableTensor {
  /// Element (b, c, i, j) of an image.
  subscript(layout: ImageLayout, b: Int, c: Int, i: Int, j: Int) -> Double {
    get { view[layout, b, c, i, j] }
    nonmutating set {
      if layout == .channelsLast { self[b, i, j, c] = newValue } else { self[b, c, i, j] = newValue }
    }
  }
}

extension ReferenceBackend {
  public func averagePool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    pool(x, window, layout, into: y) { values in
      let count = window.countsPadding ? window.size.height * window.size.width : values.count
      return values.reduce(0, +) / Double(count)
    }
  }

  public func maxPool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    pool(x, window, layout, into: y) { values in
      values.reduce(-.infinity) { $0.isNaN || $1.isNaN ? .nan : max($0, $1) }
    }
  }

  public func resize(_ x: TensorView, by resampling: Resampling, layout: ImageLayout, into y: MutableTensor) {
    let (from, to) = (layout.size(x.shape), layout.size(y.shape))
    forEach(y, layout) { b, c, i, j in
      if resampling == .nearest { return x[layout, b, c, i * from.height / to.height, j * from.width / to.width] }
      let aligned = resampling == .bilinearAlignedCorners
      let row = Taps(i, from: from.height, to: to.height, aligned: aligned)
      let column = Taps(j, from: from.width, to: to.width, aligned: aligned)
      func between(_ j: Int) -> Double {
        (1 - row.weight) * x[layout, b, c, row.first, j] + row.weight * x[layout, b, c, row.second, j]
      }
      return (1 - column.weight) * between(column.first) + column.weight * between(column.second)
    }
  }

  public func pad(
    _ x: TensorView, margins: ImageMargins, border: ImageBorder, layout: ImageLayout, into y: MutableTensor
  ) {
    let size = layout.size(x.shape)
    forEach(y, layout) { b, c, i, j in
      let (i, j) = (i - margins.top, j - margins.left)
      if 0..<size.height ~= i && 0..<size.width ~= j { return x[layout, b, c, i, j] }
      func mirrored(_ i: Int, _ n: Int) -> Int { i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i }
      func nearest(_ i: Int, _ n: Int) -> Int { min(max(i, 0), n - 1) }
      return switch border {
      case .constant(let value): Double(value)
      case .reflect: x[layout, b, c, mirrored(i, size.height), mirrored(j, size.width)]
      case .replicate: x[layout, b, c, nearest(i, size.height), nearest(j, size.width)]
      }
    }
  }

  /// `y = value(b, c, i, j)`.
  private func forEach(_ y: MutableTensor, _ layout: ImageLayout, _ value: (Int, Int, Int, Int) -> Double) {
    let size = ImageAxes(y, layout)
    for b in 0..<size.batch {
      for c in 0..<size.channels {
        for i in 0..<size.height {
          for j in 0..<size.width { y[layout, b, c, i, j] = value(b, c, i, j) }
        }
      }
    }
  }

  /// `y` from the elements of x in each window.
  private func pool(
    _ x: TensorView, _ window: PoolWindow, _ layout: ImageLayout, into y: MutableTensor,
    _ join: ([Double]) -> Double
  ) {
    let size = layout.size(x.shape)
    forEach(y, layout) { b, c, i, j in
      var values: [Double] = []
      for p in 0..<window.size.height {
        let row = i * window.stride.height - window.padding.height + p * window.dilation.height
        for q in 0..<window.size.width where 0..<size.height ~= row {
          let column = j * window.stride.width - window.padding.width + q * window.dilation.width
          if 0..<size.width ~= column { values.append(x[layout, b, c, row, column]) }
        }
      }
      return join(values)
    }
  }
}

/// Where output i of `to` lies among `from` pixels.
private struct Taps {
  let first, second: Int
  let weight: Double

  init(_ i: Int, from: Int, to: Int, aligned: Bool) {
    let corner = to > 1 ? Double(i) * Double(from - 1) / Double(to - 1) : 0
    let place = aligned ? corner : max((Double(i) + 0.5) * Double(from) / Double(to) - 0.5, 0)
    first = min(Int(place), from - 1)
    second = min(first + 1, from - 1)
    weight = min(place - Double(first), 1)
  }
}

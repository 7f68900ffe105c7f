extension ErrorBounds {
  /// A sum of at most `size` elements in any order, the count and the quotient: relative to the mean magnitude.
  package func averagePool(
    _ x: TensorView, window: PoolWindow, layout: ImageLayout, output: Shape
  ) throws(QuernError) -> [Double] {
    let magnitude = try MutableTensor(zeros: output)
    ReferenceBackend().averagePool(try x.absolute(), window: window, layout: layout, into: magnitude)
    let factor = Rounding.gamma(window.size.height * window.size.width + 2)
    return magnitude.view.values.map { factor * Double($0) + Rounding.smallest }
  }

  /// Both weights are rounded, and each of the two steps has at most three roundings. Nearest pixels are copied.
  package func resize(
    _ x: TensorView, by resampling: Resampling, layout: ImageLayout, output: Shape
  ) throws(QuernError) -> [Double] {
    if resampling == .nearest { return [Double](repeating: 0, count: output.count) }
    let magnitude = try MutableTensor(zeros: output)
    ReferenceBackend().resize(try x.absolute(), by: resampling, layout: layout, into: magnitude)
    return magnitude.view.values.map { Rounding.gamma(8) * Double($0) + 8 * Rounding.smallest }
  }

  /// As for a product of taps x channels: γ(depth + 4) (|scale| Σ|x w| + |bias + add|), and the epilogue; Σ|x w| is the same
  /// convolution of the absolute values.
  ///
  /// By Winograd's sums the factor is γ(channels + 33), of the 36 products and at most 30 roundings of the transforms, and the sum that
  /// of ``winogradMagnitudes(_:weights:layout:output:pixels:)``, `patches` where the caller has them. By differences of repeated pixels
  /// it is γ(9 channels + 14), which covers the direct sums of few of them as well: 2 roundings of x, 4 of the weights, 4 of the result.
  package func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, output: Shape, patches: TensorView? = nil, expected: [Float]
  ) throws(QuernError) -> [Double] {
    let (c, outputs) = (weights.convolution, weights.outputs)
    let (through, pixels) = (weights.channels / c.groups, layout.size(output).height * layout.size(output).width)
    let depth = through * weights.kernel.height * weights.kernel.width
    var patches = patches
    if patches == nil { patches = try Self.winogradMagnitudes(x, weights: weights, layout: layout, output: output) }
    let products = try MutableTensor(zeros: output)
    if let patches {
      ReferenceBackend().conv2d(
        patches, weights: try weights.absolute(as: Convolution(groups: c.groups)), layout: .channelsLast,
        epilogue: .none, add: nil, residual: nil,
        into: products.reshaped(Shape(patches.shape[0], 1, 1, outputs)))
    } else {
      ReferenceBackend().conv2d(
        try x.absolute(), weights: try weights.absolute(as: c), layout: layout, epilogue: .none, add: nil,
        residual: nil, into: products)
    }
    let totals = products.view.values.enumerated().map { position, sum in
      let channel = layout == .channelsLast ? position % outputs : position / pixels % outputs
      let image = position / (outputs * pixels)
      return abs(Double(epilogue.scale)) * Double(sum) + abs(epilogue.bias?.view[channel] ?? 0)
        + abs(add?[image, channel] ?? 0)
    }
    let sums = patches == nil ? depth + 1 : c.upsampling == 2 ? depth + 11 : through + 30
    return finished(
      totals, factor: rounding.product(sums), terms: depth,
      activation: epilogue.activation, residual: residual, expected: expected)
  }

  /// What bounds Winograd's sums at these pixels, as patches `[pixels, 3, 3, channels]` to be multiplied by |weights|: tap (p, q) has
  /// Σ |Aᵀ G| |Bᵀ| |x| |B| |Gᵀ A| over the 36 places, of its pixel's square of x; of an enlarged image, |x| and for outer taps twice the
  /// middle one's. `nil` where the sums are direct.
  ///
  /// - Parameter pixels: counted through the images; `nil` for all.
  package static func winogradMagnitudes(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, output: Shape, pixels: [Int]? = nil
  ) throws(QuernError) -> TensorView? {
    let (c, padding) = (weights.convolution, weights.convolution.padding)
    guard c.allowsWinograd, weights.kernel == 3, c.stride == 1, c.dilation == 1, !c.isTransposed,
      layout == .channelsLast
    else { return nil }
    let (size, channels) = (layout.size(x.shape), weights.channels)
    let (height, width) = (output[1], output[2])
    let pixels = pixels ?? Array(0..<x.shape[0] * height * width)
    if c.upsampling == 2 { return try differenceMagnitudes(x, output: output, pixels: pixels) }
    let patches = try MutableTensor(zeros: Shape(pixels.count, 3, 3, channels))
    var (tile, squares) = (-1, [Double](repeating: 0, count: 36 * channels))
    for (index, pixel) in pixels.enumerated() {
      let (image, i, j) = (pixel / width / height, pixel / width % height, pixel % width)
      let next = (image * height + i / 4) * width + j / 4
      for channel in 0..<channels {
        if next != tile {
          Winograd.transform(into: &squares, at: channel * 36) { r, s in
            let (row, column) = (i / 4 * 4 + r - padding.top, j / 4 * 4 + s - padding.left)
            guard (0..<size.height).contains(row), (0..<size.width).contains(column) else { return 0 }
            return abs(x[image, row, column, channel])
          }
        }
        for p in 0..<3 {
          for q in 0..<3 {
            var sum = 0.0
            for f in 0..<6 {
              let down = Winograd.output[i % 4][f] * Winograd.weights[f][p]
              guard down > 0 else { continue }
              let across = (0..<6).reduce(0) {
                $0 + Winograd.output[j % 4][$1] * Winograd.weights[$1][q] * squares[channel * 36 + f * 6 + $1]
              }
              sum += down * across
            }
            patches[index, p, q, channel] = sum
          }
        }
      }
      tile = next
    }
    return patches.view
  }

  /// The same for an enlarged image.
  private static func differenceMagnitudes(
    _ x: TensorView, output: Shape, pixels: [Int]
  ) throws(QuernError) -> TensorView {
    let (height, width, channels) = (output[1], output[2], x.shape[3])
    let patches = try MutableTensor(zeros: Shape(pixels.count, 3, 3, channels))
    for (index, pixel) in pixels.enumerated() {
      let (image, i, j) = (pixel / width / height, pixel / width % height, pixel % width)
      for channel in 0..<channels {
        func magnitude(_ row: Int, _ column: Int) -> Double {
          guard (0..<height).contains(row), (0..<width).contains(column) else { return 0 }
          return abs(x[image, row / 2, column / 2, channel])
        }
        for place in 0..<9 {
          let (p, q) = (place / 3 - 1, place % 3 - 1)
          patches[index, p + 1, q + 1, channel] =
            magnitude(i + p, j + q) + 2 * abs(Double(p)) * magnitude(i, j + q)
            + 2 * abs(Double(q)) * magnitude(i + p, j) + 4 * abs(Double(p * q)) * magnitude(i, j)
        }
      }
    }
    return patches.view
  }
}

/// The absolute values of the matrices of F(4, 3) at the points 0, ±1/√2, ±√2 and infinity.
private enum Winograd {
  private static let (a, b, third, sixth) = (0.5.squareRoot(), 2.0.squareRoot(), 1.0 / 3, 1.0 / 6)
  /// |Bᵀ|
  static let input: [[Double]] = [
    [1, 0, 2.5, 0, 1, 0], [0, 2 * a, 2, a, 1, 0], [0, 2 * a, 2, a, 1, 0], [0, b / 2, 0.5, b, 1, 0],
    [0, b / 2, 0.5, b, 1, 0],
    [0, 1, 0, 2.5, 0, 1],
  ]
  /// |G|
  static let weights: [[Double]] = [
    [1, 0, 0], [2 * third, b * third, third], [2 * third, b * third, third], [sixth, b * sixth, third],
    [sixth, b * sixth, third], [0, 0, 1],
  ]
  /// |Aᵀ|
  static let output: [[Double]] = [
    [1, 1, 1, 1, 1, 0], [0, a, a, b, b, 0], [0, 0.5, 0.5, 2, 2, 0], [0, a / 2, a / 2, 2 * b, 2 * b, 1],
  ]

  /// |Bᵀ| |x| |B| of a square of 6 x 6, an axis at a time.
  static func transform(into places: inout [Double], at first: Int, _ x: (Int, Int) -> Double) {
    var half = [Double](repeating: 0, count: 36)
    for r in 0..<6 {
      for s in 0..<6 {
        let value = x(r, s)
        for place in 0..<6 { half[r * 6 + place] += input[place][s] * value }
      }
    }
    for f in 0..<6 {
      for g in 0..<6 { places[first + f * 6 + g] = (0..<6).reduce(0) { $0 + input[f][$1] * half[$1 * 6 + g] } }
    }
  }
}

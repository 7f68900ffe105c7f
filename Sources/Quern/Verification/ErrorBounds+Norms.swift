extension ErrorBounds {
  /// Arguments are rounded three times at the size of the row's range; exp within 4 u; n additions; one division.
  package func softmax(_ x: TensorView, scale: Float, mask: TensorView?, expected: [Float]) -> [Double] {
    let n = x.shape[1]
    return (0..<x.shape[0]).flatMap { row -> [Double] in
      func finite(_ value: Double) -> Double { value.isFinite ? abs(value) : 0 }
      let range = (0..<n).reduce(0) { largest, j in
        max(largest, finite(Double(scale) * x[row, j]) + (mask.map { finite($0[row, j]) } ?? 0))
      }
      let relative = 2 * 3 * Rounding.unit * 2 * range + Rounding.gamma(n + 12)
      return expected[row * n..<(row + 1) * n].map { relative * Double($0) + 0x1p-125 }
    }
  }

  package func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float
  ) -> [Double] {
    norm(.layer, x, residual, weight, bias, epsilon)
  }

  package func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float) -> [Double] {
    norm(.rootMeanSquare, x, residual, weight, nil, epsilon)
  }

  package func l2Normalize(_ x: TensorView, epsilon: Float) -> [Double] { norm(.length, x, nil, nil, nil, epsilon) }

  /// What rows are divided by: the deviation from the mean, the root mean square or the length.
  private enum Divisor { case layer, rootMeanSquare, length }

  /// Errors of the sum, the mean, the deviation, the factor and the affine step, added up for each element.
  private func norm(
    _ kind: Divisor, _ x: TensorView, _ residual: TensorView?, _ weight: Tensor?, _ bias: Tensor?, _ epsilon: Float
  ) -> [Double] {
    let (u, n) = (Rounding.unit, x.shape[1])
    return (0..<x.shape[0]).flatMap { row -> [Double] in
      let z = (0..<n).map { x[row, $0] + (residual?[row, $0] ?? 0) }
      let mean = kind == .layer ? z.reduce(0, +) / Double(n) : 0
      let size = z.reduce(0) { $0 + abs($1) } / Double(n)
      let squares = z.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      let largest = z.map(abs).max() ?? 0
      // Each z is rounded once; the mean is off by γ(n + 1) of the mean size.
      let rounded = residual == nil ? 0 : u * largest
      let shift = kind == .layer ? Rounding.gamma(n + 1) * size + rounded : 0
      let meanSquare = (squares / Double(n) + Double(epsilon)).squareRoot()
      let spread = kind == .length ? max(squares.squareRoot(), Double(epsilon)) : meanSquare
      let typical = kind == .length ? spread / Double(n).squareRoot() : spread
      let factor = Rounding.gamma(n / 2 + 8) + (rounded + shift + 2 * u * largest) / max(typical, 1e-300)
      return (0..<n).map { column in
        let distance = abs(z[column] - mean)
        let deviation = rounded + shift + (kind == .layer ? u * distance : 0)
        let scale = abs(weight?.view[column] ?? 1) / spread
        let value = distance * scale
        let affine = 4 * u * (value + abs(bias?.view[column] ?? 0))
        return scale * deviation + value * factor * (1 + factor) + affine
      }
    }
  }

  /// The errors of the mean, the deviation, the factor and the affine step added up, then magnified by the activation.
  package func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation
  ) -> [Double] {
    let (u, channels, values) = (Rounding.unit, layout.channels(x.shape), x.values)
    let (pixels, width) = (layout.size(x.shape).height * layout.size(x.shape).width, channels / groups)
    /// Where element (b, c, p) lies in row-major order.
    func position(_ b: Int, _ c: Int, _ p: Int) -> Int {
      layout == .channelsLast ? (b * pixels + p) * channels + c : (b * channels + c) * pixels + p
    }
    var bounds = [Double](repeating: 0, count: values.count)
    for b in 0..<x.shape[0] where pixels > 0 {
      for group in 0..<groups {
        let members = (group * width..<(group + 1) * width).flatMap { c in
          (0..<pixels).map { (c, position(b, c, $0)) }
        }
        let n = members.count
        let mean = members.reduce(0) { $0 + Double(values[$1.1]) } / Double(n)
        let size = members.reduce(0) { $0 + abs(Double(values[$1.1])) } / Double(n)
        let squares = members.reduce(0) { $0 + (Double(values[$1.1]) - mean) * (Double(values[$1.1]) - mean) }
        let spread = (squares / Double(n) + Double(epsilon)).squareRoot()
        // Sums in any order, as another library's: the mean is off by gamma(n + 1) of the mean size.
        let shift = Rounding.gamma(n + 1) * size + u * abs(mean)
        let factor = Rounding.gamma(n / 2 + 8) + shift / spread
        for (c, at) in members {
          let (slope, distance, added) = (weight?.view[c] ?? 1, Double(values[at]) - mean, bias?.view[c] ?? 0)
          let scale = abs(slope) / spread
          let value = abs(distance) * scale
          let error = scale * (shift + u * abs(distance)) + value * factor * (1 + factor) + 4 * u * (value + abs(added))
          let argument = distance * slope / spread + added
          bounds[at] =
            activation.slope * error + activation.error(at: abs(argument) + error, value: activation.exact(argument))
            + activation.slope * error * 4 * u
        }
      }
    }
    return bounds
  }
}

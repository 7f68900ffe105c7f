#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Functions of elements.
extension ErrorBounds {
  package func activation(_ activation: Activation, _ x: TensorView, expected: [Float]) -> [Double] {
    zip(x.values, expected).map { activation.error(at: Double($0), value: Double($1)) }
  }

  /// The bounds of the table at the head of `CKernels/body/math.h`.
  package func elementFunction(_ function: ElementFunction, expected: [Float]) -> [Double] {
    let units: Double = function == .softplus ? 5 : 2
    return expected.map { units * Rounding.unit * abs(Double($0)) + Rounding.smallest }
  }

  /// A power is a product of p factors, however it is bracketed: p - 1 roundings.
  package func repu(power: Int, expected: [Float]) -> [Double] {
    expected.map { Rounding.gamma(power - 1) * abs(Double($0)) + Double(power) * Rounding.smallest }
  }

  /// The activation's error, magnified by the value, and the product's rounding.
  package func gated(
    _ activation: Activation, gate: TensorView, value: TensorView, expected: [Float]
  ) -> [Double] {
    zip(zip(gate.values, value.values), expected).map { operands, result in
      let (gate, value) = (Double(operands.0), Double(operands.1))
      let error = activation.error(at: gate, value: activation.exact(gate))
      return abs(value) * error * (1 + Rounding.unit) + Rounding.unit * abs(Double(result)) + Rounding.smallest
    }
  }

  /// A quotient may lie below the normal range.
  package func binary(_ expected: [Float]) -> [Double] { roundedOnce(expected).map { $0 + Rounding.smallest } }

  package func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, expected: [Float]) -> [Double] {
    let n = a.shape[1]
    return expected.enumerated().map { position, y in
      Self.straight(a[position / n, position % n], b[position / n, position % n], Double(fraction), Double(y))
    }
  }

  package func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, expected: [Float]) -> [Double] {
    let n = a.shape[1]
    return (0..<a.shape[0]).flatMap { row in
      Self.sphere(
        (0..<n).map { a[row, $0] }, (0..<n).map { b[row, $0] }, Double(fraction),
        expected[row * n..<(row + 1) * n].map(Double.init))
    }
  }

  /// The distance to the nearer end, its part of b - a and the sum are rounded, and so is the end's weight.
  private static func straight(_ a: Double, _ b: Double, _ t: Double, _ y: Double) -> Double {
    let near = abs(t) < 0.5 ? t : 1 - t
    return Rounding.gamma(4) * abs(near * (b - a)) + Rounding.unit * abs(y) + Rounding.smallest
  }

  /// One row of `slerp`. The cosine is off by at most 2γ(n + 2) (Cauchy's inequality bounds the sum of products), the angle by
  /// that over sin w, and a weight by its slope, (|1 - t| + |weight|) / sin w, times that; twice for what is of second order.
  private static func sphere(_ a: [Double], _ b: [Double], _ t: Double, _ expected: [Double]) -> [Double] {
    func product(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    let cosine = product(a, b) / (product(a, a) * product(b, b)).squareRoot()
    let slack = 2 * Rounding.gamma(a.count + 2)
    let pairs = zip(zip(a, b), expected)
    if abs(abs(cosine) - sphericalLimit) <= slack { return expected.map { _ in .infinity } }  // either way is right
    guard abs(cosine) <= sphericalLimit else { return pairs.map { straight($0.0, $0.1, t, $1) } }
    let (angle, sine) = (acos(cosine), sin(acos(cosine)))
    let (from, to) = (abs(sin((1 - t) * angle) / sine), abs(sin(t * angle) / sine))
    let turn = 2 * slack / (sine * sine)
    return pairs.map { ends, _ in
      let (a, b) = (abs(ends.0), abs(ends.1))
      return turn * ((abs(1 - t) + from) * a + (abs(t) + to) * b) + Rounding.gamma(3) * (from * a + to * b)
        + 3 * Rounding.smallest
    }
  }
}

/// Sums over rows, and rotations.
extension ErrorBounds {
  /// Exact where nothing is added.
  package func embedding(accumulate: Bool, expected: [Float]) -> [Double] {
    accumulate ? roundedOnce(expected) : exact(expected)
  }

  package func meanPool(_ x: TensorView, segments: Segments) -> [Double] {
    (0..<segments.count).flatMap { segment -> [Double] in
      let rows = segments[segment]
      return (0..<x.shape[1]).map { column in
        let magnitude = rows.reduce(0) { $0 + abs(x[$1, column]) } / Double(max(rows.count, 1))
        return Rounding.gamma(rows.count + 2) * magnitude
      }
    }
  }

  /// A product and a sum, each rounded, for every row that meets at a destination; all of them at worst. `held` is y before the call.
  package func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, held: TensorView) -> [Double] {
    let n = x.shape[1]
    var totals = held.values.map { abs(Double($0)) }
    for (row, id) in ids.enumerated() {
      let weight = abs(weights?[row] ?? 1)
      for column in 0..<n { totals[Int(id) * n + column] += weight * abs(x[row, column]) }
    }
    return totals.map { Rounding.gamma(2 * ids.count + 2) * $0 }
  }

  package func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, expected: [Float]
  ) -> [Double] {
    let byRow = direction == .rows
    let terms = byRow ? x.shape[1] : x.shape[0]
    return expected.enumerated().map { index, y in
      let magnitude = (0..<terms).reduce(0.0) { $0 + abs(byRow ? x[index, $1] : x[$1, index]) }
      return Self.reduction(reduction, terms: terms, magnitude: magnitude, y: Double(y))
    }
  }

  /// The largest error of a result of this many terms, with `magnitude` = Σ|x|.
  private static func reduction(_ reduction: Reduction, terms: Int, magnitude: Double, y: Double) -> Double {
    let n = Double(terms)
    switch reduction {
    case .sum: return Rounding.gamma(terms) * magnitude
    case .mean: return Rounding.gamma(terms + 1) * magnitude / max(n, 1) + Rounding.smallest
    case .sumOfSquares: return Rounding.gamma(terms + 1) * y + n * Rounding.smallest
    case .maximum, .minimum: return 0
    case .logSumExp:
      // exp's argument is rounded at its size d: Σ e^-d d u is at most log(n) u of the sum. exp adds 2 u, and 2^-126 where it
      // underflows. The logarithm makes a relative error absolute.
      return Rounding.gamma(terms + 4 + Int(log(max(n, 1)).rounded(.up))) + Rounding.unit * abs(y) + n * 0x1p-126
    }
  }

  /// Element j is a sum of j + 1 terms: j roundings, however it is bracketed.
  package func cumulativeSum(_ x: TensorView) -> [Double] {
    (0..<x.shape[0]).flatMap { i -> [Double] in
      var magnitude = 0.0
      return (0..<x.shape[1]).map { j in
        magnitude += abs(x[i, j])
        return Rounding.gamma(j + 1) * magnitude
      }
    }
  }

  /// Two products and a sum: γ(2) (|a cos| + |b sin|). A copy is exact.
  package func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing
  ) -> [Double] {
    let half = table.size / 2
    var bounds: [Double] = []
    bounds.reserveCapacity(x.shape.count)
    for (token, position) in positions.enumerated() {
      let angles = table.values.view.row(Int(position))
      for head in 0..<x.shape[1] {
        for j in 0..<x.shape[2] {
          guard j < table.size else {
            bounds.append(0)
            continue
          }
          let (pair, other) =
            pairing == .split ? (j % half, j < half ? j + half : j - half) : (j / 2, j ^ 1)
          let sum = abs(x[token, head, j] * angles[pair]) + abs(x[token, head, other] * angles[half + pair])
          bounds.append(Rounding.gamma(2) * sum + 2 * Rounding.smallest)
        }
      }
    }
    return bounds
  }
}

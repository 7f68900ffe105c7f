/// The largest error of each element of an operation's result, in row-major order, before it is stored: what the conformance cases
/// and ``VerifyingBackend`` hold a backend to. `expected` is the reference's result. `docs/accuracy.md` has the derivations.
package struct ErrorBounds {
  let rounding: Rounding

  package init(_ rounding: Rounding = .anyOrder) { self.rounding = rounding }

  /// Of copies, choices and random numbers.
  package func exact(_ expected: [Float]) -> [Double] { [Double](repeating: 0, count: expected.count) }

  /// Of one operation on exact operands.
  package func roundedOnce(_ expected: [Float]) -> [Double] { expected.map { Rounding.unit * abs(Double($0)) } }

  /// Σ|a b|, scaled and with what is added, taken through an epilogue: the sum's error and that of codes are magnified by the
  /// activation, which adds its own, and the residual is rounded once.
  func finished(
    _ totals: [Double], codes: [Double]? = nil, factor: Double, terms: Int, activation: Activation,
    residual: TensorView?, expected: [Float]
  ) -> [Double] {
    expected.indices.map { position in
      let added = residual.map { Double($0.load($0.offset(of: position))) } ?? 0
      let value = abs(Double(expected[position]) - added)
      let through =
        activation.slope * (factor * totals[position] + (codes?[position] ?? 0)) + Double(terms) * Rounding.smallest
      return through + activation.error(at: totals[position], value: value + through)
        + Rounding.unit * abs(Double(expected[position]))
    }
  }
}

/// The absolute values of a matrix, row after row.
struct Magnitudes {
  let rows, columns: Int
  private(set) var values: [Double]

  init(rows: Int, columns: Int, _ values: [Double]) { (self.rows, self.columns, self.values) = (rows, columns, values) }

  init(_ view: TensorView) {
    self.init(rows: view.shape[0], columns: view.shape[1], view.values.map { abs(Double($0)) })
  }

  /// Σ|x w| for some of the rows and columns, with as many columns as the weights have outputs.
  func times(_ weights: PackedMatrix, rows: Range<Int>? = nil, from first: Int = 0) -> Magnitudes {
    let rows = rows ?? 0..<self.rows
    var sums = [Double](repeating: 0, count: rows.count * weights.outputs)
    for output in 0..<weights.outputs {
      let weight = weights.values(of: output) ?? []
      for (index, row) in rows.enumerated() {
        sums[index * weights.outputs + output] = sum(row, first, weight)
      }
    }
    return Magnitudes(rows: rows.count, columns: weights.outputs, sums)
  }

  /// Σ|x w| of one row, from a column on.
  private func sum(_ row: Int, _ first: Int, _ weight: [Double]) -> Double {
    values.withUnsafeBufferPointer { values in
      weight.withUnsafeBufferPointer { weight in
        let start = row * columns + first
        var (sum, column) = (SIMD4<Double>(repeating: 0), 0)
        while column + 4 <= weight.count {
          for lane in 0..<4 { sum[lane] += values[start + column + lane] * abs(weight[column + lane]) }
          column += 4
        }
        return (column..<weight.count).reduce(sum.sum()) { $0 + values[start + $1] * abs(weight[$1]) }
      }
    }
  }
}

extension TensorView {
  /// `elements`, in one copy where nothing lies between them: results have millions.
  package var values: [Float] {
    guard isContiguous else { return elements }
    if dataType != .f32 { return (0..<shape.count).map(load) }
    return withExtendedLifetime(self) { Array(UnsafeBufferPointer(start: base, count: shape.count)) }
  }

  /// The absolute values, row-major, as f32.
  func absolute() throws(QuernError) -> TensorView {
    let copy = try MutableTensor(zeros: shape)
    for (position, value) in values.enumerated() { copy.store(abs(value), at: position) }
    return copy.view
  }
}

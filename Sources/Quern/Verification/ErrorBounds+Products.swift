extension ErrorBounds {
  /// γ(K + 3) (|scale| Σ|x w| + |bias|), what codes add, and the epilogue.
  package func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, expected: [Float]
  ) -> [Double] {
    let products = Magnitudes(x).times(weights)
    return finished(
      totals(products, epilogue), codes: codes(x, weights, epilogue.scale), factor: rounding.product(weights.inputs),
      terms: weights.inputs, activation: epilogue.activation, residual: residual, expected: expected)
  }

  /// With a and b the two factors and e their errors: |a| e(b) + |b| e(a) + e(a) e(b), and the product's own rounding.
  package func gatedLinear(
    _ x: TensorView, weights: GatedWeights, activation: Activation, expected: [Float]
  ) throws(QuernError) -> [Double] {
    func factor(
      _ matrix: PackedMatrix, _ bias: Tensor?, _ activation: Activation
    ) throws(QuernError) -> ([Float], [Double]) {
      let epilogue = Epilogue(bias: bias, activation: activation)
      let result = try MutableTensor(zeros: Shape(x.shape[0], matrix.outputs))
      ReferenceBackend().linear(x, weights: matrix, epilogue: epilogue, residual: nil, into: result)
      let values = result.view.values
      return (values, linear(x, weights: matrix, epilogue: epilogue, residual: nil, expected: values))
    }
    let (a, errorsOfA) = try factor(weights.gate, weights.gateBias, activation)
    let (b, errorsOfB) = try factor(weights.value, weights.valueBias, .identity)
    return expected.indices.map { index in
      let (ea, eb) = (errorsOfA[index], errorsOfB[index])
      let through = abs(Double(a[index])) * eb + abs(Double(b[index])) * ea + ea * eb
      return through + Rounding.unit * (abs(Double(expected[index])) + through) + Rounding.smallest
    }
  }

  /// γ(K + 3) (|scale| |A||B| + |beta C| + |bias|), and the epilogue; `held` is C before the call.
  package func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, held: TensorView, epilogue: Epilogue, residual: TensorView?,
    expected: [Float]
  ) -> [Double] {
    let (k, m, n) = (a.shape[2], held.shape[1], held.shape[2])
    var totals = [Double](repeating: 0, count: held.shape.count)
    var row = [Double](repeating: 0, count: n)
    for first in stride(from: 0, to: totals.count, by: max(n, 1)) {
      let (batch, line) = (first / n / m, first / n % m)
      Self.magnitudes(a, b, batch: batch, row: line, into: &row)
      for (column, products) in row.enumerated() {
        let kept = beta == 0 ? 0 : abs(Double(beta) * held[batch, line, column])
        totals[first + column] =
          abs(Double(epilogue.scale)) * products + kept + abs(epilogue.bias?.view[column] ?? 0)
      }
    }
    return finished(
      totals, factor: rounding.product(k), terms: k, activation: epilogue.activation, residual: residual,
      expected: expected)
  }

  /// That of ``linear(_:weights:epilogue:residual:expected:)`` for each group.
  package func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, expected: [Float]
  ) -> [Double] {
    let (all, inputs, outputs) = (Magnitudes(x), weights[0].inputs, weights[0].outputs)
    var products = [Double](repeating: 0, count: expected.count)
    for (group, matrix) in weights.enumerated() {
      let part = all.times(matrix, from: group * inputs)
      for (position, sum) in part.values.enumerated() {
        products[position / outputs * weights.count * outputs + group * outputs + position % outputs] = sum
      }
    }
    return finished(
      totals(Magnitudes(rows: x.shape[0], columns: weights.count * outputs, products), epilogue),
      factor: rounding.product(inputs), terms: inputs, activation: epilogue.activation, residual: residual,
      expected: expected)
  }

  /// That of ``linear(_:weights:epilogue:residual:expected:)`` for each expert's rows.
  package func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    expected: [Float]
  ) -> [Double] {
    let n = weights[0].outputs
    return weights.indices.flatMap { expert -> [Double] in
      let rows = segments[expert]
      return linear(
        x.rows(rows), weights: weights[expert], epilogue: epilogue.expert(expert), residual: residual?.rows(rows),
        expected: Array(expected[rows.lowerBound * n..<rows.upperBound * n]))
    }
  }

  /// That of `linear` with the products of the stored blocks alone.
  package func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, expected: [Float]
  ) -> [Double] {
    let (all, n) = (Magnitudes(x), weights.outputs)
    var products = [Double](repeating: 0, count: expected.count)
    for output in 0..<n {
      for block in weights.blocks(of: output) {
        let first = Int(weights.columns[block]) * weights.blockInputs
        let elements = weights.elements(of: output, block: block)
        for input in first..<min(first + weights.blockInputs, weights.inputs) {
          let weight = abs(elements[input - first])
          for row in 0..<all.rows { products[row * n + output] += all.values[row * all.columns + input] * weight }
        }
      }
    }
    return finished(
      totals(Magnitudes(rows: all.rows, columns: n, products), epilogue), factor: rounding.sum(weights.inputs),
      terms: weights.inputs, activation: epilogue.activation, residual: residual, expected: expected)
  }

  /// The narrow product's error passes through the second one: factors add, and their product counts too.
  package func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, expected: [Float]
  ) -> [Double] {
    let (rows, n) = (Magnitudes(x), up.outputs)
    let update = rows.times(down).times(up).values
    let base = weights.map { rows.times($0).values }
    let totals = update.indices.map { position in
      abs(Double(epilogue.scale)) * (base?[position] ?? 0) + abs(Double(scale)) * update[position]
        + abs(epilogue.bias?.view[position % n] ?? 0)
    }
    let (wide, narrow) = (rounding.product(down.inputs), rounding.product(up.inputs))
    return finished(
      totals, codes: weights.flatMap { codes(x, $0, epilogue.scale) }, factor: wide + narrow + wide * narrow,
      terms: down.inputs + up.inputs, activation: epilogue.activation, residual: residual, expected: expected)
  }

  /// |scale| Σ|x w| + |bias|.
  private func totals(_ products: Magnitudes, _ epilogue: Epilogue) -> [Double] {
    products.values.enumerated().map { position, sum in
      abs(Double(epilogue.scale)) * sum + abs(epilogue.bias?.view[position % products.columns] ?? 0)
    }
  }

  /// What products by quantised weights add; `nil` for plain ones.
  private func codes(_ x: TensorView, _ weights: PackedMatrix, _ scale: Float) -> [Double]? {
    guard let error = CodeError(x, weights: weights, scale: scale, rounding: rounding) else { return nil }
    return (0..<x.shape[0]).flatMap { row in
      (0..<weights.outputs).map { error.error(row: row, column: $0) }
    }
  }

  /// Σ|a b| for one row of the result of one of a batch.
  private static func magnitudes(
    _ a: TensorView, _ b: TensorView, batch: Int, row: Int, into sums: inout [Double]
  ) {
    let left = a.line((a.shape[0] == 1 ? 0 : batch * a.strides[0]) + row * a.strides[1])
    let first = b.shape[0] == 1 ? 0 : batch * b.strides[0]
    let (depth, across) = (b.strides[1], b.strides[2])
    let k = a.shape[2]
    sums.withUnsafeMutableBufferPointer { sums in
      if across <= depth {
        for j in 0..<sums.count { sums[j] = 0 }
        for p in 0..<k {
          let (value, right) = (abs(left[p]), b.line(first + p * depth))
          for j in 0..<sums.count { sums[j] += value * abs(right[j]) }
        }
      } else {
        for j in 0..<sums.count {
          let right = b.transposed().line(first + j * across)
          var sum = 0.0
          for p in 0..<k { sum += abs(left[p]) * abs(right[p]) }
          sums[j] = sum
        }
      }
    }
  }
}

/// What products by quantised weights add: half a step of the codes of each 32 x, and the rounding of the two terms
/// that a weight of Q4_K is the difference of. By int8 weights it is half a step of the largest of a row over 127, and what the
/// weights move when they are rounded once more.
private struct CodeError {
  private let runs: Int
  private let largest: [Double]
  private let weights: [Double]

  init?(_ x: TensorView, weights: PackedMatrix, scale: Float, rounding: Rounding) {
    guard weights.quantization != nil || weights.layout == .int8 else { return nil }
    let (runs, size) = weights.layout == .int8 ? (1, weights.inputs) : (weights.inputs / 32, 32)
    let factor = rounding.sum(weights.inputs) + rounding.operands
    let multiplier = abs(Double(scale))
    largest = (0..<x.shape[0] * runs).map { index in
      let row = x.row(index / runs)
      return (index % runs * size..<(index % runs + 1) * size).reduce(0) { max($0, abs(row[$1])) }
    }
    self.weights = (0..<weights.outputs).flatMap { output in
      weights.layout == .int8
        ? [multiplier * (weights.values(of: output) ?? []).reduce(0) { $0 + abs($1) } * (1.01 / 254)]
        : weights.terms(of: output).map { multiplier * (rounding.code * $0.magnitude + factor * $0.reach) }
    }
    self.runs = runs
  }

  func error(row: Int, column: Int) -> Double {
    // Below 2^-100 steps shrink no more.
    (0..<runs).reduce(0) { $0 + max(largest[row * runs + $1], 0x1p-100) * weights[column * runs + $1] }
  }
}

extension VerifyingBackend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    verify(.softmax, y, ["x": x, "mask": mask]) {
      $0.softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: $1)
    } bound: {
      $0.softmax(x, scale: scale, mask: mask, expected: $1)
    }
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
    into y: MutableTensor
  ) {
    verify(.layerNorm, y, second: sum.map { ("sum", $0) }, ["x": x, "residual": residual]) {
      $0.layerNorm(x, residual: residual, sum: $2, weight: weight, bias: bias, epsilon: epsilon, into: $1)
    } bound: { bounds, _ in
      bounds.layerNorm(x, residual: residual, weight: weight, bias: bias, epsilon: epsilon)
    } secondBound: {
      $0.roundedOnce($1)
    }
  }

  public func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    verify(.rmsNorm, y, second: sum.map { ("sum", $0) }, ["x": x, "residual": residual]) {
      $0.rmsNorm(x, residual: residual, sum: $2, weight: weight, epsilon: epsilon, into: $1)
    } bound: { bounds, _ in
      bounds.rmsNorm(x, residual: residual, weight: weight, epsilon: epsilon)
    } secondBound: {
      $0.roundedOnce($1)
    }
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    verify(.l2Normalize, y, ["x": x]) {
      $0.l2Normalize(x, epsilon: epsilon, into: $1)
    } bound: { bounds, _ in
      bounds.l2Normalize(x, epsilon: epsilon)
    }
  }

  public func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation, into y: MutableTensor
  ) {
    verify(.groupNorm, y, ["x": x]) {
      $0.groupNorm(
        x, layout: layout, groups: groups, weight: weight, bias: bias, epsilon: epsilon, activation: activation,
        into: $1)
    } bound: { bounds, _ in
      bounds.groupNorm(
        x, layout: layout, groups: groups, weight: weight, bias: bias, epsilon: epsilon, activation: activation)
    }
  }

  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    verify(.activation, y, ["x": x]) {
      $0.activation(activation, x, into: $1)
    } bound: {
      $0.activation(activation, x, expected: $1)
    }
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    verify(.add, y, ["a": a, "b": b]) {
      $0.add(a, b, into: $1)
    } bound: {
      $0.roundedOnce($1)
    }
  }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    verify(.multiply, y, ["a": a, "b": b]) {
      $0.multiply(a, b, into: $1)
    } bound: {
      $0.roundedOnce($1)
    }
  }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    verify(.scale, y, ["x": x]) {
      $0.scale(x, by: factor, into: $1)
    } bound: {
      $0.roundedOnce($1)
    }
  }

  public func elementFunction(_ function: ElementFunction, _ x: TensorView, into y: MutableTensor) {
    verify(.elementFunction, y, ["x": x]) {
      $0.elementFunction(function, x, into: $1)
    } bound: {
      $0.elementFunction(function, expected: $1)
    }
  }

  public func repu(_ x: TensorView, power: Int, into y: MutableTensor) {
    verify(.repu, y, ["x": x]) {
      $0.repu(x, power: power, into: $1)
    } bound: {
      $0.repu(power: power, expected: $1)
    }
  }

  public func gated(_ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor) {
    verify(.gated, y, ["gate": gate, "value": value]) {
      $0.gated(activation, gate: gate, value: value, into: $1)
    } bound: {
      $0.gated(activation, gate: gate, value: value, expected: $1)
    }
  }

  public func binary(_ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    verify(.binary, y, ["a": a, "b": b]) {
      $0.binary(function, a, b, into: $1)
    } bound: {
      $0.binary($1)
    }
  }

  public func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    verify(.lerp, y, ["a": a, "b": b]) {
      $0.lerp(a, b, fraction: fraction, into: $1)
    } bound: {
      $0.lerp(a, b, fraction: fraction, expected: $1)
    }
  }

  public func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    verify(.slerp, y, ["a": a, "b": b]) {
      $0.slerp(a, b, fraction: fraction, into: $1)
    } bound: {
      $0.slerp(a, b, fraction: fraction, expected: $1)
    }
  }

  public func copy(_ x: TensorView, into y: MutableTensor) {
    verify(.copy, y, ["x": x], isExact: true) {
      $0.copy(x, into: $1)
    } bound: {
      $0.exact($1)
    }
  }

  public func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor) {
    verify(.clamp, y, ["x": x], isExact: true) {
      $0.clamp(x, low: low, high: high, into: $1)
    } bound: {
      $0.exact($1)
    }
  }

  public func select(_ x: TensorView, mask: TensorView, into y: MutableTensor) {
    verify(.select, y, ["x": x, "mask": mask], isExact: true) {
      $0.select(x, mask: mask, into: $1)
    } bound: {
      $0.exact($1)
    }
  }

  public func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor) {
    verify(.random, y, [:], isExact: true) {
      $0.random(distribution, key: key, into: $1)
    } bound: {
      $0.exact($1)
    }
  }

  public func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, into y: MutableTensor
  ) {
    verify(.reduce, y, ["x": x]) {
      $0.reduce(reduction, x, along: direction, into: $1)
    } bound: {
      $0.reduce(reduction, x, along: direction, expected: $1)
    }
  }

  public func cumulativeSum(_ x: TensorView, into y: MutableTensor) {
    verify(.cumulativeSum, y, ["x": x]) {
      $0.cumulativeSum(x, into: $1)
    } bound: { bounds, _ in
      bounds.cumulativeSum(x)
    }
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    verify(.meanPool, y, ["x": x]) {
      $0.meanPool(x, segments: segments, into: $1)
    } bound: { bounds, _ in
      bounds.meanPool(x, segments: segments)
    }
  }

  public func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
    verify(.embedding, y, ["table": table], isExact: !accumulate) {
      $0.embedding(ids, table: table, accumulate: accumulate, into: $1)
    } bound: {
      $0.embedding(accumulate: accumulate, expected: $1)
    }
  }

  public func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, into y: MutableTensor) {
    verify(.scatterAdd, y, ["x": x, "weights": weights]) {
      $0.scatterAdd(x, ids: ids, weights: weights, into: $1)
    } bound: { bounds, _ in
      bounds.scatterAdd(x, ids: ids, weights: weights, held: y.view)
    }
  }
}

/// Positions among others, where ties decide.
extension VerifyingBackend {
  public func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32]) {
    let room = indices
    var runs: [[Int32]] = []
    verify(.topK, values, ["x": x], isExact: true) { backend, values in
      var chosen = room
      backend.topK(x, values: values, indices: &chosen)
      runs.append(chosen)
    } bound: {
      $0.exact($1)
    }
    finish(.topK, runs, values.shape.array, x, into: &indices)
  }

  public func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32]) {
    let room = indices
    let runs = [ReferenceBackend(), wrapped].map { (backend: any Backend) in
      var found = room
      backend.position(of: extreme, x, into: &found)
      return found
    }
    finish(.argmax, runs, [indices.count], x, into: &indices)
  }

  /// Compares the reference's positions with those of the wrapped backend, which come last.
  private func finish(
    _ operation: Operation, _ runs: [[Int32]], _ shape: [Int], _ x: TensorView, into indices: inout [Int32]
  ) {
    if let found = runs.last { indices = found }
    guard runs.count == 2 else { return }
    // The upper and the lower half of a position are exact as floats.
    for (half, part) in [("the positions' upper halves", { $0 >> 16 }), ("the positions", { $0 & 0xFFFF })]
      as [(String, (Int32) -> Int32)]
    {
      let (expected, own) = (runs[0].map { Float(part($0)) }, runs[1].map { Float(part($0)) })
      compare(operation, half, shape, own, expected, bounds.exact(expected), isExact: true, ["x": x])
    }
  }
}

extension Context {
  /// `y = softmax(scale x + mask)` along the last axis. Temperature T is a scale of 1/T.
  ///
  /// - Parameters:
  ///   - mask: `[rows, n]`, or one row for all; `-infinity` hides a column. A row with every column hidden becomes zeros.
  ///   - diagonal: row i sees columns up to `i + diagonal`; `nil` hides none.
  ///   - y: the shape of x; may be x.
  public func softmax(
    _ x: TensorView, scale: Float = 1, mask: TensorView? = nil, diagonal: Int? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .softmax)
    let (x, y) = try check.pair(x, y)
    let mask = try check.second(mask, "mask", of: y, repeats: true, mayBeSame: false)
    backend.softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
  }

  /// `y = (z - mean z) / sqrt(var z + epsilon) weight + bias` along the last axis, z = x + residual
  /// (Ba, Kiros and Hinton, arXiv 1607.06450).
  ///
  /// - Parameters:
  ///   - weight: `[n]`, or ones.
  ///   - bias: `[n]`, or zeros.
  ///   - y: the shape of x; may be x or the residual.
  public func layerNorm(
    _ x: TensorView, residual: TensorView? = nil, weight: Tensor? = nil, bias: Tensor? = nil, epsilon: Float = 1e-5,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .layerNorm)
    let (x, y) = try check.pair(x, y)
    let residual = try check.second(residual, "residual", of: y, repeats: false, mayBeSame: true)
    try check.vector(weight, "weight", count: y.shape[1])
    try check.vector(bias, "bias", count: y.shape[1])
    backend.layerNorm(x, residual: residual, weight: weight, bias: bias, epsilon: epsilon, into: y)
  }

  /// `y = z / sqrt(mean z² + epsilon) weight` along the last axis, z = x + residual
  /// (Zhang and Sennrich, arXiv 1910.07467). y may be x or the residual.
  public func rmsNorm(
    _ x: TensorView, residual: TensorView? = nil, weight: Tensor? = nil, epsilon: Float = 1e-6, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .rmsNorm)
    let (x, y) = try check.pair(x, y)
    let residual = try check.second(residual, "residual", of: y, repeats: false, mayBeSame: true)
    try check.vector(weight, "weight", count: y.shape[1])
    backend.rmsNorm(x, residual: residual, weight: weight, epsilon: epsilon, into: y)
  }

  /// `y = activation(x)`, element by element. y may be x.
  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .activation).pair(x, y)
    backend.activation(activation, x, into: y)
  }

  /// `y[i] = table[ids[i]]`; with `accumulate`, added to what y holds.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` naming the first id outside the table.
  public func embedding(
    _ ids: [Int32], table: TensorView, accumulate: Bool = false, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .embedding)
    let table = try check.rows(table, "table")
    let y = try check.rows(y, "y")
    try check.same(y.shape, "y", Shape(ids.count, table.shape[1]), "the gathered rows")
    for (position, id) in ids.enumerated() where id < 0 || Int(id) >= table.shape[0] {
      try check.require(false, "id \(id) at position \(position) is outside the table of \(table.shape[0]) rows")
    }
    try check.destination(y, "y")
    try check.disjoint(table, "table", from: y)
    backend.embedding(ids, table: table, accumulate: accumulate, into: y)
  }

  /// `y = a + b`; b may have one row for all rows of a. y may be a or b.
  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .add)
    let (a, y) = try check.pair(a, y)
    if let b = try check.second(b, "b", of: y, repeats: true, mayBeSame: true) { backend.add(a, b, into: y) }
  }

  /// `y = a b`, element by element; b may have one row for all rows of a. y may be a or b.
  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .multiply)
    let (a, y) = try check.pair(a, y)
    if let b = try check.second(b, "b", of: y, repeats: true, mayBeSame: true) { backend.multiply(a, b, into: y) }
  }

  /// `y = factor x`. y may be x.
  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .scale).pair(x, y)
    backend.scale(x, by: factor, into: y)
  }

  /// `y[s] = mean of the rows of segment s`; zeros for an empty segment.
  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .meanPool)
    let x = try check.rows(x, "x")
    let y = try check.rows(y, "y")
    try check.require(segments.total == x.shape[0], "segments hold \(segments.total) rows, x has \(x.shape[0])")
    try check.same(y.shape, "y", Shape(segments.count, x.shape[1]), "the pooled rows")
    try check.destination(y, "y")
    try check.disjoint(x, "x", from: y)
    backend.meanPool(x, segments: segments, into: y)
  }

  /// `y = x / max(‖x‖₂, epsilon)` along the last axis, as PyTorch's `normalize`. y may be x.
  public func l2Normalize(_ x: TensorView, epsilon: Float = 1e-12, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .l2Normalize).pair(x, y)
    backend.l2Normalize(x, epsilon: epsilon, into: y)
  }
}

extension Check {
  /// Input and output rows of one shape, where the output may be the input.
  fileprivate func pair(_ x: TensorView, _ y: MutableTensor) throws(QuernError) -> (TensorView, MutableTensor) {
    try same(y.shape, "y", x.shape, "x")
    let (x, y) = (try rows(x, "x"), try rows(y, "y"))
    try destination(y, "y")
    try disjoint(x, "x", from: y, mayBeSame: true)
    return (x, y)
  }

  /// A second operand of y's shape, or, where it `repeats`, of one row (given a row stride of 0).
  fileprivate func second(
    _ operand: TensorView?, _ name: String, of y: MutableTensor, repeats: Bool, mayBeSame: Bool
  ) throws(QuernError) -> TensorView? {
    guard let operand else { return nil }
    var view = try rows(operand, name)
    if repeats, view.shape[0] == 1, y.shape[0] != 1 {
      view = view.reinterpreted(offset: 0, shape: Shape(y.shape[0], view.shape[1]), strides: Shape(0, 1))
    }
    try same(view.shape, name, y.shape, "y")
    try disjoint(view, name, from: y, mayBeSame: mayBeSame)
    return view
  }
}

/// Rows picked and pooled. See ``Backend`` for what every requirement may rely on.
public protocol GatherOperations {
  /// `y[i] = table[ids[i]]`, added to what y holds where `accumulate` says so.
  func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor)

  /// `y[s] = mean of the rows of segment s`; zeros for an empty segment.
  func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor)
}

extension Backend {
  public func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
    handOn(.embedding).embedding(ids, table: table, accumulate: accumulate, into: y)
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    handOn(.meanPool).meanPool(x, segments: segments, into: y)
  }
}

extension Context {
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
    try run(runner(.embedding, table.types, y.types)) {
      $0.embedding(ids, table: table, accumulate: accumulate, into: y)
    }
  }

  /// `y[i]` = the weights of output `ids[i]`, widened or dequantised: an embedding from the weights of a language model's head,
  /// where the two are tied.
  ///
  /// - Parameter y: `[ids, inputs]`, f32.
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` naming the first id outside the weights, and for weights whose
  ///   layout is opaque.
  public func embedding(_ ids: [Int32], weights: PackedMatrix, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .embedding)
    let y = try check.rows(y, "y")
    try check.same(y.shape, "y", Shape(ids.count, weights.inputs), "the gathered rows")
    try check.require(y.dataType == .f32, "y is \(y.dataType.rawValue); rows of packed weights are f32")
    if case .opaque(let backend) = weights.layout {
      try check.require(false, "the weights are opaque to \(backend)")
    }
    for (position, id) in ids.enumerated() where id < 0 || Int(id) >= weights.outputs {
      try check.require(false, "id \(id) at position \(position) is outside the table of \(weights.outputs) rows")
    }
    try check.destination(y, "y")
    for (position, id) in ids.enumerated() { weights.write(output: Int(id), into: y.base + position * y.strides[0]) }
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
    try run(runner(.meanPool, x.types, y.types)) { $0.meanPool(x, segments: segments, into: y) }
  }
}

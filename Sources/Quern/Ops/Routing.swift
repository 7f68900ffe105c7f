/// Routing of rows: top-k, scatter, experts. See ``Backend`` for what every requirement may rely on.
public protocol RoutingOperations {
  /// The k largest elements of each row of x, with k the width of `values`: largest first, of equal ones the lower index
  /// first, NaN above everything. `indices` holds exactly as many entries as `values`, row by row.
  func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32])

  /// `y[ids[i]] += weights[i] x[i]`, i ascending, with one rounding to y's type. `weights` is `[rows]`, f32 without gaps,
  /// or nil for ones.
  func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, into y: MutableTensor)

  /// `y[rows of e] = activation(scale x[rows of e] W_eᵀ + bias_e) + residual[rows of e]` for each segment e. The bias is
  /// `[outputs]`, or `[experts, outputs]`. The residual may be y.
  func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor)
}

extension Backend {
  public func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32]) {
    handOn(.topK).topK(x, values: values, indices: &indices)
  }

  public func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, into y: MutableTensor) {
    handOn(.scatterAdd).scatterAdd(x, ids: ids, weights: weights, into: y)
  }

  public func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) {
    handOn(.expertLinear).expertLinear(
      x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }

  /// ``expertLinear(_:segments:weights:epilogue:residual:into:)`` as one `linear` an expert: what it means, and what a
  /// library that multiplies matrices does.
  func expertLinearByLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) {
    for (expert, matrix) in weights.enumerated() where !segments[expert].isEmpty {
      let rows = segments[expert]
      linear(
        x.rows(rows), weights: matrix, epilogue: epilogue.expert(expert), residual: residual?.rows(rows),
        into: y.rows(rows))
    }
  }
}

extension Epilogue {
  /// The epilogue of one expert, where each has a bias of its own.
  func expert(_ index: Int) -> Epilogue {
    guard let bias, bias.shape.rank == 2 else { return self }
    let outputs = bias.shape[1]
    return Epilogue(
      scale: scale,
      bias: bias.reinterpreted(offset: index * outputs, shape: Shape(outputs), strides: Shape(1)),
      activation: activation)
  }
}

extension Context {
  /// The k largest elements of each row and where they are, as PyTorch's `topk`: k is the width of `values`.
  ///
  /// Largest first; of equal elements the one of lower index first; NaN counts as largest, as in PyTorch; -0 equals 0.
  /// Exact. The order is total, so every backend and thread count gives the same.
  ///
  /// - Parameters:
  ///   - x: `[..., n]`, unit stride along the last axis.
  ///   - values: `[..., k]`, k at most n; does not overlap x.
  ///   - indices: as many entries as `values`, row by row. An array that nothing else holds is written in place, so a caller
  ///     that keeps one allocates nothing.
  public func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32]) throws(QuernError) {
    let check = Check(operation: .topK)
    let x = try check.rows(x, "x")
    let values = try check.rows(values, "values")
    try check.require(x.shape[0] == values.shape[0], "x has \(x.shape[0]) rows, values \(values.shape[0])")
    try check.require(
      values.shape[1] <= x.shape[1],
      "k is \(values.shape[1]), the width of values; rows of x have \(x.shape[1]) elements")
    try check.require(x.shape[1] <= Int(Int32.max), "rows of \(x.shape[1]) elements have indices beyond Int32")
    try check.require(
      indices.count == values.shape.count, "\(indices.count) indices for values \(values.shape)")
    try check.destination(values, "values")
    try check.disjoint(x, "x", from: values)
    try run(runner(.topK, x.types, values.types)) { $0.topK(x, values: values, indices: &indices) }
  }

  /// `y[ids[i]] += weights[i] x[i]`: rows added where the ids say, such as experts' results to their tokens.
  ///
  /// Several rows may go to one; their sum runs over i ascending in f32 with one rounding to y's type at the end, the same
  /// bits for any number of threads, within γ(2 (count + 1)) (|y| + Σ|w x|). Rows of y that no id names are not touched.
  ///
  /// - Parameters:
  ///   - x: `[rows, n]`, unit stride along the last axis.
  ///   - ids: one for each row of x.
  ///   - weights: `[rows]`, f32, without gaps; `nil` for ones.
  ///   - y: `[destinations, n]`; overlaps neither x nor the weights.
  public func scatterAdd(
    _ x: TensorView, ids: [Int32], weights: TensorView? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .scatterAdd)
    let x = try check.rows(x, "x")
    let y = try check.rows(y, "y")
    try check.require(x.shape[1] == y.shape[1], "rows of x have \(x.shape[1]) elements, rows of y \(y.shape[1])")
    try check.require(ids.count == x.shape[0], "\(ids.count) ids for x \(x.shape)")
    try check.require(
      max(x.shape[0], y.shape[0]) < Int(Int32.max), "x \(x.shape) and y \(y.shape) have rows beyond Int32")
    for (position, id) in ids.enumerated() where id < 0 || Int(id) >= y.shape[0] {
      try check.require(false, "id \(id) at position \(position) is outside the \(y.shape[0]) rows of y")
    }
    if let weights {
      try check.require(
        weights.shape == Shape(ids.count) && weights.isContiguous && weights.dataType == .f32,
        "weights are \(weights.dataType.rawValue) \(weights.shape); expected f32 [\(ids.count)] without gaps")
    }
    try check.destination(y, "y")
    try check.disjoint(x, "x", from: y)
    if let weights { try check.disjoint(weights, "weights", from: y) }
    try run(runner(.scatterAdd, x.types, y.types, weights.types)) {
      $0.scatterAdd(x, ids: ids, weights: weights, into: y)
    }
  }

  /// The linear layers of a mixture of experts: rows of x sorted by expert, each segment times its expert's weights,
  /// `y[rows of e] = activation(scale x[rows of e] W_eᵀ + bias_e) + residual[rows of e]`.
  ///
  /// Experts may have no rows. All experts' work is shared out together. The error is that of
  /// ``linear(_:weights:epilogue:residual:into:)``, and on `multithreaded` so are the bits.
  ///
  /// - Parameters:
  ///   - x: `[rows, inputs]`, unit stride along the last axis.
  ///   - segments: the rows of each expert; they cover x.
  ///   - weights: one matrix an expert, all of one shape and format, from ``pack(_:)-(TensorView)`` or
  ///     ``pack(_:)-(QuantizedMatrix)``.
  ///   - epilogue: its bias is `[outputs]`, shared, or `[experts, outputs]`.
  ///   - residual: `[rows, outputs]`, added last; may be `y` itself.
  ///   - y: `[rows, outputs]`; does not overlap x.
  public func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue = .none,
    residual: TensorView? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .expertLinear)
    try check.alike(weights)
    try check.require(
      segments.count == weights.count, "\(segments.count) segments for \(weights.count) experts' weights")
    let (each, own) = (Shape(weights[0].outputs), Shape(weights.count, weights[0].outputs))
    if let bias = epilogue.bias {
      try check.require(
        (bias.shape == each || bias.shape == own) && bias.isContiguous && bias.dataType == .f32,
        "bias is \(bias.dataType.rawValue) \(bias.shape); expected f32 \(each) or \(own)")
    }
    let (x, y, residual) = try check.product(
      x, inputs: weights[0].inputs, outputs: weights[0].outputs, bias: nil, residual: residual, into: y)
    try check.require(segments.total == x.shape[0], "segments hold \(segments.total) rows, x has \(x.shape[0])")
    let runner = runner(.expertLinear, x.types, weights[0].storage.types, y.types, residual.types)
    for matrix in weights { try check.readable(matrix, by: runner) }
    try run(runner) {
      $0.expertLinear(
        x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }
}

/// The defaults: record, then hand on.
extension Backend {
  public var fallback: any Backend { ReferenceBackend() }
  public var isa: ISA? { nil }
  public var threads: Int { 1 }

  /// The fallback, with the event recorded: the first half of every default, and of declining a call.
  func handOn(_ operation: Operation) -> any Backend {
    let next = fallback
    Trace.recordFallback(of: operation, from: Self.name, to: type(of: next).name)
    return next
  }

  public func pack(_ weights: TensorView) throws -> PackedMatrix { try handOn(.pack).pack(weights) }

  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }

  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    handOn(.matmul).matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: c)
  }

  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, into o: MutableTensor
  ) {
    handOn(.attention).attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, into: o)
  }

  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    handOn(.softmax).softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    handOn(.layerNorm).layerNorm(x, residual: residual, weight: weight, bias: bias, epsilon: epsilon, into: y)
  }

  public func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor) {
    handOn(.rmsNorm).rmsNorm(x, residual: residual, weight: weight, epsilon: epsilon, into: y)
  }

  public func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    handOn(.activation).activation(activation, x, into: y)
  }

  public func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
    handOn(.embedding).embedding(ids, table: table, accumulate: accumulate, into: y)
  }

  public func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) { handOn(.add).add(a, b, into: y) }

  public func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    handOn(.multiply).multiply(a, b, into: y)
  }

  public func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    handOn(.scale).scale(x, by: factor, into: y)
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    handOn(.meanPool).meanPool(x, segments: segments, into: y)
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    handOn(.l2Normalize).l2Normalize(x, epsilon: epsilon, into: y)
  }
}

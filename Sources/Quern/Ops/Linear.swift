/// Matrix products. See ``Backend`` for what every requirement may rely on.
public protocol LinearOperations {
  /// Lays out `weights` (`[outputs, inputs]`, any strides) for this backend's ``linear(_:weights:epilogue:residual:into:)``.
  /// A backend whose layout is opaque implements linear itself: no fallback could read the weights.
  func pack(_ weights: TensorView) throws -> PackedMatrix

  /// The same for quantised weights, which stay quantised.
  func pack(_ weights: QuantizedMatrix) throws -> PackedMatrix

  /// The same with weights rounded to int8, a scale an output: layout ``PackedMatrix/Layout/int8``, finite or not.
  func packInt8(_ weights: TensorView) throws -> PackedMatrix

  /// `y = activation(scale x Wᵀ + bias) + residual`, with x `[m, inputs]` and y `[m, outputs]`. The residual may be y.
  func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor)

  /// `c = activation(scale a b + beta c + bias) + residual` for every batch: a `[batch, m, k]`, b `[batch, k, n]`, any
  /// strides (0 repeats a batch); c `[batch, m, n]` with unit stride along the last axis. The residual may be c.
  func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor)

  /// `y = activation(x gateᵀ + gateBias) (x valueᵀ + valueBias)`, element by element, with x `[m, inputs]` and y `[m, outputs]`. The default
  /// is composed of ``linear(_:weights:epilogue:residual:into:)`` and ``gated(_:gate:value:into:)``.
  func gatedLinear(_ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor)
}

extension Backend {
  public func pack(_ weights: TensorView) throws -> PackedMatrix { try handOn(.pack).pack(weights) }

  public func pack(_ weights: QuantizedMatrix) throws -> PackedMatrix { try handOn(.pack).pack(weights) }

  public func packInt8(_ weights: TensorView) throws -> PackedMatrix { try handOn(.pack).packInt8(weights) }

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
}

extension Context {
  /// Lays out the weights of a linear layer for this context's backend.
  ///
  /// - Parameter weights: `[outputs, inputs]`, as PyTorch stores them; any strides.
  /// - Throws: ``QuernError``, also for memory that cannot be had.
  public func pack(_ weights: TensorView) throws -> PackedMatrix {
    try Check(operation: .pack).require(
      weights.shape.rank == 2, "weights \(weights.shape) need rank 2: [outputs, inputs]")
    return try packer(weights.types).pack(weights)
  }

  /// Lays out quantised weights of a linear layer, for ``linear(_:weights:epilogue:residual:into:)`` alone: other operations
  /// take plain elements.
  ///
  /// - Throws: ``QuernError``, for memory that cannot be had.
  public func pack(_ weights: QuantizedMatrix) throws -> PackedMatrix {
    try packer(weights.words.types).pack(weights)
  }

  /// Rounds the weights of a linear layer to int8, a scale an output, for ``linear(_:weights:epilogue:residual:into:)`` alone.
  ///
  /// `w ≈ scale q` with scale = max|w| / 127 over the output's inputs, and q the nearest integer, ties to even (dynamic
  /// quantisation, as PyTorch's `quantize_dynamic` per channel). A weight moves by at most scale / 2.
  ///
  /// - Parameter weights: `[outputs, inputs]`, any strides; at most 2¹⁷ inputs.
  /// - Throws: ``QuernError``, also for weights that are not finite and for memory that cannot be had.
  public func packInt8(_ weights: TensorView) throws -> PackedMatrix {
    let check = Check(operation: .pack)
    try check.require(weights.shape.rank == 2, "weights \(weights.shape) need rank 2: [outputs, inputs]")
    try check.require(weights.shape[1] <= 1 << 17, "\(weights.shape[1]) inputs; sums of int8 products hold 131072")
    let packed = try packer(weights.types).packInt8(weights)
    let layout = Int8Layout(outputs: packed.outputs, inputs: packed.inputs)
    try check.require(layout.hasFiniteScales(packed.storage.view.address), "weights \(weights.shape) are not finite")
    return packed
  }

  /// `y = activation(scale x Wᵀ + bias) + residual`.
  ///
  /// Each sum of K products, scaled and with its bias, is within γ(K + 3) (Σ|x w| |scale| + |bias|) of the exact one,
  /// whatever the blocking. By quantised weights, `multithreaded` rounds x to 16 bits
  /// for each 32 inputs: that adds 2⁻¹⁶ max|x| Σ|w| over those 32 (max|x| / 254 Σ|w| with ``ActivationBits/eight``), and a row with an x that is not finite becomes NaN. By int8
  /// weights it rounds each row of x to int8: that adds max|x| / 254 Σ|w|, and the integer sums are the same on every machine. On `multithreaded`,
  /// thread counts do not change the bits of a row, nor do other rows, except on AMX by weights of 16 bits.
  ///
  /// - Parameters:
  ///   - x: `[..., inputs]`, unit stride along the last axis.
  ///   - weights: from ``pack(_:)``.
  ///   - epilogue: scale, bias and activation.
  ///   - residual: `[..., outputs]`, added last; may be `y` itself.
  ///   - y: `[..., outputs]`; overlaps neither x nor the weights.
  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue = .none, residual: TensorView? = nil,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .linear)
    let (x, y, residual) = try check.product(
      x, inputs: weights.inputs, outputs: weights.outputs, bias: epilogue.bias, residual: residual, into: y)
    let runner = runner(.linear, x.types, weights.storage.types, y.types, residual.types)
    try check.readable(weights, by: runner)
    try run(runner) { $0.linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y) }
  }

  /// `c = activation(scale a b + beta c + bias) + residual`: GEMM, or a batch of them.
  ///
  /// - Parameters:
  ///   - a: `[m, k]` or `[batch, m, k]`, any strides: pass `tensor.view.transposed()` for Aᵀ.
  ///   - b: `[k, n]` or `[batch, k, n]`, any strides; a batch of one serves all.
  ///   - beta: 0 does not read c.
  ///   - epilogue: its `scale` is BLAS's alpha.
  ///   - residual: the shape of c; may be c.
  ///   - c: `[m, n]` or `[batch, m, n]`, unit stride along the last axis; overlaps neither a nor b.
  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float = 0, epilogue: Epilogue = .none, residual: TensorView? = nil,
    into c: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .matmul)
    let c3 = try batched(c, "c", check)
    let batch = c3.shape[0]
    let a3 = try broadcast(try batched(a, "a", check), "a", batch, check)
    let b3 = try broadcast(try batched(b, "b", check), "b", batch, check)
    try check.require(
      a3.shape[2] == b3.shape[1] && a3.shape[1] == c3.shape[1] && b3.shape[2] == c3.shape[2],
      "a \(a.shape) times b \(b.shape) does not give c \(c.shape)")
    try check.require(c3.shape[2] <= 1 || c3.strides[2] == 1, "c \(c.shape) needs unit stride along its last axis")
    try check.vector(epilogue.bias, "bias", count: c3.shape[2])
    try check.destination(c3, "c")
    try check.disjoint(a, "a", from: c)
    try check.disjoint(b, "b", from: c)
    var residual3: TensorView?
    if let residual {
      let r = try batched(residual, "residual", check)
      try check.same(r.shape, "residual", c3.shape, "c")
      try check.require(r.shape[2] <= 1 || r.strides[2] == 1, "residual needs unit stride along its last axis")
      try check.disjoint(r, "residual", from: c3, mayBeSame: true)
      residual3 = r
    }
    let runner = runner(.matmul, a.types, b.types, c.types, residual.types)
    defer {  // lent below
      withExtendedLifetime(a) {}
      withExtendedLifetime(b) {}
      withExtendedLifetime(c) {}
      withExtendedLifetime(residual) {}
    }
    try run(runner) { $0.matmul(a3, b3, beta: beta, epilogue: epilogue, residual: residual3, into: c3) }
  }

  private func batched<T: Lendable>(_ tensor: T, _ name: String, _ check: Check) throws(QuernError) -> T {
    if tensor.shape.rank == 3 { return tensor.lent(shape: tensor.shape, strides: tensor.strides) }
    try check.require(tensor.shape.rank == 2, "\(name) has shape \(tensor.shape); expected rank 2, or 3 with a batch")
    return tensor.lent(shape: tensor.shape.inserting(1, at: 0), strides: tensor.strides.inserting(0, at: 0))
  }

  private func broadcast(
    _ view: TensorView, _ name: String, _ batch: Int, _ check: Check
  ) throws(QuernError) -> TensorView {
    if view.shape[0] == batch { return view }
    try check.require(view.shape[0] == 1, "\(name) has \(view.shape[0]) batches, c has \(batch)")
    var (shape, strides) = (view.shape, view.strides)
    (shape[0], strides[0]) = (batch, 0)
    return view.lent(shape: shape, strides: strides)
  }
}

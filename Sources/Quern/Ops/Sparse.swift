/// Block-sparse and structured products. See ``Backend`` for what every requirement may rely on.
public protocol SparseOperations {
  /// Lays out block-sparse weights for this backend's ``blockSparseLinear(_:weights:epilogue:residual:into:)``.
  func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix

  /// `y = activation(scale x Wᵀ + bias) + residual` over the stored blocks of W. The residual may be y.
  func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor)

  /// `y_g = activation(scale x_g W_gᵀ + bias_g) + residual_g`, where x, bias, residual and y are cut into as many equal
  /// column ranges as there are weights, all of one shape. The residual may be y.
  func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor)

  /// `y = activation(epilogue.scale x Wᵀ + scale (x Dᵀ) Uᵀ + bias) + residual`, with `down` D `[rank, inputs]` and `up` U
  /// `[outputs, rank]`; without `weights`, W is zero. The residual may be y.
  func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor)
}

extension Backend {
  public func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix { try handOn(.pack).pack(weights) }

  public func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    handOn(.blockSparseLinear).blockSparseLinear(
      x, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }

  public func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    handOn(.groupedLinear).groupedLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }

  public func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor
  ) {
    handOn(.lowRankLinear).lowRankLinear(
      x, weights: weights, down: down, up: up, scale: scale, epilogue: epilogue, residual: residual, into: y)
  }

  /// ``groupedLinear(_:weights:epilogue:residual:into:)`` as one `linear` a group: what it means, and what a library
  /// that multiplies matrices does.
  func groupedLinearByLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    for (g, matrix) in weights.enumerated() {
      let columns = g * matrix.outputs..<(g + 1) * matrix.outputs
      linear(
        x.columns(g * matrix.inputs..<(g + 1) * matrix.inputs), weights: matrix, epilogue: epilogue.columns(columns),
        residual: residual?.columns(columns), into: y.columns(columns))
    }
  }
}

extension Epilogue {
  /// The epilogue of a range of the columns.
  func columns(_ range: Range<Int>) -> Epilogue {
    Epilogue(scale: scale, bias: bias?.slice(axis: 0, range), activation: activation)
  }
}

extension Context {
  /// Lays out block-sparse weights for this context's backend.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)``.
  public func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix { try packer(.f32).pack(weights) }

  /// `y = activation(scale x Wᵀ + bias) + residual` with block-sparse W: ``linear(_:weights:epilogue:residual:into:)``
  /// that reads and multiplies only the blocks that are stored. What x holds for an absent block has no effect, NaN
  /// included.
  ///
  /// The error is that of `linear` with the stored products alone.
  ///
  /// - Parameters:
  ///   - x: `[..., inputs]`, unit stride along the last axis.
  ///   - weights: from ``pack(_:)-(BlockSparseMatrix)``.
  ///   - residual: `[..., outputs]`, added last; may be `y` itself.
  ///   - y: `[..., outputs]`; does not overlap x.
  public func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue = .none, residual: TensorView? = nil,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .blockSparseLinear)
    let (x, y, residual) = try check.product(
      x, inputs: weights.inputs, outputs: weights.outputs, bias: epilogue.bias, residual: residual, into: y)
    try run(runner(.blockSparseLinear, x.types, y.types, residual.types)) {
      $0.blockSparseLinear(
        x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }

  /// A block-diagonal product: column range g of y is column range g of x times `weights[g]`,
  /// `y_g = activation(scale x_g W_gᵀ + bias_g) + residual_g`.
  ///
  /// The error is that of ``linear(_:weights:epilogue:residual:into:)`` for each group.
  ///
  /// - Parameters:
  ///   - x: `[..., groups * inputs]`, unit stride along the last axis.
  ///   - weights: one matrix a group, all of one shape, from ``pack(_:)-(TensorView)``.
  ///   - epilogue: its bias is `[groups * outputs]`.
  ///   - residual: `[..., groups * outputs]`, added last; may be `y` itself.
  ///   - y: `[..., groups * outputs]`; does not overlap x.
  public func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue = .none, residual: TensorView? = nil,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .groupedLinear)
    try check.alike(weights)
    let (x, y, residual) = try check.product(
      x, inputs: weights.count * weights[0].inputs, outputs: weights.count * weights[0].outputs, bias: epilogue.bias,
      residual: residual, into: y)
    let runner = runner(.groupedLinear, x.types, weights[0].storage.types, y.types, residual.types)
    for matrix in weights { try check.readable(matrix, by: runner) }
    try run(runner) { $0.groupedLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y) }
  }

  /// A linear layer with a low-rank update that is kept apart (LoRA, arXiv 2106.09685), or whose weights are of low rank
  /// themselves: `y = activation(epilogue.scale x Wᵀ + scale (x Dᵀ) Uᵀ + bias) + residual`.
  ///
  /// The error adds those of the products: γ(inputs + 3) + γ(rank + 3), of the sums of magnitudes.
  ///
  /// - Parameters:
  ///   - x: `[..., inputs]`, unit stride along the last axis.
  ///   - weights: `[outputs, inputs]`, packed; `nil` for the update alone, two products.
  ///   - down: `[rank, inputs]`, packed: PyTorch's `lora_A`.
  ///   - up: `[outputs, rank]`, packed: `lora_B`.
  ///   - scale: the update's factor, `lora_alpha / rank`.
  ///   - residual: `[..., outputs]`, added last; may be `y` itself.
  ///   - y: `[..., outputs]`; does not overlap x.
  public func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float = 1,
    epilogue: Epilogue = .none, residual: TensorView? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .lowRankLinear)
    let (inputs, outputs) = (weights?.inputs ?? down.inputs, weights?.outputs ?? up.outputs)
    try check.require(
      down.inputs == inputs && up.outputs == outputs && down.outputs == up.inputs,
      "down [\(down.outputs), \(down.inputs)] and up [\(up.outputs), \(up.inputs)] do not fit "
        + (weights == nil ? "each other" : "weights [\(outputs), \(inputs)]"))
    let (x, y, residual) = try check.product(
      x, inputs: inputs, outputs: outputs, bias: epilogue.bias, residual: residual, into: y)
    try check.require(
      down.quantization == nil && up.quantization == nil && down.layout != .int8 && up.layout != .int8,
      "down and up are plain elements; only the weights may be quantised")
    let factors = down.storage.types.union(up.storage.types)
    let types = weights.map { $0.storage.types.union(factors) } ?? factors
    let runner = runner(.lowRankLinear, x.types, types, y.types, residual.types)
    if let weights { try check.readable(weights, by: runner) }
    try check.readable(down, by: runner)
    try check.readable(up, by: runner)
    try run(runner) {
      $0.lowRankLinear(
        x, weights: weights, down: down, up: up, scale: scale, epilogue: epilogue, residual: residual, into: y)
    }
  }
}

extension Check {
  /// The operands of a product with weights `[outputs, inputs]`, as rows.
  func product(
    _ x: TensorView, inputs: Int, outputs: Int, bias: Tensor?, residual: TensorView?, into y: MutableTensor
  ) throws(QuernError) -> (TensorView, MutableTensor, TensorView?) {
    let x = try rows(x, "x")
    let y = try rows(y, "y")
    try require(x.shape[1] == inputs, "x \(x.shape) does not fit weights [\(outputs), \(inputs)]")
    try same(y.shape, "y", Shape(x.shape[0], outputs), "x Wᵀ")
    try vector(bias, "bias", count: outputs)
    try destination(y, "y")
    try disjoint(x, "x", from: y)
    return (x, y, try second(residual, "residual", of: y, repeats: false, mayBeSame: true))
  }

  /// At least one matrix, all of one shape and data type.
  func alike(_ weights: [PackedMatrix]) throws(QuernError) {
    try require(!weights.isEmpty, "no weights; expected one matrix for each group")
    for (index, matrix) in weights.enumerated() {
      try require(
        matrix.outputs == weights[0].outputs && matrix.inputs == weights[0].inputs,
        "weights \(index) are [\(matrix.outputs), \(matrix.inputs)], the first are "
          + "[\(weights[0].outputs), \(weights[0].inputs)]")
      try require(
        matrix.storage.dataType == weights[0].storage.dataType && matrix.quantization == weights[0].quantization,
        "weights \(index) are \(matrix.formatName), the first are \(weights[0].formatName)"
      )
    }
  }

  /// Weights that no other backend than `runner` packed opaquely.
  func readable(_ weights: PackedMatrix, by runner: any Backend) throws(QuernError) {
    if let format = weights.quantization, ![.linear, .gatedLinear, .expertLinear, .lowRankLinear].contains(operation) {
      throw .invalidOperand(
        operation: operation,
        reason:
          "weights in \(format.rawValue); linear, gatedLinear, expertLinear and the base of lowRankLinear may be quantised"
      )
    }
    if weights.layout == .int8, operation != .linear, operation != .gatedLinear {
      throw .invalidOperand(operation: operation, reason: "weights in int8; only linear and gatedLinear take these")
    }
    if case .opaque(let owner) = weights.layout, owner != type(of: runner).name {
      throw .foreignPacking(operation: operation, layout: "\(weights.layout)", backend: type(of: runner).name)
    }
  }
}

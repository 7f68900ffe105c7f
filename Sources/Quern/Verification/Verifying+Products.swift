import CKernels

extension VerifyingBackend {
  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    verify(.linear, y, ["x": x, "weights": weights, "residual": residual], weights: [weights]) {
      $0.linear(x, weights: weights, epilogue: epilogue, residual: residual, into: $1)
    } bound: {
      $0.linear(x, weights: weights, epilogue: epilogue, residual: residual, expected: $1)
    }
  }

  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    verify(.matmul, c, ["a": a, "b": b, "residual": residual]) {
      $0.matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: $1)
    } bound: {
      $0.matmul(a, b, beta: beta, held: c.view, epilogue: epilogue, residual: residual, expected: $1)
    }
  }

  public func gatedLinear(_ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor) {
    let (gate, value) = (weights.gate, weights.value)
    verify(.gatedLinear, y, ["x": x, "gate": gate, "value": value], weights: [gate, value]) {
      $0.gatedLinear(x, weights: weights, activation: activation, into: $1)
    } bound: { bounds, expected throws(QuernError) in
      try bounds.gatedLinear(x, weights: weights, activation: activation, expected: expected)
    }
  }

  public func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    verify(.blockSparseLinear, y, ["x": x, "weights": weights, "residual": residual]) {
      $0.blockSparseLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: $1)
    } bound: {
      $0.blockSparseLinear(x, weights: weights, epilogue: epilogue, residual: residual, expected: $1)
    }
  }

  public func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    verify(.groupedLinear, y, ["x": x, "each weights": weights.first, "residual": residual], weights: weights) {
      $0.groupedLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: $1)
    } bound: {
      $0.groupedLinear(x, weights: weights, epilogue: epilogue, residual: residual, expected: $1)
    }
  }

  public func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor
  ) {
    let operands: Operands = ["x": x, "weights": weights, "down": down, "up": up, "residual": residual]
    verify(.lowRankLinear, y, operands, weights: [down, up] + (weights.map { [$0] } ?? [])) {
      $0.lowRankLinear(
        x, weights: weights, down: down, up: up, scale: scale, epilogue: epilogue, residual: residual, into: $1)
    } bound: {
      $0.lowRankLinear(
        x, weights: weights, down: down, up: up, scale: scale, epilogue: epilogue, residual: residual, expected: $1)
    }
  }

  public func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) {
    verify(.expertLinear, y, ["x": x, "each weights": weights.first, "residual": residual], weights: weights) {
      $0.expertLinear(
        x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: $1)
    } bound: {
      $0.expertLinear(
        x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, expected: $1)
    }
  }

  public func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, into y: MutableTensor
  ) {
    let operands: Operands = ["x": x, "weights": weights, "add": add, "residual": residual]
    verify(.conv2d, y, operands, weights: weights.matrices) {
      $0.conv2d(x, weights: weights, layout: layout, epilogue: epilogue, add: add, residual: residual, into: $1)
    } bound: { bounds, expected throws(QuernError) in
      try bounds.conv2d(
        x, weights: weights, layout: layout, epilogue: epilogue, add: add, residual: residual, output: y.shape,
        expected: expected)
    }
  }
}

extension Rounding {
  /// The same sums of operands that are first rounded as a backend's options allow.
  package func of(_ backend: any Backend) -> Rounding {
    if let verifying = backend as? VerifyingBackend { return of(verifying.wrapped) }
    guard let backend = (backend as? MultithreadedBackend) ?? (backend.fallback as? MultithreadedBackend) else {
      return self
    }
    return rounded(bf16: backend.split == F32Products.bf16.code, activations: backend.activationBits)
  }
}

/// Packed weights hold what they were made from.
extension VerifyingBackend {
  public func pack(_ weights: TensorView) throws -> PackedMatrix {
    try verified(try wrapped.pack(weights), of: weights, as: try ReferenceBackend().pack(weights))
  }

  public func pack(_ weights: QuantizedMatrix) throws -> PackedMatrix {
    try verified(try wrapped.pack(weights), of: weights, as: try ReferenceBackend().pack(weights))
  }

  public func packInt8(_ weights: TensorView) throws -> PackedMatrix {
    try verified(try wrapped.packInt8(weights), of: weights, as: try ReferenceBackend().packInt8(weights))
  }

  public func packConvolution(_ weights: TensorView, _ convolution: Convolution) throws -> PackedConvolution {
    let packed = try wrapped.packConvolution(weights, convolution)
    let expected = try ReferenceBackend().packConvolution(weights, convolution)
    for (matrix, truth) in zip(packed.matrices, expected.matrices) {
      _ = try verified(matrix, of: weights, as: truth)
    }
    return packed
  }

  public func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix {
    let (packed, expected) = (try wrapped.pack(weights), try ReferenceBackend().pack(weights))
    for output in 0..<weights.outputs {
      for block in expected.blocks(of: output) {
        func row(_ matrix: PackedBlockSparseMatrix) -> [Float] {
          let elements = matrix.elements(of: output, block: block)
          return (0..<weights.blockInputs).map { Float(elements[$0]) }
        }
        try equal(row(packed), row(expected), "block \(block)", output, weights)
      }
    }
    return packed
  }

  private func verified(
    _ packed: PackedMatrix, of weights: any VerifiedOperand, as expected: PackedMatrix
  ) throws -> PackedMatrix {
    try readable(packed, .pack)
    for output in 0..<expected.outputs {
      let (values, truth) = (packed.values(of: output) ?? [], expected.values(of: output) ?? [])
      try equal(values.map { Float($0) }, truth.map { Float($0) }, "the weights", output, weights)
    }
    return packed
  }

  private func equal(
    _ values: [Float], _ expected: [Float], _ result: String, _ output: Int, _ weights: any VerifiedOperand
  ) throws(QuernError) {
    let own = VerifyingBackend(wrapped)
    own.compare(
      .pack, "output \(output) of \(result)", [expected.count], values, expected, own.bounds.exact(expected),
      isExact: true, ["weights": weights])
    if let failure = own.failure { throw failure }
  }
}

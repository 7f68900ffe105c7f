import CKernels

extension MultithreadedBackend {
  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    if weights.layout == .int8 {
      if !int8Linear(x, weights, epilogue: epilogue, residual: residual, into: y) {
        handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
      }
      return
    }
    guard var call = ck_gemm(weights, self) else {
      return handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
    (call.m, call.alpha, call.activation) = (x.shape[0], epilogue.scale, epilogue.activation.code)
    (call.bias, call.split) = (epilogue.bias?.view.base, split)
    (call.a, call.a_rs, call.a_cs, call.a_type) = (x.pointer, x.strides[0], 1, x.dataType.code)
    (call.c, call.c_rs, call.c_type) = (y.pointer, y.strides[0], y.dataType.code)
    if let residual {
      (call.residual, call.residual_rs) = (residual.pointer, residual.strides[0])
      call.residual_type = residual.dataType.code
    }
    if ck_f32_gemm(table.pointer, &call, threads) != 0 {
      handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }

  public func gatedLinear(_ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor) {
    let isDone = fusedGatedLinear(x, weights, activation, into: y)
    if isDone || gatedLinearByLinear(x, weights: weights, activation: activation, into: y) { return }
    handOn(.gatedLinear).gatedLinear(x, weights: weights, activation: activation, into: y)
  }

  /// False, with nothing written, where the matrices are stored differently, are not in this table's panels, or memory cannot be had.
  private func fusedGatedLinear(
    _ x: TensorView, _ weights: GatedWeights, _ activation: Activation, into y: MutableTensor
  ) -> Bool {
    let (gate, value) = (weights.gate, weights.value)
    guard gate.layout == value.layout, gate.quantization == value.quantization,
      gate.storage.dataType == value.storage.dataType
    else { return false }
    if gate.layout == .int8 {
      return int8Linear(
        x, gate, value: (value, weights.valueBias), epilogue: Epilogue(bias: weights.gateBias, activation: activation),
        into: y)
    }
    guard var call = ck_gemm(gate, self), call.packed != nil else { return false }
    (call.m, call.alpha, call.activation, call.split) = (x.shape[0], 1, activation.code, split)
    (call.value, call.value_bias) = (value.storage.view.address, weights.valueBias?.view.base)
    call.value_range = value.range
    call.bias = weights.gateBias?.view.base
    (call.a, call.a_rs, call.a_cs, call.a_type) = (x.pointer, x.strides[0], 1, x.dataType.code)
    (call.c, call.c_rs, call.c_type) = (y.pointer, y.strides[0], y.dataType.code)
    return ck_f32_gemm(table.pointer, &call, threads) == 0
  }

  /// False, with nothing written, where memory cannot be had. With a value, the result is multiplied by that product.
  private func int8Linear(
    _ x: TensorView, _ weights: PackedMatrix, value: (weights: PackedMatrix, bias: Tensor?)? = nil, epilogue: Epilogue,
    residual: TensorView? = nil, into y: MutableTensor
  ) -> Bool {
    var call = ck_int8()
    (call.m, call.n, call.k, call.alpha) = (x.shape[0], weights.outputs, weights.inputs, epilogue.scale)
    (call.a, call.a_rs, call.a_type) = (x.address, x.strides[0], x.dataType.code)
    (call.c, call.c_rs, call.c_type) = (UnsafeMutableRawPointer(y.pointer), y.strides[0], y.dataType.code)
    (call.bias, call.activation) = (epilogue.bias?.view.base, epilogue.activation.code)
    if let residual {
      (call.residual, call.residual_rs) = (residual.address, residual.strides[0])
      call.residual_type = residual.dataType.code
    }
    (call.codes, call.scales) = weights.int8Codes
    if let value {
      (call.value, call.value_scales) = value.weights.int8Codes
      call.value_bias = value.bias?.view.base
    }
    return ck_int8_gemm(table.pointer, &call, threads) == 0
  }

  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    var call = ck_gemm(m: c.shape[1], n: c.shape[2], k: a.shape[2], epilogue: epilogue)
    (call.batch, call.beta, call.split) = (c.shape[0], beta, split)
    (call.a_type, call.b_type, call.c_type) = (a.dataType.code, b.dataType.code, c.dataType.code)
    (call.a, call.a_bs, call.a_rs, call.a_cs) = (a.pointer, a.strides[0], a.strides[1], a.strides[2])
    (call.b, call.b_bs, call.b_rs, call.b_cs) = (b.pointer, b.strides[0], b.strides[1], b.strides[2])
    (call.c, call.c_bs, call.c_rs) = (c.pointer, c.strides[0], c.strides[1])
    if let residual {
      (call.residual, call.residual_bs, call.residual_rs) = (residual.pointer, residual.strides[0], residual.strides[1])
      call.residual_type = residual.dataType.code
    }
    if ck_f32_gemm(table.pointer, &call, threads) != 0 {
      handOn(.matmul).matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: c)
    }
  }
}

extension PackedMatrix {
  /// ``magnitudes`` as kernels take them.
  var range: ck_tile_range { ck_tile_range(least: magnitudes?.least ?? 0, most: magnitudes?.most ?? 0) }

  /// The codes of weights in int8, and the scale of each output behind them.
  fileprivate var int8Codes: (UnsafePointer<Int8>, UnsafePointer<Float>) {
    let codes = storage.view.address
    let scales = codes + Int8Layout(outputs: outputs, inputs: inputs).codeBytes
    return (codes.assumingMemoryBound(to: Int8.self), scales.assumingMemoryBound(to: Float.self))
  }
}

extension ck_gemm {
  /// One product with these weights and everything else to be filled in; `nil` where they are packed for another tile.
  init?(_ weights: PackedMatrix, _ backend: MultithreadedBackend) {
    // Blocks in panels are stored as words of f16.
    let isPacked = weights.layout == backend.layout(of: weights.storage.dataType)
    guard isPacked || weights.layout == .panels(width: 1) && weights.quantization == nil else { return nil }
    self.init()
    (batch, n, k, b_type) = (1, weights.outputs, weights.inputs, weights.storage.dataType.code)
    if let format = weights.quantization { (b_type, x8) = (format.code, backend.activationBits == .eight ? 1 : 0) }
    if isPacked {
      packed = weights.storage.view.address
    } else {
      (b, b_rs, b_cs) = (weights.storage.view.pointer, 1, weights.inputs)
    }
    packed_range = weights.range
  }

  /// One product's sizes, without weights.
  init(n: Int, k: Int) {
    self.init()
    (batch, self.n, self.k) = (1, n, k)
  }

  /// A single product with this epilogue; the operands are the caller's to fill in.
  fileprivate init(m: Int, n: Int, k: Int, epilogue: Epilogue) {
    self.init()
    (batch, self.m, self.n, self.k) = (1, m, n, k)
    (alpha, activation) = (epilogue.scale, epilogue.activation.code)
    bias = epilogue.bias?.view.base
  }
}

extension QuantizedFormat {
  var code: ck_dtype {
    switch self {
    case .q8: CK_Q8_0
    case .q4: CK_Q4_0
    case .q4K: CK_Q4_K
    case .q6K: CK_Q6_K
    case .mxfp4: CK_MXFP4
    case .q5One: CK_Q5_1
    case .q5K: CK_Q5_K
    }
  }
}

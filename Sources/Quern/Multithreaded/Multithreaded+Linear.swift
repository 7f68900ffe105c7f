import CKernels

extension MultithreadedBackend {
  public func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    guard case .panels(let width) = weights.layout, width == 1 || width == table.kernels.gemm_nr else {
      return handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
    var call = ck_gemm(m: x.shape[0], n: weights.outputs, k: weights.inputs, epilogue: epilogue)
    (call.a, call.a_rs, call.a_cs) = (x.base, x.strides[0], 1)
    if width == 1 {
      (call.b, call.b_rs, call.b_cs) = (weights.storage.view.base, 1, weights.inputs)
    } else {
      call.packed = weights.storage.view.base
    }
    (call.c, call.c_rs) = (y.base, y.strides[0])
    if let residual { (call.residual, call.residual_rs) = (residual.base, residual.strides[0]) }
    if ck_f32_gemm(table.pointer, &call, threads) != 0 {
      handOn(.linear).linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }

  public func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    var call = ck_gemm(m: c.shape[1], n: c.shape[2], k: a.shape[2], epilogue: epilogue)
    (call.batch, call.beta) = (c.shape[0], beta)
    (call.a, call.a_bs, call.a_rs, call.a_cs) = (a.base, a.strides[0], a.strides[1], a.strides[2])
    (call.b, call.b_bs, call.b_rs, call.b_cs) = (b.base, b.strides[0], b.strides[1], b.strides[2])
    (call.c, call.c_bs, call.c_rs) = (c.base, c.strides[0], c.strides[1])
    if let residual {
      (call.residual, call.residual_bs, call.residual_rs) = (residual.base, residual.strides[0], residual.strides[1])
    }
    if ck_f32_gemm(table.pointer, &call, threads) != 0 {
      handOn(.matmul).matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: c)
    }
  }
}

extension ck_gemm {
  /// A single product with this epilogue; the operands are the caller's to fill in.
  fileprivate init(m: Int, n: Int, k: Int, epilogue: Epilogue) {
    self.init()
    (batch, self.m, self.n, self.k) = (1, m, n, k)
    (alpha, activation) = (epilogue.scale, epilogue.activation.code)
    bias = epilogue.bias?.view.base
  }
}

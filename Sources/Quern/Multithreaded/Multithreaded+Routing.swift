import CKernels

extension MultithreadedBackend {
  public func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32]) {
    var call = ck_top_k()
    (call.rows, call.n, call.k) = (x.shape[0], x.shape[1], values.shape[1])
    (call.x, call.x_rs, call.x_type) = (x.address, x.strides[0], x.dataType.code)
    (call.values, call.values_rs, call.value_type) = (values.address, values.strides[0], values.dataType.code)
    let failed = indices.withUnsafeMutableBufferPointer { indices in
      call.indices = indices.baseAddress
      return ck_f32_top_k(table.pointer, &call, threads) != 0
    }
    if failed { handOn(.topK).topK(x, values: values, indices: &indices) }
  }

  public func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, into y: MutableTensor) {
    var call = ck_scatter_add()
    (call.rows, call.n, call.y_rows) = (x.shape[0], x.shape[1], y.shape[0])
    (call.x, call.x_rs, call.x_type) = (x.address, x.strides[0], x.dataType.code)
    (call.y, call.y_rs, call.y_type) = (y.address, y.strides[0], y.dataType.code)
    call.weights = weights?.pointer
    let failed = ids.withUnsafeBufferPointer { ids in
      call.ids = ids.baseAddress
      return ck_f32_scatter_add(table.pointer, &call, threads) != 0
    }
    if failed { handOn(.scatterAdd).scatterAdd(x, ids: ids, weights: weights, into: y) }
  }

  public func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) {
    // Quantised rows of x are shared by no two experts, and a product of its own has enough work for every thread.
    guard weights[0].quantization == nil else {
      return expertLinearByLinear(
        x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
    var call = ck_grouped()
    if let bias = epilogue.bias, bias.shape.rank == 2 { call.bias_gs = bias.shape[1] }
    let isDone = segments.offsets.withUnsafeBufferPointer { offsets in
      call.offsets = offsets.baseAddress
      return run(&call, x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
    if !isDone {
      handOn(.expertLinear).expertLinear(
        x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }
}

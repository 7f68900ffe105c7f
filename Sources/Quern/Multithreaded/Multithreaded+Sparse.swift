import CKernels

extension MultithreadedBackend {
  public func pack(_ weights: BlockSparseMatrix) throws -> PackedBlockSparseMatrix {
    let width = ck_sparse_width(table.pointer, weights.blockOutputs)
    let size = ck_f32_sparse_packed_size(table.pointer, weights.blocks, weights.blockOutputs, weights.blockInputs)
    let storage = try Tensor(shape: Shape(size)) { packed in
      weights.offsets.withUnsafeBufferPointer { offsets in
        weights.columns.withUnsafeBufferPointer { columns in
          var layout = ck_sparse_weights()
          (layout.outputs, layout.inputs) = (weights.outputs, weights.inputs)
          (layout.block_outputs, layout.block_inputs) = (weights.blockOutputs, weights.blockInputs)
          (layout.offsets, layout.columns) = (offsets.baseAddress, columns.baseAddress)
          ck_f32_sparse_pack(table.pointer, &layout, weights.values.view.base, packed.baseAddress)
        }
      }
    }
    return PackedBlockSparseMatrix(weights, width: width, storage: storage)
  }

  public func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    var isDone = false
    if weights.width == ck_sparse_width(table.pointer, weights.blockOutputs) {
      var call = ck_sparse_linear()
      (call.m, call.weights.outputs, call.weights.inputs) = (x.shape[0], weights.outputs, weights.inputs)
      (call.weights.block_outputs, call.weights.block_inputs) = (weights.blockOutputs, weights.blockInputs)
      call.weights.packed = weights.storage.view.pointer
      (call.x, call.x_rs, call.x_type) = (x.address, x.strides[0], x.dataType.code)
      (call.y, call.y_rs, call.y_type) = (y.address, y.strides[0], y.dataType.code)
      (call.alpha, call.activation, call.bias) = (epilogue.scale, epilogue.activation.code, epilogue.bias?.view.pointer)
      if let residual {
        (call.residual, call.residual_rs) = (residual.address, residual.strides[0])
        call.residual_type = residual.dataType.code
      }
      isDone = weights.offsets.withUnsafeBufferPointer { offsets in
        weights.columns.withUnsafeBufferPointer { columns in
          (call.weights.offsets, call.weights.columns) = (offsets.baseAddress, columns.baseAddress)
          return ck_f32_sparse_linear(table.pointer, &call, threads) == 0
        }
      }
    }
    if !isDone {
      handOn(.blockSparseLinear).blockSparseLinear(
        x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }

  public func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    let (inputs, outputs) = (weights[0].inputs, weights[0].outputs)
    var call = ck_grouped()
    (call.x_gs, call.y_gs, call.residual_gs, call.bias_gs) = (inputs, outputs, outputs, outputs)
    if !run(&call, x, weights: weights, epilogue: epilogue, residual: residual, into: y) {
      handOn(.groupedLinear).groupedLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    }
  }

  /// Fills in the rest of a call whose group strides and offsets are set, and runs it; false, with nothing written, where
  /// the weights are packed for another tile or scratch memory cannot be had.
  func run(
    _ call: inout ck_grouped, _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) -> Bool {
    for matrix in weights where matrix.layout != layout(of: matrix.storage.dataType) { return false }
    // Two floats a pointer, and two a range, in scratch: an array would be an allocation a call.
    guard let scratch = ck_scratch(Int(CK_SCRATCH_CALLER), 4 * weights.count) else { return false }
    let packed = UnsafeMutableRawPointer(scratch).bindMemory(to: UnsafeRawPointer?.self, capacity: weights.count)
    let ranges = UnsafeMutableRawPointer(packed + weights.count).bindMemory(
      to: ck_tile_range.self, capacity: weights.count)
    for (index, matrix) in weights.enumerated() {
      (packed + index).initialize(to: matrix.storage.view.address)
      (ranges + index).initialize(to: matrix.range)
    }
    (call.packed, call.ranges) = (UnsafePointer(packed), UnsafePointer(ranges))
    (call.groups, call.m, call.n, call.k) = (weights.count, x.shape[0], weights[0].outputs, weights[0].inputs)
    (call.x, call.x_rs, call.x_type) = (x.address, x.strides[0], x.dataType.code)
    (call.y, call.y_rs, call.y_type) = (y.address, y.strides[0], y.dataType.code)
    (call.b_type, call.split) = (weights[0].storage.dataType.code, split)
    (call.alpha, call.activation, call.bias) = (epilogue.scale, epilogue.activation.code, epilogue.bias?.view.pointer)
    if let residual {
      (call.residual, call.residual_rs) = (residual.address, residual.strides[0])
      call.residual_type = residual.dataType.code
    }
    return ck_f32_grouped(table.pointer, &call, threads) == 0
  }

  public func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor
  ) {
    var isDone = false
    if var base = weights.map({ ck_gemm($0, self) }) ?? ck_gemm(n: up.outputs, k: down.inputs),
      var down = ck_gemm(down, self), var up = ck_gemm(up, self)
    {
      base.m = x.shape[0]
      (base.a, base.a_rs, base.a_cs, base.a_type) = (x.pointer, x.strides[0], 1, x.dataType.code)
      (base.c, base.c_rs, base.c_type) = (y.pointer, y.strides[0], y.dataType.code)
      (base.alpha, base.activation, base.bias) = (epilogue.scale, epilogue.activation.code, epilogue.bias?.view.pointer)
      if let residual {
        (base.residual, base.residual_rs) = (residual.pointer, residual.strides[0])
        base.residual_type = residual.dataType.code
      }
      isDone = ck_f32_low_rank(table.pointer, &base, &down, &up, scale, threads) == 0
    }
    if !isDone {
      handOn(.lowRankLinear).lowRankLinear(
        x, weights: weights, down: down, up: up, scale: scale, epilogue: epilogue, residual: residual, into: y)
    }
  }
}

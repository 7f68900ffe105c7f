import CKernels

extension MultithreadedBackend {
  public func embedding(_ ids: [Int32], table rows: TensorView, accumulate: Bool, into y: MutableTensor) {
    let done = ids.withUnsafeBufferPointer { ids in
      run(table.kernels.f32_gather, rows, into: y) { call in
        (call.index, call.accumulate) = (ids.baseAddress, accumulate ? 1 : 0)
      }
    }
    if !done { handOn(.embedding).embedding(ids, table: rows, accumulate: accumulate, into: y) }
  }

  public func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    let done = segments.offsets.withUnsafeBufferPointer { offsets in
      run(table.kernels.f32_mean_pool, x, into: y) { $0.index = offsets.baseAddress }
    }
    if !done { handOn(.meanPool).meanPool(x, segments: segments, into: y) }
  }
}

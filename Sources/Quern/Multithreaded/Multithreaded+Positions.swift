import CKernels

extension MultithreadedBackend {
  public func rope(
    _ x: TensorView, table angles: RotaryTable, positions: [Int32], pairing: RotaryPairing, into y: MutableTensor
  ) {
    var call = ck_rope()
    (call.tokens, call.heads, call.size, call.rotary) = (x.shape[0], x.shape[1], x.shape[2], angles.size)
    call.interleaved = pairing == .interleaved ? 1 : 0
    (call.x, call.x_rs, call.x_hs, call.x_type) = (x.pointer, x.strides[0], x.strides[1], x.dataType.code)
    (call.y, call.y_rs, call.y_hs, call.y_type) = (y.pointer, y.strides[0], y.strides[1], y.dataType.code)
    let values = angles.values.view
    (call.table, call.table_rs) = (values.pointer, values.strides[0])
    withExtendedLifetime(values) {
      positions.withUnsafeBufferPointer { positions in
        call.positions = positions.baseAddress
        ck_f32_rope(table.pointer, &call, threads)
      }
    }
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor) {
    var call = ck_append()
    (call.cache, call.cache_type, call.cache_ss) = (cache.pointer, cache.dataType.code, cache.strides[0])
    (call.cache_rs, call.cache_hs) = (cache.strides[1], cache.strides[2])
    append(x, sequences, lengths, &call)
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache) {
    var call = ck_append()
    (call.cache, call.cache_type) = (cache.codes.assumingMemoryBound(to: Float.self), CK_I8)
    (call.cache_ss, call.cache_rs) = (cache.capacity * cache.size, cache.size)
    call.cache_hs = cache.sequences * cache.capacity * cache.size
    (call.scales, call.scale_ss, call.scale_rs) = (cache.scales, cache.capacity, 1)
    call.scale_hs = cache.sequences * cache.capacity
    append(x, sequences, lengths, &call)
  }

  private func append(_ x: TensorView, _ sequences: Segments, _ lengths: [Int32], _ call: inout ck_append) {
    (call.sequences, call.heads, call.size) = (sequences.count, x.shape[1], x.shape[2])
    (call.x, call.x_rs, call.x_hs, call.x_type) = (x.pointer, x.strides[0], x.strides[1], x.dataType.code)
    sequences.offsets.withUnsafeBufferPointer { offsets in
      lengths.withUnsafeBufferPointer { lengths in
        (call.offsets, call.lengths) = (offsets.baseAddress, lengths.baseAddress)
        ck_cache_append(table.pointer, &call, threads)
      }
    }
  }
}

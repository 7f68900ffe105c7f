import CKernels

extension MultithreadedBackend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    var call = ck_attention()
    (call.sequences, call.head_dim) = (layout.queries.count, queries.shape[2])
    (call.q_heads, call.kv_heads) = (queries.shape[1], keys.shape[1])
    (call.q, call.q_rs, call.q_hs) = (queries.pointer, queries.strides[0], queries.strides[1])
    (call.k, call.k_rs, call.k_hs) = (keys.pointer, keys.strides[0], keys.strides[1])
    (call.v, call.v_rs, call.v_hs) = (values.pointer, values.strides[0], values.strides[1])
    (call.o, call.o_rs, call.o_hs) = (o.pointer, o.strides[0], o.strides[1])
    (call.q_type, call.k_type) = (queries.dataType.code, keys.dataType.code)
    (call.v_type, call.o_type) = (values.dataType.code, o.dataType.code)
    (call.scale, call.cap) = (scale, softCap)
    (call.before, call.after) = (mask.before ?? everyKey, mask.isCausal ? 0 : mask.after ?? everyKey)
    if let additive = mask.addressing() {
      (call.mask, call.mask_ss, call.mask_hs) = (additive.base.pointer, additive.sequence, additive.head)
      (call.mask_rs, call.mask_type) = (additive.row, additive.base.dataType.code)
    }
    if let slopes = mask.slopes { call.slopes = slopes.view.pointer }
    if let sinks = mask.sinks { call.sinks = sinks.view.pointer }
    if let logSumExp {
      (call.lse, call.lse_rs, call.lse_hs) = (logSumExp.pointer, logSumExp.strides[0], logSumExp.strides[1])
    }
    let failed = withExtendedLifetime(mask) {
      layout.queries.offsets.withUnsafeBufferPointer { queryOffsets in
        layout.keys.offsets.withUnsafeBufferPointer { keyOffsets in
          (call.q_offsets, call.kv_offsets) = (queryOffsets.baseAddress, keyOffsets.baseAddress)
          guard let counts = layout.keyCounts else { return ck_f32_attention(table.pointer, &call, threads) != 0 }
          return counts.withUnsafeBufferPointer { counts in
            call.kv_counts = counts.baseAddress
            return ck_f32_attention(table.pointer, &call, threads) != 0
          }
        }
      }
    }
    if failed {
      handOn(.attention).attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        logSumExp: logSumExp, into: o)
    }
  }
}

/// CK_EVERY_KEY, which the importer does not see.
private let everyKey = Int.max

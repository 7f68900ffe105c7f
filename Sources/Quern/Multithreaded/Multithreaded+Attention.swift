import CKernels

extension MultithreadedBackend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, into o: MutableTensor
  ) {
    let types = queries.types.union(keys.types).union(values.types).union(o.types)
    guard types == .f32, mask.additive.types.isSubset(of: .f32) else {
      return handOn(.attention).attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, into: o)
    }
    var call = ck_attention()
    (call.sequences, call.head_dim) = (layout.queries.count, queries.shape[2])
    (call.q_heads, call.kv_heads) = (queries.shape[1], keys.shape[1])
    (call.q, call.q_rs, call.q_hs) = (queries.pointer, queries.strides[0], queries.strides[1])
    (call.k, call.k_rs, call.k_hs) = (keys.pointer, keys.strides[0], keys.strides[1])
    (call.v, call.v_rs, call.v_hs) = (values.pointer, values.strides[0], values.strides[1])
    (call.o, call.o_rs, call.o_hs) = (o.pointer, o.strides[0], o.strides[1])
    (call.scale, call.causal) = (scale, mask.isCausal ? 1 : 0)
    if let additive = mask.addressing() {
      (call.mask, call.mask_ss, call.mask_hs) = (additive.base.base, additive.sequence, additive.head)
      call.mask_rs = additive.row
    }
    let failed = layout.queries.offsets.withUnsafeBufferPointer { queryOffsets in
      layout.keys.offsets.withUnsafeBufferPointer { keyOffsets in
        (call.q_offsets, call.kv_offsets) = (queryOffsets.baseAddress, keyOffsets.baseAddress)
        return ck_f32_attention(table.pointer, &call, threads) != 0
      }
    }
    if failed {
      handOn(.attention).attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, into: o)
    }
  }
}

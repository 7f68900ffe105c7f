import CKernels

extension MultithreadedBackend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    var call = ck_attention()
    call.kv_heads = keys.shape[1]
    (call.k, call.k_rs, call.k_hs) = (keys.pointer, keys.strides[0], keys.strides[1])
    (call.v, call.v_rs, call.v_hs) = (values.pointer, values.strides[0], values.strides[1])
    (call.k_type, call.v_type) = (keys.dataType.code, values.dataType.code)
    guard run(&call, queries, layout, mask, scale, softCap, logSumExp, o) else {
      return handOn(.attention).attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        logSumExp: logSumExp, into: o)
    }
  }

  public func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    var call = ck_attention()
    let positions = keys.sequences * keys.capacity
    call.kv_heads = keys.heads
    (call.k, call.k_rs, call.k_hs) = (
      UnsafePointer(keys.codes.assumingMemoryBound(to: Float.self)), keys.size, positions * keys.size
    )
    (call.v, call.v_rs, call.v_hs) = (
      UnsafePointer(values.codes.assumingMemoryBound(to: Float.self)), keys.size, positions * keys.size
    )
    (call.k_type, call.v_type) = (CK_I8, CK_I8)
    (call.k_scales, call.v_scales) = (UnsafePointer(keys.scales), UnsafePointer(values.scales))
    (call.k_scale_hs, call.v_scale_hs) = (positions, positions)
    guard run(&call, queries, layout, mask, scale, softCap, logSumExp, o) else {
      return handOn(.int8Attention).attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        logSumExp: logSumExp, into: o)
    }
  }

  /// What does not depend on how keys and values are stored; false where memory cannot be had.
  private func run(
    _ call: inout ck_attention, _ queries: TensorView, _ layout: AttentionLayout, _ mask: AttentionMask,
    _ scale: Float, _ softCap: Float, _ logSumExp: MutableTensor?, _ o: MutableTensor
  ) -> Bool {
    (call.sequences, call.head_dim, call.q_heads) = (layout.queries.count, queries.shape[2], queries.shape[1])
    (call.q, call.q_rs, call.q_hs) = (queries.pointer, queries.strides[0], queries.strides[1])
    (call.o, call.o_rs, call.o_hs) = (o.pointer, o.strides[0], o.strides[1])
    (call.q_type, call.o_type) = (queries.dataType.code, o.dataType.code)
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
    return withExtendedLifetime(mask) {
      guard let blocks = mask.blocks else { return run(&call, layout) }
      (call.pattern.queries, call.pattern.keys) = (blocks.blockQueries, blocks.blockKeys)
      call.pattern.hs = blocks.heads == 1 ? 0 : blocks.blockRows
      return blocks.offsets.withUnsafeBufferPointer { offsets in
        blocks.columns.withUnsafeBufferPointer { columns in
          (call.pattern.offsets, call.pattern.columns) = (offsets.baseAddress, columns.baseAddress)
          return run(&call, layout)
        }
      }
    }
  }

  private func run(_ call: inout ck_attention, _ layout: AttentionLayout) -> Bool {
    layout.queries.offsets.withUnsafeBufferPointer { queryOffsets in
      layout.keys.offsets.withUnsafeBufferPointer { keyOffsets in
        (call.q_offsets, call.kv_offsets) = (queryOffsets.baseAddress, keyOffsets.baseAddress)
        guard let counts = layout.keyCounts else { return ck_f32_attention(table.pointer, &call, threads) == 0 }
        return counts.withUnsafeBufferPointer { counts in
          call.kv_counts = counts.baseAddress
          return ck_f32_attention(table.pointer, &call, threads) == 0
        }
      }
    }
  }
}

/// CK_EVERY_KEY, which the importer does not see.
private let everyKey = Int.max

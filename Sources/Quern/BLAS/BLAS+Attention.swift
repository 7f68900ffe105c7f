#if OpenBLAS
  import CKernels
  import COpenBLAS

  extension BLASBackend {
    public func attention(
      queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
      scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
    ) {
      let scoreCount = HeadTask.block * layout.longestKeys
      guard mask.isPlain, softCap == 0, logSumExp == nil,
        let scratch = ck_scratch(Int(CK_SCRATCH_CALLER), threads * scoreCount)
      else {
        return handOn(.attention).attention(
          queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
          logSumExp: logSumExp, into: o)
      }
      let heads = HeadTask(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, o: o,
        kernels: rest.table.kernels, scratch: scratch)
      let count = layout.queries.count * queries.shape[1]
      let work = layout.queries.total * layout.longestKeys * queries.shape[1] * queries.shape[2]
      withUnsafePointer(to: heads) { call in
        ck_parallel(
          count, work < 1 << 17 ? max(count, 1) : 1, threads,
          { context, first, last in
            let task = context!.assumingMemoryBound(to: HeadTask.self).pointee
            for index in first..<last { task.run(index) }
          }, call)
      }
    }
  }

  /// Scores, softmax and weighted values of one head of one sequence, for a block of queries at a time.
  private struct HeadTask {
    let queries, keys, values: TensorView
    let layout: AttentionLayout
    let mask: AttentionMask
    let scale: Float
    let o: MutableTensor
    let kernels: ck_kernels
    /// A block of scores for each participant.
    let scratch: UnsafeMutablePointer<Float>

    static let block = 128

    func run(_ index: Int) {
      let (heads, size) = (queries.shape[1], queries.shape[2])
      let (sequence, head) = (index / heads, index % heads)
      let (queryRows, keyRows) = (layout.queries[sequence], layout.keyRows(sequence))
      let keyHead = head / (heads / keys.shape[1])
      let k = keys.base + keyRows.lowerBound * keys.strides[0] + keyHead * keys.strides[1]
      let v = values.base + keyRows.lowerBound * values.strides[0] + keyHead * values.strides[1]
      let scores = scratch + ck_participant() * Self.block * layout.longestKeys
      for start in stride(from: 0, to: queryRows.count, by: Self.block) {
        let m = min(Self.block, queryRows.count - start)
        let row = queryRows.lowerBound + start
        multiply(
          queries.base + row * queries.strides[0] + head * queries.strides[1], queries.strides[0], k, keys.strides[0],
          transposed: true, m, keyRows.count, size, alpha: scale, into: scores, keyRows.count)
        weigh(scores, rows: m, keys: keyRows.count, sequence, head, start, keyRows.count - queryRows.count)
        multiply(
          UnsafePointer(scores), keyRows.count, v, values.strides[0], transposed: false, m, size, keyRows.count,
          alpha: 1, into: o.base + row * o.strides[0] + head * o.strides[1], o.strides[0])
      }
    }

    private func weigh(
      _ scores: UnsafeMutablePointer<Float>, rows: Int, keys: Int, _ sequence: Int, _ head: Int, _ start: Int,
      _ lead: Int
    ) {
      var call = ck_rows()
      (call.rows, call.n, call.scale) = (rows, keys, 1)
      (call.x, call.x_rs, call.y, call.y_rs) = (UnsafePointer(scores), keys, scores, keys)
      call.diagonal = mask.isCausal ? start + lead : Int.max
      if let additive = mask.addressing() {
        call.other = additive.base.base + sequence * additive.sequence + head * additive.head + start * additive.row
        call.other_rs = additive.row
      }
      kernels.f32_softmax(&call, 0, rows)
    }

    private func multiply(
      _ a: UnsafePointer<Float>, _ aStride: Int, _ b: UnsafePointer<Float>, _ bStride: Int, transposed: Bool,
      _ m: Int, _ n: Int, _ k: Int, alpha: Float, into c: UnsafeMutablePointer<Float>, _ cStride: Int
    ) {
      func leading(_ stride: Int, _ columns: Int) -> Int32 { Int32(max(stride, columns, 1)) }
      cblas_sgemm(
        CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, Int32(m), Int32(n), Int32(k), alpha,
        a, leading(aStride, k), b, leading(bStride, transposed ? k : n), 0, c, leading(cStride, n))
    }
  }
#endif

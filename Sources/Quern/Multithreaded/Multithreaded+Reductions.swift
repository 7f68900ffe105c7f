import CKernels

extension MultithreadedBackend {
  public func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, into y: MutableTensor
  ) {
    let (rows, columns) = (x.shape[0], x.shape[1])
    if direction == .columns {
      var call = ck_rows()
      (call.rows, call.n, call.variant) = (rows, columns, reduction.code)
      (call.x, call.x_rs, call.x_type) = (x.pointer, x.strides[0], x.dataType.code)
      (call.y, call.y_type) = (y.pointer, y.dataType.code)
      return ck_reduce_columns(table.pointer, &call, threads)
    }
    let results = y.reinterpreted(offset: 0, shape: Shape(rows, 1), strides: Shape(1, 1))
    if !run(table.kernels.f32_reduce, x, into: results, configure: { $0.variant = reduction.code }) {
      handOn(.reduce).reduce(reduction, x, along: direction, into: y)
    }
  }

  public func cumulativeSum(_ x: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_cumsum, x, into: y) { handOn(.cumulativeSum).cumulativeSum(x, into: y) }
  }

  public func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32]) {
    var call = ck_extreme()
    (call.rows, call.n, call.least) = (x.shape[0], x.shape[1], extreme == .least ? 1 : 0)
    (call.x, call.x_rs, call.x_type) = (x.address, x.strides[0], x.dataType.code)
    indices.withUnsafeMutableBufferPointer { indices in
      call.y = indices.baseAddress
      ck_argmax(table.pointer, &call, threads)
    }
  }
}

extension Reduction {
  /// The C name.
  fileprivate var code: Int32 {
    switch self {
    case .sum: Int32(CK_SUM.rawValue)
    case .mean: Int32(CK_MEAN.rawValue)
    case .sumOfSquares: Int32(CK_SUM_SQUARES.rawValue)
    case .maximum: Int32(CK_MAX.rawValue)
    case .minimum: Int32(CK_MIN.rawValue)
    case .logSumExp: Int32(CK_LOG_SUM_EXP.rawValue)
    }
  }
}

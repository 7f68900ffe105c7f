import CKernels

extension MultithreadedBackend {
  public func copy(_ x: TensorView, into y: MutableTensor) {
    var call = ck_copy()
    (call.x, call.x_type) = (x.address, x.dataType.code)
    (call.y, call.y_type) = (y.address, y.dataType.code)
    call.extents = x.shape.widened(missing: 1)
    call.x_strides = x.strides.widened(missing: 0)
    call.y_strides = y.strides.widened(missing: 0)
    ck_copy_run(table.pointer, &call, threads)
  }

  public func binary(_ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_binary, a, other: b, into: y, configure: { $0.variant = function.code }) {
      handOn(.binary).binary(function, a, b, into: y)
    }
  }

  public func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor) {
    if !run(table.kernels.f32_clamp, x, into: y, configure: { ($0.low, $0.high) = (low, high) }) {
      handOn(.clamp).clamp(x, low: low, high: high, into: y)
    }
  }

  public func select(_ x: TensorView, mask: TensorView, into y: MutableTensor) {
    if !run(table.kernels.f32_masked_copy, x, other: mask, into: y, configure: { $0.accumulate = 1 }) {
      handOn(.select).select(x, mask: mask, into: y)
    }
  }

  public func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    if !run(table.kernels.f32_lerp, a, other: b, into: y, configure: { $0.scale = fraction }) {
      handOn(.lerp).lerp(a, b, fraction: fraction, into: y)
    }
  }

  public func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    if !run(table.kernels.f32_slerp, a, other: b, into: y, configure: { $0.scale = fraction }) {
      handOn(.slerp).slerp(a, b, fraction: fraction, into: y)
    }
  }
}

extension BinaryFunction {
  /// The C name.
  fileprivate var code: Int32 {
    switch self {
    case .subtract: Int32(CK_SUBTRACT.rawValue)
    case .divide: Int32(CK_DIVIDE.rawValue)
    case .maximum: Int32(CK_MAXIMUM.rawValue)
    case .minimum: Int32(CK_MINIMUM.rawValue)
    }
  }
}

extension Shape {
  /// CK_COPY_RANK numbers, those of absent axes in front.
  fileprivate func widened(missing: Int) -> (Int, Int, Int, Int) {
    let front = Shape.maximumRank - rank
    func at(_ axis: Int) -> Int { axis < front ? missing : self[axis - front] }
    return (at(0), at(1), at(2), at(3))
  }
}

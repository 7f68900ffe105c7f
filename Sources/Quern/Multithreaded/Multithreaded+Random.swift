import CKernels

extension MultithreadedBackend {
  public func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor) {
    var call = ck_random()
    call.distribution = distribution.code
    (call.seed, call.stream, call.offset) = (key.seed, key.stream, key.offset)
    (call.rows, call.n) = (y.shape[0], y.shape[1])
    (call.y, call.y_rs, call.y_type) = (y.address, y.strides[0], y.dataType.code)
    ck_random_fill(table.pointer, &call, threads)
  }
}

extension RandomDistribution {
  /// The C name.
  fileprivate var code: ck_distribution {
    switch self {
    case .uniform: CK_RANDOM_UNIFORM
    case .normal: CK_RANDOM_NORMAL
    case .gumbel: CK_RANDOM_GUMBEL
    }
  }
}

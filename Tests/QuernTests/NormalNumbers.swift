import Quern

extension MutableTensor {
  /// Numbers of the standard normal distribution.
  static func normal(_ shape: Shape, seed: UInt64) throws -> MutableTensor {
    let values = try MutableTensor(zeros: shape)
    try Context(backend: ReferenceBackend()).random(.normal, key: RandomKey(seed: seed), into: values)
    return values
  }
}

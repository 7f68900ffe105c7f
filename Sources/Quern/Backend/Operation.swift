/// The operations of the ``Backend`` protocol, as they appear in errors, traces and the coverage table. One line a family.
public enum Operation: String, Sendable, CaseIterable {
  case pack, linear, matmul
  case attention
  case softmax, layerNorm, rmsNorm, l2Normalize
  case activation, add, multiply, scale
  case embedding, meanPool
  case conv2d
}

/// The operations of the ``Backend`` protocol, as they appear in errors, traces and the coverage table. One line a family.
public enum Operation: String, Sendable, CaseIterable {
  case pack, linear, matmul, gatedLinear
  case attention, int8Attention
  case rope, appendToCache, appendToInt8Cache
  case softmax, layerNorm, rmsNorm, l2Normalize, groupNorm
  case activation, add, multiply, scale, elementFunction, repu, gated
  case averagePool, maxPool, resize, pad
  case embedding, meanPool
  case conv2d
  case blockSparseLinear, groupedLinear, lowRankLinear
  case topK, scatterAdd, expertLinear
  case random
  case copy, binary, clamp, select, lerp, slerp
  case reduce, cumulativeSum, argmax
}

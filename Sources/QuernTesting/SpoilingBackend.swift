import Quern

/// A good backend whose every result is wrong in its last element, for a test of who notices.
package struct SpoilingBackend: Backend {
  package static let name = "spoiling"

  /// What is wrong: the result, or the second one of operations that have two.
  package enum Fault: Sendable { case result, second }

  package let good: any Backend
  package let fault: Fault
  /// The operation that is wrong; `nil` for all.
  package let only: Quern.Operation?

  package var fallback: any Backend { good }
  package var dataTypes: DataTypes { good.dataTypes }

  package init(_ good: any Backend, _ fault: Fault = .result, only: Quern.Operation? = nil) {
    (self.good, self.fault, self.only) = (good, fault, only)
  }

  private func spoil(_ operation: Quern.Operation, _ y: MutableTensor, second: MutableTensor? = nil) {
    guard only == nil || only == operation, let y = fault == .result ? y : second, y.shape.count > 0 else { return }
    let last = y.offset(of: y.shape.count - 1)
    y.store(y.view.load(last) + 1, at: last)
  }

  private func spoil(_ operation: Quern.Operation, _ indices: inout [Int32]) {
    if only == nil || only == operation, let last = indices.last { indices[indices.count - 1] = last ^ 1 }
  }

  package func pack(_ weights: TensorView) throws -> PackedMatrix {
    guard only == nil || only == .pack, weights.shape.count > 0 else { return try good.pack(weights) }
    let copy = try MutableTensor(zeros: weights.shape, dataType: weights.dataType)
    good.copy(weights, into: copy)
    spoil(.pack, copy)
    return try good.pack(copy.view)
  }

  package func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    good.linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    spoil(.linear, y)
  }

  package func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
  ) {
    good.matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: c)
    spoil(.matmul, c)
  }

  package func gatedLinear(_ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor) {
    good.gatedLinear(x, weights: weights, activation: activation, into: y)
    spoil(.gatedLinear, y)
  }

  package func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    good.attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
      logSumExp: logSumExp, into: o)
    spoil(.attention, o, second: logSumExp)
  }

  package func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    good.attention(
      queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
      logSumExp: logSumExp, into: o)
    spoil(.int8Attention, o, second: logSumExp)
  }

  package func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing, into y: MutableTensor
  ) {
    good.rope(x, table: table, positions: positions, pairing: pairing, into: y)
    spoil(.rope, y)
  }

  package func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor) {
    good.appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
    spoil(.appendToCache, cache)
  }

  package func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache) {
    good.appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
    guard only == nil || only == .appendToInt8Cache, cache.sequences * cache.capacity * cache.heads > 0 else { return }
    cache.scales[0] = cache.scales[0] * 2 + 1
  }

  package func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    good.softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
    spoil(.softmax, y)
  }

  package func layerNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
    into y: MutableTensor
  ) {
    good.layerNorm(x, residual: residual, sum: sum, weight: weight, bias: bias, epsilon: epsilon, into: y)
    spoil(.layerNorm, y, second: sum)
  }

  package func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    good.rmsNorm(x, residual: residual, sum: sum, weight: weight, epsilon: epsilon, into: y)
    spoil(.rmsNorm, y, second: sum)
  }

  package func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    good.l2Normalize(x, epsilon: epsilon, into: y)
    spoil(.l2Normalize, y)
  }

  package func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation, into y: MutableTensor
  ) {
    good.groupNorm(
      x, layout: layout, groups: groups, weight: weight, bias: bias, epsilon: epsilon, activation: activation, into: y)
    spoil(.groupNorm, y)
  }

  package func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor) {
    good.activation(activation, x, into: y)
    spoil(.activation, y)
  }

  package func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    good.add(a, b, into: y)
    spoil(.add, y)
  }

  package func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    good.multiply(a, b, into: y)
    spoil(.multiply, y)
  }

  package func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
    good.scale(x, by: factor, into: y)
    spoil(.scale, y)
  }

  package func elementFunction(_ function: ElementFunction, _ x: TensorView, into y: MutableTensor) {
    good.elementFunction(function, x, into: y)
    spoil(.elementFunction, y)
  }

  package func repu(_ x: TensorView, power: Int, into y: MutableTensor) {
    good.repu(x, power: power, into: y)
    spoil(.repu, y)
  }

  package func gated(_ activation: Activation, gate: TensorView, value: TensorView, into y: MutableTensor) {
    good.gated(activation, gate: gate, value: value, into: y)
    spoil(.gated, y)
  }

  package func averagePool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    good.averagePool(x, window: window, layout: layout, into: y)
    spoil(.averagePool, y)
  }

  package func maxPool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    good.maxPool(x, window: window, layout: layout, into: y)
    spoil(.maxPool, y)
  }

  package func resize(_ x: TensorView, by resampling: Resampling, layout: ImageLayout, into y: MutableTensor) {
    good.resize(x, by: resampling, layout: layout, into: y)
    spoil(.resize, y)
  }

  package func pad(
    _ x: TensorView, margins: ImageMargins, border: ImageBorder, layout: ImageLayout, into y: MutableTensor
  ) {
    good.pad(x, margins: margins, border: border, layout: layout, into: y)
    spoil(.pad, y)
  }

  package func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
    good.embedding(ids, table: table, accumulate: accumulate, into: y)
    spoil(.embedding, y)
  }

  package func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
    good.meanPool(x, segments: segments, into: y)
    spoil(.meanPool, y)
  }

  package func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, into y: MutableTensor
  ) {
    good.conv2d(x, weights: weights, layout: layout, epilogue: epilogue, add: add, residual: residual, into: y)
    spoil(.conv2d, y)
  }

  package func blockSparseLinear(
    _ x: TensorView, weights: PackedBlockSparseMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    good.blockSparseLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    spoil(.blockSparseLinear, y)
  }

  package func groupedLinear(
    _ x: TensorView, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
  ) {
    good.groupedLinear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
    spoil(.groupedLinear, y)
  }

  package func lowRankLinear(
    _ x: TensorView, weights: PackedMatrix?, down: PackedMatrix, up: PackedMatrix, scale: Float, epilogue: Epilogue,
    residual: TensorView?, into y: MutableTensor
  ) {
    good.lowRankLinear(
      x, weights: weights, down: down, up: up, scale: scale, epilogue: epilogue, residual: residual, into: y)
    spoil(.lowRankLinear, y)
  }

  package func topK(_ x: TensorView, values: MutableTensor, indices: inout [Int32]) {
    good.topK(x, values: values, indices: &indices)
    if fault == .second { spoil(.topK, &indices) } else { spoil(.topK, values) }
  }

  package func scatterAdd(_ x: TensorView, ids: [Int32], weights: TensorView?, into y: MutableTensor) {
    good.scatterAdd(x, ids: ids, weights: weights, into: y)
    spoil(.scatterAdd, y)
  }

  package func expertLinear(
    _ x: TensorView, segments: Segments, weights: [PackedMatrix], epilogue: Epilogue, residual: TensorView?,
    into y: MutableTensor
  ) {
    good.expertLinear(x, segments: segments, weights: weights, epilogue: epilogue, residual: residual, into: y)
    spoil(.expertLinear, y)
  }

  package func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor) {
    good.random(distribution, key: key, into: y)
    spoil(.random, y)
  }

  package func copy(_ x: TensorView, into y: MutableTensor) {
    good.copy(x, into: y)
    spoil(.copy, y)
  }

  package func binary(_ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    good.binary(function, a, b, into: y)
    spoil(.binary, y)
  }

  package func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor) {
    good.clamp(x, low: low, high: high, into: y)
    spoil(.clamp, y)
  }

  package func select(_ x: TensorView, mask: TensorView, into y: MutableTensor) {
    good.select(x, mask: mask, into: y)
    spoil(.select, y)
  }

  package func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    good.lerp(a, b, fraction: fraction, into: y)
    spoil(.lerp, y)
  }

  package func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    good.slerp(a, b, fraction: fraction, into: y)
    spoil(.slerp, y)
  }

  package func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, into y: MutableTensor
  ) {
    good.reduce(reduction, x, along: direction, into: y)
    spoil(.reduce, y)
  }

  package func cumulativeSum(_ x: TensorView, into y: MutableTensor) {
    good.cumulativeSum(x, into: y)
    spoil(.cumulativeSum, y)
  }

  package func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32]) {
    good.position(of: extreme, x, into: &indices)
    spoil(.argmax, &indices)
  }
}

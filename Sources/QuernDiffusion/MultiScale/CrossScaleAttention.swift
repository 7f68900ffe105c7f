import Quern
import QuernModels

/// Attention across sizes: every pixel of every size attends to the pixels of all sizes of its image, behind a LayerNorm, and the result is
/// added to it (Vaswani et al., arXiv 1706.03762).
///
///     y = x + to_out(attention(to_q(n), to_k(n), to_v(n))),   n = layerNorm(x)
public struct CrossScaleAttention: Sendable {
  private let channels, heads: Int
  private let norm: Norm
  private let queriesKeysValues, output: Linear
  private let precision: DataType
  private let context: Context

  /// - Parameters:
  ///   - name: what comes before `norm`, `to_q`, `to_k`, `to_v` and `to_out.0`, each with weight and bias.
  ///   - channels: of the images of every size.
  ///   - heads: a divisor of the channels.
  /// - Throws: ``ModelError`` naming the tensor that is missing or of another shape.
  public init(
    _ name: String, channels: Int, heads: Int, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    guard heads > 0, channels > 0, channels % heads == 0 else {
      throw QuernError.invalidShape("\(heads) heads for \(channels) channels")
    }
    let reader = LayerReader(
      try Weights(source, file: file, probe: "\(name).to_q.weight"), precision: precision, context: context)
    norm = try reader.layerNorm("\(name).norm", channels)
    queriesKeysValues = try reader.linear(
      ["to_q", "to_k", "to_v"].map { ("\(name).\($0)", channels) }, inputs: channels)
    output = try reader.linear([("\(name).to_out.0", channels)], inputs: channels)
    (self.channels, self.heads, self.precision, self.context) = (channels, heads, precision, context)
  }

  /// - Parameter scales: `[batch, height, width, channels]` of each size without gaps.
  /// - Returns: as many, of the same sizes.
  public func callAsFunction(
    _ scales: [TensorView], workspace: MultiScaleWorkspace
  ) throws(QuernError) -> [MutableTensor] {
    try Scales.check(scales, channels: [Int](repeating: channels, count: scales.count))
    let batch = scales[0].shape[0]
    let pixels = scales.map { $0.shape[1] * $0.shape[2] }
    let tokens = pixels.reduce(0, +)
    let arena = workspace.arena
    let capacity = 5 * Arena.size(batch * tokens * channels) + scales.reduce(0) { $0 + Scales.elements($1.shape) }
    try arena.reset(capacity: capacity, precision)
    let (x, normed) = (try arena.take(Shape(batch * tokens, channels)), try arena.take(Shape(batch * tokens, channels)))
    let qkv = try arena.take(Shape(batch * tokens, 3 * channels))
    var first = 0
    for (scale, count) in zip(scales, pixels) {
      for image in 0..<batch {
        let from = scale.rows(image..<image + 1).reshaped(Shape(count, channels))
        try context.copy(from, into: x.rows(image * tokens + first..<image * tokens + first + count))
      }
      first += count
    }
    try norm(x.view, into: normed, context)
    try queriesKeysValues(normed.view, into: qkv, context)
    let parts = qkv.view.heads(3 * heads)
    try context.attention(
      queries: parts.slice(axis: 1, 0..<heads), keys: parts.slice(axis: 1, heads..<2 * heads),
      values: parts.slice(axis: 1, 2 * heads..<3 * heads), layout: attentionLayout(batch: batch, pixels: tokens),
      into: normed.heads(heads))
    try output(normed.view, residual: x.view, into: x, context)
    var (results, start): ([MutableTensor], Int) = ([], 0)
    for (scale, count) in zip(scales, pixels) {
      let result = try arena.take(scale.shape)
      for image in 0..<batch {
        let rows = x.rows(image * tokens + start..<image * tokens + start + count)
        try context.copy(rows.view, into: result.rows(image..<image + 1).reshaped(Shape(count, channels)))
      }
      results.append(result)
      start += count
    }
    return results
  }
}

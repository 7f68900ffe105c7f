import Quern
import QuernModels

/// `(x + out(attention(groupNorm(x)))) / factor`: every pixel attends to those of its image. diffusers' `Attention` with a residual
/// connection, in the middle of the autoencoder and in `AttnDownBlock2D`.
package struct SpatialAttention: Sendable {
  package struct Configuration: Sendable, Equatable {
    /// What comes before `.group_norm.weight` and the rest.
    package var name: String
    package var channels: Int
    package var heads: Int
    package var norm: GroupNorm.Kind
    /// `rescale_output_factor`.
    package var divisor: Float = 1

    package init(name: String, channels: Int, heads: Int = 1, norm: GroupNorm.Kind, divisor: Float = 1) {
      (self.name, self.channels, self.heads, self.norm) = (name, channels, heads, norm)
      self.divisor = divisor
    }

    /// Elements of an arena that a call takes, for so many pixels of all images together.
    package func scratch(pixels: Int) -> Int {
      let width = pixels.saturatingMultiply(channels)
      return Arena.size(width).saturatingAdd(Arena.size(width.saturatingMultiply(3)))
    }
  }

  package let configuration: Configuration
  private let norm: GroupNorm
  private let queriesKeysValues, output: Linear

  /// Reads `to_q`, `to_k`, `to_v` and `to_out.0`, or the names that older files have: `query`, `key`, `value` and `proj_attn`.
  package init(_ configuration: Configuration, _ reader: LayerReader) throws {
    let (name, channels) = (configuration.name, configuration.channels)
    let weights = reader.weights
    let isOld = weights.source.contains(weights.full("\(name).proj_attn.weight"))
    self.configuration = configuration
    norm = try reader.groupNorm("\(name).group_norm", channels: channels, configuration.norm)
    queriesKeysValues = try reader.linear(
      (isOld ? ["query", "key", "value"] : ["to_q", "to_k", "to_v"]).map { ("\(name).\($0)", channels) },
      inputs: channels)
    output = try reader.linear([("\(name).\(isOld ? "proj_attn" : "to_out.0")", channels)], inputs: channels)
  }

  /// - Parameters:
  ///   - images: `attentionLayout(batch:pixels:)` of x.
  ///   - y: the shape of x; may be x.
  package func callAsFunction(
    _ x: TensorView, images: AttentionLayout, into y: MutableTensor, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let (channels, heads) = (configuration.channels, configuration.heads)
    let normed = try arena.take(x.shape)
    let tokens = normed.pixels
    let qkv = try arena.take(Shape(tokens.shape[0], 3 * channels))
    try norm(x, into: normed, context)
    try queriesKeysValues(tokens.view, into: qkv, context)
    let parts = qkv.view.heads(3 * heads)
    try context.attention(
      queries: parts.slice(axis: 1, 0..<heads), keys: parts.slice(axis: 1, heads..<2 * heads),
      values: parts.slice(axis: 1, 2 * heads..<3 * heads), layout: images, into: tokens.heads(heads))
    try output(tokens.view, residual: x.pixels, into: y.pixels, context)
    if configuration.divisor != 1 { try context.scale(y.pixels.view, by: 1 / configuration.divisor, into: y.pixels) }
  }
}

/// The layout of attention among the pixels of each of `batch` images.
package func attentionLayout(batch: Int, pixels: Int) throws(QuernError) -> AttentionLayout {
  AttentionLayout(try Segments(lengths: [Int](repeating: pixels, count: batch)))
}

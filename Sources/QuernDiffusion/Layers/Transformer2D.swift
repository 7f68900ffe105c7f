import Quern
import QuernModels

/// Transformer layers over the pixels of an image, between a projection in and one out, added to the image: diffusers'
/// `Transformer2DModel` (Rombach et al., arXiv 2112.10752, appendix E).
///
/// A layer is attention among the pixels, attention to a prompt and `w2 (gelu(g) v)` with `[v | g] = w1 x` (GEGLU: Shazeer, arXiv
/// 2002.05202), each behind a LayerNorm and added to its input.
package struct Transformer2D: Sendable {
  package struct Configuration: Sendable, Equatable {
    /// What comes before `.norm.weight` and the rest.
    package var name: String
    package var channels: Int
    package var heads: Int
    package var layers: Int
    /// Elements of a prompt's hidden states.
    package var promptWidth: Int
    package var groups: Int
    /// The projections in and out are linear layers, else 1x1 convolutions: the same but for the shape of their tensors.
    package var hasLinearProjections = false
    /// The first attention of a layer is to the prompt too.
    package var attendsOnlyToPrompt = false

    /// Rows of the feed-forward part at a time: what lies between its matrices is four times as wide as the image.
    static let rowsAtOnce = 1024

    /// Elements of an arena that a call takes, for so many pixels of all images together.
    package func scratch(pixels: Int) -> Int {
      let width = Arena.size(pixels.saturatingMultiply(channels))
      let attention = Arena.size(pixels.saturatingMultiply(channels.saturatingMultiply(attendsOnlyToPrompt ? 1 : 3)))
      // Two rows at least: where factors stand for the first matrix both of its halves are held.
      let rows = min(max(pixels, 2), Self.rowsAtOnce)
      let feedForward = Arena.size(rows.saturatingMultiply(channels.saturatingMultiply(4)))
      return width.saturatingAdd(width).saturatingAdd(max(attention, feedForward))
    }

    /// Attentions to the prompt.
    package var promptAttentions: Int { attendsOnlyToPrompt ? 2 * layers : layers }
  }

  private struct Layer: Sendable {
    let norm1, norm2, norm3: Norm
    /// `nil` where both attentions are to the prompt.
    let own: SelfAttention?
    let toPrompt: [PromptAttention]
    let gateUp: GatedLinear
    let down: Linear
  }

  private struct SelfAttention: Sendable {
    let queriesKeysValues, output: Linear
  }

  private struct PromptAttention: Sendable {
    let queries, keysValues, output: Linear
  }

  package let configuration: Configuration
  private let norm: GroupNorm
  private let projectIn, projectOut: Linear
  private let layers: [Layer]

  package init(_ configuration: Configuration, _ reader: LayerReader) throws {
    let (name, width) = (configuration.name, configuration.channels)
    self.configuration = configuration
    norm = try reader.groupNorm(
      "\(name).norm", channels: width, GroupNorm.Kind(groups: configuration.groups, epsilon: 1e-6))
    func projection(_ side: String) throws -> Linear {
      try reader.linear(
        [("\(name).\(side)", width)], inputs: width, isConvolution: !configuration.hasLinearProjections)
    }
    (projectIn, projectOut) = (try projection("proj_in"), try projection("proj_out"))
    layers = try (0..<configuration.layers).map { index in
      let layer = "\(name).transformer_blocks.\(index)"
      func toPrompt(_ attention: String) throws -> PromptAttention {
        PromptAttention(
          queries: try reader.linear([("\(layer).\(attention).to_q", width)], inputs: width, hasBias: false),
          keysValues: try reader.linear(
            [("\(layer).\(attention).to_k", width), ("\(layer).\(attention).to_v", width)],
            inputs: configuration.promptWidth, hasBias: false),
          output: try reader.linear([("\(layer).\(attention).to_out.0", width)], inputs: width))
      }
      let isOwn = !configuration.attendsOnlyToPrompt
      return Layer(
        norm1: try reader.layerNorm("\(layer).norm1", width), norm2: try reader.layerNorm("\(layer).norm2", width),
        norm3: try reader.layerNorm("\(layer).norm3", width),
        own: !isOwn
          ? nil
          : SelfAttention(
            queriesKeysValues: try reader.linear(
              ["to_q", "to_k", "to_v"].map { ("\(layer).attn1.\($0)", width) }, inputs: width, hasBias: false),
            output: try reader.linear([("\(layer).attn1.to_out.0", width)], inputs: width)),
        toPrompt: try (isOwn ? ["attn2"] : ["attn1", "attn2"]).map(toPrompt),
        gateUp: try reader.gatedLinear(
          "\(layer).ff.net.0.proj", outputs: 4 * width, inputs: width, activation: .gelu),
        down: try reader.linear([("\(layer).ff.net.2", width)], inputs: 4 * width))
    }
  }

  /// The keys and values that the layers make of prompts, appended: for each attention `[tokens, 2 channels]`.
  ///
  /// - Parameter prompt: `[tokens, promptWidth]`.
  package func appendKeysValues(
    of prompt: TensorView, to keysValues: inout [MutableTensor], dataType: DataType, _ context: Context
  ) throws(QuernError) {
    for layer in layers {
      for attention in layer.toPrompt {
        let both = try MutableTensor(
          zeros: Shape(checking: [prompt.shape[0], 2 * configuration.channels]), dataType: dataType)
        try attention.keysValues(prompt, into: both, context)
        keysValues.append(both)
      }
    }
  }

  /// What a call attends to.
  package struct Sequences {
    /// The pixels of each image.
    package var images: AttentionLayout
    /// Those, and the tokens of its prompt.
    package var prompts: AttentionLayout
    /// Of all attentions of a model, those of this one from `first` on.
    package var keysValues: [MutableTensor]
    package var first: Int
  }

  /// - Parameters:
  ///   - x: `[batch, height, width, channels]`; a range of channels of a wider image will do.
  ///   - y: the shape of x; may be x.
  package func callAsFunction(
    _ x: TensorView, _ sequences: Sequences, into y: MutableTensor, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let (image, hiddenImage) = (try arena.take(x.shape), try arena.take(x.shape))
    let (normed, hidden) = (image.pixels, hiddenImage.pixels)
    try norm(x, into: image, context)
    try projectIn(normed.view, into: hidden, context)
    var place = sequences.first
    for layer in layers {
      try layer.norm1(hidden.view, into: normed, context)
      if let own = layer.own {
        try attend(own, normed, sequences, hidden, arena, context)
      }
      for (index, attention) in layer.toPrompt.enumerated() {
        if index > 0 || layer.own != nil { try layer.norm2(hidden.view, into: normed, context) }
        try attend(attention, normed, sequences.keysValues[place], sequences.prompts, hidden, arena, context)
        place += 1
      }
      try layer.norm3(hidden.view, into: normed, context)
      try feedForward(layer, normed, hidden, arena, context)
    }
    try projectOut(hidden.view, residual: x.pixels, into: y.pixels, context)
  }

  /// `hidden += output(attention(x))`, in the memory of x.
  private func attend(
    _ layer: SelfAttention, _ x: MutableTensor, _ sequences: Sequences, _ hidden: MutableTensor, _ arena: Arena,
    _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let heads = configuration.heads
    let qkv = try arena.take(Shape(x.shape[0], 3 * configuration.channels))
    try layer.queriesKeysValues(x.view, into: qkv, context)
    let parts = qkv.view.heads(3 * heads)
    try context.attention(
      queries: parts.slice(axis: 1, 0..<heads), keys: parts.slice(axis: 1, heads..<2 * heads),
      values: parts.slice(axis: 1, 2 * heads..<3 * heads), layout: sequences.images, into: x.heads(heads))
    try layer.output(x.view, residual: hidden.view, into: hidden, context)
  }

  /// `hidden += output(attention(x, prompt))`, in the memory of x.
  private func attend(
    _ layer: PromptAttention, _ x: MutableTensor, _ keysValues: MutableTensor, _ layout: AttentionLayout,
    _ hidden: MutableTensor, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let heads = configuration.heads
    let queries = try arena.take(x.shape)
    let parts = keysValues.view.heads(2 * heads)
    try layer.queries(x.view, into: queries, context)
    try context.attention(
      queries: queries.view.heads(heads), keys: parts.slice(axis: 1, 0..<heads),
      values: parts.slice(axis: 1, heads..<2 * heads), layout: layout, into: x.heads(heads))
    try layer.output(x.view, residual: hidden.view, into: hidden, context)
  }

  /// `hidden += down(value gelu(gate))`, some rows at a time.
  private func feedForward(
    _ layer: Layer, _ x: MutableTensor, _ hidden: MutableTensor, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let width = layer.gateUp.width
    let most = max(min(x.shape[0], Configuration.rowsAtOnce) * 4 * configuration.channels / width, 1)
    let memory = try arena.take(Shape(most, width))
    var first = 0
    while first < x.shape[0] {
      let rows = first..<min(first + most, x.shape[0])
      let inner = try layer.gateUp(x.rows(rows).view, in: memory.rows(0..<rows.count), context)
      try layer.down(inner.view, residual: hidden.rows(rows).view, into: hidden.rows(rows), context)
      first = rows.upperBound
    }
  }
}

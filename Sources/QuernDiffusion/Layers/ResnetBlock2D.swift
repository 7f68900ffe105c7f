import Quern
import QuernModels

/// `(x' + conv2(act(norm2(conv1(act(norm1(x))) + time)))) / factor` with SiLU, where x' is x, or a 1x1 convolution of it where the
/// channels change (He et al., arXiv 1512.03385; Ho et al., arXiv 2006.11239).
package struct ResnetBlock2D: Sendable {
  package struct Configuration: Sendable, Equatable {
    /// What comes before `.norm1.weight` and the rest.
    package var name: String
    package var inputs, outputs: Int
    package var norm: GroupNorm.Kind
    /// Half of the time embedding multiplies, and half is added, behind `norm2`: `resnet_time_scale_shift` of `scale_shift`.
    package var scalesByTime = false
    /// `output_scale_factor`.
    package var divisor: Float = 1

    package init(
      name: String, inputs: Int, outputs: Int, norm: GroupNorm.Kind, scalesByTime: Bool = false, divisor: Float = 1
    ) {
      (self.name, self.inputs, self.outputs, self.norm) = (name, inputs, outputs, norm)
      (self.scalesByTime, self.divisor) = (scalesByTime, divisor)
    }

    /// Elements of a projected time embedding.
    package var timeWidth: Int { scalesByTime ? 2 * outputs : outputs }

    /// Elements of an arena that a call takes, for so many pixels of all images together.
    package func scratch(pixels: Int) -> Int {
      let hidden = Arena.size(pixels.saturatingMultiply(outputs))
      return Arena.size(pixels.saturatingMultiply(inputs)).saturatingAdd(hidden)
        .saturatingAdd(scalesByTime ? hidden : 0)
    }
  }

  package let configuration: Configuration
  private let norm1, norm2: GroupNorm
  private let conv1, conv2: ConvolutionLayer
  private let shortcut: Linear?

  package init(_ configuration: Configuration, _ reader: LayerReader) throws {
    let (name, inputs, outputs) = (configuration.name, configuration.inputs, configuration.outputs)
    self.configuration = configuration
    norm1 = try reader.groupNorm("\(name).norm1", channels: inputs, configuration.norm, activation: .silu)
    conv1 = try reader.convolution("\(name).conv1", inputs: inputs, outputs: outputs)
    norm2 = try reader.groupNorm(
      "\(name).norm2", channels: outputs, configuration.norm,
      activation: configuration.scalesByTime ? .identity : .silu)
    conv2 = try reader.convolution("\(name).conv2", inputs: outputs, outputs: outputs)
    shortcut =
      inputs == outputs
      ? nil : try reader.linear([("\(name).conv_shortcut", outputs)], inputs: inputs, isConvolution: true)
  }

  /// - Parameters:
  ///   - x: `[batch, height, width, inputs]`; a range of channels of a wider image will do.
  ///   - time: `[batch, timeWidth]`, projected; `nil` for a block without one.
  ///   - y: `[batch, height, width, outputs]`, as x; shares no memory with it.
  package func callAsFunction(
    _ x: TensorView, time: TensorView? = nil, into y: MutableTensor, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let (batch, height, width) = (x.shape[0], x.shape[1], x.shape[2])
    let outputs = configuration.outputs
    let normed = try arena.take(batch: batch, height: height, width: width, channels: configuration.inputs)
    let hidden = try arena.take(batch: batch, height: height, width: width, channels: outputs)
    try norm1(x, into: normed, context)
    try conv1(normed.view, add: configuration.scalesByTime ? nil : time, into: hidden, context)
    try norm2(hidden.view, into: hidden, context)
    if configuration.scalesByTime, let time { try scale(hidden, by: time, arena, context) }
    if let shortcut { try shortcut(x.pixels, into: y.pixels, context) }
    try conv2(hidden.view, residual: shortcut == nil ? x : y.view, into: y, context)
    if configuration.divisor != 1 { try context.scale(y.pixels.view, by: 1 / configuration.divisor, into: y.pixels) }
  }

  /// `x = silu(x (1 + scale) + shift)`, with the two halves of each image's time embedding.
  private func scale(
    _ x: MutableTensor, by time: TensorView, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let scaled = try arena.take(x.shape)
    for image in 0..<x.shape[0] {
      let (rows, sum) = (x.rows(image..<image + 1).pixels, scaled.rows(image..<image + 1).pixels)
      let halves = time.rows(image..<image + 1)
      let outputs = configuration.outputs
      try context.multiply(rows.view, halves.columns(0..<outputs), into: sum)
      try context.add(rows.view, sum.view, into: rows)
      try context.add(rows.view, halves.columns(outputs..<2 * outputs), into: rows)
    }
    try context.activation(.silu, x.pixels.view, into: x.pixels)
  }
}

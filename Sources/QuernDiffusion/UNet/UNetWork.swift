import Quern

extension UNetConfiguration {
  /// Floating-point operations of a step: two for each pair that a convolution, a matrix or attention multiplies. Norms, activations, and
  /// what is computed once for a prompt, are left out.
  package func operations(images: Int, height: Int, width: Int, tokens: Int) -> Double {
    let plan = UNetPlan(self)
    let sizes = UNetSizes(self, plan, images: images, ImageSize(height: height, width: width))
    func pixels(_ level: Int) -> Double { Double(images * sizes.levels[level].height * sizes.levels[level].width) }
    func work(_ layer: UNetPlan.Layer, _ level: Int) -> Double {
      pixels(level) * layer.products(pixels: pixels(level) / Double(images), tokens: Double(tokens))
    }
    func kernel(_ size: Int, _ inputs: Int, _ outputs: Int) -> Double { Double(size * size * inputs * outputs) }
    let first = blockOutChannels[0]
    var sum =
      pixels(0) * (kernel(convInKernel, inChannels, first) + kernel(convOutKernel, first, outChannels))
      + Double(images * timeEmbedDim) * Double(first + timeEmbedDim + plan.timeWidth)
    for (level, block) in plan.down.enumerated() {
      sum += block.layers.reduce(0) { $0 + work($1, level) }
      if block.resamples { sum += pixels(level + 1) * kernel(3, block.channels, block.channels) }
    }
    sum += plan.middle.reduce(0) { $0 + work($1, blocks - 1) }
    for (index, block) in plan.up.enumerated() {
      let level = blocks - 1 - index
      sum += block.layers.reduce(0) { $0 + work($1, level) }
      if block.resamples { sum += pixels(level - 1) * kernel(3, block.channels, block.channels) }
    }
    return 2 * sum
  }
}

extension UNetPlan.Layer {
  /// Products for each pixel, of images of `pixels` and prompts of `tokens`.
  fileprivate func products(pixels: Double, tokens: Double) -> Double {
    let (inputs, outputs) = (Double(resnet.inputs), Double(resnet.outputs))
    let shortcut = inputs == outputs ? 0 : inputs * outputs
    let residual = 9 * outputs * (inputs + outputs) + shortcut
    switch attention {
    case nil: return residual
    case .spatial(let attention):
      let width = Double(attention.channels)
      return residual + 4 * width * width + 2 * width * pixels
    case .transformer(let transformer):
      let width = Double(transformer.channels)
      // Queries and outputs of two attentions, and a feed-forward part of 8 and 4 times the width.
      let own = transformer.attendsOnlyToPrompt ? 2 * width * tokens : 2 * width * width + 2 * width * pixels
      let layer = 4 * width * width + own + 2 * width * tokens + 12 * width * width
      return residual + 2 * width * width + Double(transformer.layers) * layer
    }
  }
}

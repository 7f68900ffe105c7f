import Quern

/// Layers of images that run one behind the other, between two pieces of memory that they take turns in.
struct ImageChain: Sendable {
  enum Layer: Sendable {
    case convolution(ConvolutionLayer)
    /// The same with stride 2 and one pixel of padding on every side.
    case halving(ConvolutionLayer)
    case resnet(ResnetBlock2D)
    case attention(SpatialAttention)
    case downsample(Downsample2D, channels: Int)
    /// The same of each pixel four times.
    case doubling(ConvolutionLayer)
    case norm(GroupNorm)
    case activation(Activation)
    case tiny(TinyBlock)
  }

  /// The first and the last read and write tensors of the caller; each is a convolution.
  let first: ConvolutionLayer
  let layers: [Layer]
  let last: ConvolutionLayer

  /// An image's size and channels between two layers.
  private struct Extent {
    var height, width, channels: Int

    func elements(_ batch: Int) -> Int {
      batch.saturatingMultiply(height).saturatingMultiply(width).saturatingMultiply(channels)
    }
  }

  private func extent(after layer: Layer, _ x: Extent) -> Extent {
    switch layer {
    case .convolution(let convolution):
      return Extent(height: x.height, width: x.width, channels: convolution.outputs)
    case .halving(let convolution):
      return Extent(
        height: Downsample2D.extent(x.height, padding: 1), width: Downsample2D.extent(x.width, padding: 1),
        channels: convolution.outputs)
    case .resnet(let block):
      return Extent(height: x.height, width: x.width, channels: block.configuration.outputs)
    case .downsample(_, let channels):
      return Extent(
        height: Downsample2D.extent(x.height, padding: 0), width: Downsample2D.extent(x.width, padding: 0),
        channels: channels)
    case .doubling(let convolution):
      return Extent(height: 2 * x.height, width: 2 * x.width, channels: convolution.outputs)
    case .attention, .norm, .activation, .tiny: return x
    }
  }

  private func scratch(_ layer: Layer, batch: Int, _ x: Extent) -> Int {
    let pixels = batch.saturatingMultiply(x.height).saturatingMultiply(x.width)
    switch layer {
    case .resnet(let block): return block.configuration.scratch(pixels: pixels)
    case .attention(let attention): return attention.configuration.scratch(pixels: pixels)
    case .tiny(let block): return block.scratch(pixels: pixels)
    case .convolution, .halving, .downsample, .doubling, .norm, .activation: return 0
    }
  }

  /// Elements of an arena that a call takes.
  private func needs(batch: Int, height: Int, width: Int) -> (image: Int, scratch: Int) {
    var extent = Extent(height: height, width: width, channels: first.outputs)
    var (image, most) = (extent.elements(batch), 0)
    for layer in layers {
      most = max(most, scratch(layer, batch: batch, extent))
      extent = self.extent(after: layer, extent)
      image = max(image, extent.elements(batch))
    }
    return (Arena.size(image), most)
  }

  /// Height and width of the result.
  func outputSize(of size: ImageSize) -> ImageSize {
    let start = Extent(height: size.height, width: size.width, channels: first.outputs)
    let end = layers.reduce(start) { extent(after: $1, $0) }
    return ImageSize(end.height, end.width)
  }

  /// - Parameters:
  ///   - x: `[batch, height, width, channels]`.
  ///   - y: its ``outputSize(of:)`` with the channels of the last layer; f32.
  func callAsFunction(
    _ x: TensorView, into y: MutableTensor, _ arena: Arena, _ precision: DataType, _ context: Context
  ) throws(QuernError) {
    let (batch, height, width) = (x.shape[0], x.shape[1], x.shape[2])
    let needs = needs(batch: batch, height: height, width: width)
    try arena.reset(
      capacity: needs.image.saturatingMultiply(2).saturatingAdd(needs.scratch), precision)
    let memory = [try arena.take(Shape(needs.image)), try arena.take(Shape(needs.image))]
    var place = 0
    func image(_ extent: Extent, _ place: Int) -> MutableTensor {
      memory[place].rows(0..<extent.elements(batch)).reshaped(
        Shape(batch, extent.height, extent.width, extent.channels))
    }
    var extent = Extent(height: height, width: width, channels: first.outputs)
    var current = image(extent, place)
    try first(x, into: current, context)
    for layer in layers {
      let next = self.extent(after: layer, extent)
      let target = image(next, 1 - place)
      var isInPlace = false
      switch layer {
      case .convolution(let convolution), .halving(let convolution), .doubling(let convolution):
        try convolution(current.view, into: target, context)
      case .resnet(let block): try block(current.view, into: target, arena, context)
      case .attention(let attention):
        let images = try attentionLayout(batch: batch, pixels: extent.height * extent.width)
        try attention(current.view, images: images, into: current, arena, context)
        isInPlace = true
      case .downsample(let downsample, _): try downsample(current.view, into: target, context)
      case .norm(let norm):
        try norm(current.view, into: current, context)
        isInPlace = true
      case .activation(let activation):
        try context.activation(activation, current.pixels.view, into: current.pixels)
        isInPlace = true
      case .tiny(let block): try block(current.view, into: target, arena, context)
      }
      if !isInPlace { (current, place) = (target, 1 - place) }
      extent = next
    }
    try last(current.view, into: y, context)
  }
}

/// `relu(x + conv(relu(conv(relu(conv(x))))))` with 3x3 convolutions: diffusers' `AutoencoderTinyBlock`.
struct TinyBlock: Sendable {
  private let channels: Int
  private let convolutions: [ConvolutionLayer]

  init(_ name: String, channels: Int, _ reader: LayerReader) throws {
    self.channels = channels
    convolutions = try [0, 2, 4].map {
      try reader.convolution(
        "\(name).conv.\($0)", inputs: channels, outputs: channels, activation: $0 < 4 ? .relu : .identity)
    }
  }

  func scratch(pixels: Int) -> Int { Arena.size(pixels.saturatingMultiply(channels)) }

  /// - Parameter y: the shape of x; shares no memory with it.
  func callAsFunction(
    _ x: TensorView, into y: MutableTensor, _ arena: Arena, _ context: Context
  ) throws(QuernError) {
    let mark = arena.mark
    defer { arena.release(mark) }
    let hidden = try arena.take(x.shape)
    try convolutions[0](x, into: y, context)
    try convolutions[1](y.view, into: hidden, context)
    try convolutions[2](hidden.view, residual: x, into: y, context)
    try context.activation(.relu, y.pixels.view, into: y.pixels)
  }
}

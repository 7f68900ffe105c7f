import Quern

/// An image encoder: ViT, or CLIP's image tower; see ``ImageEncoderConfiguration``.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``Workspace`` of its own. Pixels come as the model was
/// trained on them: resized, cropped and normalised.
public final class ImageEncoderModel: Sendable {
  public let configuration: ImageEncoderConfiguration
  public let context: Context
  /// How matrices and hidden states are stored; norms and biases are f32. Quantised matrices stay as their files have them.
  public let precision: DataType
  /// The class token's first state, its position included, then the positions of the patches.
  private let positions: Tensor
  private let patches: PackedConvolution
  private let patchBias: Tensor?
  private let embeddingNorm, classNorm: Norm?
  private let stack: EncoderStack
  private let head: Linear?
  /// Elements of what ``pooled(_:)`` gives an image.
  public let pooledSize: Int
  /// Whether those are the logits of a classifier.
  public let isClassifier: Bool

  /// Memory of a pass. Grows to the largest batch it has met.
  public final class Workspace {
    fileprivate let layers: EncoderWorkspace
    fileprivate var pixels: MutableTensor

    public init() throws { (layers, pixels) = (try EncoderWorkspace(), try MutableTensor(zeros: Shape(0, 0, 0, 0))) }
  }

  /// - Parameters:
  ///   - directory: a Hugging Face model directory: `config.json` and safetensors weights, quantised ones included.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    try self.init(
      ImageEncoderConfiguration(HubConfig(directory: directory)), source: SafetensorsDirectory.weights(of: directory),
      file: directory, context: context, precision: precision)
  }

  /// - Parameter source: weights named as in the `transformers` package, with or without the prefix of the family, such as `vit.`.
  public init(
    _ configuration: ImageEncoderConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    let (weights, names) = (try Weights(source, file: file, of: configuration), configuration.names)
    let (width, kind) = (configuration.stack.hiddenSize, configuration.stack.norm)
    (self.configuration, self.context, self.precision) = (configuration, context, precision)
    let (size, channels) = (configuration.patchSize, configuration.numChannels)
    patches = try context.packConvolution(
      weights.tensor("\(names.patches).weight", Shape(width, channels, size, size), as: precision).view,
      Convolution(stride: .init(size, size)))
    patchBias = configuration.hasPatchBias ? try weights.tensor("\(names.patches).bias", Shape(width)) : nil
    positions = try Self.positions(configuration, weights).converted(to: precision)
    embeddingNorm = configuration.hasEmbeddingNorm ? try weights.norm(names.embeddingNorm, width, kind) : nil
    classNorm = configuration.hasClassNorm ? try weights.norm(names.classNorm, width, kind) : nil
    stack = try EncoderStack(configuration.stack, weights: weights, precision: precision, context: context)
    let found = configuration.heads.first { weights.contains($0.layer.parts[0]) }
    head = try found.map {
      try weights.linear($0.layer, as: precision, hasBias: $0.hasBias, activation: $0.activation, context: context)
    }
    (pooledSize, isClassifier) = (found?.layer.outputs ?? width, found?.layer.parts[0].name == "classifier")
  }

  /// The table of positions, with the class token added to the first.
  private static func positions(_ configuration: ImageEncoderConfiguration, _ weights: Weights) throws -> Tensor {
    let (names, width, tokens) = (configuration.names, configuration.stack.hiddenSize, configuration.tokens)
    func read(_ name: String, _ extents: [Int], axes: Int) throws -> [Float] {
      try weights.tensor(name, Shape(checking: [Int](repeating: 1, count: axes) + extents)).elements
    }
    var table = try read(names.positions, [tokens, width], axes: names.positionAxes)
    let classToken = try read(names.classToken, [width], axes: names.classTokenAxes)
    for (index, element) in classToken.enumerated() { table[index] += element }
    return try Tensor(table, shape: Shape(tokens, width))
  }

  /// The last hidden states, `[batch * tokens, hidden_size]`, each image's class token first, in the workspace: valid until its next
  /// use.
  ///
  /// - Parameters:
  ///   - pixels: images of `image_size` by `image_size`, rank 4 in `layout`, any strides.
  ///   - layout: `[batch, channels, height, width]` where none is given, as `pixel_values` are.
  /// - Throws: ``QuernError/invalidShape(_:)`` for images of another size.
  public func forward(
    _ pixels: TensorView, layout: ImageLayout = .channelsFirst, workspace: Workspace
  ) throws -> MutableTensor {
    let (size, channels) = (configuration.imageSize, configuration.numChannels)
    let batch = pixels.shape.rank == 4 ? pixels.shape[0] : 0
    let expected = layout.shape(batch: batch, height: size, width: size, channels: channels)
    guard pixels.shape == expected else {
      throw QuernError.invalidShape(
        "pixels have shape \(pixels.shape); the model takes \(expected) (\(layout.rawValue))")
    }
    let segments = try Segments(lengths: [Int](repeating: configuration.tokens, count: batch))
    try workspace.layers.reserve(tokens: segments.total, positions: 0, stack, precision)
    let hidden = workspace.layers.hidden.rows(0..<segments.total)
    try embed(try channelsLast(pixels, layout, workspace), batch, into: hidden)
    try embeddingNorm?(hidden, context)
    try stack(
      workspace.layers, segments: segments, positions: [], layers: 0..<configuration.stack.numHiddenLayers,
      finalNorm: true, context)
    return hidden
  }

  /// The pixels in the order and type of the convolution.
  private func channelsLast(
    _ pixels: TensorView, _ layout: ImageLayout, _ workspace: Workspace
  ) throws -> TensorView {
    let image = layout == .channelsLast ? pixels : pixels.permuted([0, 2, 3, 1])
    let shape = image.shape
    let held = workspace.pixels.shape
    let isLike = (1..<4).allSatisfy { held[$0] == shape[$0] } && workspace.pixels.dataType == precision
    if held[0] < shape[0] || !isLike {
      workspace.pixels = try MutableTensor(zeros: shape, dataType: precision)
    }
    let copy = workspace.pixels.rows(0..<shape[0])
    try context.copy(image, into: copy)
    return copy.view
  }

  /// Class token, patches and positions.
  private func embed(_ pixels: TensorView, _ batch: Int, into hidden: MutableTensor) throws {
    let (tokens, width) = (configuration.tokens, configuration.stack.hiddenSize)
    let across = configuration.imageSize / configuration.patchSize
    let first = positions.view.reinterpreted(offset: 0, shape: Shape(batch, width), strides: Shape(0, 1))
    try context.copy(
      first, into: hidden.reinterpreted(offset: 0, shape: Shape(batch, width), strides: Shape(tokens * width, 1)))
    let shape = Shape(batch, across, across, width)
    func patches<T: Strided>(_ rows: T, image stride: Int) -> T {
      rows.reinterpreted(offset: width, shape: shape, strides: Shape(stride, across * width, width, 1))
    }
    // One table serves every image: a stride of 0.
    try context.conv2d(
      pixels, weights: self.patches, epilogue: Epilogue(bias: patchBias),
      residual: patches(positions.view, image: 0), into: patches(hidden, image: tokens * width))
  }

  /// What the model makes of each image as a whole, `[batch, pooledSize]`, f32: the logits of a classifier; the embedding of a
  /// projection; the result of a pooler; or, where the files have none of them, the class token's state.
  ///
  /// - Parameter hidden: what ``forward(_:layout:workspace:)`` gave.
  public func pooled(_ hidden: MutableTensor) throws -> MutableTensor {
    let (batch, width) = (hidden.shape[0] / configuration.tokens, configuration.stack.hiddenSize)
    let state = try MutableTensor(zeros: Shape(batch, width))
    try context.copy(
      hidden.view.reinterpreted(
        offset: 0, shape: Shape(batch, width), strides: Shape(configuration.tokens * width, 1)), into: state)
    try classNorm?(state, context)
    guard let head else { return state }
    let pooled = try MutableTensor(zeros: Shape(batch, pooledSize))
    try head(state.view, into: pooled, context)
    return pooled
  }
}

import Quern

/// ResNet as a whole; see ``ResNetConfiguration``. Batch norms are folded into the convolutions in front of them.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``Workspace`` of its own. Pixels come as the model was
/// trained on them: resized, cropped and normalised, by ``ImagePreprocessor``.
public final class ResNetModel: Sendable {
  public let configuration: ResNetConfiguration
  private let context: Context
  private let precision: DataType
  private let first: FoldedConvolution
  private let layers: [Layer]
  private let classifier: Linear?

  /// A convolution with the batch norm behind it.
  private struct FoldedConvolution: Sendable {
    let weights: PackedConvolution
    let bias: Tensor
  }

  /// `act(convolutions(x) + x')`, where x' is x, or a 1x1 convolution of it. Between convolutions is ReLU, whatever `hidden_act` is.
  private struct Layer: Sendable {
    let convolutions: [FoldedConvolution]
    let shortcut: FoldedConvolution?
  }

  /// Memory of a pass. Grows to the largest batch it has met.
  public final class Workspace {
    private var memory: [MutableTensor] = []

    public init() {}

    fileprivate func image(_ place: Int, _ shape: Shape, _ type: DataType) throws(QuernError) -> MutableTensor {
      while memory.count <= place { memory.append(try MutableTensor(zeros: Shape(0), dataType: type)) }
      if memory[place].shape[0] < shape.count || memory[place].dataType != type {
        memory[place] = try MutableTensor(zeros: Shape(shape.count), dataType: type)
      }
      return memory[place].rows(0..<shape.count).reshaped(shape)
    }
  }

  /// - Parameters:
  ///   - directory: a Hugging Face model directory: `config.json` and safetensors weights, with a classifier or without.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of weights and images; logits are f32 always.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    let configuration = try ResNetConfiguration(HubConfig(directory: directory))
    let weights = try Weights(SafetensorsDirectory.weights(of: directory), file: directory, of: configuration)
    (self.configuration, self.context, self.precision) = (configuration, context, precision)
    func folded(
      _ name: String, _ inputs: Int, _ outputs: Int, kernel: Int = 3, stride: Int = 1
    ) throws -> FoldedConvolution {
      func vector(_ part: String) throws -> Tensor {
        try weights.tensor("\(name).normalization.\(part)", Shape(outputs))
      }
      let norm = BatchNormalization(
        weight: try vector("weight"), bias: try vector("bias"), mean: try vector("running_mean"),
        variance: try vector("running_var"))
      let convolution = Convolution(
        stride: Convolution.Pair(stride, stride), padding: Convolution.Padding(integerLiteral: kernel / 2),
        allowsWinograd: true)
      let folded = try norm.folded(
        into: weights.tensor("\(name).convolution.weight", Shape(checking: [outputs, inputs, kernel, kernel])),
        convolution)
      return FoldedConvolution(
        weights: try context.packConvolution(folded.weights.converted(to: precision).view, convolution),
        bias: folded.bias)
    }
    first = try folded(
      "embedder.embedder", configuration.numChannels, configuration.embeddingSize, kernel: 7, stride: 2)
    var (layers, inputs): ([Layer], Int) = ([], configuration.embeddingSize)
    for (stage, (width, depth)) in zip(configuration.hiddenSizes, configuration.depths).enumerated() {
      for index in 0..<depth {
        let name = "encoder.stages.\(stage).layers.\(index)"
        let stride = index == 0 && (stage > 0 || configuration.downsampleInFirstStage) ? 2 : 1
        let shortcut =
          inputs == width && stride == 1
          ? nil : try folded("\(name).shortcut", inputs, width, kernel: 1, stride: stride)
        let convolutions: [FoldedConvolution]
        if configuration.isBottleneck {
          let strides = configuration.downsampleInBottleneck ? (stride, 1) : (1, stride)
          convolutions = [
            try folded("\(name).layer.0", inputs, width / 4, kernel: 1, stride: strides.0),
            try folded("\(name).layer.1", width / 4, width / 4, stride: strides.1),
            try folded("\(name).layer.2", width / 4, width, kernel: 1),
          ]
        } else {
          convolutions = [
            try folded("\(name).layer.0", inputs, width, stride: stride), try folded("\(name).layer.1", width, width),
          ]
        }
        layers.append(Layer(convolutions: convolutions, shortcut: shortcut))
        inputs = width
      }
    }
    self.layers = layers
    let head = configuration.classifier
    classifier =
      weights.contains(head.parts[0])
      ? try weights.linear(head, as: precision, hasBias: true, context: context) : nil
  }

  /// Whether ``pooled(_:)`` gives the logits of a classifier.
  public var isClassifier: Bool { classifier != nil }

  /// The image of the last stage: `[batch, height, width, hidden_sizes.last]`, in the workspace: valid until its next use.
  ///
  /// - Parameters:
  ///   - pixels: rank 4 in `layout`, any strides; of any size that the convolutions leave something of.
  ///   - layout: `[batch, channels, height, width]` where none is given, as `pixel_values` are.
  /// - Throws: ``QuernError``, for pixels of another shape.
  public func forward(
    _ pixels: TensorView, layout: ImageLayout = .channelsFirst, workspace: Workspace
  ) throws(QuernError) -> MutableTensor {
    guard pixels.shape.rank == 4, pixels.shape[layout == .channelsFirst ? 1 : 3] == configuration.numChannels else {
      throw .invalidShape(
        "pixels \(pixels.shape) (\(layout.rawValue)): rank 4 and \(configuration.numChannels) channels are expected")
    }
    let image = layout == .channelsLast ? pixels : pixels.permuted([0, 2, 3, 1])
    let input = try workspace.image(3, image.shape, precision)
    try context.copy(image, into: input)
    let stem = try run(first, input.view, workspace, 0, configuration.hiddenAct)
    let window = PoolWindow(size: 3, stride: 2, padding: 1)
    let size = window.output(of: ImageSize(stem.shape[1], stem.shape[2]))
    var (current, place) = (
      try workspace.image(1, Shape(stem.shape[0], size.height, size.width, stem.shape[3]), precision), 1
    )
    try context.maxPool(stem.view, window: window, into: current)
    for layer in layers {
      // Two places are for what lies between convolutions, two for layers to take turns in.
      let target = (place + 1) % 2
      var hidden = current
      for (index, convolution) in layer.convolutions.dropLast().enumerated() {
        hidden = try run(convolution, hidden.view, workspace, 2 + index, .relu)
      }
      let last = layer.convolutions[layer.convolutions.count - 1]
      let result = try workspace.image(target, last.weights.outputShape(of: hidden.shape), precision)
      if let shortcut = layer.shortcut {
        try context.conv2d(
          current.view, weights: shortcut.weights, epilogue: Epilogue(bias: shortcut.bias), into: result)
      }
      try context.conv2d(
        hidden.view, weights: last.weights, epilogue: Epilogue(bias: last.bias),
        residual: layer.shortcut == nil ? current.view : result.view, into: result)
      let flat = result.reshaped(Shape(result.shape.count / result.shape[3], result.shape[3]))
      try context.activation(configuration.hiddenAct, flat.view, into: flat)
      (current, place) = (result, target)
    }
    return current
  }

  private func run(
    _ convolution: FoldedConvolution, _ x: TensorView, _ workspace: Workspace, _ place: Int, _ activation: Activation
  ) throws(QuernError) -> MutableTensor {
    let y = try workspace.image(place, convolution.weights.outputShape(of: x.shape), precision)
    try context.conv2d(
      x, weights: convolution.weights, epilogue: Epilogue(bias: convolution.bias, activation: activation), into: y)
    return y
  }

  /// The mean of each image over its pixels, `[batch, hidden_sizes.last]`; behind a classifier its logits, `[batch, labels]`; f32.
  ///
  /// - Parameter hidden: what ``forward(_:layout:workspace:)`` gave.
  public func pooled(_ hidden: MutableTensor) throws(QuernError) -> MutableTensor {
    let (batch, width) = (hidden.shape[0], hidden.shape[3])
    let wide = try MutableTensor(zeros: Shape(hidden.shape.count / width, width))
    try context.copy(hidden.reshaped(wide.shape).view, into: wide)
    let means = try MutableTensor(zeros: Shape(batch, width))
    let pixels = wide.shape[0] / max(batch, 1)
    for image in 0..<batch {
      try context.reduce(
        .mean, wide.rows(image * pixels..<(image + 1) * pixels).view, along: .columns,
        into: means.rows(image..<image + 1))
    }
    guard let classifier else { return means }
    let logits = try MutableTensor(zeros: Shape(batch, classifier.outputs))
    try classifier(means.view, into: logits, context)
    return logits
  }
}

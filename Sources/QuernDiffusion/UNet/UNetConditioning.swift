import Quern
import QuernModels

/// What a run's steps share, computed once: the keys and values that every attention to the prompt reads, and what is added to the
/// embedding of the timestep.
///
/// Belongs to the model that made it, by ``UNet2DConditionModel/conditioning(prompt:textEmbeds:timeIDs:classes:guidanceScale:images:)``; not
/// `Sendable`, so that the compiler keeps it within one task at a time.
public final class UNetConditioning {
  let model: UNet2DConditionModel
  /// Images of a pass: with guidance, those without the prompt and those with it.
  public let images: Int
  /// The tokens of each image's prompt.
  let tokens: Segments
  let keysValues: [MutableTensor]
  /// `[images, timeEmbedDim]`, of classes, and of SDXL's prompt and sizes.
  let added: MutableTensor?
  /// `[images, blockOutChannels[0]]`, of the guidance scale.
  let guidance: MutableTensor?

  package var keysValuesByteCount: Int { keysValues.reduce(0) { $0 + $1.shape.count * $1.dataType.size } }

  init(
    _ model: UNet2DConditionModel, images: Int, tokens: Segments, keysValues: [MutableTensor], added: MutableTensor?,
    guidance: MutableTensor?
  ) {
    (self.model, self.images, self.tokens, self.keysValues) = (model, images, tokens, keysValues)
    (self.added, self.guidance) = (added, guidance)
  }
}

/// The class of each image, as a model's `class_embed_type` has it.
public enum UNetClasses {
  /// Rows of a table.
  case indices([Int32])
  /// Numbers that are embedded as timesteps are.
  case numbers([Float])
  /// `[images, width]`.
  case vectors(TensorView)
}

/// The layers whose results are the same at every step.
struct UNetConditioningLayers: Sendable {
  private enum Classes: Sendable {
    case table(Tensor)
    case numbers(TimestepMLP)
    case identity
    case vectors(TimestepMLP, width: Int)
    case linear(Linear, width: Int)
  }

  private let configuration: UNetConfiguration
  private let classes: Classes?
  private let textTime: TimestepMLP?
  private let guidance: Linear?
  private let prompt: Linear?

  init(_ configuration: UNetConfiguration, _ reader: LayerReader) throws {
    self.configuration = configuration
    let (width, first) = (configuration.timeEmbedDim, configuration.blockOutChannels[0])
    func perceptron(_ name: String, _ inputs: Int) throws -> TimestepMLP {
      try TimestepMLP(name, inputs: inputs, outputs: width, reader)
    }
    let name = "class_embedding"
    classes =
      switch configuration.classEmbedding {
      case nil: nil
      case .table(let count):
        .table(try reader.weights.tensor("\(name).weight", Shape(checking: [count, width])))
      case .timestep: .numbers(try perceptron(name, first))
      case .identity: .identity
      case .projection(let inputs): .vectors(try perceptron(name, inputs), width: inputs)
      case .simpleProjection(let inputs): .linear(try reader.linear([(name, width)], inputs: inputs), width: inputs)
      }
    textTime = try configuration.textTime.map { try perceptron("add_embedding", $0.width) }
    guidance = try configuration.timeCondProjDim.map {
      try reader.linear([("time_embedding.cond_proj", first)], inputs: $0, hasBias: false)
    }
    prompt = try configuration.encoderHidDim.map {
      try reader.linear([("encoder_hid_proj", configuration.crossAttentionDim[0])], inputs: $0)
    }
  }

  /// The rows of a prompt's tokens, projected where the model does that.
  func tokens(_ hidden: TensorView, _ context: Context) throws(QuernError) -> TensorView {
    let rows = hidden.shape[0] * hidden.shape[1]
    let copy = try MutableTensor(zeros: hidden.shape, dataType: hidden.dataType)
    try context.copy(hidden, into: copy)
    let tokens = copy.view.reshaped(Shape(rows, hidden.shape[2]))
    guard let prompt else { return tokens }
    let projected = try MutableTensor(zeros: Shape(rows, prompt.outputs))
    try prompt(tokens, into: projected, context)
    return projected.view
  }

  /// What is added to the embedding of the timestep; `nil` where the model adds nothing.
  func added(
    _ labels: UNetClasses?, textEmbeds: TensorView?, timeIDs: TensorView?, images: Int, _ context: Context
  ) throws(QuernError) -> MutableTensor? {
    guard classes != nil || textTime != nil else { return nil }
    let hidden = try MutableTensor(zeros: Shape(images, configuration.timeEmbedDim))
    let sum = try MutableTensor(zeros: hidden.shape)
    if let classes { try embed(classes, labels, images, hidden, into: sum, context) }
    if let textTime {
      let inputs = try textAndTimes(textEmbeds, timeIDs, images, context)
      try textTime(inputs.view, hidden: hidden, residual: sum.view, into: sum, context)
    }
    return sum
  }

  private func embed(
    _ classes: Classes, _ labels: UNetClasses?, _ images: Int, _ hidden: MutableTensor, into y: MutableTensor,
    _ context: Context
  ) throws(QuernError) {
    func require(_ vectors: TensorView, _ width: Int) throws(QuernError) {
      guard vectors.shape == Shape(images, width) else {
        throw .invalidShape("classes \(vectors.shape) of \(images) images; the model takes \(Shape(images, width))")
      }
    }
    switch (classes, labels) {
    case (.table(let table), .indices(let ids)) where ids.count == images:
      try context.embedding(ids, table: table.view, into: y)
    case (.numbers(let perceptron), .numbers(let numbers)) where numbers.count == images:
      let width = configuration.blockOutChannels[0]
      let rows = try MutableTensor(zeros: Shape(images, width))
      try configuration.timesteps(size: width).write(numbers, into: rows)
      try perceptron(rows.view, hidden: hidden, into: y, context)
    case (.identity, .vectors(let vectors)):
      try require(vectors, configuration.timeEmbedDim)
      try context.copy(vectors, into: y)
    case (.vectors(let perceptron, let width), .vectors(let vectors)):
      try require(vectors, width)
      try perceptron(vectors, hidden: hidden, into: y, context)
    case (.linear(let linear, let width), .vectors(let vectors)):
      try require(vectors, width)
      try linear(vectors, into: y, context)
    default:
      let expected =
        switch classes {
        case .table: "an index"
        case .numbers: "a number"
        case .identity, .vectors, .linear: "a vector"
        }
      throw .invalidShape("the model takes a class for each of \(images) images, \(expected)")
    }
  }

  /// `[textEmbeds | the embedding of each of timeIDs]`.
  private func textAndTimes(
    _ textEmbeds: TensorView?, _ timeIDs: TensorView?, _ images: Int, _ context: Context
  ) throws(QuernError) -> MutableTensor {
    guard let kind = configuration.textTime, let textEmbeds, let timeIDs, textEmbeds.shape.rank == 2,
      timeIDs.shape.rank == 2, textEmbeds.shape[0] == images, timeIDs.shape[0] == images,
      textEmbeds.shape[1] + timeIDs.shape[1] * kind.timeWidth == kind.width
    else {
      throw .invalidShape(
        "textEmbeds \(textEmbeds?.shape.description ?? "nil") and timeIDs \(timeIDs?.shape.description ?? "nil") of "
          + "\(images) images; the model takes [images, n] and [images, m] with n + m "
          + "\(configuration.textTime?.timeWidth ?? 0) = \(configuration.textTime?.width ?? 0)")
    }
    let width = textEmbeds.shape[1]
    let inputs = try MutableTensor(zeros: Shape(images, kind.width))
    try context.copy(textEmbeds, into: inputs.columns(0..<width))
    let times = try MutableTensor(zeros: Shape(timeIDs.shape.count, kind.timeWidth))
    try configuration.timesteps(size: kind.timeWidth).write(timeIDs.elements, into: times)
    try context.copy(
      times.view.reshaped(Shape(images, kind.width - width)), into: inputs.columns(width..<kind.width))
    return inputs
  }

  /// The embedding of a guidance scale w in place of guidance, of `1000 (w - 1)` (Meng et al., arXiv 2210.03142; Luo et al.,
  /// arXiv 2310.04378, section 4.2); `nil` where none is given.
  func guidance(_ scale: Double?, images: Int, _ context: Context) throws(QuernError) -> MutableTensor? {
    guard let scale else { return nil }
    guard let guidance, let width = configuration.timeCondProjDim else {
      throw .invalidShape("a guidance scale of \(scale) for a model without time_cond_proj_dim; leave it out")
    }
    let rows = try MutableTensor(zeros: Shape(images, width))
    let y = try MutableTensor(zeros: Shape(images, configuration.blockOutChannels[0]))
    try TimestepEmbedding(size: width, scale: 1000).write(
      [Float](repeating: Float(scale - 1), count: images), into: rows)
    try guidance(rows.view, into: y, context)
    return y
  }
}

extension UNetConfiguration {
  /// How it embeds timesteps.
  func timesteps(size: Int) -> TimestepEmbedding {
    TimestepEmbedding(size: size, flipSinToCos: flipSinToCos, downscaleFreqShift: freqShift)
  }
}

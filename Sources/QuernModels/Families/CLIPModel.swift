import Quern

/// CLIP (Radford et al., arXiv 2103.00020): texts and images as vectors whose similarity tells how well they fit.
///
/// Immutable and `Sendable`, as its towers are.
public final class CLIPModel: Sendable {
  public let configuration: CLIPConfiguration
  public let text: CLIPTextModel
  public let image: ImageEncoderModel
  /// What the cosine of two embeddings is multiplied by: `exp(logit_scale)`.
  public let logitScale: Float

  /// - Parameters:
  ///   - directory: a Hugging Face model directory: `config.json` and safetensors weights, quantised ones included.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states; embeddings are f32 always.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    configuration = try CLIPConfiguration(HubConfig(directory: directory))
    let source = try SafetensorsDirectory.weights(of: directory)
    text = try CLIPTextModel(
      configuration.text, source: source, file: directory, context: context, precision: precision)
    image = try ImageEncoderModel(
      configuration.image, source: source, file: directory, context: context, precision: precision)
    guard text.embeddingSize == image.pooledSize else {
      throw ModelError(
        file: directory, field: "tensors.visual_projection.weight",
        reason: "gives images \(image.pooledSize) elements, while texts have \(text.embeddingSize)")
    }
    let weights = try Weights(source, file: directory, of: configuration)
    logitScale = Real.exponential(try weights.tensor("logit_scale", Shape()).elements[0])
  }

  /// How well each text fits each image, `[texts, images]`, f32: `logitScale cos(text, image)`. A softmax over the texts of an image
  /// gives their probabilities.
  ///
  /// - Parameters:
  ///   - texts: what ``CLIPTextModel/embed(_:workspace:)`` gave.
  ///   - images: what ``ImageEncoderModel/pooled(_:)`` gave. Both keep their values.
  public func logits(texts: MutableTensor, images: MutableTensor) throws -> MutableTensor {
    let context = text.encoder.context
    let (a, b) = (try MutableTensor(zeros: texts.shape), try MutableTensor(zeros: images.shape))
    try context.l2Normalize(texts.view, into: a)
    try context.l2Normalize(images.view, into: b)
    let logits = try MutableTensor(zeros: Shape(texts.shape[0], images.shape[0]))
    try context.matmul(a.view, b.view.transposed(), epilogue: Epilogue(scale: logitScale), into: logits)
    return logits
  }
}

/// CLIP's text tower, alone or with its projection: also the text encoder of latent diffusion, by the hidden states of
/// ``encoder``.
public final class CLIPTextModel: Sendable {
  public let configuration: CLIPTextConfiguration
  public let encoder: EncoderModel
  private let projection: Linear?
  /// Elements of an embedding.
  public let embeddingSize: Int

  /// - Parameters: as of ``CLIPModel/init(directory:context:precision:)``, for a directory of a `clip_text_model`.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    try self.init(
      CLIPTextConfiguration(HubConfig(directory: directory)), source: SafetensorsDirectory.weights(of: directory),
      file: directory, context: context, precision: precision)
  }

  /// - Parameter source: weights named as in the `transformers` package, with or without the prefix `text_model.`.
  public init(
    _ configuration: CLIPTextConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    self.configuration = configuration
    encoder = try EncoderModel(
      configuration.encoder, source: source, file: file, context: context, precision: precision)
    let (weights, layer) = (try Weights(source, file: file, of: configuration), configuration.projection)
    guard weights.contains(layer.parts[0]) else {
      (projection, embeddingSize) = (nil, configuration.encoder.hiddenSize)
      return
    }
    projection = try weights.linear(layer, as: precision, hasBias: false, context: context)
    embeddingSize = layer.outputs
  }

  /// The vector of each text, `[texts, embeddingSize]`, f32: the last hidden state of its end token, projected where the files have
  /// a projection.
  ///
  /// - Parameter earlier: as of ``EncoderModel/forward(_:workspace:layers:finalNorm:keeping:)``: the hidden states that latent
  ///   diffusion takes beside the vectors.
  /// - Throws: ``QuernError/invalidShape(_:)`` for a text without an end token.
  public func embed(
    _ batch: EncoderBatch, workspace: EncoderModel.Workspace,
    keeping earlier: (layers: Int, states: MutableTensor)? = nil
  ) throws -> MutableTensor {
    let ends = try (0..<batch.segments.count).map { try end(of: $0, in: batch) }
    let (hidden, context) = (try encoder.forward(batch, workspace: workspace, keeping: earlier), encoder.context)
    let state = try MutableTensor(zeros: Shape(ends.count, configuration.encoder.hiddenSize))
    try context.embedding(ends, table: hidden.view, into: state)
    guard let projection else { return state }
    let vectors = try MutableTensor(zeros: Shape(ends.count, embeddingSize))
    try projection(state.view, into: vectors, context)
    return vectors
  }

  /// The row of a text's first end token.
  private func end(of text: Int, in batch: EncoderBatch) throws(QuernError) -> Int32 {
    let rows = batch.segments[text]
    guard let last = configuration.endOfText ?? batch.ids[rows].max(), let row = batch.ids[rows].firstIndex(of: last)
    else { throw .invalidShape("text \(text) of the batch has no end token") }
    return Int32(row)
  }
}

import Quern

/// Runs a model directory on named tensors, named as Hugging Face names them: how anyone checks parity and speed.
public final class NamedForward {
  private let model: Model
  private let context: Context
  private let directory: String

  private enum Model {
    case encoder(EncoderModel, EncoderModel.Workspace)
    case decoder(DecoderModel, DecoderModel.Workspace)
    case image(ImageEncoderModel, ImageEncoderModel.Workspace)
    case clip(CLIPModel, EncoderModel.Workspace, ImageEncoderModel.Workspace)
    case resnet(ResNetModel, ResNetModel.Workspace)
    case t5(T5Model, T5Model.Workspace)
  }

  /// The tensor that ``output(_:)`` computes: `last_hidden_state` of an encoder of texts or images, `logits` of a decoder, of T5 or
  /// of a classifier, `logits_per_text` of CLIP.
  public var outputName: String {
    switch model {
    case .encoder: "last_hidden_state"
    case .decoder, .t5: "logits"
    case .image(let model, _): model.isClassifier ? "logits" : "last_hidden_state"
    case .resnet(let model, _): model.isClassifier ? "logits" : "last_hidden_state"
    case .clip: "logits_per_text"
    }
  }

  /// - Parameter directory: a Hugging Face model directory, or a GGUF file.
  /// - Throws: ``ModelError``, also for a `model_type` that is not supported.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    (self.context, self.directory) = (context, directory)
    if directory.hasSuffix(".gguf") {
      let decoder = try DecoderModel(path: directory, context: context, precision: precision)
      model = .decoder(decoder, try DecoderModel.Workspace())
      return
    }
    func encoder(_ configuration: EncoderConfiguration, _ source: any TensorSource) throws -> Model {
      .encoder(
        try EncoderModel(configuration, source: source, file: directory, context: context, precision: precision),
        try EncoderModel.Workspace())
    }
    func source() throws -> any TensorSource { try SafetensorsDirectory.weights(of: directory) }
    switch try ModelFamilies.read(directory: directory) {
    case let configuration as EncoderConfiguration: model = try encoder(configuration, source())
    case let configuration as CLIPTextConfiguration: model = try encoder(configuration.encoder, source())
    case is DecoderConfiguration:
      let decoder = try DecoderModel(path: directory, context: context, precision: precision)
      model = .decoder(decoder, try DecoderModel.Workspace())
    case let configuration as ImageEncoderConfiguration:
      let encoder = try ImageEncoderModel(
        configuration, source: source(), file: directory, context: context, precision: precision)
      model = .image(encoder, try ImageEncoderModel.Workspace())
    case is ResNetConfiguration:
      let network = try ResNetModel(directory: directory, context: context, precision: precision)
      model = .resnet(network, ResNetModel.Workspace())
    case let configuration as T5Configuration:
      let source = try source()
      guard configuration.hasDecoder(source) else {
        model = try encoder(configuration.encoder, source)
        return
      }
      let t5 = try T5Model(configuration, source: source, file: directory, context: context, precision: precision)
      model = .t5(t5, try T5Model.Workspace())
    case is CLIPConfiguration:
      let clip = try CLIPModel(directory: directory, context: context, precision: precision)
      model = .clip(clip, try EncoderModel.Workspace(), try ImageEncoderModel.Workspace())
    default:
      throw try HubConfig(directory: directory).root.required("model_type").error("models of this type are not run")
    }
  }

  /// Of a model of texts `input_ids` and, optionally, `attention_mask` and `token_type_ids`, each `[batch, length]`; of a model of
  /// images `pixel_values`, `[batch, channels, height, width]`; of T5 `decoder_input_ids` too, of the same batch.
  public struct Inputs {
    struct Tokens {
      let rows, columns: Int
      let ids, mask, types: [Int32]

      /// The columns of each row that the mask does not hide.
      var visibleColumns: [[Int]] {
        (0..<rows).map { row in (0..<columns).filter { mask[row * columns + $0] == 1 } }
      }

      /// Those elements of a `[batch, length]` tensor.
      func visible(_ values: [Int32]) -> [[Int32]] {
        visibleColumns.enumerated().map { row, visible in visible.map { values[row * columns + $0] } }
      }
    }

    fileprivate var tokens: Tokens?
    fileprivate var pixels: Tensor?
    fileprivate var outputs: Tokens?
  }

  /// Reads and checks the inputs.
  public func inputs(from source: any TensorSource, file: String) throws -> Inputs {
    switch model {
    case .encoder, .decoder: return Inputs(tokens: try tokens("", source, file))
    case .image, .resnet: return Inputs(pixels: try pixels(source, file))
    case .clip: return Inputs(tokens: try tokens("", source, file), pixels: try pixels(source, file))
    case .t5:
      let (tokens, outputs) = (try tokens("", source, file), try tokens("decoder_", source, file))
      guard tokens.rows == outputs.rows else {
        throw ModelError(
          file: file, field: "tensors.decoder_input_ids",
          reason: "a batch of \(outputs.rows), while input_ids have \(tokens.rows)")
      }
      return Inputs(tokens: tokens, outputs: outputs)
    }
  }

  /// `pixel_values` of images, `[images, 3, height, width]`, by the directory's `preprocessor_config.json`: see ``ImagePreprocessor``.
  ///
  /// - Throws: ``ModelError`` for a model that takes more than images, and naming file and field for a preprocessor that is not supported;
  ///   ``QuernError/invalidShape(_:)`` for no images, and for images whose pixels differ in size.
  public func inputs(images: [RGBImage]) throws -> Inputs {
    switch model {
    case .image, .resnet: break
    case .encoder, .decoder, .clip, .t5:
      throw ModelError(file: directory, field: "model_type", reason: "a model of this type takes more than images")
    }
    let preprocessor = try ImagePreprocessor(directory: directory)
    let pixels = try images.map(preprocessor.pixels)
    guard let shape = pixels.first?.shape, pixels.allSatisfy({ $0.shape == shape }) else {
      throw QuernError.invalidShape("images \(pixels.map(\.shape)) of a batch: at least one, and all of one size")
    }
    let batch = try MutableTensor(zeros: Shape(checking: [pixels.count] + shape.array.dropFirst()))
    for (row, image) in pixels.enumerated() { try context.copy(image.view, into: batch.rows(row..<row + 1)) }
    return Inputs(pixels: try batch.copied())
  }

  private func tokens(_ prefix: String, _ source: any TensorSource, _ file: String) throws -> Inputs.Tokens {
    let shape = try source.info("\(prefix)input_ids").shape
    func fail(_ name: String, _ reason: String) -> ModelError {
      ModelError(file: file, field: "tensors.\(prefix)\(name)", reason: reason)
    }
    guard shape.count == 2 else { throw fail("input_ids", "shape \(shape); expected [batch, length]") }
    func integers(_ name: String, default value: Int32) throws -> [Int32] {
      guard source.contains(prefix + name) else { return [Int32](repeating: value, count: shape[0] * shape[1]) }
      guard try source.info(prefix + name).shape == shape else {
        throw fail(name, "shape \(try source.info(prefix + name).shape); input_ids have \(shape)")
      }
      return try source.readInt64(prefix + name).enumerated().map { position, number in
        guard let narrow = Int32(exactly: number) else {
          throw fail(name, "\(number) at position \(position) is out of range")
        }
        return narrow
      }
    }
    let ids = try integers("input_ids", default: 0)
    let mask = try integers("attention_mask", default: 1)
    guard mask.allSatisfy({ $0 == 0 || $0 == 1 }) else { throw fail("attention_mask", "values other than 0 and 1") }
    return Inputs.Tokens(
      rows: shape[0], columns: shape[1], ids: ids, mask: mask, types: try integers("token_type_ids", default: 0))
  }

  private func pixels(_ source: any TensorSource, _ file: String) throws -> Tensor {
    let shape = try source.info("pixel_values").shape
    guard shape.count == 4 else {
      throw ModelError(
        file: file, field: "tensors.pixel_values", reason: "shape \(shape); expected [batch, channels, height, width]")
    }
    return try Tensor(shape: Shape(checking: shape)) { try source.readFloat32("pixel_values", into: $0) }
  }

  /// The output. Of a model of texts it is `[batch, length, hidden_size]` or `[batch, length, vocab_size]`, and rows that the mask
  /// hides are zeros: they are not computed. Of a classifier of images it is `[batch, labels]`; without a classifier
  /// `[batch, tokens, hidden_size]`, of ResNet `[batch, channels, height, width]`.
  public func output(_ inputs: Inputs) throws -> MutableTensor {
    switch (model, inputs.tokens, inputs.pixels) {
    case (.encoder(let model, let workspace), let tokens?, _):
      let batch = try Self.batch(tokens, model.configuration)
      return try padded(try model.forward(batch, workspace: workspace), tokens)
    case (.decoder(let model, let workspace), let tokens?, _):
      let ids = tokens.visible(tokens.ids)
      let segments = try Segments(lengths: ids.map(\.count))
      let hidden = try model.forward(ids.flatMap { $0 }, segments: segments, workspace: workspace)
      let rows = (0..<Int32(segments.total)).map { $0 }
      return try padded(try model.logits(hidden, rows: rows, workspace: workspace), tokens)
    case (.image(let model, let workspace), _, let pixels?):
      let hidden = try model.forward(pixels.view, workspace: workspace)
      if model.isClassifier { return try model.pooled(hidden) }
      return hidden.reshaped(Shape(pixels.shape[0], model.configuration.tokens, hidden.shape[1]))
    case (.resnet(let model, let workspace), _, let pixels?):
      let hidden = try model.forward(pixels.view, workspace: workspace)
      if model.isClassifier { return try model.pooled(hidden) }
      let shape = hidden.shape
      let image = try MutableTensor(zeros: Shape(shape[0], shape[3], shape[1], shape[2]))
      try context.copy(hidden.view.permuted([0, 3, 1, 2]), into: image)
      return image
    case (.clip(let model, let texts, let images), let tokens?, let pixels?):
      let batch = try Self.batch(tokens, model.configuration.text.encoder)
      return try model.logits(
        texts: model.text.embed(batch, workspace: texts),
        images: model.image.pooled(model.image.forward(pixels.view, workspace: images)))
    case (.t5(let model, let workspace), let tokens?, _):
      guard let outputs = inputs.outputs else { throw Self.strangers }
      let batch = try EncoderBatch(tokens.visible(tokens.ids))
      let state = try model.start(batch, capacity: max(outputs.columns, 1), workspace: workspace)
      let ids = outputs.visible(outputs.ids)
      let segments = try Segments(lengths: ids.map(\.count))
      let hidden = try model.forward(ids.flatMap { $0 }, segments: segments, state: state, workspace: workspace)
      return try padded(model.logits(hidden, rows: (0..<Int32(segments.total)).map { $0 }), outputs)
    default: throw Self.strangers
    }
  }

  private static var strangers: QuernError { .invalidShape("these inputs were read by another model") }

  private static func batch(
    _ tokens: Inputs.Tokens, _ configuration: EncoderConfiguration
  ) throws(QuernError) -> EncoderBatch {
    // Those of hidden tokens count, as transformers has it.
    var positions: [Int32] = []
    for row in 0..<tokens.rows {
      let ids = tokens.ids[row * tokens.columns..<(row + 1) * tokens.columns]
      configuration.appendPositions(of: ids, to: &positions)
    }
    return try EncoderBatch(
      tokens.visible(tokens.ids), typeIDs: tokens.visible(tokens.types), positions: tokens.visible(positions))
  }

  /// The rows of visible tokens, with zeros between them.
  private func padded(_ computed: MutableTensor, _ tokens: Inputs.Tokens) throws -> MutableTensor {
    let width = computed.shape[1]
    let rows = try MutableTensor(zeros: computed.shape)
    try context.copy(computed.view, into: rows)
    let output = try MutableTensor(zeros: Shape(tokens.rows * tokens.columns, width))
    var token = 0
    for (row, columns) in tokens.visibleColumns.enumerated() {
      for column in columns {
        let to = output.base + (row * tokens.columns + column) * width
        to.update(from: rows.base + token * width, count: width)
        token += 1
      }
    }
    return output.reshaped(Shape(tokens.rows, tokens.columns, width))
  }
}

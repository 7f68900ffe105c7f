import Quern

/// An image encoder as a set of switches: patches as tokens behind a class token, then ``stack``, its layers (Dosovitskiy et al.,
/// arXiv 2010.11929).
///
/// The fields have the names of the `transformers` package where it has one for them.
public struct ImageEncoderConfiguration: Sendable, Equatable {
  /// The `model_type` that it was read from.
  public var modelType: String
  public var stack: EncoderStackConfiguration
  /// Height and width of an image.
  public var imageSize: Int
  /// Height and width of a patch.
  public var patchSize: Int
  public var numChannels: Int
  public var hasPatchBias = true
  /// A norm in front of the layers.
  public var hasEmbeddingNorm = false
  /// A norm of the class token alone, behind the layers.
  public var hasClassNorm = false
  /// Outputs of the classifier, where the files have one.
  public var numLabels = 0
  /// Elements of an image's embedding, where the files have a projection to them.
  public var projectionDim = 0
  var names = ImageEncoderNames()

  /// Patches of an image.
  public var numPatches: Int { imageSize / patchSize * (imageSize / patchSize) }
  /// Tokens of an image: the class token and its patches.
  public var tokens: Int { numPatches + 1 }
}

/// What a checkpoint calls its tensors, after the prefix.
struct ImageEncoderNames: Sendable, Equatable {
  var prefixes: [String] = []
  var classToken = ""
  var patches = ""
  var positions = ""
  /// Axes of extent 1 in front of their shapes.
  var classTokenAxes = 0
  var positionAxes = 0
  var embeddingNorm = ""
  var classNorm = ""
}

extension ImageEncoderConfiguration {
  /// Every `model_type` that is read, with its reader.
  private static let readers:
    [(type: String, read: @Sendable (HubConfig) throws(ModelError) -> ImageEncoderConfiguration)] = [
      ("vit", vit), ("clip_vision_model", clip),
    ]

  static var modelTypes: [String] { readers.map(\.type) }

  /// Reads the fields of a `config.json`, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    self = try config.read(Self.readers)
  }

  /// The fields that the families share, with their defaults.
  init(_ config: HubConfig, modelType: String, stack: EncoderStackConfiguration, patchSize size: Int) throws(ModelError)
  {
    (self.modelType, self.stack) = (modelType, stack)
    imageSize = try config.int("image_size", in: 1...(1 << 14), default: 224)
    patchSize = try config.int("patch_size", in: 1...(1 << 12), default: size)
    numChannels = try config.int("num_channels", in: 1...(1 << 10), default: 3)
    guard patchSize <= imageSize else {
      throw try config.root.required("patch_size").error("\(patchSize) is more than image_size \(imageSize)")
    }
  }
}

extension HubConfig {
  /// Outputs of a classifier, where the files have one.
  func numLabels() throws(ModelError) -> Int {
    if let labels = try root.optional("id2label") { return labels.count }
    return try int("num_labels", in: 1...(1 << 24), default: 2)
  }
}

extension ImageEncoderConfiguration: ModelFamily {
  var tensorPrefixes: [String] { names.prefixes }
  var probe: String { "\(names.patches).weight" }
  var unprefixed: [String] { ["classifier.weight", "classifier.bias", "visual_projection.weight"] }
  var linearLayers: [LinearLayer] { stack.linearLayers + heads.map(\.layer) }

  /// What may follow the class token's last state: each in some checkpoints, the first of those that are there is taken.
  var heads: [(layer: LinearLayer, hasBias: Bool, activation: Activation)] {
    func layer(_ name: String, _ outputs: Int) -> LinearLayer {
      LinearLayer(parts: [.init(name: name, outputs: outputs)], inputs: stack.hiddenSize, isOptional: true)
    }
    if modelType == "clip_vision_model" { return [(layer("visual_projection", projectionDim), false, .identity)] }
    return [
      (layer("classifier", numLabels), true, .identity), (layer("pooler.dense", stack.hiddenSize), true, .tanh),
    ]
  }
}

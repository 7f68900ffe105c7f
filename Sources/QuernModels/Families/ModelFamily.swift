/// What a model family says about its weights to code that knows no family, such as ``ModelQuantizer``.
protocol ModelFamily: Sendable {
  /// What checkpoints put before the names of tensors, tried in turn against ``probe``.
  var tensorPrefixes: [String] { get }
  /// A tensor that every checkpoint has.
  var probe: String { get }
  /// Names that have no such prefix.
  var unprefixed: [String] { get }
  /// Every linear layer, under the names and in the shapes that the model reads them.
  var linearLayers: [LinearLayer] { get }
}

extension ModelFamily {
  var unprefixed: [String] { [] }
}

/// The families that Quern runs.
enum ModelFamilies {
  /// The family of a model directory, by the `model_type` of its `config.json`.
  static func read(directory: String) throws(ModelError) -> any ModelFamily {
    let config = try HubConfig(directory: directory)
    let type = try config.string("model_type", oneOf: readers.flatMap(\.types))
    guard let reader = readers.first(where: { $0.types.contains(type) }) else {
      throw try config.root.required("model_type").error("\(type) is not supported")
    }
    return try reader.read(config)
  }

  /// Readers by `model_type`; of those that have one, the first.
  private static let readers: [(types: [String], read: @Sendable (HubConfig) throws(ModelError) -> any ModelFamily)] = [
    (["clip"], { (config) throws(ModelError) in try CLIPConfiguration(config) }),
    (["t5"], { (config) throws(ModelError) in try T5Configuration(config) }),
    (["clip_text_model"], { (config) throws(ModelError) in try CLIPTextConfiguration(config) }),
    (["resnet"], { (config) throws(ModelError) in try ResNetConfiguration(config) }),
    (ImageEncoderConfiguration.modelTypes, { (config) throws(ModelError) in try ImageEncoderConfiguration(config) }),
    (EncoderConfiguration.modelTypes, { (config) throws(ModelError) in try EncoderConfiguration(config) }),
    (DecoderConfiguration.modelTypes, { (config) throws(ModelError) in try DecoderConfiguration(config) }),
  ]
}

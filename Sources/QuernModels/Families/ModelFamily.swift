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
    let encoders = EncoderConfiguration.modelTypes
    let type = try config.string("model_type", oneOf: encoders + DecoderConfiguration.modelTypes)
    return encoders.contains(type) ? try EncoderConfiguration(config) : try DecoderConfiguration(config)
  }
}

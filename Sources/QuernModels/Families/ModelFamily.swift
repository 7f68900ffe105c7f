/// What a model family says about its weights to code that knows no family, such as ``ModelQuantizer``.
protocol ModelFamily: Sendable {
  /// What checkpoints put before the names of tensors, tried in turn against ``probe``.
  static var tensorPrefixes: [String] { get }
  /// A tensor that every checkpoint has.
  static var probe: String { get }
  /// Every linear layer, under the names and in the shapes that the model reads them.
  var linearLayers: [LinearLayer] { get }
}

/// The families that Quern runs.
enum ModelFamilies {
  /// The family of a model directory, by the `model_type` of its `config.json`.
  static func read(directory: String) throws(ModelError) -> any ModelFamily {
    try BertConfiguration(HubConfig(directory: directory))
  }
}

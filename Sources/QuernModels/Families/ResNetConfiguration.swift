import Quern

/// A residual network of convolutions (He et al., arXiv 1512.03385), the stride of a bottleneck in its 3x3 convolution unless the file
/// says otherwise. Fields have the names of the `transformers` package.
public struct ResNetConfiguration: Sendable, Equatable {
  public var numChannels: Int
  /// Channels behind the first convolution.
  public var embeddingSize: Int
  /// Channels of each stage, and its layers.
  public var hiddenSizes: [Int]
  public var depths: [Int]
  /// `layer_type`: convolutions of 1x1, 3x3 and 1x1 taps in place of two of 3x3.
  public var isBottleneck: Bool
  public var hiddenAct: Activation
  public var downsampleInFirstStage: Bool
  /// The first of the three convolutions has the stride.
  public var downsampleInBottleneck: Bool
  /// Outputs of the classifier, where the files have one.
  public var numLabels: Int

  /// Reads the fields of a `config.json`, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    _ = try config.string("model_type", oneOf: ["resnet"])
    let range = 1...(1 << 16)
    numChannels = try config.int("num_channels", in: range, default: 3)
    embeddingSize = try config.int("embedding_size", in: range, default: 64)
    hiddenSizes = try config.list("hidden_sizes", in: range, default: [256, 512, 1024, 2048])
    depths = try config.list("depths", in: 1...1024, default: [3, 4, 6, 3])
    guard hiddenSizes.count == depths.count else {
      throw (try config.root.optional("depths") ?? config.root).error(
        "has \(depths.count) entries, hidden_sizes \(hiddenSizes.count)")
    }
    isBottleneck =
      try config.string("layer_type", oneOf: ["bottleneck", "basic"], default: "bottleneck") == "bottleneck"
    hiddenAct = try config.root.optional("hidden_act") == nil ? .relu : config.activation("hidden_act")
    downsampleInFirstStage = try config.bool("downsample_in_first_stage", default: false)
    downsampleInBottleneck = try config.bool("downsample_in_bottleneck", default: false)
    numLabels = try config.numLabels()
    for width in hiddenSizes where isBottleneck && width % 4 != 0 {
      throw (try config.root.optional("hidden_sizes") ?? config.root).error(
        "\(width) is not a multiple of 4, by which a bottleneck narrows")
    }
  }
}

extension ResNetConfiguration: ModelFamily {
  var tensorPrefixes: [String] { ["", "resnet."] }
  var probe: String { "embedder.embedder.convolution.weight" }
  var unprefixed: [String] { ["classifier.1.weight", "classifier.1.bias"] }
  var linearLayers: [LinearLayer] { [classifier] }

  /// Of the means of the last images.
  var classifier: LinearLayer {
    LinearLayer(
      parts: [.init(name: "classifier.1", outputs: numLabels)], inputs: hiddenSizes[hiddenSizes.count - 1],
      isOptional: true)
  }
}

extension HubConfig {
  /// A list of one to sixteen integers.
  fileprivate func list(
    _ key: String, in range: ClosedRange<Int>, default list: [Int]
  ) throws(ModelError) -> [Int] {
    guard let value = try root.optional(key) else { return list }
    var read: [Int] = []
    guard (1...16).contains(value.count) else { throw value.error("has \(value.count) entries; 1 to 16 are supported") }
    try value.forEachElement { (element) throws(ModelError) in read.append(try element.int(in: range)) }
    return read
  }
}

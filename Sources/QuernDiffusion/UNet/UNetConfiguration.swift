import Quern
import QuernModels

/// A U-Net as a set of switches: what the latent diffusion models of diffusers differ in.
///
/// The fields have the names of `unet/config.json`. Values of fields that change nothing in the blocks that are read, such as `dropout` and
/// `upcast_attention`, are passed over.
public struct UNetConfiguration: Sendable, Equatable {
  /// A block of the way down.
  public enum DownBlock: String, Sendable, CaseIterable {
    case plain = "DownBlock2D"
    /// Transformer layers behind each residual block.
    case crossAttention = "CrossAttnDownBlock2D"
    /// Attention among the pixels behind each residual block.
    case attention = "AttnDownBlock2D"
  }

  /// A block of the way up.
  public enum UpBlock: String, Sendable, CaseIterable {
    case plain = "UpBlock2D"
    case crossAttention = "CrossAttnUpBlock2D"
    case attention = "AttnUpBlock2D"
  }

  /// The block between them.
  public enum MidBlock: String, Sendable, CaseIterable {
    case crossAttention = "UNetMidBlock2DCrossAttn"
    case plain = "UNetMidBlock2D"
  }

  /// What is added to the embedding of the timestep for the class of an image: `class_embed_type`.
  public enum ClassEmbedding: Sendable, Equatable {
    /// A row of a table: `num_class_embeds` without a type.
    case table(classes: Int)
    /// A number, embedded as timesteps are.
    case timestep
    /// A vector of the width of the embedding, as it is.
    case identity
    /// A vector of this width, through two linear layers.
    case projection(width: Int)
    /// A vector of this width, through one.
    case simpleProjection(width: Int)
  }

  /// `addition_embed_type` of `text_time`, which SDXL has (Podell et al., arXiv 2307.01952, section 2.2): an embedding of the prompt and
  /// numbers, each embedded in `timeWidth` elements, `width` elements together.
  public struct TextTime: Sendable, Equatable {
    public var timeWidth: Int
    public var width: Int
  }

  public var inChannels: Int
  public var outChannels: Int
  /// The height and width that the model was trained at, if it says.
  public var sampleSize: ImageSize?
  public var flipSinToCos: Bool
  public var freqShift: Double
  /// `time_embedding_dim`.
  public var timeEmbedDim: Int
  /// Elements of the embedding of a guidance scale, which is given to a distilled model in place of guidance (LCM).
  public var timeCondProjDim: Int?
  public var classEmbedding: ClassEmbedding?
  public var textTime: TextTime?
  /// A projection of a prompt's hidden states from this width: `encoder_hid_dim` of type `text_proj`.
  public var encoderHidDim: Int?

  /// One entry for each block on the way down, in that order, of this and the fields below.
  public var downBlockTypes: [DownBlock]
  public var blockOutChannels: [Int]
  public var layersPerBlock: [Int]
  /// The number of heads, in spite of the name; of `AttnDownBlock2D` and `AttnUpBlock2D` the size of a head.
  public var attentionHeadDim: [Int]
  public var crossAttentionDim: [Int]
  public var onlyCrossAttention: [Bool]
  /// Transformer layers behind each residual block of a block.
  public var transformerLayersPerBlock: [[Int]]

  public var midBlockType: MidBlock?
  public var midBlockTransformerLayers: Int
  /// In the order of the way up.
  public var upBlockTypes: [UpBlock]
  /// In the order of the way up, one more for each block than on the way down.
  public var upTransformerLayersPerBlock: [[Int]]

  public var useLinearProjection: Bool
  public var downsamplePadding: Int
  public var midBlockScaleFactor: Float
  public var normNumGroups: Int
  public var normEps: Float
  /// `resnet_time_scale_shift` of `scale_shift`.
  public var scalesByTime: Bool
  public var convInKernel: Int
  public var convOutKernel: Int

  /// Blocks on each way.
  public var blocks: Int { downBlockTypes.count }
}

extension UNetConfiguration {
  private static let widest = 1 << 16

  /// Reads the fields of a `config.json`, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    _ = try config.string("_class_name", oneOf: ["UNet2DConditionModel"], default: "UNet2DConditionModel")
    try Self.refuseWhatIsNotThere(config)
    let types =
      try Self.strings(config, "down_block_types")
      ?? [
        "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D",
      ].map { ($0, config.root) }
    let upTypes =
      try Self.strings(config, "up_block_types")
      ?? [
        "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
      ].map { ($0, config.root) }
    guard (1...16).contains(types.count), upTypes.count == types.count else {
      throw try (config.root.optional("up_block_types") ?? config.root).error(
        "has \(upTypes.count) blocks, down_block_types \(types.count); they have 1 to 16, as many as each other")
    }
    downBlockTypes = []
    for (name, value) in types { downBlockTypes.append(try Self.member(name, value)) }
    upBlockTypes = []
    for (name, value) in upTypes { upBlockTypes.append(try Self.member(name, value)) }
    let count = types.count
    inChannels = try config.int("in_channels", in: 1...Self.widest, default: 4)
    outChannels = try config.int("out_channels", in: 1...Self.widest, default: 4)
    sampleSize = try Self.size(config)
    blockOutChannels = try Self.ints(config, "block_out_channels", count, in: 1...Self.widest, [320, 640, 1280, 1280])
    layersPerBlock = try Self.ints(config, "layers_per_block", count, in: 1...64, [2])
    attentionHeadDim = try Self.ints(config, "attention_head_dim", count, in: 1...Self.widest, [8])
    crossAttentionDim = try Self.ints(config, "cross_attention_dim", count, in: 1...Self.widest, [1280])
    onlyCrossAttention = try Self.list(config, "only_cross_attention", count, [false]) { (value) throws(ModelError) in
      try value.bool()
    }
    midBlockType = try Self.midBlock(config)
    (transformerLayersPerBlock, midBlockTransformerLayers, upTransformerLayersPerBlock) =
      try Self.transformerLayers(config, layersPerBlock)
    flipSinToCos = try config.bool("flip_sin_to_cos", default: true)
    freqShift = try config.double("freq_shift", default: 0)
    timeEmbedDim = try config.int("time_embedding_dim", in: 1...Self.widest, default: 4 * blockOutChannels[0])
    timeCondProjDim = try Self.optionalInt(config, "time_cond_proj_dim")
    classEmbedding = try Self.classEmbedding(config)
    textTime = try Self.textTime(config)
    encoderHidDim = try Self.optionalInt(config, "encoder_hid_dim")
    useLinearProjection = try config.bool("use_linear_projection", default: false)
    downsamplePadding = try config.int("downsample_padding", in: 0...1, default: 1)
    midBlockScaleFactor = Float(try config.positive("mid_block_scale_factor", default: 1))
    normNumGroups = try config.int("norm_num_groups", in: 1...Self.widest, default: 32)
    normEps = Float(try config.positive("norm_eps", default: 1e-5))
    let shift = try config.string("resnet_time_scale_shift", oneOf: ["default", "scale_shift"], default: "default")
    scalesByTime = shift == "scale_shift"
    convInKernel = try Self.kernel(config, "conv_in_kernel")
    convOutKernel = try Self.kernel(config, "conv_out_kernel")
    try requireDivisors(config)
  }

  /// Fields whose other values need code that is not there.
  private static func refuseWhatIsNotThere(_ config: HubConfig) throws(ModelError) {
    for key in ["center_input_sample", "dual_cross_attention", "class_embeddings_concat"] {
      if let field = try config.root.optional(key), try field.bool() { throw field.error("true is not supported") }
    }
    for key in [
      "num_attention_heads", "time_embedding_act_fn", "timestep_post_act", "cross_attention_norm",
    ] {
      if let field = try config.root.optional(key) {
        throw field.error(
          key == "num_attention_heads"
            ? "is not supported, nor by diffusers; attention_head_dim has the number of heads" : "is not supported")
      }
    }
    _ = try config.string("act_fn", oneOf: ["silu", "swish"], default: "silu")
    _ = try config.string("time_embedding_type", oneOf: ["positional"], default: "positional")
    _ = try config.string("attention_type", oneOf: ["default"], default: "default")
    _ = try config.string("encoder_hid_dim_type", oneOf: ["text_proj"], default: "text_proj")
    if let type = try config.root.optional("encoder_hid_dim_type"), try config.root.optional("encoder_hid_dim") == nil {
      throw type.error("is there without encoder_hid_dim")
    }
  }

  /// Groups and heads divide channels, and frequencies of timesteps are left.
  private func requireDivisors(_ config: HubConfig) throws(ModelError) {
    func error(_ key: String, _ reason: String) throws(ModelError) -> ModelError {
      try (config.root.optional(key) ?? config.root).error(reason)
    }
    for (block, channels) in blockOutChannels.enumerated() {
      guard channels % normNumGroups == 0 else {
        throw try error("norm_num_groups", "\(normNumGroups) does not divide \(channels) of block_out_channels")
      }
      let up = blocks - 1 - block
      // diffusers gives the blocks of the way up the sizes of the heads in the order of the way down.
      let used =
        downBlockTypes[block] != .plain || upBlockTypes[up] == .crossAttention
          || (block == blocks - 1 && midBlockType == .crossAttention) ? [attentionHeadDim[block]] : []
      for heads in used + (upBlockTypes[up] == .attention ? [attentionHeadDim[up]] : []) {
        guard channels % heads == 0 else {
          throw try error("attention_head_dim", "\(heads) does not divide \(channels) of block_out_channels")
        }
      }
    }
    for block in 0..<blocks {
      // Images and skips beside each other have the norm's groups too.
      for layer in UNetPlan(self).up[block].layers where layer.resnet.inputs % normNumGroups != 0 {
        throw try error("norm_num_groups", "\(normNumGroups) does not divide \(layer.resnet.inputs) channels")
      }
    }
    guard Double(blockOutChannels[0] / 2) > freqShift, freqShift >= 0 else {
      throw try error("freq_shift", "\(freqShift) leaves no frequencies of \(blockOutChannels[0])")
    }
    if let textTime {
      guard Double(textTime.timeWidth / 2) > freqShift, textTime.width > textTime.timeWidth else {
        throw try error(
          "addition_time_embed_dim", "\(textTime.timeWidth) does not fit projection_class_embeddings_input_dim")
      }
    }
  }
}

extension UNetConfiguration {
  private static func midBlock(_ config: HubConfig) throws(ModelError) -> MidBlock? {
    // A null says that there is none; a file without the field has the default.
    var isNull = false
    try config.root.forEachMember { (name, value) throws(ModelError) in
      if name == "mid_block_type" { isNull = value.isNull }
    }
    if isNull { return nil }
    guard let value = try config.root.optional("mid_block_type") else { return .crossAttention }
    return try member(value.string(), value)
  }

  private static func classEmbedding(_ config: HubConfig) throws(ModelError) -> ClassEmbedding? {
    guard let value = try config.root.optional("class_embed_type") else {
      return try optionalInt(config, "num_class_embeds", limit: 1 << 24).map { .table(classes: $0) }
    }
    let width = "projection_class_embeddings_input_dim"
    switch try value.string() {
    case "timestep": return .timestep
    case "identity": return .identity
    case "projection": return .projection(width: try config.int(width, in: 1...widest))
    case "simple_projection": return .simpleProjection(width: try config.int(width, in: 1...widest))
    case let name:
      throw value.error("\(name) is not supported; supported: timestep, identity, projection, simple_projection")
    }
  }

  private static func textTime(_ config: HubConfig) throws(ModelError) -> TextTime? {
    guard try config.root.optional("addition_embed_type") != nil else { return nil }
    _ = try config.string("addition_embed_type", oneOf: ["text_time"])
    return TextTime(
      timeWidth: try config.int("addition_time_embed_dim", in: 2...widest),
      width: try config.int("projection_class_embeddings_input_dim", in: 1...widest))
  }

  private static func size(_ config: HubConfig) throws(ModelError) -> ImageSize? {
    guard try config.root.optional("sample_size") != nil else { return nil }
    let size = try ints(config, "sample_size", 2, in: 1...Self.widest, [])
    return ImageSize(height: size[0], width: size[1])
  }

  /// Odd, as the image keeps its height and width.
  private static func kernel(_ config: HubConfig, _ key: String) throws(ModelError) -> Int {
    let kernel = try config.int(key, in: 1...31, default: 3)
    guard kernel % 2 == 1 else { throw try config.root.required(key).error("\(kernel) is even") }
    return kernel
  }

  /// Layers of the transformers of each block down, in the middle, and of each block up.
  private static func transformerLayers(
    _ config: HubConfig, _ layers: [Int]
  ) throws(ModelError) -> ([[Int]], Int, [[Int]]) {
    /// A number for all of a block, or one for each of its `counts` transformers.
    func read(_ value: JSONValue, _ count: Int) throws(ModelError) -> [Int] {
      guard value.kind == .array else { return [Int](repeating: try value.int(in: 1...256), count: count) }
      return try elements(value, count) { (value) throws(ModelError) in try value.int(in: 1...256) }
    }
    func blocks(_ key: String, _ counts: [Int]) throws(ModelError) -> [[Int]]? {
      guard let value = try config.root.optional(key) else { return nil }
      guard value.kind == .array else {
        let number = try value.int(in: 1...256)
        return counts.map { [Int](repeating: number, count: $0) }
      }
      var found: [[Int]] = []
      try value.forEachElement { (element) throws(ModelError) in
        if found.count < counts.count { found.append(try read(element, counts[found.count])) }
      }
      guard value.count == counts.count else {
        throw value.error("has \(value.count) entries for \(counts.count) blocks")
      }
      return found
    }
    let key = "transformer_layers_per_block"
    let down = try blocks(key, layers) ?? layers.map { [Int](repeating: 1, count: $0) }
    let upCounts = layers.reversed().map { $0 + 1 }
    if let up = try blocks("reverse_" + key, upCounts) { return (down, down[down.count - 1][0], up) }
    // Without a list of its own the way up has the numbers of the way down.
    for (block, numbers) in down.enumerated() where !numbers.allSatisfy({ $0 == numbers[0] }) {
      throw try config.root.required(key).error("block \(block) needs reverse_transformer_layers_per_block")
    }
    let up = zip(down.reversed(), upCounts).map { [Int](repeating: $0[0], count: $1) }
    return (down, down[down.count - 1][0], up)
  }

  // MARK: Fields

  private static func member<Kind: RawRepresentable<String> & CaseIterable>(
    _ name: String, _ value: JSONValue
  ) throws(ModelError) -> Kind {
    guard let kind = Kind(rawValue: name) else {
      let all = Kind.allCases.map(\.rawValue).joined(separator: ", ")
      throw value.error("\(name) is not supported; supported: \(all)")
    }
    return kind
  }

  private static func optionalInt(
    _ config: HubConfig, _ key: String, limit: Int = Self.widest
  ) throws(ModelError) -> Int? {
    try config.root.optional(key)?.int(in: 1...limit)
  }

  private static func strings(_ config: HubConfig, _ key: String) throws(ModelError) -> [(String, JSONValue)]? {
    guard let value = try config.root.optional(key) else { return nil }
    var found: [(String, JSONValue)] = []
    try value.forEachElement { (element) throws(ModelError) in found.append((try element.string(), element)) }
    return found
  }

  private static func ints(
    _ config: HubConfig, _ key: String, _ count: Int, in range: ClosedRange<Int>, _ standard: [Int]
  ) throws(ModelError) -> [Int] {
    try list(config, key, count, standard) { (value) throws(ModelError) in try value.int(in: range) }
  }

  /// One value for all blocks, or a list of one for each; where the field is missing, `standard`, which may be one for all.
  private static func list<T>(
    _ config: HubConfig, _ key: String, _ count: Int, _ standard: [T], _ read: (JSONValue) throws(ModelError) -> T
  ) throws(ModelError) -> [T] {
    guard let value = try config.root.optional(key) else {
      if standard.count == 1 { return [T](repeating: standard[0], count: count) }
      guard standard.count == count else { throw try config.root.required(key).error("is missing") }
      return standard
    }
    guard value.kind == .array else { return [T](repeating: try read(value), count: count) }
    return try elements(value, count, read)
  }

  private static func elements<T>(
    _ value: JSONValue, _ count: Int, _ read: (JSONValue) throws(ModelError) -> T
  ) throws(ModelError) -> [T] {
    var found: [T] = []
    try value.forEachElement { (element) throws(ModelError) in found.append(try read(element)) }
    guard found.count == count else { throw value.error("has \(found.count) entries, where \(count) are needed") }
    return found
  }
}

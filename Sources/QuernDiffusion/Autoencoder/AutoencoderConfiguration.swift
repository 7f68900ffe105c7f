import Quern
import QuernModels

/// How latents of an autoencoder and those of its diffusion model go into each other: `(encoded - shift) scaling`.
public struct LatentScale: Sendable, Equatable {
  public var scalingFactor: Double
  public var shiftFactor: Double

  public init(scalingFactor: Double, shiftFactor: Double = 0) {
    (self.scalingFactor, self.shiftFactor) = (scalingFactor, shiftFactor)
  }

  /// `y = (x - shift) scaling`: what the diffusion model works on. y may be x.
  public func scale(_ x: TensorView, into y: MutableTensor) throws(QuernError) {
    try Self.map(x, into: y) { ($0 - shiftFactor) * scalingFactor }
  }

  /// `y = x / scaling + shift`: what the decoder takes. y may be x.
  public func unscale(_ x: TensorView, into y: MutableTensor) throws(QuernError) {
    try Self.map(x, into: y) { $0 / scalingFactor + shiftFactor }
  }

  /// `y = function(x)`, element by element of f32 tensors without gaps.
  static func map(
    _ x: TensorView, into y: MutableTensor, _ function: (Double) -> Double
  ) throws(QuernError) {
    guard x.shape == y.shape, x.isContiguous, y.isContiguous, x.dataType == .f32, y.dataType == .f32 else {
      throw .invalidShape("\(x.shape) into \(y.shape): f32 elements without gaps in one shape are expected")
    }
    let (source, target) = (x.pointer, y.pointer)
    for index in 0..<y.shape.count { target[index] = Float(function(Double(source[index]))) }
  }
}

/// `vae/config.json` of class `AutoencoderKL`; fields have the names of the `diffusers` package.
public struct AutoencoderKLConfiguration: Sendable, Equatable {
  public var inChannels: Int
  public var outChannels: Int
  public var latentChannels: Int
  /// Channels at each size, from the picture's down.
  public var blockOutChannels: [Int]
  public var layersPerBlock: Int
  public var normNumGroups: Int
  /// Height and width of a tile.
  public var sampleSize: Int
  public var latentScale: LatentScale
  public var useQuantConv: Bool
  public var usePostQuantConv: Bool
  public var midBlockAddAttention: Bool

  /// Pixels of a picture for one of its latents, on each axis.
  public var factor: Int { 1 << (blockOutChannels.count - 1) }

  /// Reads the fields, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    _ = try config.string("_class_name", oneOf: ["AutoencoderKL"], default: "AutoencoderKL")
    inChannels = try config.channels("in_channels", default: 3)
    outChannels = try config.channels("out_channels", default: 3)
    latentChannels = try config.channels("latent_channels", default: 4)
    blockOutChannels = try config.channelList("block_out_channels", default: [64])
    try config.requireEach("down_block_types", is: "DownEncoderBlock2D", count: blockOutChannels.count)
    try config.requireEach("up_block_types", is: "UpDecoderBlock2D", count: blockOutChannels.count)
    layersPerBlock = try config.int("layers_per_block", in: 1...64, default: 1)
    normNumGroups = try config.int("norm_num_groups", in: 1...(1 << 16), default: 32)
    for channels in blockOutChannels where channels % normNumGroups != 0 {
      throw (try config.root.optional("norm_num_groups") ?? config.root).error(
        "\(normNumGroups) groups do not divide the \(channels) channels of block_out_channels")
    }
    _ = try config.string("act_fn", oneOf: ["silu", "swish"], default: "silu")
    sampleSize = try config.sampleSize(default: 32)
    latentScale = try config.latentScale(default: 0.18215)
    useQuantConv = try config.bool("use_quant_conv", default: true)
    usePostQuantConv = try config.bool("use_post_quant_conv", default: true)
    midBlockAddAttention = try config.bool("mid_block_add_attention", default: true)
    for field in ["latents_mean", "latents_std"] {
      if let value = try config.root.optional(field) { throw value.error("is not supported; null is") }
    }
  }
}

/// `vae/config.json` of class `AutoencoderTiny`, a small autoencoder distilled from another (TAESD); fields have the names of the
/// `diffusers` package.
public struct AutoencoderTinyConfiguration: Sendable, Equatable {
  public var inChannels: Int
  public var outChannels: Int
  public var latentChannels: Int
  /// Of every convolution between the first and the last.
  public var encoderChannels: Int
  public var decoderChannels: Int
  /// Residual blocks at each size, in the order in which they run.
  public var numEncoderBlocks: [Int]
  public var numDecoderBlocks: [Int]
  public var latentScale: LatentScale

  /// Pixels of a picture for one of its latents, on each axis.
  public var factor: Int { 1 << (numEncoderBlocks.count - 1) }

  /// Reads the fields, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    _ = try config.string("_class_name", oneOf: ["AutoencoderTiny"], default: "AutoencoderTiny")
    inChannels = try config.channels("in_channels", default: 3)
    outChannels = try config.channels("out_channels", default: 3)
    latentChannels = try config.channels("latent_channels", default: 4)
    let both = ["encoder", "decoder"]
    let channels = try both.map { (side) throws(ModelError) in
      let list = try config.channelList("\(side)_block_out_channels", default: [64, 64, 64, 64])
      guard list.allSatisfy({ $0 == list[0] }) else {
        throw try config.root.required("\(side)_block_out_channels").error(
          "\(list): blocks of different widths are not supported")
      }
      return list
    }
    (encoderChannels, decoderChannels) = (channels[0][0], channels[1][0])
    numEncoderBlocks = try config.intList("num_encoder_blocks", in: 0...64, default: [1, 3, 3, 3])
    numDecoderBlocks = try config.intList("num_decoder_blocks", in: 0...64, default: [3, 3, 3, 1])
    for (side, (blocks, channels)) in zip(both, zip([numEncoderBlocks, numDecoderBlocks], channels)) {
      guard blocks.count == channels.count, blocks.count == numEncoderBlocks.count else {
        throw (try config.root.optional("num_\(side)_blocks") ?? config.root).error(
          "\(blocks.count) entries; encoder, decoder and their channels have as many as each other")
      }
    }
    _ = try config.string("act_fn", oneOf: ["relu"], default: "relu")
    _ = try config.string("upsample_fn", oneOf: ["nearest"], default: "nearest")
    _ = try config.int("upsampling_scaling_factor", in: 2...2, default: 2)
    latentScale = try config.latentScale(default: 1)
  }
}

extension HubConfig {
  fileprivate func channels(_ key: String, default value: Int) throws(ModelError) -> Int {
    try int(key, in: 1...(1 << 16), default: value)
  }

  /// A list of one to eight integers.
  fileprivate func intList(
    _ key: String, in range: ClosedRange<Int>, default list: [Int]
  ) throws(ModelError) -> [Int] {
    guard let value = try root.optional(key) else { return list }
    var read: [Int] = []
    guard (1...8).contains(value.count) else { throw value.error("has \(value.count) entries; 1 to 8 are supported") }
    try value.forEachElement { (element) throws(ModelError) in read.append(try element.int(in: range)) }
    return read
  }

  fileprivate func channelList(_ key: String, default list: [Int]) throws(ModelError) -> [Int] {
    try intList(key, in: 1...(1 << 16), default: list)
  }

  fileprivate func requireEach(_ key: String, is name: String, count: Int) throws(ModelError) {
    guard let value = try root.optional(key) else {
      guard count == 1 else { throw root.error("\(key) is missing; \(count) of \(name) are needed") }
      return
    }
    try value.forEachElement { (element) throws(ModelError) in
      let found = try element.string()
      guard found == name else { throw element.error("\(found) is not supported; supported: \(name)") }
    }
    guard value.count == count else {
      throw value.error("has \(value.count) entries, block_out_channels \(count)")
    }
  }

  fileprivate func sampleSize(default size: Int) throws(ModelError) -> Int {
    guard let value = try root.optional("sample_size") else { return size }
    guard value.kind == .array else { return try value.int(in: 1...(1 << 20)) }
    var sizes: [Int] = []
    try value.forEachElement { (element) throws(ModelError) in sizes.append(try element.int(in: 1...(1 << 20))) }
    guard sizes.count == 2, sizes[0] == sizes[1] else { throw value.error("is not the size of a square") }
    return sizes[0]
  }

  fileprivate func latentScale(default scaling: Double) throws(ModelError) -> LatentScale {
    let scale = LatentScale(
      scalingFactor: try double("scaling_factor", default: scaling),
      shiftFactor: try double("shift_factor", default: 0))
    guard scale.scalingFactor > 0 else {
      throw try root.required("scaling_factor").error("is \(scale.scalingFactor), which is not positive")
    }
    return scale
  }
}

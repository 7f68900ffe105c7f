import Foundation
import Quern
import QuernModels

/// The autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752; Kingma and Welling, arXiv 1312.6114): the encoder makes a mean
/// and a variance for each latent.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a workspace of its own.
public final class AutoencoderKL: LatentAutoencoder {
  public let configuration: AutoencoderKLConfiguration
  private let context: Context
  private let precision: DataType
  private let encoder, decoder: ImageChain
  /// 1x1 convolutions behind the encoder and in front of the decoder.
  private let quant, postQuant: Linear?

  public var latentChannels: Int { configuration.latentChannels }
  public var pictureChannels: Int { configuration.outChannels }
  public var factor: Int { configuration.factor }
  public var latentScale: LatentScale { configuration.latentScale }
  public var defaultTiling: Tiling { Tiling(sampleSize: configuration.sampleSize) }

  /// - Parameters:
  ///   - directory: `config.json` and safetensors weights, as diffusers writes them.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of weights and activations; pictures and latents are f32 always.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    try self.init(
      AutoencoderKLConfiguration(HubConfig(directory: directory)), source: ComponentFiles.source(directory),
      file: directory, context: context, precision: precision)
  }

  /// - Parameter source: weights named as in the `diffusers` package.
  public init(
    _ configuration: AutoencoderKLConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    (self.configuration, self.context, self.precision) = (configuration, context, precision)
    let weights = try Weights(source, file: file, probe: "decoder.conv_in.weight")
    let reader = LayerReader(weights, precision: precision, context: context)
    let latents = configuration.latentChannels
    (encoder, decoder) = (try Self.encoder(configuration, reader), try Self.decoder(configuration, reader))
    // Both run on f32 images that are small.
    let exact = LayerReader(weights, precision: .f32, context: context)
    quant =
      configuration.useQuantConv
      ? try exact.linear([("quant_conv", 2 * latents)], inputs: 2 * latents, isConvolution: true) : nil
    postQuant =
      configuration.usePostQuantConv
      ? try exact.linear([("post_quant_conv", latents)], inputs: latents, isConvolution: true) : nil
  }

  private static func encoder(_ configuration: AutoencoderKLConfiguration, _ reader: LayerReader) throws -> ImageChain {
    let widths = configuration.blockOutChannels
    let norm = GroupNorm.Kind(groups: configuration.normNumGroups, epsilon: 1e-6)
    var layers: [ImageChain.Layer] = []
    var channels = widths[0]
    for (block, width) in widths.enumerated() {
      for layer in 0..<configuration.layersPerBlock {
        layers.append(
          .resnet(
            try ResnetBlock2D(
              .init(
                name: "encoder.down_blocks.\(block).resnets.\(layer)", inputs: channels, outputs: width, norm: norm),
              reader)))
        channels = width
      }
      if block < widths.count - 1 {
        layers.append(
          .downsample(
            try Downsample2D(
              "encoder.down_blocks.\(block).downsamplers.0", inputs: width, outputs: width, padding: 0, reader),
            channels: width))
      }
    }
    layers += try middle("encoder", channels, configuration, norm, reader)
    layers.append(.norm(try reader.groupNorm("encoder.conv_norm_out", channels: channels, norm, activation: .silu)))
    return ImageChain(
      first: try reader.convolution("encoder.conv_in", inputs: configuration.inChannels, outputs: widths[0]),
      layers: layers,
      last: try reader.convolution("encoder.conv_out", inputs: channels, outputs: 2 * configuration.latentChannels))
  }

  private static func decoder(_ configuration: AutoencoderKLConfiguration, _ reader: LayerReader) throws -> ImageChain {
    let widths = Array(configuration.blockOutChannels.reversed())
    let norm = GroupNorm.Kind(groups: configuration.normNumGroups, epsilon: 1e-6)
    var layers = try middle("decoder", widths[0], configuration, norm, reader)
    var channels = widths[0]
    for (block, width) in widths.enumerated() {
      for layer in 0...configuration.layersPerBlock {
        layers.append(
          .resnet(
            try ResnetBlock2D(
              .init(
                name: "decoder.up_blocks.\(block).resnets.\(layer)", inputs: channels, outputs: width, norm: norm),
              reader)))
        channels = width
      }
      if block < widths.count - 1 {
        layers.append(
          .doubling(
            try reader.convolution(
              "decoder.up_blocks.\(block).upsamplers.0.conv", inputs: width, outputs: width, .enlarging)))
      }
    }
    layers.append(.norm(try reader.groupNorm("decoder.conv_norm_out", channels: channels, norm, activation: .silu)))
    return ImageChain(
      first: try reader.convolution("decoder.conv_in", inputs: configuration.latentChannels, outputs: widths[0]),
      layers: layers,
      last: try reader.convolution("decoder.conv_out", inputs: channels, outputs: configuration.outChannels))
  }

  private static func middle(
    _ side: String, _ channels: Int, _ configuration: AutoencoderKLConfiguration, _ norm: GroupNorm.Kind,
    _ reader: LayerReader
  ) throws -> [ImageChain.Layer] {
    let resnets = try (0..<2).map { index in
      ImageChain.Layer.resnet(
        try ResnetBlock2D(
          .init(name: "\(side).mid_block.resnets.\(index)", inputs: channels, outputs: channels, norm: norm), reader))
    }
    guard configuration.midBlockAddAttention else { return resnets }
    let attention = try SpatialAttention(
      .init(name: "\(side).mid_block.attentions.0", channels: channels, norm: norm), reader)
    return [resnets[0], .attention(attention), resnets[1]]
  }

  public func decode(
    _ latents: TensorView, tiling: Tiling?, into picture: MutableTensor, workspace: AutoencoderWorkspace,
    proceed: () throws -> Void
  ) throws {
    try check(picture: picture, latents: latents)
    let pass = try TiledPass(tiling, factor: factor, isEnlarging: true, rule: .linear, workspace: workspace)
    try pass(latents, into: picture, proceed: proceed) { tile, result in
      var input = tile
      if let postQuant = self.postQuant {
        let prepared = try workspace.tensor(.prepared, tile.shape)
        try postQuant(tile.pixels, into: prepared.pixels, self.context)
        input = prepared.view
      }
      try self.decoder(input, into: result, workspace.arena, self.precision, self.context)
    }
  }

  public func encode(
    _ picture: TensorView, noise: TensorView?, tiling: Tiling?, into latents: MutableTensor,
    workspace: AutoencoderWorkspace, proceed: () throws -> Void
  ) throws {
    let moments = try moments(of: picture, tiling: tiling, workspace: workspace, proceed: proceed)
    try check(picture: picture, latents: latents)
    if let noise {
      guard noise.shape == latents.shape, noise.isContiguous, noise.dataType == .f32 else {
        throw QuernError.invalidShape("noise \(noise.shape) for latents \(latents.shape); f32 without gaps is expected")
      }
    }
    let (channels, source, target) = (latentChannels, moments.pointer, latents.pointer)
    for pixel in 0..<latents.shape.count / channels {
      for channel in 0..<channels {
        let (from, to) = (2 * pixel * channels + channel, pixel * channels + channel)
        guard let noise else {
          target[to] = source[from]
          continue
        }
        // The limits of diffusers' DiagonalGaussianDistribution.
        let logVariance = min(max(Double(source[from + channels]), -30), 20)
        target[to] = Float(Double(source[from]) + exp(logVariance / 2) * Double(noise.pointer[to]))
      }
    }
  }

  /// The mean and the logarithm of the variance of each latent: `[batch, height / factor, width / factor, 2 latentChannels]`, means in
  /// front, in the workspace: valid until its next use.
  public func moments(
    of picture: TensorView, tiling: Tiling? = nil, workspace: AutoencoderWorkspace,
    proceed: () throws -> Void = {}
  ) throws -> MutableTensor {
    guard picture.shape.rank == 4, picture.shape[3] == configuration.inChannels, picture.shape[0] > 0,
      picture.isContiguous, picture.dataType == .f32
    else {
      throw QuernError.invalidShape(
        "a picture \(picture.shape): [batch, height, width, \(configuration.inChannels)] in f32 without gaps is expected"
      )
    }
    let size = try latentSize(of: ImageSize(picture.shape[1], picture.shape[2]))
    let moments = try workspace.tensor(
      .moments, Shape(checking: [picture.shape[0], size.height, size.width, 2 * latentChannels]))
    let pass = try TiledPass(tiling, factor: factor, isEnlarging: false, rule: .linear, workspace: workspace)
    try pass(picture, into: moments, proceed: proceed) { tile, result in
      try self.encoder(tile, into: result, workspace.arena, self.precision, self.context)
      if let quant = self.quant {
        // A product cannot write over what it reads.
        let raw = try workspace.tensor(.prepared, result.shape)
        try self.context.copy(result.view, into: raw)
        try quant(raw.pixels.view, into: result.pixels, self.context)
      }
    }
    return moments
  }
}

import Foundation
import Quern
import QuernModels

/// A small autoencoder that stands in for another (TAESD): no norms, no attention, and latents without a spread.
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a workspace of its own.
public final class AutoencoderTiny: LatentAutoencoder {
  public let configuration: AutoencoderTinyConfiguration
  private let context: Context
  private let precision: DataType
  private let encoder, decoder: ImageChain

  public var latentChannels: Int { configuration.latentChannels }
  public var pictureChannels: Int { configuration.outChannels }
  public var factor: Int { configuration.factor }
  public var latentScale: LatentScale { configuration.latentScale }
  static let tiling = Tiling(sampleSize: 512, overlap: 0.125)
  public var defaultTiling: Tiling { Self.tiling }

  /// As ``AutoencoderKL/init(directory:context:precision:)``.
  public convenience init(directory: String, context: Context, precision: DataType = .f32) throws {
    try self.init(
      AutoencoderTinyConfiguration(HubConfig(directory: directory)), source: ComponentFiles.source(directory),
      file: directory, context: context, precision: precision)
  }

  /// - Parameter source: weights named as in the `diffusers` package.
  public init(
    _ configuration: AutoencoderTinyConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    (self.configuration, self.context, self.precision) = (configuration, context, precision)
    let weights = try Weights(source, file: file, probe: "decoder.layers.0.weight")
    let reader = LayerReader(weights, precision: precision, context: context)
    (encoder, decoder) = (try Self.encoder(configuration, reader), try Self.decoder(configuration, reader))
  }

  /// Layers are numbered one after the other, those without weights too.
  private static func encoder(
    _ configuration: AutoencoderTinyConfiguration, _ reader: LayerReader
  ) throws -> ImageChain {
    let width = configuration.encoderChannels
    var layers: [ImageChain.Layer] = []
    for (block, count) in configuration.numEncoderBlocks.enumerated() {
      if block > 0 {
        layers.append(
          .halving(
            try reader.convolution(
              "encoder.layers.\(layers.count + 1)", inputs: width, outputs: width, Convolution(stride: 2, padding: 1),
              hasBias: false)))
      }
      for _ in 0..<count {
        layers.append(.tiny(try TinyBlock("encoder.layers.\(layers.count + 1)", channels: width, reader)))
      }
    }
    return ImageChain(
      first: try reader.convolution("encoder.layers.0", inputs: configuration.inChannels, outputs: width),
      layers: layers,
      last: try reader.convolution(
        "encoder.layers.\(layers.count + 1)", inputs: width, outputs: configuration.latentChannels))
  }

  private static func decoder(
    _ configuration: AutoencoderTinyConfiguration, _ reader: LayerReader
  ) throws -> ImageChain {
    let width = configuration.decoderChannels
    var layers: [ImageChain.Layer] = [.activation(.relu)]
    var enlarged = 0  // In the file an enlarged image is a layer of its own.
    var name: String { "decoder.layers.\(layers.count + 1 + enlarged)" }
    for (block, count) in configuration.numDecoderBlocks.enumerated() {
      for _ in 0..<count {
        layers.append(.tiny(try TinyBlock(name, channels: width, reader)))
      }
      guard block < configuration.numDecoderBlocks.count - 1 else { break }
      enlarged += 1
      layers.append(
        .doubling(try reader.convolution(name, inputs: width, outputs: width, .enlarging, hasBias: false)))
    }
    return ImageChain(
      first: try reader.convolution("decoder.layers.0", inputs: configuration.latentChannels, outputs: width),
      layers: layers,
      last: try reader.convolution(name, inputs: width, outputs: configuration.outChannels))
  }

  public func decode(
    _ latents: TensorView, tiling: Tiling?, into picture: MutableTensor, workspace: AutoencoderWorkspace,
    proceed: () throws -> Void
  ) throws {
    try check(picture: picture, latents: latents)
    let pass = try TiledPass(tiling, factor: factor, isEnlarging: true, rule: .masked, workspace: workspace)
    try pass(latents, into: picture, proceed: proceed) { tile, result in
      let bounded = try workspace.tensor(.prepared, tile.shape)
      try LatentScale.map(tile, into: bounded) { tanh($0 / 3) * 3 }
      try self.decoder(bounded.view, into: result, workspace.arena, self.precision, self.context)
      try LatentScale.map(result.view, into: result) { 2 * $0 - 1 }
    }
  }

  public func encode(
    _ picture: TensorView, noise: TensorView?, tiling: Tiling?, into latents: MutableTensor,
    workspace: AutoencoderWorkspace, proceed: () throws -> Void
  ) throws {
    try check(picture: picture, latents: latents)
    guard configuration.inChannels == configuration.outChannels else {
      throw QuernError.invalidShape("this autoencoder takes \(configuration.inChannels) channels")
    }
    let pass = try TiledPass(tiling, factor: factor, isEnlarging: false, rule: .masked, workspace: workspace)
    try pass(picture, into: latents, proceed: proceed) { tile, result in
      let positive = try workspace.tensor(.prepared, tile.shape)
      try LatentScale.map(tile, into: positive) { ($0 + 1) / 2 }
      try self.encoder(positive.view, into: result, workspace.arena, self.precision, self.context)
    }
  }
}

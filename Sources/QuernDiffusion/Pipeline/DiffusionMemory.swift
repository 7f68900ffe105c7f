import Quern
import QuernModels

extension DiffusionPipeline {
  /// The memory that a pipeline takes with one run, from the headers of its files alone.
  ///
  /// Weights and the U-Net's workspace are counted; the autoencoder's, which comes when the U-Net's steps are done and adds to it, is
  /// stated as the most that its widest layers take.
  ///
  /// - Parameters:
  ///   - directory: as for ``init(directory:context:precision:)``, and `precision` too.
  ///   - size: of the picture; `nil` for the model's own.
  ///   - isGuided: the U-Net runs with and without the prompt at once.
  ///   - isTiled: the autoencoder works in pieces of its ``LatentAutoencoder/defaultTiling``.
  /// - Throws: ``ModelError``; ``QuernError`` for sizes that do not fit.
  public static func memoryNeed(
    directory: String, precision: DataType = .f32, size: ImageSize? = nil, isGuided: Bool = true, isTiled: Bool = false
  ) throws -> MemoryNeed {
    let pipeline = try PipelineConfiguration(directory: directory)
    let unet = try UNetConfiguration(HubConfig(directory: "\(directory)/unet"))
    let (factor, width, tile) = try autoencoderSizes("\(directory)/vae")
    let latents = unet.sampleSize ?? ImageSize(64, 64)
    let size = size ?? ImageSize(latents.height * factor, latents.width * factor)
    var need = try UNet2DConditionModel.memoryNeed(
      directory: "\(directory)/unet", precision: precision, images: isGuided ? 2 : 1,
      height: max(size.height / factor, 1),
      width: max(size.width / factor, 1))
    for suffix in pipeline.kind == .stableDiffusionXL ? ["", "_2"] : [""] {
      try need.addWeights(of: SafetensorsDirectory(path: "\(directory)/text_encoder\(suffix)"), precision: precision)
    }
    try need.addWeights(of: ComponentFiles.source("\(directory)/vae"), precision: precision)
    need.workspace = need.workspace.saturatingAdd(
      autoencoderWorkspace(size: size, width: width, precision: precision, tile: isTiled ? tile : nil))
    return need
  }

  /// Bytes for a picture, or for pieces of it: two images between which the layers go back and forth, a layer's own two, and the
  /// picture in f32.
  ///
  /// - Parameters:
  ///   - width: channels of the widest of those images.
  ///   - tile: height and width of a piece.
  package static func autoencoderWorkspace(
    size: ImageSize, width: Int, precision: DataType, tile: Int? = nil
  ) -> Int {
    let layers = (4 * width).saturatingMultiply(precision.size)
    guard let tile, max(size.height, size.width) > tile else {
      return size.height.saturatingMultiply(size.width).saturatingMultiply(layers.saturatingAdd(24))
    }
    let piece = min(size.height, tile).saturatingMultiply(min(size.width, tile))
    // Beside the piece its neighbours' edges: half a row of pieces, which overlap by at most a half, in f32.
    let edges = (2 * size.width).saturatingMultiply(tile / 2).saturatingMultiply(12)
    return piece.saturatingMultiply(layers.saturatingAdd(24)).saturatingAdd(edges)
      .saturatingAdd(size.height.saturatingMultiply(size.width).saturatingMultiply(24))
  }

  /// Pixels of a latent, the most channels of a layer of the autoencoder at the picture's size, and the pixels of a piece.
  private static func autoencoderSizes(_ directory: String) throws -> (factor: Int, width: Int, tile: Int) {
    let config = try HubConfig(directory: directory)
    if try config.string("_class_name") == "AutoencoderTiny" {
      let tiny = try AutoencoderTinyConfiguration(config)
      return (tiny.factor, max(tiny.decoderChannels, tiny.encoderChannels), AutoencoderTiny.tiling.sampleSize)
    }
    let configuration = try AutoencoderKLConfiguration(config)
    return (configuration.factor, configuration.blockOutChannels.prefix(2).max() ?? 1, configuration.sampleSize)
  }
}

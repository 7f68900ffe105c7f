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
  /// - Throws: ``ModelError``; ``QuernError`` for sizes that do not fit.
  public static func memoryNeed(
    directory: String, precision: DataType = .f32, size: ImageSize? = nil, isGuided: Bool = true
  ) throws -> MemoryNeed {
    let pipeline = try PipelineConfiguration(directory: directory)
    let unet = try UNetConfiguration(HubConfig(directory: "\(directory)/unet"))
    let (factor, width) = try autoencoderSizes("\(directory)/vae")
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
      autoencoderWorkspace(size: size, width: width, precision: precision))
    return need
  }

  /// Bytes for a picture: two images between which the layers go back and forth, a layer's own two, and the picture in f32.
  package static func autoencoderWorkspace(size: ImageSize, width: Int, precision: DataType) -> Int {
    let pixel = (4 * width).saturatingMultiply(precision.size).saturatingAdd(24)
    return size.height.saturatingMultiply(size.width).saturatingMultiply(pixel)
  }

  /// Pixels of a latent, and the most channels of a layer of the autoencoder at the picture's size.
  private static func autoencoderSizes(_ directory: String) throws -> (factor: Int, width: Int) {
    let config = try HubConfig(directory: directory)
    if try config.string("_class_name") == "AutoencoderTiny" {
      let tiny = try AutoencoderTinyConfiguration(config)
      return (tiny.factor, max(tiny.decoderChannels, tiny.encoderChannels))
    }
    let configuration = try AutoencoderKLConfiguration(config)
    return (configuration.factor, configuration.blockOutChannels.prefix(2).max() ?? 1)
  }
}

import Quern
import QuernModels

/// Text to picture by latent diffusion (Rombach et al., arXiv 2112.10752), from a directory as diffusers publishes it; also from picture
/// to picture (Meng et al., arXiv 2108.01073) and into a part of one (Lugmayr et al., arXiv 2201.09865, without resampling; or, by a U-Net
/// trained for it, Rombach et al., section 4.5).
///
/// ```swift
/// let pipeline = try DiffusionPipeline(directory: "sd-turbo", context: Context(), precision: .bf16)
/// var request = DiffusionRequest(prompt: "a cat", seed: 7)
/// request.steps = 20
/// let picture = try pipeline.generate(request) { step in print(step.index); return .proceed }.image
/// ```
///
/// A seed's picture is the same for any number of threads. Immutable and `Sendable`: one pipeline serves any number of tasks.
public final class DiffusionPipeline: Sendable {
  public let configuration: PipelineConfiguration
  /// The directory's own.
  public let scheduler: SchedulerConfiguration
  public let unet: UNet2DConditionModel
  public let autoencoder: any LatentAutoencoder
  public let context: Context
  /// Whether the U-Net was trained to inpaint. Its input is `[z, m, E(x (1 - m))]`: noisy latents z, the mask m, and the latents of the
  /// image x without what is masked, 2 `latentChannels` + 1 channels; a run needs ``DiffusionRequest/initialImage`` and
  /// ``DiffusionRequest/mask``.
  public let hasInpaintingUNet: Bool
  private let prompts: PromptEncoder

  /// - Parameters:
  ///   - directory: `model_index.json` and a folder for each part.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and activations; the autoencoder of SDXL, whose activations leave f16's range, has f32 in its
  ///     place.
  ///   - adapters: added to the weights of U-Net and text encoders as they are read.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public init(
    directory: String, context: Context, precision: DataType = .f32, adapters: [DiffusionLoRA] = []
  ) throws {
    let configuration = try PipelineConfiguration(directory: directory)
    for adapter in adapters where adapter.parts.contains(.textEncoder2) && configuration.kind != .stableDiffusionXL {
      throw ModelError(
        file: adapter.path, field: "tensors", reason: "some are of a second text encoder, which \(directory) lacks")
    }
    (self.configuration, self.context) = (configuration, context)
    scheduler = try SchedulerConfiguration(directory: "\(directory)/scheduler")
    prompts = try PromptEncoder(
      directory: directory, configuration, adapters: adapters, context: context, precision: precision)
    unet = try UNet2DConditionModel(
      directory: "\(directory)/unet", context: context, precision: precision, adapters: adapters)
    let needsRange = configuration.kind == .stableDiffusionXL && precision == .f16
    autoencoder = try LatentAutoencoders.open(
      directory: "\(directory)/vae", context: context, precision: needsRange ? .f32 : precision)
    func refuse(_ part: String, _ field: String, _ reason: String) -> ModelError {
      ModelError(file: "\(directory)/\(part)/config.json", field: field, reason: reason)
    }
    let (channels, inputs) = (autoencoder.latentChannels, unet.configuration.inChannels)
    hasInpaintingUNet = inputs == 2 * channels + 1
    guard hasInpaintingUNet || inputs == channels, unet.configuration.outChannels == channels else {
      throw refuse(
        "unet", "in_channels",
        "\(inputs) to \(unet.configuration.outChannels), where the autoencoder's latents have \(channels) channels; "
          + "\(channels), or \(2 * channels + 1) for inpainting, to \(channels) are supported")
    }
    guard autoencoder.pictureChannels == 3 else {
      throw refuse("vae", "out_channels", "is \(autoencoder.pictureChannels); pictures have 3")
    }
    guard unet.configuration.crossAttentionDim.allSatisfy({ [prompts] in $0 == prompts.width }) else {
      throw refuse("unet", "cross_attention_dim", "the text encoders' states have \(prompts.width) elements")
    }
  }

  /// Memory of a run: grows to the largest it has met.
  ///
  /// Not `Sendable`: one for each task.
  public final class Workspace {
    let unet: UNetWorkspace
    let autoencoder: AutoencoderWorkspace

    public init() throws { (unet, autoencoder) = (try UNetWorkspace(), try AutoencoderWorkspace()) }
  }

  /// The size of pictures for which nothing else is asked.
  public var defaultSize: ImageSize {
    let (size, factor) = (unet.configuration.sampleSize ?? ImageSize(64, 64), autoencoder.factor)
    return ImageSize(size.height * factor, size.width * factor)
  }

  /// Makes a picture.
  ///
  /// - Parameters:
  ///   - workspace: memory to use again; a new one where there is none.
  ///   - proceed: called after each step; it may stop the run, and what it throws ends it.
  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` for a request that does not fit the model, such as one without a mask
  ///   where ``hasInpaintingUNet``.
  public func generate(
    _ request: DiffusionRequest, workspace: Workspace? = nil,
    proceed: (DiffusionStep) throws -> DiffusionDecision = { _ in .proceed }
  ) throws -> DiffusionResult {
    let workspace = try workspace ?? Workspace()
    let run = try DiffusionRun(request, self)
    let embeddings = try prompts.encode(
      request.prompt, negative: request.negativePrompt, isGuided: run.isGuided, context)
    let conditioning = try unet.conditioning(
      prompt: embeddings.hidden.view, textEmbeds: embeddings.pooled?.view,
      timeIDs: embeddings.pooled == nil ? nil : try run.timeIDs().view, guidanceScale: run.embeddedGuidance)
    let start = ContinuousClock.now
    let steps = try run(conditioning, workspace, proceed: proceed)
    let stepDuration = ContinuousClock.now - start
    return DiffusionResult(
      image: try decode(run.sample.view, isTiled: request.isTiled, workspace), latents: try channelsFirst(run.sample),
      steps: steps,
      stepDuration: stepDuration)
  }

  /// The picture of a model's latents, `[1, height, width, channels]`.
  func decode(_ latents: TensorView, isTiled: Bool, _ workspace: Workspace) throws -> RGBImage {
    let (height, width) = (latents.shape[1] * autoencoder.factor, latents.shape[2] * autoencoder.factor)
    let unscaled = try MutableTensor(zeros: latents.shape)
    try autoencoder.latentScale.unscale(latents, into: unscaled)
    let picture = try MutableTensor(zeros: Shape(checking: [1, height, width, 3]))
    try autoencoder.decode(
      unscaled.view, tiling: isTiled ? autoencoder.defaultTiling : nil, into: picture,
      workspace: workspace.autoencoder
    ) {}
    return try RGBImage(pixels: picture.view)
  }

  private func channelsFirst(_ latents: MutableTensor) throws -> Tensor {
    let shape = latents.shape
    let result = try MutableTensor(zeros: Shape(shape[0], shape[3], shape[1], shape[2]))
    try context.copy(latents.view.permuted([0, 3, 1, 2]), into: result)
    return try result.copied()
  }
}

import Quern
import QuernModels

/// The latents of one picture on their way from noise, and what a run reads at each step.
final class DiffusionRun {
  let sample: MutableTensor
  let isGuided: Bool
  /// The guidance scale of a U-Net that takes it as an input.
  let embeddedGuidance: Double?
  private let pipeline: DiffusionPipeline
  private let request: DiffusionRequest
  private let size: ImageSize
  private let strength: Double
  private let sampler: DiffusionSampler
  private let guidance: Guidance
  /// `[1, height, width, channels]`.
  private let scaled, prediction, predicted, fresh, noise: MutableTensor
  /// What the U-Net is given: `scaled`, or where it sees a mask `[scaled | mask | latents of the masked image]`.
  private let input: MutableTensor
  /// `[1 or 2, height, width, channels]`.
  private let output: MutableTensor

  init(_ request: DiffusionRequest, _ pipeline: DiffusionPipeline) throws {
    let (kind, unet) = (pipeline.configuration.kind, pipeline.unet.configuration)
    let isConsistency = kind == .latentConsistency
    let scale = request.guidanceScale ?? (isConsistency ? 8.5 : kind == .stableDiffusionXL ? 5 : 7.5)
    guidance = try Guidance(scale: scale, rescale: request.guidanceRescale)
    embeddedGuidance = unet.timeCondProjDim == nil ? nil : scale
    isGuided = guidance.isNeeded && embeddedGuidance == nil && !isConsistency
    (self.request, self.pipeline) = (request, pipeline)
    size = try Self.size(request, pipeline)
    strength = request.initialImage == nil ? 1 : request.strength ?? (request.mask == nil ? 0.8 : 1)
    guard request.strength == nil || request.initialImage != nil else {
      throw QuernError.invalidSetting(
        name: "strength", value: "\(strength)", expected: "an initial image that it is the strength of the change of")
    }
    guard request.mask == nil || request.initialImage != nil else {
      throw QuernError.invalidSetting(name: "mask", value: "a picture", expected: "an initial image that it is of")
    }
    for (name, picture) in [("initialImage", request.initialImage), ("mask", request.mask)]
    where pipeline.hasInpaintingUNet && picture == nil {
      throw QuernError.invalidSetting(
        name: name, value: "none",
        expected: "a picture: a U-Net with \(unet.inChannels) in_channels inpaints, which takes an image and its mask")
    }
    let latent = try pipeline.autoencoder.latentSize(of: size)
    sampler = try DiffusionSampler(
      request.scheduler ?? pipeline.scheduler, steps: request.steps ?? (isConsistency ? 4 : 50), strength: strength,
      eta: request.eta, tokens: latent.height * latent.width / 4)
    let channels = pipeline.autoencoder.latentChannels
    let shape = try Shape(checking: [1, latent.height, latent.width, channels])
    func tensor() throws(QuernError) -> MutableTensor { try MutableTensor(zeros: shape) }
    (sample, scaled, predicted) = (try tensor(), try tensor(), try tensor())
    input =
      pipeline.hasInpaintingUNet
      ? try MutableTensor(zeros: Shape(checking: [1, latent.height, latent.width, unet.inChannels])) : scaled
    (fresh, noise) = (try tensor(), try tensor())
    output = try MutableTensor(zeros: Shape(isGuided ? 2 : 1, shape[1], shape[2], channels))
    prediction = isGuided ? try tensor() : output
    try fillNoise()
  }

  /// The size that is asked for, which has to be a multiple of the latents'.
  private static func size(_ request: DiffusionRequest, _ pipeline: DiffusionPipeline) throws(QuernError) -> ImageSize {
    let factor = pipeline.autoencoder.factor
    if let size = request.size {
      for (name, extent) in [("width", size.width), ("height", size.height)] {
        guard extent > 0, extent % factor == 0, extent <= 1 << 14 else {
          throw .invalidSetting(
            name: name, value: "\(extent)", expected: "a multiple of \(factor), the pixels of a latent, up to 16384")
        }
      }
      return size
    }
    guard let image = request.initialImage else { return pipeline.defaultSize }
    let size = ImageSize(image.height / factor * factor, image.width / factor * factor)
    guard size.height > 0, size.width > 0 else {
      throw .invalidSetting(
        name: "initialImage", value: "\(image.width)x\(image.height)", expected: "at least \(factor) pixels each way")
    }
    return size
  }

  private func fillNoise() throws {
    guard let latents = request.latents else {
      return try request.noise.fill(noise, .initial, context: pipeline.context)
    }
    let expected = Shape(1, noise.shape[3], noise.shape[1], noise.shape[2])
    guard latents.shape == expected else {
      throw QuernError.invalidSetting(
        name: "latents", value: "\(latents.shape)",
        expected: "\(expected) for a picture of \(size.width)x\(size.height)")
    }
    try pipeline.context.copy(latents.view.permuted([0, 2, 3, 1]), into: noise)
  }

  /// SDXL's original size, crop and target size.
  func timeIDs() throws -> Tensor {
    let row = [size.height, size.width, 0, 0, size.height, size.width].map { Float($0) }
    return isGuided ? try Tensor(row + row, shape: Shape(2, 6)) : try Tensor(row, shape: Shape(1, 6))
  }

  /// Goes all steps, or until `proceed` stops; gives how many.
  func callAsFunction(
    _ conditioning: UNetConditioning, _ workspace: DiffusionPipeline.Workspace,
    proceed: (DiffusionStep) throws -> DiffusionDecision
  ) throws -> Int {
    let (unet, context) = (pipeline.unet, pipeline.context)
    let kept = try start(workspace)
    // One closure for all steps: each would take memory of its own.
    let decode = { (latents: TensorView) throws in
      try self.pipeline.decode(latents, isTiled: self.request.isTiled, workspace)
    }
    for step in 0..<sampler.count {
      let begin = ContinuousClock.now
      try sampler.scaleModelInput(sample.view, step: step, into: scaled)
      if pipeline.hasInpaintingUNet { try context.copy(scaled.view, into: input.columns(0..<scaled.shape[3])) }
      try unet.forward(
        input.view, timestep: sampler.timesteps[step], conditioning: conditioning, layout: .channelsLast,
        workspace: workspace.unet, into: output)
      if isGuided { try guidance(output.view, into: prediction) }
      try sampler.predictedOriginal(step, output: prediction.view, sample: sample.view, into: predicted)
      if sampler.needsNoise(step) { try request.noise.fill(fresh, .step(step), context: context) }
      try sampler.step(step, output: prediction.view, sample: sample, noise: fresh.view)
      if let kept {
        // Of the initial image, with the noise that the next step expects.
        try sampler.addNoise(noise.view, to: kept.original.view, step: step + 1, into: scaled)
        kept.restore(scaled, in: sample)
      }
      let report = DiffusionStep(
        index: step, count: sampler.count, timestep: sampler.timesteps[step], duration: ContinuousClock.now - begin,
        latents: sample.view, predicted: predicted.view,
        decode: decode)
      if try proceed(report) == .stop { return step + 1 }
    }
    return sampler.count
  }

  /// Fills the first sample, and what the U-Net sees of mask and image; gives what inpainting without them puts back.
  private func start(_ workspace: DiffusionPipeline.Workspace) throws -> KeptLatents? {
    let context = pipeline.context
    func startFromNoise() throws {
      try context.scale(noise.view, by: Float(sampler.initialNoiseScale), into: sample)
    }
    guard let image = request.initialImage else {
      try startFromNoise()
      return nil
    }
    // One draw serves the image with and without its mask.
    try request.noise.fill(fresh, .posterior, context: context)
    let pixels = try MutableTensor(zeros: Shape(checking: [1, size.height, size.width, 3]))
    try image.resized(height: size.height, width: size.width, .lanczos).write(to: pixels)
    let mask = try request.mask.map {
      InpaintingMask(try $0.resized(height: size.height, width: size.width, .lanczos))
    }
    let isNoiseAlone = mask != nil && strength == 1
    if isNoiseAlone { try startFromNoise() }
    var kept: KeptLatents?
    if !isNoiseAlone || !pipeline.hasInpaintingUNet {
      let original = try encode(pixels, workspace)
      if !isNoiseAlone { try sampler.addNoise(noise.view, to: original.view, into: sample) }
      if let mask, !pipeline.hasInpaintingUNet { kept = KeptLatents(original, mask) }
    }
    if let mask, pipeline.hasInpaintingUNet {
      mask.hide(in: pixels)
      let (channels, all) = (scaled.shape[3], input.shape[3])
      try context.copy(encode(pixels, workspace).view, into: input.columns(channels + 1..<all))
      for (latent, isWhite) in mask.atLatents(of: input.shape).enumerated() {
        input.pointer[latent * all + channels] = isWhite ? 1 : 0
      }
    }
    return kept
  }

  /// Latents of a picture, of the scale of the U-Net's.
  private func encode(
    _ pixels: MutableTensor, _ workspace: DiffusionPipeline.Workspace
  ) throws -> MutableTensor {
    let (autoencoder, latents) = (pipeline.autoencoder, try MutableTensor(zeros: sample.shape))
    try autoencoder.encode(
      pixels.view, noise: fresh.view, tiling: request.isTiled ? autoencoder.defaultTiling : nil, into: latents,
      workspace: workspace.autoencoder
    ) {}
    try autoencoder.latentScale.scale(latents.view, into: latents)
    return latents
  }
}

import Quern
import QuernModels

/// One picture to be made; see ``DiffusionPipeline/generate(_:workspace:proceed:)``.
public struct DiffusionRequest: Sendable {
  public var prompt: String
  /// What guidance leads away from; `nil` for the empty prompt.
  public var negativePrompt: String?
  /// Steps from noise alone to the picture; `nil` for diffusers' 50, or 4 of a latent consistency model.
  public var steps: Int?
  /// Guidance (Ho and Salimans, arXiv 2207.12598), none up to 1; `nil` for diffusers' 7.5, 5 of SDXL and 8.5 of a latent consistency
  /// model.
  public var guidanceScale: Double?
  /// See ``Guidance/rescale``.
  public var guidanceRescale = 0.0
  /// Of the picture; `nil` for that of the training, or of ``initialImage``.
  public var size: ImageSize?
  /// The seed, and another that the noise is turned towards.
  public var noise: NoiseSource
  /// In place of the model's scheduler.
  public var scheduler: SchedulerConfiguration?
  /// DDIM's noise.
  public var eta = 0.0
  /// The picture that a run starts from, in place of noise alone.
  public var initialImage: RGBImage?
  /// Where the picture is made anew, white; black keeps ``initialImage``. Half of white or more is white.
  public var mask: RGBImage?
  /// How much of ``initialImage`` becomes noise first: the share of the steps that is run.
  public var strength: Double?
  /// The first noise, `[1, channels, height, width]` of mean 0 and variance 1, in place of the seed's.
  public var latents: Tensor?
  /// The autoencoder works piece by piece, in less memory and with small differences; see ``LatentAutoencoder/defaultTiling``.
  public var isTiled = false

  public init(prompt: String, seed: UInt64 = 0) {
    (self.prompt, noise) = (prompt, NoiseSource(seed: seed))
  }
}

/// What a callback sees of a step that has been done.
public struct DiffusionStep {
  /// From 0, of ``count``.
  public let index: Int
  public let count: Int
  /// What the U-Net was given.
  public let timestep: Double
  /// How long the step took.
  public let duration: Duration
  /// After the step, `[1, height, width, channels]`, valid in the callback alone.
  public let latents: TensorView
  /// The latents of the picture as the model sees it by now, likewise.
  public let predicted: TensorView
  let decode: (TensorView) throws -> RGBImage

  /// Decodes ``predicted``.
  public func preview() throws -> RGBImage { try decode(predicted) }
}

/// What a callback wants of a run.
public enum DiffusionDecision: Sendable {
  case proceed
  /// The picture is decoded as it is by now.
  case stop
}

/// A run's picture.
public struct DiffusionResult: Sendable {
  public let image: RGBImage
  /// What the picture was decoded from, `[1, channels, height, width]`, as diffusers has them with `output_type="latent"`.
  public let latents: Tensor
  /// The steps that were run.
  public let steps: Int
  /// Without the text encoders, and without decoding.
  public let stepDuration: Duration
}

import QuernModels

/// What `model_index.json` of a diffusers directory says of the pipeline: its kind, and that every part is one that is implemented.
public struct PipelineConfiguration: Sendable, Equatable {
  public enum Kind: Sendable, Equatable {
    /// Stable Diffusion 1.x and 2.x (Rombach et al., arXiv 2112.10752): the last hidden state of one text encoder.
    case stableDiffusion
    /// Podell et al., arXiv 2307.01952: the penultimate states of two, a pooled embedding and the picture's sizes.
    case stableDiffusionXL
    /// Luo et al., arXiv 2310.04378: the guidance scale is an input of the U-Net.
    case latentConsistency
  }

  public var kind: Kind
  /// `_class_name`.
  public var className: String
  /// In place of an empty negative prompt SDXL has zeros.
  public var forceZerosForEmptyPrompt: Bool

  /// Pictures from noise, from pictures and into parts of pictures are runs of one model.
  private static let kinds: [(className: String, kind: Kind)] = [
    ("StableDiffusionPipeline", .stableDiffusion), ("StableDiffusionImg2ImgPipeline", .stableDiffusion),
    ("StableDiffusionInpaintPipeline", .stableDiffusion), ("StableDiffusionXLPipeline", .stableDiffusionXL),
    ("StableDiffusionXLImg2ImgPipeline", .stableDiffusionXL), ("StableDiffusionXLInpaintPipeline", .stableDiffusionXL),
    ("LatentConsistencyModelPipeline", .latentConsistency),
    ("LatentConsistencyModelImg2ImgPipeline", .latentConsistency),
  ]
  /// What a published directory may name and a run does not need.
  private static let unused = ["safety_checker", "feature_extractor", "image_encoder"]

  /// - Throws: ``ModelError`` naming file and field for a part that is missing, and for classes and parts that are not implemented.
  public init(directory: String) throws(ModelError) {
    let config = try HubConfig(directory: directory, name: "model_index.json")
    className = try config.string("_class_name", oneOf: Self.kinds.map(\.className))
    kind = Self.kinds.first { [className] in $0.className == className }?.kind ?? .stableDiffusion
    forceZerosForEmptyPrompt = try config.bool("force_zeros_for_empty_prompt", default: true)
    let parts = try ModelIndex(config).parts
    for part in Self.parts(of: kind) {
      guard let found = parts[part.name] else {
        throw ModelError(
          file: config.path, field: part.name, reason: "is missing; a \(className) needs a \(part.classes[0])")
      }
      guard part.classes.contains(found.className) else {
        throw try config.root.required(part.name).error(
          "\(found.className) is not supported; supported: \(part.classes.joined(separator: ", "))")
      }
    }
    let known = Self.parts(of: kind).map(\.name) + Self.unused
    for name in parts.keys.sorted() where !known.contains(name) {
      throw try config.root.required(name).error("is a part that is not supported")
    }
  }

  private static func parts(of kind: Kind) -> [(name: String, classes: [String])] {
    let tokenizers = ["CLIPTokenizer", "CLIPTokenizerFast"]
    let second = [("text_encoder_2", ["CLIPTextModelWithProjection"]), ("tokenizer_2", tokenizers)]
    return [
      ("unet", ["UNet2DConditionModel"]), ("vae", ["AutoencoderKL", "AutoencoderTiny"]),
      ("scheduler", SchedulerConfiguration.classNames), ("text_encoder", ["CLIPTextModel"]), ("tokenizer", tokenizers),
    ] + (kind == .stableDiffusionXL ? second : [])
  }
}

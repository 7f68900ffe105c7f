import Quern
import QuernModels

/// A low-rank adaptation of the parts of a latent diffusion model, `W + weight alpha/r B A` (LoRA: Hu et al., arXiv 2106.09685), added to
/// the weights as they are read.
///
/// Reads the names of diffusers, `unet.NAME.lora_A.weight` and its older forms `NAME.lora.down.weight` and
/// `NAME.processor.to_q_lora.down.weight`, and those of kohya's trainer, `lora_unet_NAME.lora_down.weight` and `.alpha`, with the layers of
/// SDXL under their original names too.
///
/// ```swift
/// let lora = try DiffusionLoRA(path: "pixel-art.safetensors", weight: 0.8)
/// let unet = try UNet2DConditionModel(directory: "sd/unet", context: Context(), adapters: [lora])
/// ```
public struct DiffusionLoRA: Sendable {
  /// A part of a pipeline.
  public enum Part: String, Sendable, CaseIterable {
    case unet
    case textEncoder = "text_encoder"
    case textEncoder2 = "text_encoder_2"
  }

  public let path: String
  /// What its updates are multiplied by, beside their own scale.
  public var weight: Float
  /// The parts that it changes. Each has to be read with it.
  public var parts: [Part] { Part.allCases.filter { modules[$0] != nil } }

  struct Module: Sendable {
    /// The names of A, `[r, inputs]`, of B, `[outputs, r]`, and of the scale's numerator, which is r where there is none.
    var down, up, alpha: String?
  }

  /// By part and ``key(_:)``.
  let modules: [Part: [String: Module]]
  let source: Safetensors
  /// The scale's numerator where the modules have none of their own, and whether its denominator is √r (arXiv 2312.03732).
  let shared: [Part: (alpha: Double?, dividesByRoot: Bool)]

  /// - Parameter path: a safetensors file, or a directory with `pytorch_lora_weights.safetensors`.
  /// - Throws: ``ModelError`` for names that are no such update (DoRA, LoHa, LoKr and the like), and pairs without one of their
  ///   halves.
  public init(path: String, weight: Float = 1) throws(ModelError) {
    let file = ModelFile.isDirectory(path) ? "\(path)/pytorch_lora_weights.safetensors" : path
    let source = try Safetensors(path: file)
    var modules: [Part: [String: Module]] = [:]
    for name in source.tensorNames {
      guard let (part, module, role) = Self.parse(name) else {
        throw ModelError(
          file: file, field: "tensors.\(name)", offset: try source.info(name).byteRange.lowerBound,
          reason: "is not supported; supported: NAME.lora_A.weight, NAME.lora.down.weight, NAME.to_q_lora.down.weight, "
            + "their B and up, lora_unet_NAME.lora_down.weight, lora_up.weight and alpha")
      }
      let key = Self.key(module)
      var found = modules[part]?[key] ?? Module()
      guard found[keyPath: role] == nil else {
        throw ModelError(
          file: file, field: "tensors.\(name)", reason: "is the same as \(found[keyPath: role] ?? "")")
      }
      found[keyPath: role] = name
      modules[part, default: [:]][key] = found
    }
    for module in modules.values.flatMap(\.values) where module.down == nil || module.up == nil {
      throw ModelError(
        file: file, field: "tensors.\(module.down ?? module.up ?? module.alpha ?? "")",
        reason: "has no \(module.down == nil ? "A (down)" : "B (up)") beside it")
    }
    (self.path, self.weight, self.modules, self.source) = (file, weight, modules, source)
    shared = try Self.shared(source)
  }

  /// What a name of a module has in common in all spellings.
  static func key(_ module: some StringProtocol) -> String { String(module.map { $0 == "." ? "_" : $0 }) }

  private static func parse(_ name: String) -> (Part, String, WritableKeyPath<Module, String?>)? {
    let prefixes: [(String, Part, isFlat: Bool)] = [
      ("lora_unet_", .unet, true), ("lora_te_", .textEncoder, true), ("lora_te1_", .textEncoder, true),
      ("lora_te2_", .textEncoder2, true), ("unet.", .unet, false), ("text_encoder.", .textEncoder, false),
      ("text_encoder_2.", .textEncoder2, false),
    ]
    // Without a part, the names are those of a U-Net, as diffusers once saved them.
    let found = prefixes.first { name.hasPrefix($0.0) } ?? ("", .unet, false)
    let rest = name.dropFirst(found.0.count)
    if rest.hasSuffix(".alpha") { return (found.1, String(rest.dropLast(6)), \.alpha) }
    if found.isFlat {
      for (ending, role) in [(".lora_down.weight", \Module.down), (".lora_up.weight", \.up)] {
        if rest.hasSuffix(ending) { return (found.1, String(rest.dropLast(ending.count)), role) }
      }
      return nil
    }
    for (side, old, role) in [("A", "down", \Module.down), ("B", "up", \.up)] {
      let endings = [
        ".lora_\(side).weight", ".lora_\(side).default.weight", ".lora.\(old).weight",
        ".lora_linear_layer.\(old).weight",
      ]
      for ending in endings where rest.hasSuffix(ending) {
        return (found.1, String(rest.dropLast(ending.count)), role)
      }
      for layer in ["to_q", "to_k", "to_v", "to_out"] where rest.hasSuffix(".\(layer)_lora.\(old).weight") {
        let stem = rest.dropLast(".\(layer)_lora.\(old).weight".count)
        let attention = stem.hasSuffix(".processor") ? stem.dropLast(".processor".count) : stem
        return (found.1, "\(attention).\(own(layer, in: found.1))", role)
      }
    }
    return nil
  }

  /// What the model itself calls a layer that a processor of diffusers calls `to_q` and so on.
  private static func own(_ layer: String, in part: Part) -> String {
    if part == .unet { return layer == "to_out" ? "to_out.0" : layer }
    return layer == "to_out" ? "out_proj" : "\(layer.suffix(1))_proj"
  }

  /// What diffusers writes into a file's metadata: the options of PEFT, part by part.
  private static func shared(_ source: Safetensors) throws(ModelError) -> [Part: (alpha: Double?, dividesByRoot: Bool)]
  {
    guard let text = source.metadata["lora_adapter_metadata"] else { return [:] }
    let options = try JSONDocument(text: text.utf8, file: source.path).root
    var found: [Part: (alpha: Double?, dividesByRoot: Bool)] = [:]
    for part in Part.allCases {
      for key in ["use_dora", "lora_bias"] {
        if let field = try options.optional("\(part.rawValue).\(key)"), try field.bool() {
          throw field.error("true is not supported")
        }
      }
      if let field = try options.optional("\(part.rawValue).alpha_pattern"), field.kind != .object || field.count > 0 {
        throw field.error("is not supported")
      }
      found[part] = (
        try options.optional("\(part.rawValue).lora_alpha")?.double(),
        try options.optional("\(part.rawValue).use_rslora")?.bool() ?? false
      )
    }
    return found
  }
}

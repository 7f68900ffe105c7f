import Quern

/// A low-rank adaptation of a model's linear layers, `W + weight alpha/r B A` (LoRA: Hu et al., arXiv 2106.09685), as PEFT saves it:
/// `adapter_config.json` and `adapter_model.safetensors`.
///
/// ```swift
/// let model = try DecoderModel(path: "Llama-3.2-1B", context: Context(), adapters: [LoRAAdapter(directory: "my-lora")])
/// ```
public struct LoRAAdapter: Sendable {
  public let directory: String
  /// What its updates are multiplied by, beside its own scale.
  public var weight: Float
  /// The layers that it changes, as PEFT names them: `model.layers.0.self_attn.q_proj`.
  public let moduleNames: [String]
  /// `lora_alpha`, and whether it is divided by √r (rsLoRA: arXiv 2312.03732) instead of r.
  let alpha: Double
  let dividesByRoot: Bool
  private let source: Safetensors
  private let modules: [UTF8Key: Module]

  private struct Module {
    var a: String?
    var b: String?
  }

  /// - Throws: ``ModelError`` for what is not plain LoRA (DoRA, biases, whole modules, patterns of alpha), tensors that are no pair of an A
  ///   and a B, and ranks that differ.
  public init(directory: String, weight: Float = 1) throws(ModelError) {
    let config = try HubConfig(directory: directory, name: "adapter_config.json")
    _ = try config.string("peft_type", oneOf: ["LORA"])
    for key in ["use_dora", "lora_bias"] {
      if let field = try config.root.optional(key), try field.bool() { throw field.error("true is not supported") }
    }
    for key in ["modules_to_save", "alpha_pattern", "layer_replication", "target_parameters"] {
      guard let field = try config.root.optional(key) else { continue }
      guard [.array, .object].contains(field.kind), field.count == 0 else { throw field.error("is not supported") }
    }
    _ = try config.string("bias", oneOf: ["none"], default: "none")
    alpha = try config.positive("lora_alpha", default: 8)
    dividesByRoot = try config.bool("use_rslora", default: false)
    source = try Safetensors(path: "\(directory)/adapter_model.safetensors")
    (self.directory, self.weight) = (directory, weight)
    var modules: [UTF8Key: Module] = [:]
    for name in source.tensorNames {
      let (module, isA) = try Self.module(of: name, source)
      if isA {
        modules[UTF8Key(module), default: Module()].a = name
      } else {
        modules[UTF8Key(module), default: Module()].b = name
      }
    }
    for (module, pair) in modules {
      guard let a = pair.a, let b = pair.b else {
        throw ModelError(
          file: source.path, field: "tensors.\(pair.a ?? pair.b ?? "")",
          reason: "\(module.name) has \(pair.a == nil ? "no lora_A" : "no lora_B")")
      }
      let (first, second) = (try source.info(a), try source.info(b))
      guard first.shape.count == 2, second.shape.count == 2, first.shape[0] == second.shape[1], first.shape[0] > 0
      else {
        throw ModelError(
          file: source.path, field: "tensors.\(a).shape", offset: first.byteRange.lowerBound,
          reason: "\(first.shape) and \(b) \(second.shape) are not [r, inputs] and [outputs, r]")
      }
    }
    self.modules = modules
    moduleNames = modules.keys.sorted().map(\.name)
  }

  /// The layer that a tensor is about, and whether it is its A.
  private static func module(of name: String, _ source: Safetensors) throws(ModelError) -> (String, isA: Bool) {
    var module = Substring(name)
    for prefix in ["base_model.model.", "base_model."] where module.hasPrefix(prefix) {
      module = module.dropFirst(prefix.count)
      break
    }
    for (side, isA) in [("lora_A", true), ("lora_B", false)] {
      for ending in [".\(side).weight", ".\(side).default.weight"] where module.hasSuffix(ending) {
        return (String(module.dropLast(ending.count)), isA)
      }
    }
    throw ModelError(
      file: source.path, field: "tensors.\(name)", offset: try source.info(name).byteRange.lowerBound,
      reason: "is not supported; supported: NAME.lora_A.weight and NAME.lora_B.weight")
  }

  /// A `[r, inputs]` and `scale B` `[outputs, r]` of a module, checked against the layer's sizes; `nil` where it leaves it alone.
  func pair(_ module: String, outputs: Int, inputs: Int) throws -> (a: Tensor, b: Tensor)? {
    guard let pair = modules[UTF8Key(module)], let a = pair.a, let b = pair.b else { return nil }
    let (first, second) = (try source.info(a), try source.info(b))
    let rank = first.shape[0]
    guard first.shape[1] == inputs, second.shape[0] == outputs else {
      throw ModelError(
        file: source.path, field: "tensors.\(a).shape", offset: first.byteRange.lowerBound,
        reason: "\(first.shape) and \(b) \(second.shape) do not fit a layer [\(outputs), \(inputs)]")
    }
    let scale = Float(alpha / (dividesByRoot ? Double(rank).squareRoot() : Double(rank))) * weight
    return (
      try Tensor(shape: Shape(rank, inputs)) { try source.readFloat32(a, into: $0) },
      try Tensor(shape: Shape(outputs, rank)) { values in
        try source.readFloat32(b, into: values)
        for index in values.indices { values[index] *= scale }
      }
    )
  }
}

/// The adapters of a model that is being loaded, and which of their layers it has had.
final class AdapterSet {
  private let adapters: [LoRAAdapter]
  /// What adapters put before the names of layers.
  private let prefixes: [String]
  /// Whether the updates are added to the weights.
  let merges: Bool
  private var used: [Set<String>]

  init(_ adapters: [LoRAAdapter], merging: Bool, prefixes: [String]) {
    (self.adapters, merges, self.prefixes) = (adapters, merging, prefixes)
    used = adapters.map { _ in [] }
  }

  /// The updates of a product of stacked layers, those of all adapters together: down `[Σ r, inputs]`, and up `[outputs, Σ r]`, zero but for the
  /// rows and columns of each pair. `nil` for none.
  func update(_ layer: LinearLayer) throws -> (down: MutableTensor, up: MutableTensor)? {
    var pairs: [(first: Int, a: Tensor, b: Tensor)] = []
    var first = 0
    for part in layer.parts {
      for (index, adapter) in adapters.enumerated() {
        for prefix in prefixes {
          guard let pair = try adapter.pair(prefix + part.name, outputs: part.outputs, inputs: layer.inputs) else {
            continue
          }
          used[index].insert(prefix + part.name)
          pairs.append((first, pair.a, pair.b))
          break
        }
      }
      first += part.outputs
    }
    let rank = pairs.reduce(0) { $0 + $1.a.shape[0] }
    guard rank > 0 else { return nil }
    let down = try MutableTensor(zeros: Shape(rank, layer.inputs))
    let up = try MutableTensor(zeros: Shape(layer.outputs, rank))
    let context = Context(backend: ReferenceBackend())
    var column = 0
    for pair in pairs {
      let columns = column..<column + pair.a.shape[0]
      try context.copy(pair.a.view, into: down.rows(columns))
      try context.copy(pair.b.view, into: up.rows(pair.first..<pair.first + pair.b.shape[0]).columns(columns))
      column = columns.upperBound
    }
    return (down, up)
  }

  /// - Throws: ``ModelError`` for a layer of an adapter that the model did not ask for.
  func requireAllUsed() throws(ModelError) {
    for (adapter, used) in zip(adapters, used) {
      guard let name = adapter.moduleNames.first(where: { !used.contains($0) }) else { continue }
      throw ModelError(
        file: adapter.directory, field: "tensors.\(name)",
        reason: "is no layer of this model that adapters reach: queries, keys, values, outputs and dense feed-forward "
          + "parts; is it an adapter of another model?")
    }
  }
}

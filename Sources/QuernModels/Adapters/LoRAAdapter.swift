import Quern

/// A low-rank adaptation of a model's linear layers and embeddings, `W + weight alpha/r B A` (LoRA: Hu et al., arXiv 2106.09685), as
/// PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`.
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
    /// The matrix that the pair goes beside, of which PEFT saves a copy where it is that of embeddings or of a head.
    var base: String?
  }

  /// What a tensor is of its module.
  private enum Role: CaseIterable {
    case a, b, base

    /// How the names of such tensors end; those of embeddings have no `.weight`.
    var endings: [String] {
      switch self {
      case .a: [".lora_A.weight", ".lora_A.default.weight", ".lora_embedding_A", ".lora_embedding_A.default"]
      case .b: [".lora_B.weight", ".lora_B.default.weight", ".lora_embedding_B", ".lora_embedding_B.default"]
      case .base: [".base_layer.weight"]
      }
    }
  }

  /// Copies of the model's own embeddings and head, which PEFT saves beside their updates, are taken to be what the model has, if
  /// they have its sizes.
  ///
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
      let (module, role) = try Self.module(of: name, source)
      switch role {
      case .a: modules[UTF8Key(module), default: Module()].a = name
      case .b: modules[UTF8Key(module), default: Module()].b = name
      case .base: modules[UTF8Key(module), default: Module()].base = name
      }
    }
    for (module, pair) in modules {
      guard let a = pair.a, let b = pair.b else {
        throw ModelError(
          file: source.path, field: "tensors.\(pair.a ?? pair.b ?? pair.base ?? "")",
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

  /// The layer that a tensor is about, and what it is of it.
  private static func module(of name: String, _ source: Safetensors) throws(ModelError) -> (String, Role) {
    var module = Substring(name)
    for prefix in ["base_model.model.", "base_model."] where module.hasPrefix(prefix) {
      module = module.dropFirst(prefix.count)
      break
    }
    for role in Role.allCases {
      for ending in role.endings where module.hasSuffix(ending) { return (String(module.dropLast(ending.count)), role) }
    }
    throw ModelError(
      file: source.path, field: "tensors.\(name)", offset: try source.info(name).byteRange.lowerBound,
      reason:
        "is not supported; supported: NAME.lora_A.weight and NAME.lora_B.weight, and for embeddings NAME.lora_embedding_A and "
        + "NAME.lora_embedding_B")
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
    if let base = try pair.base.map({ (name) throws(ModelError) in (name: name, info: try source.info(name)) }) {
      // Embeddings are looked up by input, so that their rows are inputs.
      guard [[outputs, inputs], [inputs, outputs]].contains(base.info.shape) else {
        throw ModelError(
          file: source.path, field: "tensors.\(base.name).shape", offset: base.info.byteRange.lowerBound,
          reason:
            "\(base.info.shape) is a copy of another matrix than the model's [\(outputs), \(inputs)]: its vocabulary has grown"
        )
      }
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
  private let modules: AdapterModules
  /// Whether the updates are added to the weights.
  let merges: Bool
  private var used: [Set<String>]

  init(_ adapters: [LoRAAdapter], merging: Bool, modules: AdapterModules) {
    (self.adapters, merges, self.modules) = (adapters, merging, modules)
    used = adapters.map { _ in [] }
  }

  /// The updates of a product of stacked layers, those of all adapters together: down `[Σ r, inputs]`, and up `[outputs, Σ r]`, zero but for the
  /// rows and columns of each pair. `nil` for none.
  func update(_ layer: LinearLayer) throws -> (down: MutableTensor, up: MutableTensor)? {
    var pairs: [(part: LinearLayer.Part, first: Int, a: Tensor, b: Tensor)] = []
    var first = 0
    for part in layer.parts {
      for (index, adapter) in adapters.enumerated() {
        for name in modules.names(of: part) {
          guard let pair = try adapter.pair(name, outputs: part.outputs, inputs: layer.inputs) else { continue }
          used[index].insert(name)
          pairs.append((part, first, pair.a, pair.b))
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
      let rows = try modules.ordered(pair.b, of: pair.part, context)
      try context.copy(rows, into: up.rows(pair.first..<pair.first + pair.part.outputs).columns(columns))
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
        reason:
          "is no layer of this model that adapters reach: queries, keys, values, outputs, routers, dense feed-forward "
          + "parts, embeddings and the head, not experts; is it an adapter of another model?")
    }
  }
}

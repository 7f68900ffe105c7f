/// `quantization_config` of a `config.json` whose model's matrices are in FP8: as DeepSeek-V3 and Qwen3 are published (`fp8`), as
/// llm-compressor writes models for vLLM (`compressed-tensors`), and as Llama 3.1 405B was (`fbgemm_fp8`).
///
/// Which matrices those are is told by their type in the files; `modules_to_not_convert`, `ignored_layers`, `ignore` and the targets of
/// groups say the same again. Activations and caches are not rounded, so that what is said of them makes no difference.
/// Sources: transformers, `FineGrainedFP8Config` and `FbgemmFp8Config`; compressed-tensors, `QuantizationConfig`.
struct FP8Configuration: Sendable {
  /// Rows and columns of a matrix that share a scale, where some do.
  var block: (rows: Int, columns: Int)?
  /// Whether each row of a matrix may have a scale of its own.
  var hasRowScales = false

  /// `nil` where there is no `quantization_config`.
  ///
  /// - Throws: ``ModelError`` for another method or format, and for blocks that are none.
  init?(_ config: HubConfig) throws(ModelError) {
    guard try config.root.optional("quantization_config") != nil else { return nil }
    let section = try config.section("quantization_config")
    switch try section.string("quant_method", oneOf: ["fp8", "compressed-tensors", "fbgemm_fp8"]) {
    case "fp8":
      _ = try section.string("fmt", oneOf: ["e4m3"], default: "e4m3")
      _ = try section.string("activation_scheme", oneOf: ["dynamic", "static"], default: "dynamic")
      block = try Self.block(section, "weight_block_size")
    case "compressed-tensors": try readGroups(section)
    default: hasRowScales = true
    }
  }

  private static func block(_ section: HubConfig, _ key: String) throws(ModelError) -> (rows: Int, columns: Int)? {
    guard let size = try section.root.optional(key) else { return nil }
    guard size.kind == .array, size.count == 2 else { throw size.error("is not [rows, columns]") }
    var extents: [Int] = []
    try size.forEachElement { (extent) throws(ModelError) in extents.append(try extent.int(in: 1...(1 << 24))) }
    return (extents[0], extents[1])
  }

  /// Groups of layers, each with the form of its weights. The shape of a matrix's scales says which of them it has.
  private mutating func readGroups(_ section: HubConfig) throws(ModelError) {
    _ = try section.string("format", oneOf: ["float-quantized", "naive-quantized"])
    if try section.root.optional("sparsity_config") != nil {
      _ = try section.section("sparsity_config").string("format", oneOf: ["dense"], default: "dense")
    }
    if let transforms = try section.root.optional("transform_config"),
      transforms.kind != .object || transforms.count > 0
    {
      throw transforms.error("is not supported: weights are those of the layers as they stand")
    }
    try section.forEachSection(of: "config_groups") { (group) throws(ModelError) in
      guard try group.root.optional("weights") != nil else { return }
      try read(weights: group.section("weights"))
    }
  }

  private mutating func read(weights: HubConfig) throws(ModelError) {
    _ = try weights.int("num_bits", in: 8...8)
    _ = try weights.string("type", oneOf: ["float"])
    switch try weights.string("strategy", oneOf: ["tensor", "channel", "block"], default: "tensor") {
    case "channel": hasRowScales = true
    case "block":
      guard let size = try Self.block(weights, "block_structure") else {
        throw try weights.root.required("strategy").error("is block, and there is no block_structure")
      }
      if let block, block != size {
        throw try weights.root.required("block_structure").error("is not that of another group")
      }
      block = size
    default: break
    }
  }
}

extension SafetensorsDirectory {
  /// The weights of a model directory, those in FP8 with their scales where its `config.json` says so.
  package static func weights(of directory: String) throws(ModelError) -> any TensorSource {
    let base = try SafetensorsDirectory(path: directory)
    return try FP8Tensors(base) ?? base
  }
}

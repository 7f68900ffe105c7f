/// `quantization_config` of a `config.json` whose model's matrices are in FP8, as DeepSeek-V3 and Qwen3 are published.
///
/// Which matrices those are is told by their type in the files; `modules_to_not_convert` and `ignored_layers` say the same again.
/// Activations are not rounded, so that `activation_scheme` makes no difference. Source: transformers, `FineGrainedFP8Config`.
struct FP8Configuration: Sendable {
  /// Rows and columns of a matrix that share a scale; `nil` where all of it does.
  var block: (rows: Int, columns: Int)?

  /// `nil` where there is no `quantization_config`.
  ///
  /// - Throws: ``ModelError`` for another method or format, and for blocks that are none.
  init?(_ config: HubConfig) throws(ModelError) {
    guard try config.root.optional("quantization_config") != nil else { return nil }
    let section = try config.section("quantization_config")
    _ = try section.string("quant_method", oneOf: ["fp8"])
    _ = try section.string("fmt", oneOf: ["e4m3"], default: "e4m3")
    _ = try section.string("activation_scheme", oneOf: ["dynamic", "static"], default: "dynamic")
    guard let size = try section.root.optional("weight_block_size") else { return }
    guard size.kind == .array, size.count == 2 else { throw size.error("is not [rows, columns]") }
    var extents: [Int] = []
    try size.forEachElement { (extent) throws(ModelError) in extents.append(try extent.int(in: 1...(1 << 24))) }
    block = (extents[0], extents[1])
  }
}

extension SafetensorsDirectory {
  /// The weights of a model directory, those in FP8 with their scales where its `config.json` says so.
  package static func weights(of directory: String) throws(ModelError) -> any TensorSource {
    let base = try SafetensorsDirectory(path: directory)
    return try FP8Tensors(base) ?? base
  }
}

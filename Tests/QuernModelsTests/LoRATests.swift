import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Adapters beside the weights and merged into them, against `transformers` with merged weights.
@Suite struct LoRATests {
  static let backends = Backends.names.filter { Backends.unavailability(of: $0) == nil }

  private static func adapter(_ name: String, weight: Float = 1) throws -> LoRAAdapter {
    try LoRAAdapter(directory: Fixture.path("adapters/\(name)"), weight: weight)
  }

  /// The largest difference from the expected logits, as a share of the largest of them.
  private func difference(_ model: DecoderModel, _ base: String, _ adapter: String, _ tensor: String) throws -> Float {
    let inputs = try Safetensors(path: Fixture.path("decoders/\(base)/inputs.safetensors"))
    let ids = try inputs.readInt64("input_ids").prefix(13).map { Int32($0) }
    let (cache, workspace) = (try model.makeCache(capacity: 13), try DecoderModel.Workspace())
    let hidden = try model.forward(ids, segments: Segments(single: 13), cache: cache, workspace: workspace)
    let logits = try model.logits(hidden, rows: (0..<13).map { Int32($0) }, workspace: workspace).elements
    let expected = try Safetensors(path: Fixture.path("adapters/\(adapter)/expected.safetensors"))
      .readFloat32(tensor).prefix(logits.count)
    let largest = expected.map(abs).max() ?? 0
    return (zip(logits, expected).map { abs($0 - $1) }.max() ?? .infinity) / largest
  }

  @Test(arguments: backends, [false, true]) func oneAdapter(_ backend: String, _ merging: Bool) throws {
    for (base, name) in [
      ("qwen2", "qwen2-a"), ("qwen2", "qwen2-b"), ("gpt2", "gpt2"), ("qwen2", "qwen2-head"), ("gemma2", "gemma2-head"),
    ] {
      let model = try DecoderModel(
        path: Fixture.path("decoders/\(base)"), context: Context(backend), precision: .f32,
        adapters: [Self.adapter(name)], mergingAdapters: merging)
      #expect(try difference(model, base, name, "logits") <= 1e-5, "\(name)")
    }
  }

  @Test(arguments: [false, true]) func twoAtOnce(_ merging: Bool) throws {
    let model = try DecoderModel(
      path: Fixture.path("decoders/qwen2"), context: Context(), precision: .f32,
      adapters: [Self.adapter("qwen2-a"), Self.adapter("qwen2-b", weight: 0.5)], mergingAdapters: merging)
    #expect(try difference(model, "qwen2", "qwen2-b", "both") <= 1e-5)
    let plain = try DecoderModel(path: Fixture.path("decoders/qwen2"), context: Context())
    #expect(try difference(plain, "qwen2", "qwen2-b", "both") > 0.01)
  }

  /// Adapters name the layers of Hugging Face directories, whose names and order of rows the files do not have.
  @Test(arguments: [false, true]) func besideGGUFFiles(_ merging: Bool) throws {
    for (base, name) in [("qwen2", "qwen2-a"), ("qwen2", "qwen2-head"), ("gemma2", "gemma2-head")] {
      let model = try DecoderModel(
        path: Fixture.path("decoders/\(base).gguf"), context: Context(), adapters: [Self.adapter(name)],
        mergingAdapters: merging)
      #expect(try difference(model, base, name, "logits") <= 1e-5, "\(name)")
    }
  }

  /// An adapter of every layer that one can have gives a file what it gives the directory that the file was made of.
  @Test(arguments: [
    ("llama3", "llama3"), ("gemma2", "gemma2"), ("qwen3", "qwen3"), ("qwen3-moe-00001-of-00003", "qwen3-moe"),
    ("mixtral", "mixtral"), ("gpt-oss-mxfp4", "gpt-oss-mxfp4"), ("deepseek-v2", "deepseek-v2"),
    ("deepseek-v3", "deepseek-v3"),
  ])
  func filesAndDirectoriesAgree(_ file: String, _ directory: String) throws {
    let folder = try TemporaryFolder()
    let base = Fixture.path("decoders/\(directory)")
    let layers = try Self.writeAdapter(of: base, to: folder.path)
    let adapter = try LoRAAdapter(directory: folder.path)
    #expect(adapter.moduleNames.count == layers && layers > 10)
    func logits(_ path: String, _ adapters: [LoRAAdapter], merging: Bool = false) throws -> [Float] {
      let model = try DecoderModel(
        path: path, context: Context(), precision: .f32, adapters: adapters, mergingAdapters: merging)
      let workspace = try DecoderModel.Workspace()
      let hidden = try model.forward([5, 9, 3, 20, 7], segments: Segments(single: 5), workspace: workspace)
      return try model.logits(hidden, rows: [0, 1, 2, 3, 4], workspace: workspace).elements
    }
    let expected = try logits(base, [adapter])
    let found = try logits("\(base.dropLast(directory.count))\(file).gguf", [adapter])
    let merged = try logits("\(base.dropLast(directory.count))\(file).gguf", [adapter], merging: true)
    #expect(try Parity.difference(found, expected) <= 1e-5)
    #expect(try Parity.difference(merged, expected) <= 1e-4)
    #expect(try Parity.difference(logits(base, []), expected) > 0.01)
  }

  /// Phi-3's, which have one matrix for queries, keys and values, and one for gate and up.
  @Test func stackedMatricesOfFilesAreNamedAsInDirectories() throws {
    var builder = GGUFBuilder()
    builder.string("general.architecture", "phi3")
    for (name, value) in [
      ("embedding_length", 32), ("feed_forward_length", 48), ("attention.head_count", 4), ("context_length", 64),
      ("block_count", 1),
    ] { builder.key("phi3.\(name)", 4, GGUFBuilder.number(UInt32(value))) }
    builder.key("phi3.attention.layer_norm_rms_epsilon", 6, GGUFBuilder.number(Float(1e-5).bitPattern))
    TinyGGUF.addTensors(
      to: &builder,
      [
        ("token_embd", [32, 24]), ("output_norm", [32]), ("blk.0.attn_norm", [32]), ("blk.0.ffn_norm", [32]),
        ("blk.0.attn_qkv", [32, 96]), ("blk.0.attn_output", [32, 32]), ("blk.0.ffn_up", [32, 96]),
        ("blk.0.ffn_down", [48, 32]),
      ])
    let folder = try TemporaryFolder()
    let path = try folder.write("m.gguf", builder.bytes)
    func logits(_ adapters: [LoRAAdapter]) throws -> [Float] {
      let model = try DecoderModel(path: path, context: Context(), adapters: adapters)
      let workspace = try DecoderModel.Workspace()
      let hidden = try model.forward([3, 1, 2], segments: Segments(single: 3), workspace: workspace)
      return try model.logits(hidden, rows: [2], workspace: workspace).elements
    }
    let plain = try logits([])
    for module in ["self_attn.qkv_proj", "mlp.gate_up_proj"] {
      try Self.write([("model.layers.0.\(module)", [96, 32])], to: folder.path)
      #expect(try logits([LoRAAdapter(directory: folder.path)]) != plain, "\(module)")
    }
    try Self.write([("model.layers.0.self_attn.q_proj", [32, 32])], to: folder.path)
    let error = modelError { _ = try logits([LoRAAdapter(directory: folder.path)]) }
    #expect(error?.field == "tensors.model.layers.0.self_attn.q_proj")
  }

  /// A random adapter of all matrices of a directory that adapters reach; how many they are.
  private static func writeAdapter(of directory: String, to folder: String) throws -> Int {
    let source = try SafetensorsDirectory(path: directory)
    let reached = [
      "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "gate", "router", "q_a_proj",
      "q_b_proj", "kv_a_proj_with_mqa", "lm_head", "embed_tokens",
    ]
    var shapes = try source.tensorNames.compactMap { name -> (module: String, shape: [Int])? in
      let module = name.hasSuffix(".weight") ? String(name.dropLast(".weight".count)) : ""
      let isReached = !module.contains(".experts.") && reached.contains { module == $0 || module.hasSuffix(".\($0)") }
      return isReached ? (module, try source.info(name).shape) : nil
    }
    let vocabulary = try source.info("model.embed_tokens.weight").shape
    if !source.contains("lm_head.weight") { shapes.append(("lm_head", vocabulary)) }
    try write(shapes, to: folder)
    return shapes.count
  }

  /// A random adapter of matrices of these shapes.
  private static func write(_ shapes: [(module: String, shape: [Int])], to folder: String) throws {
    var random = SeededRandom(seed: 17)
    func tensor(_ name: String, _ shape: [Int]) -> Safetensors.NewTensor {
      let values = (0..<shape[0] * shape[1]).map { _ in 0.1 * random.normal() }
      return Safetensors.NewTensor(name: "base_model.model.\(name)", shape: shape, values: .float32(values))
    }
    let tensors = shapes.flatMap { module, shape in
      module.hasSuffix("embed_tokens")
        ? [
          tensor("\(module).lora_embedding_A", [2, shape[0]]), tensor("\(module).lora_embedding_B", [shape[1], 2]),
        ] : [tensor("\(module).lora_A.weight", [2, shape[1]]), tensor("\(module).lora_B.weight", [shape[0], 2])]
    }
    try Safetensors.write(path: "\(folder)/adapter_model.safetensors", tensors: tensors)
    try Data(#"{"peft_type": "LORA", "lora_alpha": 8}"#.utf8).write(
      to: URL(fileURLWithPath: "\(folder)/adapter_config.json"))
  }

  /// Beside quantised weights they do what they do beside what the codes stand for.
  @Test(arguments: backends) func besideQuantisedWeights(_ backend: String) throws {
    let context = try Context(backend)
    var random = SeededRandom()
    func matrix(_ rows: Int, _ columns: Int) throws -> Tensor {
      try Tensor((0..<rows * columns).map { _ in random.normal() }, shape: Shape(rows, columns))
    }
    let (x, down, up) = (try matrix(5, 64), try matrix(4, 64), try matrix(24, 4))
    let quantized = try QuantizedMatrix(quantizing: matrix(24, 64).view, as: .q8)
    let found = try MutableTensor(zeros: Shape(5, 24))
    let expected = try MutableTensor(zeros: Shape(5, 24))
    let update = (down: try context.pack(down.view), up: try context.pack(up.view))
    try context.lowRankLinear(
      x.view, weights: context.pack(quantized), down: update.down, up: update.up, epilogue: Epilogue(activation: .silu),
      into: found)
    try context.lowRankLinear(
      x.view, weights: context.pack(quantized.dequantized().view), down: update.down, up: update.up,
      epilogue: Epilogue(activation: .silu), into: expected)
    let largest = expected.elements.map(abs).max() ?? 0
    #expect(zip(found.elements, expected.elements).allSatisfy { abs($0 - $1) <= 1e-4 * largest })
  }

  // MARK: Files that do not fit

  private func refuses(
    _ reason: String, change: (inout [String: Any]) -> Void = { _ in },
    tensors: ([Safetensors.NewTensor]) -> [Safetensors.NewTensor] = { $0 }
  ) throws {
    let folder = try TemporaryFolder()
    let source = Fixture.path("adapters/qwen2-a")
    var config =
      try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: "\(source)/adapter_config.json")))
      as? [String: Any] ?? [:]
    change(&config)
    try JSONSerialization.data(withJSONObject: config).write(
      to: URL(fileURLWithPath: "\(folder.path)/adapter_config.json"))
    let file = try Safetensors(path: "\(source)/adapter_model.safetensors")
    let kept = try file.tensorNames.map {
      Safetensors.NewTensor(name: $0, shape: try file.info($0).shape, values: .float32(try file.readFloat32($0)))
    }
    try Safetensors.write(path: "\(folder.path)/adapter_model.safetensors", tensors: tensors(kept))
    let error = #expect(throws: ModelError.self) {
      _ = try DecoderModel(
        path: Fixture.path("decoders/qwen2"), context: Context(),
        adapters: [LoRAAdapter(directory: folder.path)])
    }
    #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
  }

  @Test func otherMethodsAreRefused() throws {
    try refuses("peft_type") { $0["peft_type"] = "IA3" }
    try refuses("use_dora (byte") { $0["use_dora"] = true }
    try refuses("bias") { $0["bias"] = "all" }
    try refuses("modules_to_save (byte") { $0["modules_to_save"] = ["lm_head"] }
    try refuses("alpha_pattern") { $0["alpha_pattern"] = ["q_proj": 3] }
    try refuses("lora_alpha") { $0["lora_alpha"] = -1 }
  }

  @Test func tensorsThatDoNotFitAreRefused() throws {
    func tensor(_ name: String, _ shape: [Int]) -> Safetensors.NewTensor {
      Safetensors.NewTensor(
        name: name, shape: shape, values: .float32([Float](repeating: 0, count: shape.reduce(1, *))))
    }
    let query = "base_model.model.model.layers.0.self_attn.q_proj"
    try refuses("has no lora_B", tensors: { $0.filter { $0.name != "\(query).lora_B.weight" } })
    try refuses(
      "are not [r, inputs] and [outputs, r]",
      tensors: { $0.filter { $0.name != "\(query).lora_A.weight" } + [tensor("\(query).lora_A.weight", [5, 32])] })
    try refuses(
      "do not fit a layer [32, 32]",
      tensors: { $0.filter { $0.name != "\(query).lora_A.weight" } + [tensor("\(query).lora_A.weight", [4, 31])] })
    try refuses("supported: NAME.lora_A.weight", tensors: { $0 + [tensor("\(query).lora_magnitude_vector", [32])] })
    let expert = "base_model.model.model.layers.0.mlp.experts.0.gate_proj"
    try refuses(
      "not experts",
      tensors: { $0 + [tensor("\(expert).lora_A.weight", [2, 32]), tensor("\(expert).lora_B.weight", [48, 2])] })
    let head = "base_model.model.lm_head"
    let pair = [tensor("\(head).lora_A.weight", [2, 32]), tensor("\(head).lora_B.weight", [96, 2])]
    try refuses(
      "its vocabulary has grown", tensors: { $0 + pair + [tensor("\(head).base_layer.weight", [97, 32])] })
    try refuses("lm_head has no lora_A", tensors: { $0 + [tensor("\(head).base_layer.weight", [96, 32])] })
    let table = "base_model.model.model.embed_tokens"
    try refuses(
      "do not fit a layer [32, 96]",
      tensors: {
        $0 + [tensor("\(table).lora_embedding_A", [2, 95]), tensor("\(table).lora_embedding_B", [32, 2])]
      })
  }

  @Test func mergingIntoQuantisedWeightsIsRefused() throws {
    let folder = try TemporaryFolder()
    _ = try ModelQuantizer(model: Fixture.path("decoders/qwen2"), as: .blocks(.q8)).write(to: "\(folder.path)/q8")
    let error = #expect(throws: ModelError.self) {
      _ = try DecoderModel(
        path: "\(folder.path)/q8", context: Context(), adapters: [Self.adapter("qwen2-a")], mergingAdapters: true)
    }
    #expect(error?.description.contains("not be merged into it") == true)
  }
}

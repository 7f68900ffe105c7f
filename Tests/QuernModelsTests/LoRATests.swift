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
    for (base, name) in [("qwen2", "qwen2-a"), ("qwen2", "qwen2-b"), ("gpt2", "gpt2")] {
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
    let head = "base_model.model.lm_head"
    try refuses(
      "is no layer of this model that adapters reach",
      tensors: { $0 + [tensor("\(head).lora_A.weight", [2, 32]), tensor("\(head).lora_B.weight", [96, 2])] })
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

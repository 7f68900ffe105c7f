import Quern
import QuernModels
import QuernTesting
import Testing

/// Stacks of experts in GGUF files: gates and values apart, or in one tensor, as llama.cpp's converter fuses them.
@Suite struct GGUFExpertTests {
  private static let (experts, width, inner) = (4, 32, 32)

  /// What a file has beside its experts: attention, norms and the router of one layer.
  private static func builder(_ architecture: String) -> GGUFBuilder {
    var builder = GGUFBuilder()
    builder.string("general.architecture", architecture)
    var keys = [
      ("embedding_length", width), ("feed_forward_length", inner), ("attention.head_count", 2), ("context_length", 64),
      ("block_count", 1), ("expert_count", experts), ("expert_used_count", 2), ("expert_feed_forward_length", inner),
    ]
    var tensors = [("token_embd", [32, 24]), ("output_norm", [32]), ("blk.0.attn_norm", [32])]
    tensors += [("blk.0.ffn_gate_inp", [32, experts])]
    if architecture == "deepseek2" {
      keys += [
        ("attention.key_length_mla", 24), ("attention.value_length_mla", 16), ("attention.kv_lora_rank", 32),
        ("rope.dimension_count", 8), ("leading_dense_block_count", 0), ("expert_shared_count", 1),
      ]
      tensors += [
        ("blk.0.attn_q", [32, 48]), ("blk.0.attn_kv_a_mqa", [32, 40]), ("blk.0.attn_kv_a_norm", [32]),
        ("blk.0.attn_kv_b", [32, 64]), ("blk.0.ffn_gate_shexp", [32, inner]), ("blk.0.ffn_up_shexp", [32, inner]),
        ("blk.0.ffn_down_shexp", [inner, 32]),
      ]
    } else {
      tensors += [("blk.0.attn_q", [32, 32]), ("blk.0.attn_k", [32, 32]), ("blk.0.attn_v", [32, 32])]
    }
    tensors += [("blk.0.attn_output", [32, 32])]
    tensors += [(architecture == "gpt-oss" ? "blk.0.post_attention_norm" : "blk.0.ffn_norm", [32])]
    if architecture == "gpt-oss" { keys += [("attention.sliding_window", 8)] }
    for (name, value) in keys { builder.key("\(architecture).\(name)", 4, GGUFBuilder.number(UInt32(value))) }
    builder.key(
      "\(architecture).attention.layer_norm_rms_epsilon", 6, GGUFBuilder.number(Float(1e-5).bitPattern))
    TinyGGUF.addTensors(to: &builder, tensors)
    if architecture == "gpt-oss" {
      TinyGGUF.addTensors(to: &builder, [("blk.0.attn_sinks", [2])])
      for (name, size) in [
        ("attn_q", 32), ("attn_k", 32), ("attn_v", 32), ("attn_output", 32), ("ffn_gate_inp", experts),
      ] { builder.tensor("blk.0.\(name).bias", [UInt64(size)], data: bytes(values(size, seed: 3))) }
    }
    return builder
  }

  private static func values(_ count: Int, seed: UInt64) -> [Float] {
    var random = SeededRandom(seed: seed)
    return (0..<count).map { _ in 0.3 * random.normal() }
  }

  private static func bytes(_ values: some Sequence<Float>) -> [UInt8] {
    values.flatMap { GGUFBuilder.number($0.bitPattern) }
  }

  /// The bytes of a stack and the number that GGUF has for their type.
  private static func stored(_ values: [Float], inputs: Int, _ format: QuantizedFormat?) throws -> (
    type: UInt32, bytes: [UInt8]
  ) {
    guard let format else { return (0, bytes(values)) }
    let matrix = try Tensor(values, shape: Shape(values.count / inputs, inputs))
    return (8, try QuantizedMatrix(quantizing: matrix.view, as: format).withBlocks { Array($0) })
  }

  /// Of two stacks, each expert's part of the first with that of the second behind it.
  private static func joined<T>(_ first: [T], _ second: [T]) -> [T] {
    let size = first.count / experts
    var all: [T] = []
    for start in stride(from: 0, to: first.count, by: size) {
      all += first[start..<start + size]
      all += second[start..<start + size]
    }
    return all
  }

  private static func logits(
    _ architecture: String, _ format: QuantizedFormat?, isFused: Bool, rows: Int? = nil
  ) throws -> [Float] {
    var builder = builder(architecture)
    let (size, place) = (experts * inner * width, "blk.0.ffn")
    let gate = try stored(values(size, seed: 7), inputs: width, format)
    let up = try stored(values(size, seed: 8), inputs: width, format)
    let down = try stored(values(size, seed: 9), inputs: inner, format)
    func add(_ name: String, _ extents: [Int], _ stack: (type: UInt32, bytes: [UInt8])) {
      builder.tensor("\(place)_\(name)", extents.map { UInt64($0) }, type: stack.type, data: stack.bytes)
    }
    let (gateBias, upBias) = (values(experts * inner, seed: 10), values(experts * inner, seed: 11))
    if isFused {
      add("gate_up_exps.weight", [width, rows ?? 2 * inner, experts], (gate.type, joined(gate.bytes, up.bytes)))
    } else {
      add("gate_exps.weight", [width, inner, experts], gate)
      add("up_exps.weight", [width, inner, experts], up)
    }
    add("down_exps.weight", [inner, width, experts], down)
    if architecture == "gpt-oss" {
      if isFused {
        add("gate_up_exps.bias", [2 * inner, experts], (0, bytes(joined(gateBias, upBias))))
      } else {
        add("gate_exps.bias", [inner, experts], (0, bytes(gateBias)))
        add("up_exps.bias", [inner, experts], (0, bytes(upBias)))
      }
      add("down_exps.bias", [width, experts], (0, bytes(values(experts * width, seed: 12))))
    }
    let folder = try TemporaryFolder()
    let model = try DecoderModel(path: folder.write("m.gguf", builder.bytes), context: Context())
    let workspace = try DecoderModel.Workspace()
    let hidden = try model.forward([3, 1, 2, 9, 4], segments: Segments(single: 5), workspace: workspace)
    return try model.logits(hidden, rows: [0, 1, 2, 3, 4], workspace: workspace).elements
  }

  /// The same weights, and so the same logits: biases, shared experts and blocks included.
  @Test(arguments: ["llama", "qwen3moe", "gpt-oss", "deepseek2"], [nil, QuantizedFormat.q8])
  func fusedStacksAreTheSameModel(_ architecture: String, _ format: QuantizedFormat?) throws {
    let apart = try Self.logits(architecture, format, isFused: false)
    #expect(try Self.logits(architecture, format, isFused: true) == apart && apart.allSatisfy(\.isFinite))
  }

  @Test func fusedStacksOfOtherSizesAreRefused() {
    let error = modelError { _ = try Self.logits("qwen3moe", nil, isFused: true, rows: 2 * Self.inner - 2) }
    #expect(error?.field.hasPrefix("tensors.blk.0.ffn_exps.0.gate_up.weight") == true && error?.offset != nil)
  }
}

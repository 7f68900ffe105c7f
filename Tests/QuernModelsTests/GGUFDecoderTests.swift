import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// GGUF files of gpt-oss and DeepSeek: what they share with the directories that they were made of, and metadata and tensors that do
/// not fit. Fixtures by tools/fixtures/gguf_decoders.py.
@Suite struct GGUFDecoderTests {
  /// MXFP4 experts, sinks, biases, windows and YaRN; the older layout of latent heads, groups by their largest; the newer one, groups
  /// by their two largest and a correction.
  static let families = ["gpt-oss-mxfp4", "deepseek-v2", "deepseek-v3"]

  /// The logits of a prompt of 13 tokens, and 64 greedy tokens after it.
  private static func run(_ path: String, _ ids: [Int32], on backend: String) throws -> (
    logits: [Float], greedy: [Int32]
  ) {
    let model = try DecoderModel(path: path, context: Context(backend))
    let (cache, workspace) = (try model.makeCache(capacity: 80), try DecoderModel.Workspace())
    var hidden = try model.forward(ids, segments: Segments(single: ids.count), cache: cache, workspace: workspace)
    let logits = try model.logits(hidden, rows: ids.indices.map { Int32($0) }, workspace: workspace).elements
    var (last, greedy) = (Array(logits.suffix(model.configuration.vocabSize)), [Int32]())
    while true {
      greedy.append(Int32(last.indices.max { last[$0] < last[$1] } ?? 0))
      if greedy.count == 64 { return (logits, greedy) }
      hidden = try model.forward(
        [greedy[greedy.count - 1]], segments: Segments(single: 1), cache: cache, workspace: workspace)
      last = try model.logits(hidden, rows: [0], workspace: workspace).elements
    }
  }

  @Test(arguments: DecoderModelTests.backends, families)
  func filesGiveWhatTheirDirectoriesGive(_ backend: String, _ family: String) throws {
    let directory = Fixture.path("decoders/\(family)")
    let ids = try Safetensors(path: "\(directory)/inputs.safetensors").readInt64("input_ids").prefix(13).map {
      Int32($0)
    }
    let expected = try Safetensors(path: "\(directory)/expected.safetensors")
    let file = try Self.run("\(directory).gguf", ids, on: backend)
    let original = try Self.run(directory, ids, on: backend)
    #expect(try file.greedy == original.greedy && file.greedy == expected.readInt64("greedy").map { Int32($0) })
    func difference(_ logits: some Collection<Float>) -> Float {
      zip(file.logits, logits).map { abs($0 - $1) }.max() ?? .infinity
    }
    let transformers = try expected.readFloat32("logits").prefix(file.logits.count)
    let largest = transformers.map(abs).max() ?? 0
    #expect(difference(original.logits) <= 1e-6 * largest, "\(difference(original.logits)) of \(largest)")
    // Products with quantised weights round x to 16 bits.
    #expect(difference(transformers) <= (family.hasSuffix("mxfp4") ? 1e-4 : 1e-5) * largest)
  }

  // MARK: Layouts of latent heads

  /// A DeepSeek of one dense layer, its heads in the tensors that `addHeads` adds.
  private static func deepSeek(_ addHeads: (inout GGUFBuilder) -> Void) throws -> [Float] {
    var builder = GGUFBuilder()
    builder.string("general.architecture", "deepseek2")
    for (name, value) in [
      ("embedding_length", 32), ("feed_forward_length", 48), ("attention.head_count", 2), ("context_length", 64),
      ("block_count", 1), ("attention.key_length_mla", 40), ("attention.value_length_mla", 32),
      ("attention.kv_lora_rank", 64), ("rope.dimension_count", 8), ("leading_dense_block_count", 1),
    ] { builder.key("deepseek2.\(name)", 4, GGUFBuilder.number(UInt32(value))) }
    builder.key("deepseek2.attention.layer_norm_rms_epsilon", 6, GGUFBuilder.number(Float(1e-5).bitPattern))
    TinyGGUF.addTensors(
      to: &builder,
      [
        ("token_embd", [32, 24]), ("output_norm", [32]), ("blk.0.attn_norm", [32]), ("blk.0.ffn_norm", [32]),
        ("blk.0.attn_q", [32, 80]), ("blk.0.attn_kv_a_mqa", [32, 72]), ("blk.0.attn_kv_a_norm", [64]),
        ("blk.0.attn_output", [64, 32]), ("blk.0.ffn_gate", [32, 48]), ("blk.0.ffn_up", [32, 48]),
        ("blk.0.ffn_down", [48, 32]),
      ])
    addHeads(&builder)
    let folder = try TemporaryFolder()
    let model = try DecoderModel(path: folder.write("m.gguf", builder.bytes), context: Context())
    let workspace = try DecoderModel.Workspace()
    let hidden = try model.forward([3, 1, 2], segments: Segments(single: 3), workspace: workspace)
    return try model.logits(hidden, rows: [0, 1, 2], workspace: workspace).elements
  }

  private static func bytes(_ values: some Sequence<Float>) -> [UInt8] {
    values.flatMap { GGUFBuilder.number($0.bitPattern) }
  }

  /// Keys and values of each head in two tensors or in one, in blocks or not: the same weights, and so the same logits.
  @Test func layoutsOfHeadsAreOneModel() throws {
    var random = SeededRandom(seed: 11)
    // Two heads: `[latent 64, key 32]` and `[value 32, latent 64]` each.
    let keys = try QuantizedMatrix(
      quantizing: Tensor((0..<2 * 64 * 32).map { _ in random.normal() }, shape: Shape(128, 32)).view, as: .q8)
    let values = try QuantizedMatrix(
      quantizing: Tensor((0..<2 * 32 * 64).map { _ in random.normal() }, shape: Shape(64, 64)).view, as: .q4)
    let (k, v) = (try keys.dequantized().elements, try values.dequantized().elements)
    let split = try Self.deepSeek {
      $0.tensor("blk.0.attn_k_b.weight", [32, 64, 2], data: Self.bytes(k))
      $0.tensor("blk.0.attn_v_b.weight", [64, 32, 2], data: Self.bytes(v))
    }
    let blocks = try Self.deepSeek {
      $0.tensor("blk.0.attn_k_b.weight", [32, 64, 2], type: 8, data: keys.withBlocks { Array($0) })
      $0.tensor("blk.0.attn_v_b.weight", [64, 32, 2], type: 2, data: values.withBlocks { Array($0) })
    }
    var joined: [Float] = []
    for head in 0..<2 {
      for key in 0..<32 { joined += (0..<64).map { k[(head * 64 + $0) * 32 + key] } }
      joined += v[head * 2048..<(head + 1) * 2048]
    }
    let one = try Self.deepSeek { $0.tensor("blk.0.attn_kv_b.weight", [64, 128], data: Self.bytes(joined)) }
    #expect(split == blocks && split == one && split.allSatisfy(\.isFinite))
    let error = modelError {
      _ = try Self.deepSeek {
        $0.tensor("blk.0.attn_k_b.weight", [64, 32, 2], type: 8, data: keys.withBlocks { Array($0) })
        $0.tensor("blk.0.attn_v_b.weight", [64, 32, 2], data: Self.bytes(v))
      }
    }
    #expect(error?.field == "tensors.blk.0.attn_k_b.weight.shape" && error?.offset != nil)
  }

  // MARK: Metadata

  private static func configuration(
    _ family: String, _ edit: (inout GGUFEdit) throws -> Void
  ) throws -> DecoderConfiguration {
    let folder = try TemporaryFolder()
    var file = try GGUFEdit(family)
    try edit(&file)
    return try DecoderConfiguration(GGUF(path: folder.write("m.gguf", file.bytes)))
  }

  @Test func optionalFieldsAreRead() throws {
    let windows = try Self.configuration("gpt-oss-mxfp4") { _ in }
    #expect(windows.layers.map(\.window) == [5, nil] && windows.localRotary == nil)
    guard case .yarn(4, 32, 1, 32, _, false)? = windows.rotary?.scaling else {
      Issue.record("\(windows.rotary.map { "\($0)" } ?? "nothing")")
      return
    }
    let none = try Self.configuration("gpt-oss-mxfp4") {
      $0.insert("gpt-oss.attention.sliding_window_pattern", 4, UInt32(1))
    }
    #expect(none.layers.map(\.window) == [nil, nil])
    let bases = try Self.configuration("gpt-oss-mxfp4") {
      $0.insert("gpt-oss.rope.freq_base_swa", 6, Float(500).bitPattern)
    }
    #expect(bases.rotary?.theta == 10000 && bases.localRotary?.theta == 500)
    let turns = try Self.configuration("deepseek-v3") {
      $0.insert("deepseek2.rope.scaling.yarn_beta_fast", 6, Float(16).bitPattern)
    }
    guard case .yarn(4, 16, 1, 32, 1, true)? = turns.rotary?.scaling else {
      Issue.record("\(turns.rotary.map { "\($0)" } ?? "nothing")")
      return
    }
    let softmax = try Self.configuration("deepseek-v3") { try $0.set("deepseek2.expert_gating_func", UInt32(1)) }
    #expect(softmax.experts?.scoring == .softmax && softmax.experts?.groups?.sumsTwo == false)
    let chosen = try Self.configuration("deepseek-v2") { try $0.set("deepseek2.expert_gating_func", UInt32(3)) }
    #expect(chosen.experts?.scoring == .softmax && chosen.experts?.normalizes == true)
    let plain = try Self.configuration("deepseek-v2") {
      try $0.rename("deepseek2.expert_group_count", "deepseek2.expert_group_c0unt")
      try $0.rename("deepseek2.rope.scaling.yarn_log_multiplier", "deepseek2.rope.scaling.yarn_log_multipli3r")
    }
    #expect(plain.experts?.groups == nil && plain.experts?.normalizes == false)
    #expect(plain.attentionScale == 1 / Float(20).squareRoot())
    guard case .yarn(_, _, _, _, RotaryScaling.yarnAttentionFactor(4), _)? = plain.rotary?.scaling else {
      Issue.record("\(plain.rotary.map { "\($0)" } ?? "nothing")")
      return
    }
  }

  // MARK: Files that do not fit

  struct Bad: Sendable, CustomTestStringConvertible {
    var family, field: String
    var edit: @Sendable (inout GGUFEdit) throws -> Void
    var testDescription: String { "\(family): \(field)" }

    init(_ family: String, _ field: String, _ edit: @escaping @Sendable (inout GGUFEdit) throws -> Void) {
      (self.family, self.field, self.edit) = (family, field, edit)
    }

    /// A key of the file with another value.
    static func key(_ name: String, _ value: UInt32) -> Bad {
      Bad("deepseek-v3", "metadata.deepseek2.\(name)") { try $0.set("deepseek2.\(name)", value) }
    }

    /// A key that the file lacks.
    static func key(_ family: String, adding name: String, _ type: UInt32, _ value: UInt32) -> Bad {
      Bad(family, "metadata.\(name)") { $0.insert(name, type, value) }
    }

    /// A tensor of which an extent, in the order of the file, is another.
    static func tensor(_ family: String, _ name: String, _ axis: Int, _ extent: UInt64, _ field: String) -> Bad {
      Bad(family, "tensors.\(field).shape") { try $0.setExtent(of: name, axis, extent) }
    }
  }

  static let bad: [Bad] = [
    .key("expert_gating_func", 4), .key("expert_gating_func", .max), .key("attention.kv_lora_rank", 0),
    .key("attention.kv_lora_rank", 5000), .key("attention.q_lora_rank", 0), .key("rope.dimension_count", 20),
    .key("leading_dense_block_count", 2000), .key("expert_group_count", 3), .key("expert_group_used_count", 5),
    .key("expert_group_used_count", 1), .key("expert_shared_count", 5000), .key("attention.value_length_mla", 0),
    .key("expert_weights_scale", Float(-1).bitPattern), .key("expert_weights_scale", Float.nan.bitPattern),
    .key("rope.scaling.yarn_log_multiplier", Float(-1).bitPattern),
    .key("deepseek-v3", adding: "deepseek2.nextn_predict_layers", 4, 1),
    .key("deepseek-v3", adding: "deepseek2.attention.temperature_scale", 6, Float(0.1).bitPattern),
    .key("deepseek-v3", adding: "deepseek2.rope.scaling.yarn_attn_factor", 6, Float(2).bitPattern),
    .key("gpt-oss-mxfp4", adding: "gpt-oss.rope.scaling.yarn_ext_factor", 6, Float(0.5).bitPattern),
    .key("gpt-oss-mxfp4", adding: "gpt-oss.rope.freq_base_swa", 6, Float(0.5).bitPattern),
    .key("gpt-oss-mxfp4", adding: "gpt-oss.attention.sliding_window_pattern", 4, 0),
    Bad("gpt-oss-mxfp4", "metadata.gpt-oss.attention.sliding_window") {
      try $0.rename("gpt-oss.attention.sliding_window", "gpt-oss.attention.sliding_wind0w")
    },
    Bad("gpt-oss-mxfp4", "metadata.gpt-oss.expert_count") { try $0.set("gpt-oss.expert_count", 0) },
    Bad("deepseek-v2", "metadata.deepseek2.leading_dense_block_count") {
      try $0.rename("deepseek2.leading_dense_block_count", "deepseek2.leading_dense_block_c0unt")
    },
    Bad("deepseek-v3", "tensors.blk.1.ffn_up_shexp.weight") {
      try $0.rename("blk.1.ffn_up_shexp.weight", "blk.1.ffn_up_shexp.w8ight")
    },
    Bad("deepseek-v3", "tensors.blk.0.attn_v_b.weight") {
      try $0.rename("blk.0.attn_v_b.weight", "blk.0.attn_v_b.w8ight")
    },
    Bad("gpt-oss-mxfp4", "tensors.blk.1.ffn_up_exps.bias") {
      try $0.rename("blk.1.ffn_up_exps.bias", "blk.1.ffn_up_exps.b1as")
    },
    .tensor("deepseek-v3", "blk.0.attn_k_b.weight", 1, 8, "blk.0.attn_k_b.weight"),
    .tensor("deepseek-v2", "blk.0.attn_kv_b.weight", 1, 80, "blk.0.attn_kv_b.weight"),
    .tensor("deepseek-v3", "blk.1.exp_probs_b.bias", 0, 4, "blk.1.exp_probs_b.bias"),
    .tensor("gpt-oss-mxfp4", "blk.0.attn_sinks.weight", 0, 3, "blk.0.attn_sinks.weight"),
    .tensor("gpt-oss-mxfp4", "blk.0.ffn_gate_exps.bias", 0, 16, "blk.0.ffn_exps.gate_bias"),
    .tensor("gpt-oss-mxfp4", "blk.0.ffn_down_exps.weight", 2, 3, "blk.0.ffn_down_exps.weight"),
    .tensor("gpt-oss-mxfp4", "blk.0.ffn_up_exps.weight", 1, 16, "blk.0.ffn_exps.0.up.weight"),
    Bad("gpt-oss-mxfp4", "tensors.output_norm.weight.offset") { $0.bytes.removeLast(10) },
  ]

  @Test(arguments: bad) func whatDoesNotFitIsRefused(_ bad: Bad) throws {
    let folder = try TemporaryFolder()
    var file = try GGUFEdit(bad.family)
    try bad.edit(&file)
    let path = try folder.write("m.gguf", file.bytes)
    let error = modelError { _ = try DecoderModel(path: path, context: Context()) }
    #expect(error?.field == bad.field, "\(error.map { "\($0)" } ?? "nothing")")
    #expect(error?.file == path)
  }
}

/// A fixture of decoders with some of its bytes changed.
struct GGUFEdit {
  struct Missing: Error { var text: String }

  var bytes: [UInt8]

  init(_ family: String) throws {
    bytes = try Array(Data(contentsOf: URL(fileURLWithPath: Fixture.path("decoders/\(family).gguf"))))
  }

  /// The first byte behind a string and the 64 bits of its length.
  private func end(of text: String) throws -> Int {
    guard let range = Data(bytes).range(of: Data(GGUFBuilder.string(text.utf8))) else { throw Missing(text: text) }
    return range.upperBound
  }

  private mutating func write(_ value: some FixedWidthInteger, at place: Int) {
    let number = GGUFBuilder.number(value)
    bytes.replaceSubrange(place..<place + number.count, with: number)
  }

  /// A key or a tensor under a name of the same length.
  mutating func rename(_ old: String, _ new: String) throws {
    let end = try end(of: old)
    bytes.replaceSubrange(end - old.utf8.count..<end, with: Array(new.utf8))
  }

  /// A value of 32 bits, behind the bytes of its type.
  mutating func set(_ key: String, _ value: UInt32) throws { write(value, at: try end(of: key) + 4) }

  /// Behind the bytes of the number of extents.
  mutating func setExtent(of tensor: String, _ axis: Int, _ extent: UInt64) throws {
    write(extent, at: try end(of: tensor) + 4 + 8 * axis)
  }

  /// A key before the others, and one that makes the whole a multiple of the alignment.
  mutating func insert(_ key: String, _ type: UInt32, _ value: UInt32) {
    var builder = GGUFBuilder()
    builder.key(key, type, GGUFBuilder.number(value))
    builder.string("filler", "")
    let size = builder.keys.reduce(0) { $0 + $1.count }
    builder.keys.removeLast()
    builder.string("filler", String(repeating: " ", count: -size & 31))
    // The second count of the header.
    bytes[16] += 2
    bytes.insert(contentsOf: builder.keys.flatMap { $0 }, at: 24)
  }
}

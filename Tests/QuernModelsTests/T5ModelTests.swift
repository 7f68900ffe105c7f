import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// T5 against `transformers` (tools/fixtures/tiny_t5.py), and what it says to files that do not fit.
@Suite struct T5ModelTests {
  static let models = ["t5", "t5-gated"]

  private static func directory(_ name: String) -> String { Fixture.path("t5/\(name)") }

  /// The inputs without their padding.
  private static func batch(_ name: String) throws -> EncoderBatch {
    let inputs = try Safetensors(path: "\(directory(name))/inputs.safetensors")
    let (ids, mask) = (try inputs.readInt64("input_ids"), try inputs.readInt64("attention_mask"))
    let length = try inputs.info("input_ids").shape[1]
    return try EncoderBatch(
      (0..<2).map { row in (row * length..<(row + 1) * length).filter { mask[$0] == 1 }.map { Int32(ids[$0]) } })
  }

  private static func greedy(_ name: String) throws -> [[Int32]] {
    let ids = try Safetensors(path: "\(directory(name))/expected.safetensors").readInt64("greedy").map { Int32($0) }
    return [Array(ids.prefix(ids.count / 2)), Array(ids.suffix(ids.count / 2))]
  }

  @Test(
    arguments: Parity.backends, [("t5", "logits"), ("t5-gated", "logits"), ("t5-encoder", "last_hidden_state")])
  func namedOutputsAgreeWithTransformers(_ backend: String, _ model: (name: String, output: String)) throws {
    let directory = Self.directory(model.name)
    let forward = try NamedForward(directory: directory, context: Context(backend))
    #expect(forward.outputName == model.output)
    let inputs = "\(directory)/inputs.safetensors"
    let output = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32(model.output)
    let difference = try Parity.difference(output, expected)
    print("\(backend), \(model.name), \(model.output): largest difference \(difference) of the largest value")
    #expect(difference <= 1e-5)
  }

  /// The encoder out of a directory of both halves, with a sequence alone and in a batch, in memory that held longer ones.
  @Test(arguments: Parity.backends, models) func theEncoderAgreesWithTransformers(_ backend: String, _ name: String)
    throws
  {
    let model = try EncoderModel(directory: Self.directory(name), context: Context(backend))
    let (batch, workspace) = (try Self.batch(name), try EncoderModel.Workspace())
    let hidden = try model.forward(batch, workspace: workspace).elements
    let expected = try Safetensors(path: "\(Self.directory(name))/expected.safetensors")
      .readFloat32("last_hidden_state").prefix(hidden.count)
    #expect(try Parity.difference(hidden, Array(expected)) <= 1e-5)
    let second = Array(batch.ids[batch.segments[1]])
    let alone = try model.forward(EncoderBatch([second]), workspace: workspace).elements
    #expect(try Parity.difference(alone, Array(hidden.suffix(alone.count))) <= 1e-5)
  }

  /// Token by token, beside an output that stands still at times.
  @Test(arguments: Parity.backends, models) func greedyTokensAgreeWithTransformers(_ backend: String, _ name: String)
    throws
  {
    let model = try T5Model(directory: Self.directory(name), context: Context(backend))
    let expected = try Self.greedy(name)
    let workspace = try T5Model.Workspace()
    let state = try model.start(Self.batch(name), capacity: expected[0].count, workspace: workspace)
    var outputs: [[Int32]] = [[], []]
    while outputs[0].count < expected[0].count {
      let ids = outputs.map { $0.last ?? model.configuration.decoderStartTokenID }
      let hidden = try model.forward(ids, segments: Segments(lengths: [1, 1]), state: state, workspace: workspace)
      let logits = try model.logits(hidden, rows: [0, 1])
      for row in 0..<2 {
        var values = logits.rows(row..<row + 1).elements
        values[1] = -.infinity  // no end, as the fixture has it
        outputs[row].append(Int32(values.indices.max { values[$0] < values[$1] } ?? 0))
      }
    }
    #expect(outputs == expected)
    #expect(state.lengths == [40, 40])
    #expect(throws: QuernError.cacheFull(sequence: 1, held: 40, new: 1, capacity: 40)) {
      try model.forward([3], segments: Segments(lengths: [0, 1]), state: state, workspace: workspace)
    }
  }

  /// One output goes on where another has stopped, with the bits that it has alone.
  @Test(arguments: models) func outputsDoNotChangeEachOther(_ name: String) throws {
    let model = try T5Model(directory: Self.directory(name), context: Context())
    let (batch, workspace) = (try Self.batch(name), try T5Model.Workspace())
    let expected = try Self.greedy(name)[1]
    let state = try model.start(batch, capacity: 24, workspace: workspace)
    let prompt = [model.configuration.decoderStartTokenID] + expected.prefix(4)
    _ = try model.forward(
      [0, 5] + prompt, segments: Segments(lengths: [2, 5]), state: state, workspace: workspace)
    let hidden = try model.forward(
      [expected[4]], segments: Segments(lengths: [0, 1]), state: state, workspace: workspace
    ).elements
    let alone = try model.start(
      EncoderBatch([Array(batch.ids[batch.segments[1]])]), capacity: 24, workspace: workspace)
    _ = try model.forward(prompt, segments: Segments(single: 5), state: alone, workspace: workspace)
    let again = try model.forward([expected[4]], segments: Segments(single: 1), state: alone, workspace: workspace)
    #expect(try Parity.difference(hidden, again.elements) <= 1e-6)
    #expect(throws: QuernError.self) {
      try model.forward([3, 3], segments: Segments(lengths: [1, 1]), state: state, workspace: workspace)
    }
  }

  @Test func generationEndsAtTheEndTokenOrWhereItIsTold() throws {
    let folder = try TemporaryFolder(
      copying: ["config.json", "model.safetensors"], of: Self.directory("t5-gated"))
    let expected = try Self.greedy("t5-gated")
    // An end token that the second output soon comes to.
    let end = expected[1][6]
    try folder.replace("\"eos_token_id\": 1", with: "\"eos_token_id\": \(end)", in: "config.json")
    let model = try T5Model(directory: folder.path, context: Context())
    let outputs = try model.generate(Self.batch("t5-gated"), maximumTokens: 12)
    for (output, expected) in zip(outputs, expected) {
      #expect(output == Array(expected.prefix(while: { $0 != end }).prefix(12)))
    }
    #expect(outputs[1].count < 7)
    #expect(throws: GenerationError.self) { try model.generate(Self.batch("t5-gated"), maximumTokens: 0) }
    #expect(throws: CancellationError.self) {
      try model.generate(Self.batch("t5-gated")) { throw CancellationError() }
    }
  }

  /// Each change to config.json, and the field that the error must name.
  @Test(arguments: [
    ("\"feed_forward_proj\": \"gated-gelu\"", "\"feed_forward_proj\": \"gated-mish\"", "feed_forward_proj"),
    ("\"feed_forward_proj\": \"gated-gelu\"", "\"feed_forward_proj\": \"relu\"", "DenseReluDense.wi"),
    ("\"relative_attention_num_buckets\": 8", "\"relative_attention_num_buckets\": 3", "num_buckets"),
    ("\"relative_attention_num_buckets\": 8", "\"relative_attention_num_buckets\": 12", "relative_attention_bias"),
    ("\"relative_attention_max_distance\": 20", "\"relative_attention_max_distance\": 4", "max_distance"),
    ("\"decoder_start_token_id\": 0", "\"decoder_start_token_id\": 64", "decoder_start_token_id"),
    ("\"num_decoder_layers\": 3", "\"num_decoder_layers\": 4", "decoder.block.3"),
    ("\"d_kv\": 12", "\"d_kv\": 13", "SelfAttention.q"),
    ("\"d_model\": 32", "\"d_model\": 0", "d_model"),
    ("\"model_type\": \"t5\"", "\"model_type\": \"umt5\"", "model_type"),
  ])
  func whatIsNotImplementedIsNamed(_ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(
      copying: ["config.json", "model.safetensors"], of: Self.directory("t5-gated"))
    try folder.replace(old, with: new, in: "config.json")
    let error = try #require(modelError { _ = try NamedForward(directory: folder.path, context: Context()) })
    #expect(error.field.contains(field) || error.reason.contains(field), "\(error)")
  }

  /// Of each layer those matrices that have 32 inputs, in both halves, and the head of the second.
  @Test(arguments: [("t5", 22), ("t5-gated", 35), ("t5-encoder", 8)])
  func quantisedDirectoriesLoadAndStayClose(_ name: String, _ matrices: Int) throws {
    let (directory, folder) = (Self.directory(name), try TemporaryFolder())
    let report = try ModelQuantizer(model: directory, as: .blocks(.q8)).write(to: folder.path)
    #expect(report.matrices.count == matrices)
    let inputs = "\(directory)/inputs.safetensors"
    func output(_ path: String) throws -> [Float] {
      let forward = try NamedForward(directory: path, context: Context())
      return try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    }
    let difference = try Parity.difference(output(folder.path), output(directory))
    #expect(difference > 0 && difference < 0.1)
  }
}

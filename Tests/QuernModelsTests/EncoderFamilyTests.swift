import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Every family of text encoders against `transformers`, and what it says to configurations that it does not implement.
@Suite struct EncoderFamilyTests {
  static let families = ["modernbert", "modernbert-biased", "roberta", "xlm-roberta"]

  private static func directory(_ family: String) -> String { Fixture.path("encoders/\(family)") }

  @Test(arguments: Parity.backends, families) func agreesWithTransformers(_ backend: String, _ family: String) throws {
    let directory = Self.directory(family)
    let forward = try NamedForward(directory: directory, context: Context(backend))
    #expect(forward.outputName == "last_hidden_state")
    let inputs = "\(directory)/inputs.safetensors"
    let hidden = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("last_hidden_state")
    let difference = try Parity.difference(hidden, expected)
    print("\(backend), \(family): largest difference \(difference) of the largest value")
    #expect(difference <= 1e-5)
  }

  /// Padding that a caller leaves out changes nothing, as positions do not count it.
  @Test(arguments: families) func aSequenceAloneGivesWhatItGivesInABatch(_ family: String) throws {
    let model = try EncoderModel(directory: Self.directory(family), context: Context())
    let sequences: [[Int32]] = [[5, 6, 1, 3, 7, 8], [9], (10..<30).map { $0 }, []]
    let together = try model.forward(EncoderBatch(sequences), workspace: EncoderModel.Workspace()).elements
    var row = 0
    for sequence in sequences {
      let alone = try model.forward(EncoderBatch([sequence]), workspace: EncoderModel.Workspace()).elements
      let width = model.configuration.hiddenSize
      #expect(alone.map(\.bitPattern) == together[row * width..<(row + sequence.count) * width].map(\.bitPattern))
      row += sequence.count
    }
  }

  @Test func fewerLayersGiveEarlierHiddenStates() throws {
    let model = try EncoderModel(directory: Self.directory("modernbert"), context: Context())
    let batch = try EncoderBatch([[5, 6, 7, 8]])
    func hidden(_ layers: Int?, finalNorm: Bool = true) throws -> [Float] {
      try model.forward(batch, workspace: EncoderModel.Workspace(), layers: layers, finalNorm: finalNorm).elements
    }
    #expect(try hidden(nil) == hidden(4))
    #expect(try hidden(3) != hidden(4) && hidden(4) != hidden(4, finalNorm: false))
    #expect(throws: QuernError.self) { try hidden(5) }
    #expect(throws: QuernError.self) { try hidden(-1) }
  }

  @Test(arguments: families) func sequencesBeyondThePositionsAreRefused(_ family: String) throws {
    let model = try EncoderModel(directory: Self.directory(family), context: Context())
    let workspace = try EncoderModel.Workspace()
    let longest = [Int32](repeating: 7, count: model.configuration.maximumLength)
    _ = try model.forward(EncoderBatch([longest]), workspace: workspace)
    #expect(throws: QuernError.self) { try model.forward(EncoderBatch([longest + [7]]), workspace: workspace) }
    #expect(throws: QuernError.self) { try model.forward(EncoderBatch([[96]]), workspace: workspace) }
    #expect(throws: QuernError.self) {
      try model.forward(EncoderBatch([[7]], positions: [[-1]]), workspace: workspace)
    }
  }

  /// The names of transformers 4 for the same two bases of rotary positions, and its pattern of layers.
  @Test func olderConfigurationsOfModernBertAreRead() throws {
    let folder = try TemporaryFolder(copying: ["config.json"], of: Self.directory("modernbert"))
    let new = try EncoderConfiguration(HubConfig(directory: folder.path))
    try folder.replace("\"rope_parameters\"", with: "\"ignored\"", in: "config.json")
    try folder.replace("\"layer_types\"", with: "\"also_ignored\"", in: "config.json")
    #expect(try EncoderConfiguration(HubConfig(directory: folder.path)) == new)
    try folder.replace("\"ignored\"", with: "\"global_attn_every_n_layers\": 2, \"ignored\"", in: "config.json")
    #expect(try EncoderConfiguration(HubConfig(directory: folder.path)).stack.layers.map(\.reach) == [nil, 3, nil, 3])
    try folder.replace("\"ignored\"", with: "\"local_rope_theta\": null, \"ignored\"", in: "config.json")
    #expect(try EncoderConfiguration(HubConfig(directory: folder.path)).stack.localRotary == nil)
  }

  /// Each change to config.json, and the field that the error must name.
  @Test(arguments: [
    ("roberta", "\"pad_token_id\": 1", "\"pad_token_id\": -1", "pad_token_id"),
    ("roberta", "\"pad_token_id\": 1", "\"pad_token_id\": 2147483647", "pad_token_id"),
    ("roberta", "\"pad_token_id\": 1", "\"pad_token_id\": 39", "max_position_embeddings"),
    ("roberta", "\"is_decoder\": false", "\"is_decoder\": true", "is_decoder"),
    ("roberta", "\"type_vocab_size\": 1", "\"type_vocab_size\": 2", "token_type_embeddings"),
    ("xlm-roberta", "\"hidden_act\": \"gelu_new\"", "\"hidden_act\": \"mish\"", "hidden_act"),
    ("xlm-roberta", "\"model_type\": \"xlm-roberta\"", "\"model_type\": \"xlm-roberta-xl\"", "model_type"),
    ("modernbert", "\"hidden_activation\": \"gelu\"", "\"hidden_activation\": \"mish\"", "hidden_activation"),
    ("modernbert", "\"local_attention\": 6", "\"local_attention\": 0", "local_attention"),
    ("modernbert", "\"sliding_attention\",", "\"chunked_attention\",", "layer_types[1]"),
    ("modernbert", "\"full_attention\",\n", "", "layer_types"),
    ("modernbert", "\"rope_theta\": 160000.0", "\"rope_theta\": 0.5", "rope_theta"),
    ("modernbert", "\"rope_type\": \"default\"", "\"rope_type\": \"spiral\"", "rope_type"),
    ("modernbert", "\"norm_bias\": false", "\"norm_bias\": true", "norm.bias"),
  ])
  func whatIsNotImplementedIsNamed(_ family: String, _ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(copying: ["config.json", "model.safetensors"], of: Self.directory(family))
    try folder.replace(old, with: new, in: "config.json")
    let error = try #require(modelError { _ = try EncoderModel(directory: folder.path, context: Context()) })
    #expect(error.field.contains(field) || error.reason.contains(field), "\(error)")
    #expect(error.file.hasPrefix(folder.path))
  }

  @Test(arguments: families) func quantisedDirectoriesLoadAndStayClose(_ family: String) throws {
    let (directory, folder) = (Self.directory(family), try TemporaryFolder())
    let report = try ModelQuantizer(model: directory, as: .blocks(.q8)).write(to: folder.path)
    #expect(!report.matrices.isEmpty)
    let inputs = "\(directory)/inputs.safetensors"
    func output(_ path: String) throws -> [Float] {
      let forward = try NamedForward(directory: path, context: Context())
      return try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    }
    let difference = try Parity.difference(output(folder.path), output(directory))
    #expect(difference > 0 && difference < 0.1)
  }
}

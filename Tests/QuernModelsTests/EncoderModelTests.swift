import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// The encoder against PyTorch, and what it says to files that do not fit.
@Suite struct EncoderModelTests {
  private static let directory = Fixture.path("tiny-bert")

  @Test(arguments: Parity.backends) func agreesWithPyTorch(_ backend: String) throws {
    let forward = try NamedForward(directory: Self.directory, context: Context(backend))
    let inputs = "\(Self.directory)/inputs.safetensors"
    let hidden = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    let expected = try Safetensors(path: "\(Self.directory)/expected.safetensors").readFloat32("last_hidden_state")
    let difference = try Parity.difference(hidden, expected)
    #expect(difference <= 2e-6, "largest difference \(difference) of the largest value")
  }

  @Test func aSequenceGivesTheSameBitsAloneAndInABatch() throws {
    let model = try EncoderModel(directory: Self.directory, context: Context())
    let sequences: [[Int32]] = [[1, 2, 3, 4, 5], [7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 11], []]
    let together = try model.forward(EncoderBatch(sequences), workspace: EncoderModel.Workspace()).elements
    var row = 0
    for sequence in sequences {
      let alone = try model.forward(EncoderBatch([sequence]), workspace: EncoderModel.Workspace()).elements
      let width = model.configuration.hiddenSize
      let part = together[row * width..<(row + sequence.count) * width]
      #expect(alone.map(\.bitPattern) == part.map(\.bitPattern))
      row += sequence.count
    }
  }

  @Test func badIDsAreRefused() throws {
    let model = try EncoderModel(directory: Self.directory, context: Context())
    let workspace = try EncoderModel.Workspace()
    #expect(throws: QuernError.self) { try model.forward(EncoderBatch([[1, 60]]), workspace: workspace) }
    #expect(throws: QuernError.self) { try model.forward(EncoderBatch([[-1]]), workspace: workspace) }
    #expect(throws: QuernError.self) {
      try model.forward(EncoderBatch([[Int32](repeating: 1, count: 41)]), workspace: workspace)
    }
    #expect(throws: QuernError.self) { try EncoderBatch([[1, 2]], typeIDs: [[0]]) }
  }

  /// Each change to config.json, and the field that the error must name.
  @Test(arguments: [
    ("\"hidden_size\": 32", "\"hidden_size\": 34", "shape"),
    ("\"hidden_size\": 32", "\"hidden_size\": 33", "num_attention_heads"),
    ("\"hidden_size\": 32", "\"hidden_size\": -1", "hidden_size"),
    ("\"hidden_size\": 32", "\"hidden_size\": 99999999999999999999", "hidden_size"),
    ("\"vocab_size\": 60", "\"vocab_size\": 16000000", "word_embeddings"),
    ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "encoder.layer.2"),
    ("\"hidden_act\": \"gelu_new\"", "\"hidden_act\": \"gelu_13\"", "hidden_act"),
    ("\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"", "model_type"),
    ("\"model_type\": \"bert\"", "\"model_type\": 7", "model_type"),
    ("\"vocab_size\": 60", "\"vocab\": 60", "vocab_size"),
  ])
  func aConfigurationThatDoesNotFitIsNamed(_ old: String, _ new: String, _ field: String) throws {
    let folder = try copy()
    try folder.replace(old, with: new, in: "config.json")
    let error = modelError { _ = try EncoderModel(directory: folder.path, context: Context()) }
    let found = try #require(error)
    #expect(found.field.contains(field) || found.reason.contains(field), "\(found)")
    #expect(found.file.hasPrefix(folder.path))
    #expect(!found.description.contains("\n"))
  }

  @Test(arguments: ["config.json", "model.safetensors"]) func aMissingFileIsNamed(_ name: String) throws {
    let folder = try copy()
    try FileManager.default.removeItem(atPath: "\(folder.path)/\(name)")
    let error = try #require(modelError { _ = try EncoderModel(directory: folder.path, context: Context()) })
    #expect(error.description.contains(name) && error.file.hasPrefix(folder.path), "\(error)")
  }

  private func copy() throws -> TemporaryFolder {
    try TemporaryFolder(copying: ["config.json", "model.safetensors"], of: Self.directory)
  }
}

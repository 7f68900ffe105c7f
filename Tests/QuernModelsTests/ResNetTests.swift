import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// ResNet against `transformers` (tools/fixtures/tiny_resnets.py), and what it says to files that do not fit.
@Suite struct ResNetTests {
  static let names = ["bottleneck", "basic", "strided"]

  private static func directory(_ name: String) -> String { Fixture.path("resnets/\(name)") }

  private static func values(_ name: String) throws -> Safetensors {
    try Safetensors(path: "\(directory(name))/values.safetensors")
  }

  private static func pixels(_ name: String) throws -> Tensor {
    let file = try values(name)
    return try Tensor(
      file.readFloat32("pixel_values"), shape: Shape(checking: file.info("pixel_values").shape))
  }

  @Test(arguments: names, Parity.backends) func imagesAndTheirMeans(_ name: String, _ backend: String) throws {
    let model = try ResNetModel(directory: Self.directory(name), context: Context(backend))
    let (file, pixels) = (try Self.values(name), try Self.pixels(name))
    let workspace = ResNetModel.Workspace()
    // The second pass finds memory that a larger one has used.
    _ = try model.forward(pixels.view, workspace: workspace)
    for layout in [ImageLayout.channelsFirst, .channelsLast] {
      let view = layout == .channelsFirst ? pixels.view : pixels.view.permuted([0, 2, 3, 1])
      let hidden = try model.forward(view, layout: layout, workspace: workspace)
      let first = try MutableTensor(zeros: Shape(checking: file.info("last_hidden_state").shape))
      try Context("reference").copy(hidden.view.permuted([0, 3, 1, 2]), into: first)
      #expect(try Parity.difference(first.elements, file.readFloat32("last_hidden_state")) < 1e-5)
      #expect(try Parity.difference(model.pooled(hidden).elements, file.readFloat32("pooled")) < 1e-5)
    }
    let one = try model.forward(pixels.view.rows(1..<2), workspace: workspace)
    let expected = try file.readFloat32("pooled")
    #expect(try Parity.difference(model.pooled(one).elements, Array(expected[(expected.count / 2)...])) < 1e-5)
  }

  @Test(arguments: names) func narrowStorageStaysClose(_ name: String) throws {
    let model = try ResNetModel(directory: Self.directory(name), context: Context(), precision: .bf16)
    let pooled = try model.pooled(model.forward(Self.pixels(name).view, workspace: ResNetModel.Workspace()))
    let difference = try Parity.difference(pooled.elements, Self.values(name).readFloat32("pooled"))
    #expect(difference > 1e-6 && difference < 0.05, "\(difference)")
  }

  @Test(arguments: [
    ("\"model_type\": \"resnet\"", "\"model_type\": \"regnet\"", "model_type"),
    ("\"layer_type\": \"bottleneck\"", "\"layer_type\": \"wide\"", "layer_type"),
    ("\"hidden_act\": \"relu\"", "\"hidden_act\": \"prelu\"", "hidden_act"),
    ("    16,\n    24\n", "    16,\n    26\n", "hidden_sizes"), ("    16,\n    24\n", "    16\n", "depths"),
    ("\"embedding_size\": 8", "\"embedding_size\": 0", "embedding_size"),
    ("\"embedding_size\": 8", "\"embedding_size\": 9", "tensors.resnet.embedder.embedder.normalization.weight.shape"),
    ("    2,\n    1\n", "    3,\n    1\n", "tensors.resnet.encoder.stages.0.layers.2.layer.0.normalization.weight"),
  ])
  func whatIsNotImplementedIsNamed(_ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(copying: ["config.json", "model.safetensors"], of: Self.directory("bottleneck"))
    try folder.replace(old, with: new, in: "config.json")
    let error = try #require(modelError { _ = try ResNetModel(directory: folder.path, context: Context()) })
    #expect(error.field == field, "\(error)")
  }

  @Test func pixelsThatDoNotFitAreRefused() throws {
    let model = try ResNetModel(directory: Self.directory("basic"), context: Context())
    for shape in [Shape(1, 3, 20, 20), Shape(2, 20, 20), Shape(1, 2, 0, 20)] {
      #expect(throws: QuernError.self) {
        try model.forward(MutableTensor(zeros: shape).view, workspace: ResNetModel.Workspace())
      }
    }
  }
}

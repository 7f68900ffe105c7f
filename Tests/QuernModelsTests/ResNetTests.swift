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

  private static func logits(ofImagesIn directory: String, _ inputs: String) throws -> [Float] {
    let forward = try NamedForward(directory: directory, context: Context())
    return try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
  }

  @Test(arguments: names, Parity.backends) func namedOutputsAgreeWithTransformers(
    _ name: String, _ backend: String
  ) throws {
    let forward = try NamedForward(directory: Self.directory(name), context: Context(backend))
    let (file, path) = (try Self.values(name), "\(Self.directory(name))/values.safetensors")
    let output = try forward.output(forward.inputs(from: file, file: path))
    let isClassifier = name == "bottleneck"
    #expect(forward.outputName == (isClassifier ? "logits" : "last_hidden_state"))
    let expected = isClassifier ? "pooled" : "last_hidden_state"
    #expect(try output.shape.array == file.info(expected).shape)
    let difference = try Parity.difference(output.elements, file.readFloat32(expected))
    print("\(backend), resnet \(name), \(forward.outputName): largest difference \(difference) of the largest value")
    #expect(difference < 1e-5)
  }

  @Test func imagesOfABatchHaveOneSize() throws {
    let folder = try TemporaryFolder(
      copying: ["config.json", "model.safetensors", "preprocessor_config.json"], of: Self.directory("bottleneck"))
    let images = try [(20, 30), (30, 20)].map { width, height in
      try RGBImage(width: width, height: height, bytes: (0..<3 * width * height).map { UInt8($0 % 251) })
    }
    let forward = try NamedForward(directory: folder.path, context: Context())
    let both = try forward.output(forward.inputs(images: images))
    #expect(both.shape == Shape(2, 5))
    for (row, image) in images.enumerated() {
      let alone = try forward.output(forward.inputs(images: [image])).elements
      #expect(try Parity.difference(Array(both.elements[5 * row..<5 * row + 5]), alone) < 1e-5)
    }
    #expect(throws: QuernError.self) { try forward.inputs(images: []) }
    try folder.replace("\"do_resize\": true", with: "\"do_resize\": false", in: "preprocessor_config.json")
    #expect(throws: QuernError.self) { try forward.inputs(images: images) }
    let text = try NamedForward(directory: Fixture.path("tiny-bert"), context: Context())
    let error = modelError { _ = try text.inputs(images: images) }
    #expect(error?.field == "model_type")
  }

  /// Its classifier alone is a linear layer, with 24 inputs that no block of 32 divides.
  @Test func classifiersAreRoundedAndCompressed() throws {
    let (directory, folder) = (Self.directory("bottleneck"), try TemporaryFolder())
    let inputs = "\(directory)/values.safetensors"
    let kept = try ModelQuantizer(model: directory, as: .blocks(.q8)).write(to: "\(folder.path)/q8").kept
    #expect(kept.map(\.name) == ["classifier.1.weight"])
    let expected = try Self.values("bottleneck").readFloat32("pooled")
    #expect(try Parity.difference(Self.logits(ofImagesIn: "\(folder.path)/q8", inputs), expected) < 1e-5)
    #if OpenBLAS
      _ = try ModelCompressor(model: directory, to: .rank(3)).write(to: "\(folder.path)/rank-3")
      let compressed = try Self.logits(ofImagesIn: "\(folder.path)/rank-3", inputs)
      let difference = try Parity.difference(compressed, expected)
      #expect(difference > 1e-4 && difference < 1, "\(difference)")
    #endif
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
    ("\"4\": \"LABEL_4\"", "\"4\": \"LABEL_4\", \"5\": \"LABEL_5\"", "tensors.classifier.1.weight.shape"),
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

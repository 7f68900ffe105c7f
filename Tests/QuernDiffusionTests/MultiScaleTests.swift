import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// Layers on several sizes of an image against PyTorch (tools/fixtures/multi_scale.py).
@Suite struct MultiScaleTests {
  private static let path = Fixture.path("multi-scale.safetensors")

  private static func check(_ results: [MutableTensor], _ name: String) throws {
    let file = try Safetensors(path: path)
    for (index, result) in results.enumerated() {
      let expected = try file.tensor("values.\(name).\(index)")
      #expect(result.shape == expected.shape)
      let difference = try Parity.difference(result.elements, expected.elements)
      #expect(difference < 1e-5, "\(name).\(index): \(difference)")
    }
  }

  private static func images(_ name: String, _ count: Int) throws -> [Tensor] {
    let file = try Safetensors(path: path)
    return try (0..<count).map { try file.tensor("values.\(name).\($0)") }
  }

  @Test(arguments: Parity.backends) func oneEncoderServesAllLevels(_ backend: String) throws {
    let file = try Safetensors(path: Self.path)
    let encoder = try PyramidEncoder(
      "encoder", channels: [3, 6, 8], strides: [1, 2], source: file, file: Self.path, context: Context(backend))
    let image = try file.tensor("values.image")
    let workspace = try MultiScaleWorkspace()
    for levels in [1, 3] {
      let results = try encoder(image.view, levels: levels, workspace: workspace)
      #expect(results.count == levels)
      try Self.check(results, "encoded")
    }
    for levels in [0, 5, 64] {
      #expect(throws: QuernError.self) { try encoder(image.view, levels: levels, workspace: workspace) }
    }
    #expect(throws: QuernError.self) { try encoder(image.view.columns(0..<2), levels: 1, workspace: workspace) }
  }

  @Test(arguments: Parity.backends) func featuresKnowOfTheLargerPicture(_ backend: String) throws {
    let file = try Safetensors(path: Self.path)
    let pyramid = try FeaturePyramid(
      "fpn", channels: [4, 6, 8], width: 5, source: file, file: Self.path, context: Context(backend))
    let features = try Self.images("feature", 3).map(\.view)
    let results = try pyramid(features, workspace: MultiScaleWorkspace())
    #expect(results.count == 3)
    try Self.check(results, "pyramid")
    #expect(throws: QuernError.self) { try pyramid(Array(features[..<2]), workspace: MultiScaleWorkspace()) }
    #expect(throws: QuernError.self) { try pyramid(features.reversed(), workspace: MultiScaleWorkspace()) }
  }

  @Test(arguments: Parity.backends) func pixelsAttendAcrossSizes(_ backend: String) throws {
    let file = try Safetensors(path: Self.path)
    let attention = try CrossScaleAttention(
      "attention", channels: 8, heads: 2, source: file, file: Self.path, context: Context(backend))
    let scales = try Self.images("scale", 2).map(\.view)
    let results = try attention(scales, workspace: MultiScaleWorkspace())
    #expect(results.count == 2)
    try Self.check(results, "attended")
    #expect(throws: QuernError.self) { try attention([], workspace: MultiScaleWorkspace()) }
    #expect(throws: QuernError.self) {
      try attention([scales[0], scales[1].rows(0..<1)], workspace: MultiScaleWorkspace())
    }
  }

  @Test func tensorsThatAreNotThereAreNamed() throws {
    let file = try Safetensors(path: Self.path)
    let error = thrown(ModelError.self) {
      _ = try FeaturePyramid(
        "fpn", channels: [4, 6, 9], width: 5, source: file, file: Self.path, context: Context())
    }
    #expect(error?.field == "tensors.fpn.inner_blocks.2.0.weight.shape")
    #expect(thrown(ModelError.self) {
      _ = try PyramidEncoder(
        "encoder", channels: [3, 6, 8, 8], strides: [1, 2, 1], source: file, file: Self.path, context: Context())
    }?.field == "tensors.encoder.2.weight")
    #expect(thrown(QuernError.self) {
      _ = try CrossScaleAttention(
        "attention", channels: 8, heads: 3, source: file, file: Self.path, context: Context())
    } != nil)
  }
}

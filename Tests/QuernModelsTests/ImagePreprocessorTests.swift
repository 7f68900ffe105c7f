import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Images against PyTorch's resampling of bytes (tools/fixtures/preprocessing.py), whose weights have 16 bits, and configurations.
@Suite struct ImagePreprocessorTests {
  private static func directory(_ name: String) -> String { Fixture.path("preprocessing/\(name)") }

  @Test(arguments: ["clip", "vit", "convnext"]) func pixelsAreWithinAStepOfABytes(_ name: String) throws {
    let preprocessor = try ImagePreprocessor(directory: Self.directory(name))
    let images = try Safetensors(path: "\(Self.directory(name))/images.safetensors")
    var (off, all) = (0, 0)
    for index in 0..<5 {
      let shape = try images.info("image.\(index)").shape
      let bytes = try images.readInt64("image.\(index)").map { UInt8($0) }
      let pixels = try preprocessor.pixels(RGBImage(width: shape[1], height: shape[0], bytes: bytes))
      #expect(try pixels.shape.array == images.info("pixels.\(index)").shape)
      // One of 255 steps, as both round each of two passes.
      let bound = 1.001 / 255 / (preprocessor.std.min() ?? 1)
      let (ours, theirs) = (pixels.elements, try images.readFloat32("pixels.\(index)"))
      let differences = zip(ours, theirs).map { abs($0 - $1) }
      #expect(differences.allSatisfy { $0 <= bound }, "image \(index): \(differences.max() ?? 0), bound \(bound)")
      off += differences.count { $0 > 1e-5 }
      all += differences.count
    }
    print("\(name): \(off) of \(all) pixels are a step off")
    #expect(off < all / 10)
  }

  @Test func fieldsOfBothGenerationsAreRead() throws {
    let clip = try ImagePreprocessor(directory: Self.directory("clip"))
    #expect(clip.size == .shortestEdge(16) && clip.crop == 16 && clip.filter == .bicubic)
    #expect(clip.rescaleFactor == Float(1) / 255)
    let vit = try ImagePreprocessor(directory: Self.directory("vit"))
    #expect(vit.size == .exactly(height: 12, width: 20) && vit.crop == nil && vit.filter == .bilinear)
    #expect(vit.mean == [0.5, 0.5, 0.5])
  }

  /// Small images lose their borders, large ones their proportions.
  @Test func croppedSharesEndAt384Pixels() throws {
    let small = try ImagePreprocessor(directory: Self.directory("convnext"))
    #expect(small.size == .shortestEdge(16) && small.crop == 14 && small.filter == .bicubic)
    let folder = try TemporaryFolder(copying: ["preprocessor_config.json"], of: Self.directory("convnext"))
    try folder.replace("\"shortest_edge\": 14", with: "\"shortest_edge\": 384", in: "preprocessor_config.json")
    let large = try ImagePreprocessor(directory: folder.path)
    #expect(large.size == .exactly(height: 384, width: 384) && large.crop == nil)
  }

  /// Each change to preprocessor_config.json, and the field that the error must name.
  @Test(arguments: [
    ("vit", "ViTImageProcessorFast", "SiglipImageProcessor", "image_processor_type"),
    ("vit", "\"resample\": 2", "\"resample\": 5", "resample"),
    ("vit", "\"height\": 12", "\"longest_edge\": 12", "size.longest_edge"),
    ("vit", "\"height\": 12", "\"height\": 0", "size.height"),
    ("vit", "\"image_std\": [\n    0.5,", "\"image_std\": [\n    -0.5,", "image_std"),
    ("vit", "\"image_mean\": [\n    0.5,", "\"image_mean\": [", "image_mean"),
    ("clip", "\"crop_size\": 16", "\"crop_size\": -1", "crop_size"),
    ("convnext", "\"crop_pct\": 0.875", "\"crop_pct\": 1.5", "crop_pct"),
    ("convnext", "\"crop_pct\": 0.875", "\"crop_pct\": 1e-300", "crop_pct"),
    ("convnext", "\"crop_pct\": 0.875", "\"crop_pct\": 0.875, \"do_center_crop\": true", "do_center_crop"),
    ("convnext", "\"shortest_edge\": 14", "\"height\": 14, \"width\": 14", "size"),
  ])
  func whatIsNotImplementedIsNamed(_ name: String, _ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(copying: ["preprocessor_config.json"], of: Self.directory(name))
    try folder.replace(old, with: new, in: "preprocessor_config.json")
    let error = try #require(modelError { _ = try ImagePreprocessor(directory: folder.path) })
    #expect(error.field == field, "\(error)")
  }

  @Test func imagesThatDoNotFitAreRefused() throws {
    #expect(throws: QuernError.self) { try RGBImage(width: 2, height: 2, bytes: [0, 1, 2]) }
    #expect(throws: QuernError.self) { try RGBImage(width: 0, height: 2, bytes: []) }
    #expect(throws: QuernError.self) { try RGBImage(width: -1, height: -1, bytes: [1, 2, 3]) }
    let image = try RGBImage(width: 1, height: 1, bytes: [1, 2, 3])
    #expect(throws: QuernError.self) { try image.resized(height: 0, width: 3, .bicubic) }
    #expect(try image.resized(height: 2, width: 2, .bicubic).bytes == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3])
    var clip = try ImagePreprocessor(directory: Self.directory("clip"))
    clip.crop = 17
    #expect(throws: QuernError.self) { try clip.pixels(image) }
  }
}

import Foundation
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

@Suite struct ModelIndexTests {
  private func index(_ text: String) throws -> ModelIndex {
    let directory = FileManager.default.temporaryDirectory.appending(path: "quern-index-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    try Data(text.utf8).write(to: directory.appending(path: "model_index.json"))
    return try ModelIndex(directory: directory.path)
  }

  @Test func partsByFolder() throws {
    let read = try index(
      """
      {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": false,
       "safety_checker": [null, null], "unet": ["diffusers", "UNet2DConditionModel"]}
      """)
    #expect(read.pipeline == "StableDiffusionPipeline")
    #expect(read.parts == ["unet": .init(library: "diffusers", className: "UNet2DConditionModel")])
  }

  @Test(arguments: [
    (#"{"_class_name": "P", "unet": ["diffusers"]}"#, "unet"),
    (#"{"_class_name": "P", "unet": ["diffusers", 3]}"#, "unet[1]"),
    (#"{"unet": ["diffusers", "A"]}"#, "_class_name"), (#"{"_class_name": "P", "unet": [null, "A"]}"#, "unet"),
  ])
  func refusals(text: String, field: String) {
    #expect { try index(text) } throws: { ($0 as? ModelError)?.field == field }
  }
}

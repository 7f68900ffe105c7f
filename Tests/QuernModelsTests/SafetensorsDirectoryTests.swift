import Foundation
import QuernModels
import QuernTesting
import Testing

@Suite struct SafetensorsDirectoryTests {
  private static func shard(_ folder: TemporaryFolder, _ name: String, _ tensors: [String: Float]) throws {
    try Safetensors.write(
      path: folder.path + "/" + name,
      tensors: tensors.map { .init(name: $0.key, shape: [1], values: .float32([$0.value])) })
  }

  private static func model(_ weightMap: String) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try shard(folder, "m-1.safetensors", ["a": 1, "b": 2])
    try shard(folder, "m-2.safetensors", ["c": 3])
    try folder.write(
      "model.safetensors.index.json", "{\"metadata\":{\"total_size\":12},\"weight_map\":\(weightMap)}".utf8)
    return folder
  }

  @Test func readsShards() throws {
    let folder = try Self.model(#"{"a":"m-1.safetensors","c":"m-2.safetensors","b":"m-1.safetensors"}"#)
    let directory = try SafetensorsDirectory(path: folder.path)
    #expect(Set(directory.tensorNames) == ["a", "b", "c"])
    for (name, value) in [("a", Float(1)), ("b", 2), ("c", 3)] {
      #expect(try directory.readFloat32(name) == [value])
      #expect(try directory.info(name).shape == [1])
    }
    #expect(modelError { _ = try directory.info("d") }?.field == "tensors.d")
    #expect(directory.contains("a") && !directory.contains("d"))
  }

  @Test func readsASingleFile() throws {
    let folder = try TemporaryFolder()
    try Self.shard(folder, "diffusion_pytorch_model.safetensors", ["a": 1])
    let directory = try SafetensorsDirectory(path: folder.path, baseName: "diffusion_pytorch_model")
    #expect(try directory.readFloat32("a") == [1])
    #expect(modelError { _ = try SafetensorsDirectory(path: folder.path) }?.reason.contains("neither") == true)
    #expect(modelError { _ = try SafetensorsDirectory(path: folder.path + "/none") }?.reason == "no such directory")
  }

  @Test(arguments: [
    (#"{"a":"../m-1.safetensors"}"#, "weight_map.a"),
    (#"{"a":"/etc/passwd"}"#, "weight_map.a"),
    (#"{"a":"x/../m-1.safetensors"}"#, "weight_map.a"),
    (#"{"a":"./m-1.safetensors"}"#, "weight_map.a"),
    (#"{"a":""}"#, "weight_map.a"),
    (#"{"a":"m-1.safetensors\u0000x"}"#, "weight_map.a"),
    (#"{"a":"m-3.safetensors"}"#, "weight_map.a"),
    (#"{"z":"m-1.safetensors"}"#, "weight_map.z"),
    (#"{"c":"m-1.safetensors"}"#, "weight_map.c"),
    (#"{"a":1}"#, "weight_map.a"),
    (#"{"a":"m-1.safetensors","a":"m-1.safetensors"}"#, "weight_map.a"),
    (#"[]"#, "weight_map"),
    (#"{"a":"m-1.safetensors"}"#, "tensors.b"),
  ])
  func refuses(weightMap: String, field: String) throws {
    let folder = try Self.model(weightMap)
    let error = modelError { _ = try SafetensorsDirectory(path: folder.path) }
    #expect(error?.field == field)
    #expect(error?.file.hasPrefix(folder.path) == true)
    #expect(error?.offset != nil || field == "tensors.b")
  }
}

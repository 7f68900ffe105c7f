import Foundation
import QuernModels
import QuernTesting
import Testing

@Suite struct HubConfigTests {
  @Test func readsFields() throws {
    let folder = try TemporaryFolder()
    let text = #"{"hidden_size":384,"layer_norm_eps":1e-12,"hidden_act":"gelu","use_cache":true,"extra":null}"#
    try folder.write("config.json", text.utf8)
    let config = try HubConfig(directory: folder.path)
    #expect(try config.int("hidden_size") == 384)
    #expect(try config.int("missing", default: 7) == 7 && config.int("extra", default: 8) == 8)
    #expect(try config.double("layer_norm_eps") == 1e-12)
    #expect(try config.bool("use_cache", default: false))
    #expect(try config.string("hidden_act", oneOf: ["gelu", "relu"]) == "gelu")
    #expect(modelError { _ = try config.string("hidden_act", oneOf: ["relu"]) }?.field == "hidden_act")
    #expect(modelError { _ = try config.int("hidden_size", in: 1...100) }?.field == "hidden_size")
    #expect(
      modelError { _ = try config.int("nothing") }?.description.hasSuffix("config.json: nothing (byte 0): is missing")
        == true)
  }

  @Test func missingFilesSayWhatToDo() throws {
    let folder = try TemporaryFolder()
    let error = modelError { _ = try HubConfig(directory: folder.path) }
    #expect(error?.description == "\(folder.path)/config.json: no such file; a Hugging Face model directory has one")
    #expect(try HubConfig.ifPresent(directory: folder.path, name: "modules.json") == nil)
    #expect(
      modelError { _ = try HubConfig(directory: "/no/such") }?.reason.contains("/no/such is not a directory") == true)
    try folder.write("1_Pooling/config.json", "[".utf8)
    #expect(modelError { _ = try HubConfig(directory: folder.path, name: "1_Pooling/config.json") }?.offset == 1)
  }
}

@Suite struct FileBytesTests {
  @Test func errorsOfOpening() throws {
    let folder = try TemporaryFolder()
    #expect(modelError { _ = try ModelFile(path: folder.path) }?.reason == "is a directory, where a file is needed")
    #expect(modelError { _ = try ModelFile(path: folder.path + "/x") }?.reason == "no such file")
    #expect(modelError { _ = try ModelFile(path: "/dev/null") }?.reason == "is not a regular file")
    mkfifo(folder.path + "/pipe", 0o600)
    #expect(modelError { _ = try ModelFile(path: folder.path + "/pipe") }?.reason == "is not a regular file")
  }

  @Test func readsRanges() throws {
    let folder = try TemporaryFolder()
    let file = try ModelFile(path: folder.write("x", 0..<200))
    #expect(try file.read(10..<20).withUnsafeBytes { Array($0) } == Array(10..<20))
    #expect(try file.read(200..<200).count == 0)
    for range in [0..<201, 199..<300, -1..<5, 500..<500, 0..<Int.max] {
      #expect(modelError { _ = try file.read(range) }?.offset == range.lowerBound)
    }
    #expect(modelError { _ = try file.readAll(limit: 199) } != nil)
  }
}

@Suite struct ModelErrorTests {
  @Test func isOneLineWhateverTheNames() {
    let error = ModelError(
      file: "a\nb", field: "x\u{202E}\u{1B}[31m" + String(repeating: "é", count: 10_000), offset: 5, reason: "why\r\n")
    let text = error.description
    #expect(text.hasPrefix("a\\u{A}b: x\\u{202E}\\u{1B}[31m"))
    #expect(text.hasSuffix(" (byte 5): why\\u{D}\\u{A}"))
    #expect(text.unicodeScalars.count < 600)
  }
}

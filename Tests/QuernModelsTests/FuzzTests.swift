import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Files with bytes changed, cut, doubled and spliced by a seeded generator: a typed error or a result, never a trap.
@Suite struct FuzzTests {
  private static let rounds = ProcessInfo.processInfo.environment["QUERN_SANITIZE"] == nil ? 1500 : 200

  @Test func safetensorsNeverTrap() throws {
    try fuzz("safetensors/good.safetensors") { path in
      let file = try Safetensors(path: path)
      for name in file.tensorNames where try file.info(name).elementCount < 1 << 16 {
        _ = try? file.readFloat32(name)
        _ = try? file.readInt64(name)
        _ = try file.readBytes(name)
      }
    }
  }

  @Test func ggufNeverTraps() throws {
    try fuzz("gguf/types.gguf") { try GGUFMalformedTests.readEverything($0) }
  }

  @Test(arguments: ["gpt-oss-mxfp4", "deepseek-v3"]) func ggufDecodersNeverTrap(_ family: String) throws {
    try fuzz("decoders/\(family).gguf", as: "m.gguf") { _ = try DecoderModel(path: $0, context: Context()) }
  }

  @Test(arguments: ["uncased.json", "pairs.expected.json"]) func jsonNeverTraps(_ name: String) throws {
    try fuzz("wordpiece/\(name)") { _ = try JSONDocument(path: $0) }
  }

  @Test func tokenizersNeverTrap() throws {
    try fuzz("wordpiece/uncased.json", as: "tokenizer.json") { path in
      let tokenizer = try TokenizerFile.load(directory: (path as NSString).deletingLastPathComponent)
      _ = try tokenizer.encode("Un naïve café, and 東京 again: \u{301}x", options: EncodingOptions())
    }
  }

  @Test(arguments: ["llama3", "llama2", "t5", "clip"]) func hubTokenizersNeverTrap(_ layout: String) throws {
    try fuzz("tokenizers/\(layout).json", as: "tokenizer.json") { path in
      let tokenizer = try HubTokenizer(path: path)
      let ids = try tokenizer.encode("Un naïve café, and 東京 again: \u{301}x ﬁ\r\n 123", options: EncodingOptions())
      _ = try tokenizer.decode(ids)
    }
  }

  @Test(arguments: ["tiny-bert", "encoders/roberta", "encoders/modernbert", "images/clip", "images/vit", "t5/t5-gated"])
  func configurationsNeverTrap(_ model: String) throws {
    try fuzz("\(model)/config.json", as: "config.json") { path in
      let config = try HubConfig(directory: (path as NSString).deletingLastPathComponent)
      switch model {
      case "images/clip": _ = try CLIPConfiguration(config)
      case "images/vit": _ = try ImageEncoderConfiguration(config)
      case "t5/t5-gated": _ = try T5Configuration(config)
      default: _ = try EncoderConfiguration(config)
      }
    }
  }

  @Test(arguments: ["config.json", "model.safetensors"]) func fp8ModelsNeverTrap(_ name: String) throws {
    let model = Fixture.path("fp8/qwen3-moe")
    let folder = try TemporaryFolder(copying: ["config.json", "model.safetensors"], of: model)
    try fuzz("\(model)/\(name)", as: name, in: folder) { _ in
      _ = try DecoderModel.memoryNeed(path: folder.path, capacity: 20)
      _ = try DecoderModel(path: folder.path, context: Context())
    }
  }

  @Test func quantisedModelsNeverTrap() throws {
    let (model, folder) = (try RandomModel(hidden: 32, inner: 32, layers: 1).folder(), try TemporaryFolder())
    _ = try ModelQuantizer(model: model.path, as: .blocks(.q8)).write(to: folder.path)
    try fuzz("\(folder.path)/model.safetensors", as: "model.safetensors", in: folder) { _ in
      _ = try EncoderModel(directory: folder.path, context: Context("reference"))
    }
  }

  #if OpenBLAS
    @Test func compressedModelsNeverTrap() throws {
      let (model, folder) = (try RandomModel(hidden: 32, inner: 32, layers: 1).folder(), try TemporaryFolder())
      _ = try ModelCompressor(model: model.path, to: .rank(4)).write(to: folder.path)
      try fuzz("\(folder.path)/model.safetensors", as: "model.safetensors", in: folder) { _ in
        _ = try EncoderModel(directory: folder.path, context: Context("reference"))
      }
    }
  #endif

  private func fuzz(_ fixture: String, as name: String = "file", _ body: (String) throws -> Void) throws {
    try fuzz(Fixture.path(fixture), as: name, in: TemporaryFolder(), body)
  }

  private func fuzz(
    _ fixture: String, as name: String, in folder: TemporaryFolder, _ body: (String) throws -> Void
  ) throws {
    let original = [UInt8](try Data(contentsOf: URL(fileURLWithPath: fixture)))
    var random = SeededRandom()
    var refused = 0
    for _ in 0..<Self.rounds {
      let path = try folder.write(name, mutated(original, &random))
      do {
        try body(path)
      } catch {
        refused += 1
        #expect(error is ModelError, "\(error)")
      }
    }
    #expect(refused > 0, "no change of \(fixture) was refused")
  }

  private func mutated(_ original: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
    var bytes = original
    // Headers are where the rules are: half of the changes fall within the first 512 bytes.
    func position() -> Int {
      Int.random(in: 0..<(Bool.random(using: &random) ? min(512, bytes.count) : bytes.count), using: &random)
    }
    for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
      let at = position()
      switch Int.random(in: 0..<6, using: &random) {
      case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
      case 1: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 2: bytes[at] = Array("0123456789{}[]\",:-.eE\\".utf8).randomElement(using: &random)!
      case 3: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...16, using: &random)))
      case 4: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + 16)], at: position())
      default: bytes.removeSubrange(at...)
      }
    }
    return bytes
  }
}

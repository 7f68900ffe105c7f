import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Models in several GGUF files, and stacks of experts in them, that do not fit together.
@Suite struct GGUFSplitTests {
  /// The metadata of one part, and a tensor with its number.
  struct Part: Sendable {
    var number: UInt16
    var count: UInt16? = 2
    var tensors: Int32? = 2
    var tensor = ""

    var bytes: [UInt8] {
      var builder = GGUFBuilder()
      builder.key("split.no", 2, GGUFBuilder.number(number))
      if let count { builder.key("split.count", 2, GGUFBuilder.number(count)) }
      if let tensors { builder.key("split.tensors.count", 5, GGUFBuilder.number(tensors)) }
      let name = tensor.isEmpty ? "t\(number)" : tensor
      builder.tensor(name, [1], data: GGUFBuilder.number(Float(number).bitPattern))
      return builder.bytes
    }
  }

  private static func open(_ first: Part, _ second: Part?, opening name: String = "m-00001-of-00002.gguf") throws -> (
    GGUF, TemporaryFolder
  ) {
    let folder = try TemporaryFolder()
    try folder.write(name.contains("00002-of") ? "m-00001-of-00002.gguf" : name, first.bytes)
    if let second { try folder.write("m-00002-of-00002.gguf", second.bytes) }
    return (try GGUF(path: "\(folder.path)/\(name)"), folder)
  }

  @Test func partsAreOneModel() throws {
    let (file, folder) = try Self.open(Part(number: 0), Part(number: 1))
    try withExtendedLifetime(folder) {
      #expect(file.tensorNames == ["t0", "t1"])
      let (first, second) = (try file.readFloat32("t0"), try file.readFloat32("t1"))
      #expect(first == [0] && second == [1])
    }
  }

  struct Bad: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var file: String
    var field: String
    var first = Part(number: 0)
    var second: Part? = Part(number: 1)
    var opening = "m-00001-of-00002.gguf"
  }

  static let bad: [Bad] = [
    Bad(testDescription: "missing", file: "m-00002-of-00002.gguf", field: "", second: nil),
    Bad(
      testDescription: "second part", file: "m-00002-of-00002.gguf", field: "metadata.split.no",
      opening: "m-00002-of-00002.gguf"),
    Bad(testDescription: "name", file: "model.gguf", field: "metadata.split.no", opening: "model.gguf"),
    Bad(
      testDescription: "number", file: "m-00002-of-00002.gguf", field: "metadata.split.no", second: Part(number: 0)),
    Bad(
      testDescription: "count", file: "m-00002-of-00002.gguf", field: "metadata.split.count",
      second: Part(number: 1, count: 3)),
    Bad(
      testDescription: "no count", file: "m-00002-of-00002.gguf", field: "metadata.split.count",
      second: Part(number: 1, count: nil)),
    Bad(
      testDescription: "tensors differ", file: "m-00002-of-00002.gguf", field: "metadata.split.tensors.count",
      second: Part(number: 1, tensors: 3)),
    Bad(
      testDescription: "tensors", file: "m-00001-of-00002.gguf", field: "metadata.split.tensors.count",
      first: Part(number: 0, tensors: 3), second: Part(number: 1, tensors: 3)),
    Bad(
      testDescription: "a tensor twice", file: "m-00002-of-00002.gguf", field: "tensors.t0",
      second: Part(number: 1, tensor: "t0")),
    Bad(
      testDescription: "many parts", file: "m-00001-of-00002.gguf", field: "metadata.split.count",
      first: Part(number: 0, count: 5000)),
    Bad(
      testDescription: "number beyond", file: "m-00001-of-00002.gguf", field: "metadata.split.no",
      first: Part(number: 2)),
  ]

  @Test(arguments: bad) func partsThatDoNotFitAreRefused(_ bad: Bad) throws {
    let error = modelError { _ = try Self.open(bad.first, bad.second, opening: bad.opening) }
    #expect(error?.file.hasSuffix(bad.file) == true, "\(error.map { "\($0)" } ?? "nothing")")
    #expect(error?.field == bad.field)
  }

  /// Stacks with fewer experts than the metadata says, or of another shape.
  @Test(arguments: [([4, 2, 3], 4), ([4, 2], 2)] as [([UInt64], Int)])
  func stacksThatDoNotFitAreRefused(_ extents: [UInt64], _ experts: Int) throws {
    let folder = try TemporaryFolder()
    var builder = GGUFTokenizerTests.sentencePiece()
    TinyGGUF.addLlama(to: &builder, vocabulary: 259)
    builder.key("llama.expert_count", 4, GGUFBuilder.number(UInt32(experts)))
    builder.key("llama.expert_used_count", 4, GGUFBuilder.number(UInt32(2)))
    let zeros = { (count: UInt64) in [UInt8](repeating: 0, count: Int(count) * 4) }
    builder.tensor("blk.0.ffn_gate_inp.weight", [32, UInt64(experts)], data: zeros(32 * UInt64(experts)))
    for name in ["gate", "up", "down"] {
      builder.tensor("blk.0.ffn_\(name)_exps.weight", extents, data: zeros(extents.reduce(1, *)))
    }
    let path = try folder.write("m.gguf", builder.bytes)
    let error = modelError { _ = try DecoderModel(path: path, context: Context()) }
    #expect(error?.field.hasPrefix("tensors.blk.0.ffn_") == true && error?.field.hasSuffix(".shape") == true)
    #expect(error?.offset != nil)
  }
}

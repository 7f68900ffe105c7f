import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// What `ModelQuantizer` will not do, and that nothing is left of what it did not finish.
@Suite struct QuantizeRefusalTests {
  private static let q8 = WeightStorage.blocks(.q8)

  private static func write(_ input: String, _ output: String, replacing: Bool = false) throws {
    _ = try ModelQuantizer(model: input, as: q8).write(to: output, replacing: replacing)
  }

  @Test func theModelsOwnFolderIsNeverWrittenTo() throws {
    let model = try RandomModel().folder()
    let before = RandomModel.everything(model.path)
    let links = try TemporaryFolder()
    try FileManager.default.createSymbolicLink(atPath: "\(links.path)/link", withDestinationPath: model.path)
    let outputs = [
      model.path, "\(model.path)/", "\(model.path)/new", "\(model.path)/new/deeper", "\(model.path)/1_Pooling",
      "\(links.path)/link", "\(links.path)/link/new", "\(links.path)/no/../link/new",
      "\(links.path)/../\((links.path as NSString).lastPathComponent)/link",
    ]
    for output in outputs {
      for replacing in [false, true] {
        let error = modelError { try Self.write(model.path, output, replacing: replacing) }
        #expect(
          error?.file == output && error?.reason.contains("the folder that is read") == true, "\(output): \(error!)")
      }
    }
    #expect(RandomModel.everything(model.path) == before)
    #expect(RandomModel.everything(links.path) == ["link"])
    // Named through a link, it is the same folder.
    let error = modelError { try Self.write("\(links.path)/link", model.path) }
    #expect(error?.reason.contains("the folder that is read") == true)
  }

  @Test func aFolderThatIsNotEmptyIsRefusedUnlessItMayBeReplaced() throws {
    let (model, place) = (try RandomModel().folder(), try TemporaryFolder())
    for name in ["mine", "config.json", "modules.json", "model.safetensors.index.json", "model.safetensors"] {
      try place.write(name, "old".utf8)
    }
    let before = RandomModel.everything(place.path)
    let error = modelError { try Self.write(model.path, place.path) }
    #expect(error?.file == place.path && error?.reason.contains("not empty") == true)
    #expect(RandomModel.everything(place.path) == before)
    try Self.write(model.path, place.path, replacing: true)
    // What an earlier model left would be read with this one.
    #expect(
      RandomModel.everything(place.path) == [
        "1_Pooling", "1_Pooling/config.json", "config.json", "mine", "model.safetensors", "vocab.txt",
      ])
    #expect(try !RandomModel.output(place.path).isEmpty)
  }

  @Test func linksInTheOutputAreNotFollowed() throws {
    let (model, place) = (try RandomModel().folder(), try TemporaryFolder())
    let original = try Data(contentsOf: URL(fileURLWithPath: "\(model.path)/model.safetensors"))
    for name in ["1_Pooling", "model.safetensors"] {
      try FileManager.default.createSymbolicLink(
        atPath: "\(place.path)/\(name)", withDestinationPath: "\(model.path)/\(name)")
    }
    let error = modelError { try Self.write(model.path, place.path, replacing: true) }
    #expect(error?.file == "\(place.path)/1_Pooling" && error?.reason.contains("not a folder") == true)
    #expect(try Data(contentsOf: URL(fileURLWithPath: "\(model.path)/model.safetensors")) == original)
    #expect(!RandomModel.everything(place.path).contains("config.json"))
  }

  @Test func outputsThatCannotBeMadeAreNamed() throws {
    let (model, place) = (try RandomModel().folder(), try TemporaryFolder())
    let file = try place.write("file", "x".utf8)
    for output in [file, file + "/below", "", "a\0b"] {
      let error = modelError { try Self.write(model.path, output) }
      #expect(error != nil && error?.description.contains("\n") == false, "\(output)")
    }
    #expect(RandomModel.everything(place.path) == ["file"])
  }

  struct Stop: Error {}

  @Test(arguments: [1, 3]) func aRunThatFailsLeavesNothing(_ shards: Int) throws {
    let spoiled = "encoder.layer.1.output.dense.weight"
    let model = try RandomModel(shards: shards, spoiled: spoiled).folder()
    let place = try TemporaryFolder()
    let output = "\(place.path)/a/b"
    let error = try #require(modelError { try Self.write(model.path, output) })
    #expect(error.field == "tensors.\(spoiled)" && error.reason.contains("finite") && error.offset != nil, "\(error)")
    #expect(error.file.hasPrefix(model.path) && error.file.hasSuffix(".safetensors"))
    #expect(RandomModel.everything(place.path) == [])
    // A folder that was there and empty stays.
    try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
    #expect(throws: ModelError.self) { try Self.write(model.path, output) }
    #expect(RandomModel.everything(place.path) == ["a", "a/b"])
  }

  @Test func aRunThatIsStoppedAnywhereLeavesNothingHalf() throws {
    let model = RandomModel(layers: 1, shards: 2)
    let (input, place) = (try model.folder(), try TemporaryFolder())
    let quantizer = try ModelQuantizer(model: input.path, as: Self.q8)
    let steps = model.tensors().count
    for last in 1...steps {
      let output = "\(place.path)/out"
      var step = 0
      #expect(throws: Stop.self) {
        _ = try quantizer.write(to: output) { _ in
          step += 1
          if step == last { throw Stop() }
        }
      }
      #expect(RandomModel.everything(place.path) == [])
    }
    // In the place of another model: nothing half, nothing temporary, and nothing that loads.
    let used = try TemporaryFolder()
    _ = try ModelQuantizer(model: input.path, as: .bf16).write(to: used.path)
    let names = RandomModel.everything(used.path)
    #expect(throws: Stop.self) { _ = try quantizer.write(to: used.path, replacing: true) { _ in throw Stop() } }
    #expect(RandomModel.everything(used.path) == names.filter { $0 != "config.json" })
    _ = try quantizer.write(to: used.path, replacing: true)
    #expect(RandomModel.everything(used.path) == names)
  }

  @Test func modelsThatWouldNotLoadAreRefused() throws {
    func failure(_ change: (inout [Safetensors.NewTensor]) -> Void) throws -> ModelError? {
      let folder = try RandomModel().folder(change)
      return modelError { _ = try ModelQuantizer(model: folder.path, as: Self.q8) }
    }
    let name = RandomModel.query
    func index(_ tensors: [Safetensors.NewTensor]) -> Int { tensors.firstIndex { $0.name == name } ?? 0 }
    let missing = try failure { $0.remove(at: index($0)) }
    #expect(missing?.field == "tensors.\(name)")
    let shape = try failure { $0[index($0)].shape = [32, 128] }
    #expect(shape?.field == "tensors.\(name).shape" && shape?.offset != nil)
    let type = try failure { $0[index($0)].values = .int64([Int64](repeating: 1, count: 64 * 64)) }
    #expect(type?.field == "tensors.\(name).dtype" && type?.reason.contains("I64") == true && type?.offset != nil)
    let other = try TemporaryFolder()
    try other.write("config.json", #"{"model_type": "bart"}"#.utf8)
    #expect(modelError { _ = try ModelQuantizer(model: other.path, as: Self.q8) }?.field == "model_type")
    #expect(
      modelError { _ = try ModelQuantizer(model: "/nonexistent", as: Self.q8) }?.file.contains("/nonexistent") == true)
  }

  @Test(arguments: WeightStorage.allCases) func whatIsQuantisedAlreadyIsRefused(_ storage: WeightStorage) throws {
    let (model, place) = (try RandomModel().folder(), try TemporaryFolder())
    try Self.write(model.path, place.path)
    let error = modelError { _ = try ModelQuantizer(model: place.path, as: storage) }
    #expect(error?.field == "tensors.\(RandomModel.query)" && error?.reason.contains("q8_0 already") == true)
  }

  // MARK: The command

  private func quern(_ arguments: String...) throws -> BuiltProgram.Output { try BuiltProgram("quern").run(arguments) }

  @Test func theCommandSaysWhatItDid() throws {
    let (model, place) = (try RandomModel(inner: 80).folder(), try TemporaryFolder())
    let output = "\(place.path)/out"
    let done = try quern("quantize", "--model", model.path, "--dtype", "q4_0", "--output", output)
    #expect(done.status == 0 && done.standardError.isEmpty, "\(done)")
    for text in ["in q4_0", "encoder.layer.1.output.dense.weight, 80 inputs", "quern forward --model \(output) "] {
      #expect(done.standardOutput.contains(text), "\(text) in \(done.standardOutput)")
    }
    let again = try quern("quantize", "--model", model.path, "--dtype", "q4_0", "--output", output)
    #expect(again.status == 1 && again.standardOutput.isEmpty && again.standardError.contains("--force"))
    #expect(again.standardError.split(separator: "\n").count == 1)
    let json = try quern(
      "quantize", "--model", model.path, "--dtype", "bf16", "--output", output, "--force", "--format", "json")
    struct Report: Decodable {
      struct Matrix: Decodable { let name: String, largestError: Double, bytesAfter: Int }
      let storage: String, matrices: [Matrix], bytesBefore: Int, bytesAfter: Int
    }
    let report = try JSONDecoder().decode(Report.self, from: Data(json.standardOutput.utf8))
    #expect(report.storage == "bf16" && report.matrices.count == 12 && report.bytesAfter < report.bytesBefore)
    let usage = try quern("quantize", "--model", model.path, "--dtype", "q9", "--output", output)
    #expect(usage.status == 2 && usage.standardError.contains("q8_0"))
  }

  @Test func forwardRunsWhatWasWritten() throws {
    let place = try TemporaryFolder()
    let (tiny, output) = (Fixture.path("tiny-bert"), "\(place.path)/out")
    #expect(try quern("quantize", "--model", tiny, "--dtype", "q8_0", "--output", output).status == 0)
    let result = "\(place.path)/hidden.safetensors"
    let run = try quern("forward", "--model", output, "--inputs", "\(tiny)/inputs.safetensors", "--outputs", result)
    #expect(run.status == 0, "\(run.standardError)")
    #expect(try Safetensors(path: result).info("last_hidden_state").shape == [3, 17, 32])
  }
}

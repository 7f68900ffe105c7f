import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// The `quern` tool: contracts that scripts rely on, exit codes, one line on standard error.
@Suite struct CommandTests {
  private static let tiny = Fixture.path("tiny-bert")

  private func quern(
    _ arguments: [String], environment: [String: String] = [:], input: Data = Data()
  ) throws -> BuiltProgram.Output {
    try BuiltProgram("quern").run(arguments, environment: environment, input: input)
  }

  /// Exit code 1, nothing on standard output, one line on standard error that holds these words.
  private func expectFailure(_ output: BuiltProgram.Output, _ words: String...) {
    #expect(output.status == 1, "\(output)")
    #expect(output.standardOutput.isEmpty)
    #expect(output.standardError.split(separator: "\n").count == 1, "\(output.standardError)")
    for word in words { #expect(output.standardError.contains(word), "\(word) in \(output.standardError)") }
  }

  @Test func backendsAreListed() throws {
    let output = try quern(["backends", "--format", "json"])
    #expect(output.status == 0, "\(output.standardError)")
    for name in ["reference", "blas", "multithreaded"] { #expect(output.standardOutput.contains("\"\(name)\"")) }
    #expect(try quern(["backends"]).standardOutput.contains("* multithreaded"))
    #expect(try quern(["backends"], environment: ["QUERN_BACKEND": "reference"]).standardOutput.contains("* reference"))
  }

  @Test func verificationIsSaidAndRuns() throws {
    let environment = ["QUERN_VERIFY": "1"]
    #expect(try quern(["backends"], environment: environment).standardOutput.contains("QUERN_VERIFY=1"))
    #expect(try !quern(["backends"]).standardOutput.contains("QUERN_VERIFY"))
    let json = try quern(["backends", "--format", "json"], environment: environment).standardOutput
    #expect(json.contains("\"verified\" : true"))
    #if OpenBLAS  // else blas is listed, and runs nothing
      #expect(!json.contains("\"verified\" : false"))
    #endif
    let folder = try TemporaryFolder()
    let output = try quern(
      [
        "forward", "--model", Self.tiny, "--inputs", "\(Self.tiny)/inputs.safetensors", "--outputs",
        "\(folder.path)/out.safetensors",
      ], environment: environment)
    #expect(output.status == 0, "\(output.standardError)")
  }

  @Test func forwardWritesTheOutputAndPrintsSeconds() throws {
    let folder = try TemporaryFolder()
    let outputs = "\(folder.path)/out.safetensors"
    let output = try quern([
      "forward", "--model", Self.tiny, "--inputs", "\(Self.tiny)/inputs.safetensors", "--outputs", outputs, "--repeat",
      "3",
    ])
    #expect(output.status == 0, "\(output.standardError)")
    struct Seconds: Decodable { let seconds: [Double] }
    let seconds = try JSONDecoder().decode(Seconds.self, from: Data(output.standardOutput.utf8)).seconds
    #expect(seconds.count == 3 && seconds.allSatisfy { $0 > 0 })
    #expect(try Safetensors(path: outputs).info("last_hidden_state").shape == [3, 17, 32])
  }

  #if ImageFiles
    /// Against Pillow's filters and transformers.
    @Test func forwardClassifiesAnImage() throws {
      let (directory, folder) = (Fixture.path("resnets/bottleneck"), try TemporaryFolder())
      let (image, outputs) = ("\(directory)/image.png", "\(folder.path)/out.safetensors")
      let output = try quern([
        "forward", "--model", directory, "--image", image, "--image", image, "--outputs", outputs,
      ])
      #expect(output.status == 0, "\(output.standardError)")
      let expected = try Safetensors(path: "\(directory)/values.safetensors").readFloat32("image_logits")
      let logits = try Safetensors(path: outputs)
      #expect(try logits.info("logits").shape == [2, 5])
      let difference = try Parity.difference(logits.readFloat32("logits"), expected + expected)
      print("an image's logits: largest difference \(difference) of the largest value")
      #expect(difference < 1e-5)
      expectFailure(
        try quern(["forward", "--model", Self.tiny, "--image", image, "--outputs", outputs]), "model_type", "images")
    }
  #endif

  @Test func unknownBackendsListTheValidOnes() throws {
    let output = try quern(["embed", "--model", Self.tiny, "x"], environment: ["QUERN_BACKEND": "cuda"])
    expectFailure(output, "cuda", "reference", "blas", "multithreaded")
  }

  @Test(arguments: [
    ("QUERN_NUM_THREADS", "0"), ("QUERN_NUM_THREADS", "many"), ("QUERN_NUM_THREADS", "257"), ("QUERN_MAX_ISA", "sse9"),
    ("QUERN_TRACE", "everything"), ("QUERN_F32", "tf32"), ("QUERN_CONV", "fft"), ("QUERN_VERIFY", "yes"),
  ])
  func settingsOutOfRangeSaySo(_ name: String, _ value: String) throws {
    let output = try quern(["embed", "--model", Self.tiny, "x"], environment: [name: value])
    expectFailure(output, name, value, "expected")
  }

  @Test func theInstructionSetCanBeLowered() throws {
    let output = try quern(["backends", "--format", "json"], environment: ["QUERN_MAX_ISA": "scalar"])
    #expect(output.standardOutput.contains("\"scalar\""))
    #expect(!output.standardOutput.contains("\"avx2\"") && !output.standardOutput.contains("\"avx512\""))
  }

  @Test func missingFilesAreNamed() throws {
    expectFailure(try quern(["embed", "--model", "/nonexistent", "x"]), "/nonexistent")
    let folder = try TemporaryFolder()
    expectFailure(try quern(["embed", "--model", folder.path, "x"]), folder.path, "config.json")
    let output = try quern([
      "forward", "--model", Self.tiny, "--inputs", "/nonexistent.safetensors", "--outputs", "\(folder.path)/o",
    ])
    expectFailure(output, "/nonexistent.safetensors")
  }

  @Test func wrongUsageExitsWithTwo() throws {
    #expect(try quern(["embed"]).status == 2)
    #expect(try quern(["unknown"]).status == 2)
    #expect(try quern(["forward", "--model", "x", "--inputs", "y", "--outputs", "z", "--repeat", "0"]).status == 2)
    #expect(try quern(["forward", "--model", "x", "--outputs", "z"]).status == 2)
    #expect(try quern(["forward", "--model", "x", "--outputs", "z", "--inputs", "y", "--image", "i"]).status == 2)
    #expect(try quern(["--help"]).status == 0)
  }

  @Test(.enabled(if: Fixture.miniLM != nil, "needs all-MiniLM-L6-v2: run `make model`"))
  func textThatIsNotUTF8IsRefusedAndEmptyTextIsNot() throws {
    let model = try #require(Fixture.miniLM)
    let bad = try quern(["embed", "--model", model], input: Data([0x61, 0x0A, 0xFF, 0xFE, 0x0A]))
    expectFailure(bad, "line 2", "UTF-8", "byte 2")
    let empty = try quern(["embed", "--model", model, ""])
    #expect(empty.status == 0 && empty.standardOutput.split(separator: " ").count == 384)
  }
}

import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Whole models with every operation compared with the reference's.
@Suite struct VerifiedModelTests {
  private static func context(_ backend: String) throws -> Context {
    try Context(backend, options: BackendOptions(verifies: true))
  }

  private static func runEncoder(_ context: Context) throws {
    let directory = Fixture.path("tiny-bert")
    let forward = try NamedForward(directory: directory, context: context)
    let inputs = "\(directory)/inputs.safetensors"
    _ = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs))
  }

  /// A prompt in two pieces, then tokens one at a time.
  private static func runDecoder(_ family: String, _ type: CacheType, _ context: Context) throws {
    let model = try DecoderModel(path: Fixture.path("decoders/\(family)"), context: context)
    let (cache, workspace) = (try model.makeCache(capacity: 24, type: type), try DecoderModel.Workspace())
    let ids = (0..<22).map { Int32($0 * 7 % 90 + 3) }
    for range in [0..<9, 9..<20, 20..<21, 21..<22] {
      let hidden = try model.forward(
        Array(ids[range]), segments: Segments(single: range.count), cache: cache, workspace: workspace)
      _ = try model.logits(hidden, rows: [Int32(range.count - 1)], workspace: workspace)
    }
  }

  @Test(arguments: Parity.backends) func anEncoderPasses(_ backend: String) throws {
    try Self.runEncoder(Self.context(backend))
  }

  @Test(arguments: DecoderModelTests.families) func decodersPass(_ family: String) throws {
    for type in [CacheType.f32, .int8] { try Self.runDecoder(family, type, Self.context("multithreaded")) }
  }

  @Test(arguments: [Quern.Operation.linear, .gatedLinear, .attention, .rmsNorm, .rope, .appendToCache])
  func theWrongKernelOfADecoderIsNamed(_ operation: Quern.Operation) throws {
    let wrong = SpoilingBackend(try MultithreadedBackend(), only: operation)
    let error = thrown(QuernError.self) {
      try Self.runDecoder("llama3", .f32, Context(backend: VerifyingBackend(wrong)))
    }
    guard case .verification(let failure) = error else {
      Issue.record("\(operation): \(String(describing: error))")
      return
    }
    #expect(failure.operation == operation && failure.backend == SpoilingBackend.name)
    try Self.runDecoder("llama3", .f32, Context(backend: wrong))
  }
}

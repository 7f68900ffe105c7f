import Foundation
import Quern
import QuernModels
import Testing

/// Every family of decoders against `transformers`, and what it says to files that do not fit.
@Suite struct DecoderModelTests {
  static let families = [
    "deepseek-v2", "deepseek-v2-greedy", "deepseek-v3", "gemma2", "gemma3", "gpt-oss", "gpt-oss-mxfp4", "gpt2",
    "llama-linear", "llama-yarn", "llama3", "mistral", "mixtral", "phi3", "phi3-longrope", "qwen2", "qwen3",
    "qwen3-moe",
  ]

  static let backends = Backends.names.filter { Backends.unavailability(of: $0) == nil }

  private static func directory(_ family: String) -> String { Fixture.path("decoders/\(family)") }

  @Test(arguments: backends, families) func logitsAgreeWithTransformers(_ backend: String, _ family: String) throws {
    let directory = Self.directory(family)
    let forward = try NamedForward(directory: directory, context: Context(backend))
    let inputs = "\(directory)/inputs.safetensors"
    let logits = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("logits")
    #expect(logits.count == expected.count)
    let largest = expected.map(abs).max() ?? 0
    let difference = zip(logits, expected).map { abs($0 - $1) }.max() ?? .infinity
    // Products with quantised weights round x to 16 bits.
    let bound = (family.hasSuffix("mxfp4") ? 1e-4 : 1e-5) * largest
    #expect(difference <= bound, "largest difference \(difference) of \(largest)")
  }

  private static func ggufLogits(_ file: String, of family: String) throws -> (logits: [Float], expected: [Float]) {
    let directory = directory(family)
    let ids = try Safetensors(path: "\(directory)/inputs.safetensors").readInt64("input_ids").prefix(13).map {
      Int32($0)
    }
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("logits").prefix(13 * 96)
    let model = try DecoderModel(path: "\(self.directory(file)).gguf", context: Context(), precision: .f32)
    #expect(model.configuration.endOfText == [2])
    let (cache, workspace) = (try model.makeCache(capacity: 13), try DecoderModel.Workspace())
    let hidden = try model.forward(ids, segments: Segments(single: 13), cache: cache, workspace: workspace)
    return (
      try model.logits(hidden, rows: (0..<13).map { Int32($0) }, workspace: workspace).elements, Array(expected)
    )
  }

  /// The same weights in llama.cpp's names and order, and other metadata; one of them in three files, two with experts.
  @Test(arguments: [
    ("llama3", "llama3"), ("qwen2", "qwen2"), ("qwen3", "qwen3"), ("gemma2", "gemma2"), ("mixtral", "mixtral"),
    ("qwen3-moe-00001-of-00003", "qwen3-moe"),
  ])
  func ggufFilesGiveTheSameLogits(_ file: String, _ family: String) throws {
    let (logits, expected) = try Self.ggufLogits(file, of: family)
    let largest = expected.map(abs).max() ?? 0
    let difference = zip(logits, expected).map { abs($0 - $1) }.max() ?? .infinity
    #expect(difference <= 1e-5 * largest, "largest difference \(difference) of \(largest)")
  }

  /// Experts in blocks of 8 bits: near to what they were made of, by what 8 bits leave out.
  @Test func quantizedExpertsAreWidened() throws {
    let (logits, expected) = try Self.ggufLogits("mixtral-q8", of: "mixtral")
    let largest = expected.map(abs).max() ?? 0
    let difference = zip(logits, expected).map { abs($0 - $1) }.max() ?? .infinity
    #expect(difference <= 0.02 * largest && difference > 1e-5 * largest, "difference \(difference) of \(largest)")
  }

  /// A prompt in two pieces, then a token at a time, beside another sequence that stands still or runs ahead.
  @Test(arguments: backends, families) func greedyTokensAgreeWithTransformers(_ backend: String, _ family: String)
    throws
  {
    let directory = Self.directory(family)
    let ids = try Safetensors(path: "\(directory)/inputs.safetensors").readInt64("input_ids").prefix(13).map {
      Int32($0)
    }
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readInt64("greedy").map { Int32($0) }
    let model = try DecoderModel(path: directory, context: Context(backend))
    let cache = try model.makeCache(sequences: 2, capacity: 100)
    let workspace = try DecoderModel.Workspace()
    _ = try model.forward(
      Array(ids[0..<5]) + [7, 8], segments: Segments(lengths: [5, 2]), cache: cache, workspace: workspace)
    var next = Array(ids[5...])
    var produced: [Int32] = []
    while produced.count < expected.count {
      let other: [Int32] = produced.count % 3 == 0 ? [9] : []
      let hidden = try model.forward(
        next + other, segments: Segments(lengths: [next.count, other.count]), cache: cache, workspace: workspace)
      let logits = try model.logits(hidden, rows: [Int32(next.count - 1)], workspace: workspace).elements
      next = [Int32(logits.indices.max { logits[$0] < logits[$1] } ?? 0)]
      produced += next
    }
    #expect(produced == expected)
  }
}

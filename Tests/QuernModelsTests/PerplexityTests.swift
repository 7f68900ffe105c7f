import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Perplexity against sums of PyTorch's log softmax, windows put together by tools/fixtures/generation.py.
@Suite struct PerplexityTests {
  struct Case: Decodable, Sendable {
    let family: String
    let ids: [Int32]
    let context, stride, tokens: Int
    let negativeLogLikelihood: Double
  }

  static let cases: [Case] = (try? Fixture.decode([Case].self, "perplexity.json")) ?? []

  @Test func theFixturesAreThere() { #expect(Self.cases.count == 8) }

  @Test(arguments: 0..<8) func agreesWithPyTorch(_ index: Int) throws {
    let example = Self.cases[index]
    let model = try DecoderModel(
      path: Fixture.path("decoders/\(example.family)"), context: Context(), precision: .f32)
    let measure = try Perplexity(model: model, context: example.context, stride: example.stride)
    // In pieces that are no multiple of anything, twice: the second text must know nothing of the first.
    for pieces in [7, 1000] {
      for start in stride(from: 0, to: example.ids.count, by: pieces) {
        try measure.append(Array(example.ids[start..<min(start + pieces, example.ids.count)]))
      }
      let result = try measure.finish()
      #expect(result.tokens == example.tokens)
      let difference = abs(result.negativeLogLikelihood - example.negativeLogLikelihood)
      #expect(difference <= 2e-6 * example.negativeLogLikelihood, "difference \(difference)")
      #expect(result.perplexity == exp(result.negativeLogLikelihood / Double(result.tokens)))
    }
  }

  @Test func optionsAndTokensOutOfRangeAreRefused() throws {
    let model = try DecoderModel(path: Fixture.path("decoders/qwen3"), context: Context())
    for (context, stride) in [(1, 1), (129, 1), (32, 0), (32, 33)] {
      #expect(throws: GenerationError.self) { try Perplexity(model: model, context: context, stride: stride) }
    }
    let measure = try Perplexity(model: model)
    #expect(measure.context == 128 && measure.stride == 64)
    for ids in [[5, 96], [96, 5], [5, -1]] as [[Int32]] {
      let measure = try Perplexity(model: model)
      #expect(throws: QuernError.self) {
        try measure.append(ids)
        _ = try measure.finish()
      }
    }
    #expect(try measure.finish().tokens == 0)
  }

  @Test func theCommandMeasuresAFile() throws {
    let folder = try TextGeneratorTests.folder()
    let text = String(repeating: "Once upon a time,\n  there was a Größe of 12.5 – and so on.\n", count: 30)
    let file = try folder.write("text.txt", text.utf8)
    func quern(_ arguments: [String]) throws -> BuiltProgram.Output {
      try BuiltProgram("quern").run(["perplexity", "--model", folder.path, "--file", file] + arguments)
    }
    struct Row: Decodable {
      let perplexity: Double
      let tokens, windows, context, stride: Int
    }
    let output = try quern(["--context", "64", "--stride", "32", "--format", "json"])
    #expect(output.status == 0, "\(output.standardError)")
    let row = try JSONDecoder().decode(Row.self, from: Data(output.standardOutput.utf8))
    let generator = try TextGenerator(path: folder.path, context: Context())
    let model = try #require(generator.model as? DecoderModel)
    let measure = try Perplexity(model: model, context: 64, stride: 32)
    let ids = try generator.encode(text)
    try measure.append(ids)
    let result = try measure.finish()
    #expect(row.tokens == ids.count - 1 && row.windows == result.windows && row.context == 64 && row.stride == 32)
    #expect(abs(row.perplexity - result.perplexity) <= 1e-9 * result.perplexity)
    try folder.write("text.txt", Array("fine\n".utf8) + [0xFF])
    let bad = try quern([])
    #expect(bad.status == 1 && bad.standardError.contains("UTF-8"))
    try folder.write("text.txt", [])
    #expect(try quern([]).status == 1)
  }
}

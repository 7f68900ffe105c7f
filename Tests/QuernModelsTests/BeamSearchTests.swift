import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Beam search against transformers: the same sequences in the same order, with the same scores.
@Suite struct BeamSearchTests {
  struct Case: Decodable, Sendable {
    let family: String
    let prompt, stopIDs: [Int32]
    let beams: Int
    let lengthPenalty: Double
    let earlyStopping: String
    let sequences: [[Int32]]
    let scores: [Double]?
  }

  static let cases: [Case] = (try? Fixture.decode([Case].self, "beams.json")) ?? []

  @Test func theFixturesAreThere() { #expect(Self.cases.count == 9) }

  @Test(arguments: 0..<9) func agreesWithTransformers(_ index: Int) throws {
    let example = Self.cases[index]
    let model = try DecoderModel(
      path: Fixture.path("decoders/\(example.family)"), context: Context(), precision: .f32)
    let options = BeamSearch.Options(
      beams: example.beams, maximumTokens: 24, lengthPenalty: example.lengthPenalty,
      earlyStopping: try #require(BeamSearch.EarlyStopping(rawValue: example.earlyStopping)), stopIDs: example.stopIDs)
    let search = try BeamSearch(model: model, options: options)
    // Twice: the second search must know nothing of the first.
    for _ in 0..<2 {
      let beams = try search.search(example.prompt)
      #expect(beams.map(\.tokens) == example.sequences)
      for (beam, score) in zip(beams, example.scores ?? []) {
        #expect(abs(beam.score - score) <= 1e-5 * abs(score), "\(beam.score) for \(score)")
      }
      for beam in beams { #expect((beam.finish == .length) == (beam.tokens.count == 24)) }
    }
  }

  /// A prompt of several passes, and a context that ends the search.
  @Test func longPromptsAndTheContextAreKept() throws {
    let model = try DecoderModel(path: Fixture.path("decoders/qwen3"), context: Context())
    let prompt = (0..<120).map { Int32($0 % 90 + 3) }
    let beams = try BeamSearch(model: model, options: BeamSearch.Options(beams: 3, stopIDs: [])).search(prompt)
    #expect(beams.map(\.tokens.count) == [9, 9, 9])
    #expect(Set(beams.map(\.tokens)).count == 3)
    #expect(beams.map(\.score) == beams.map(\.score).sorted(by: >))
  }

  @Test func badOptionsAreRefused() throws {
    let model = try DecoderModel(path: Fixture.path("decoders/qwen3"), context: Context())
    for options in [
      BeamSearch.Options(beams: 0), BeamSearch.Options(beams: 257), BeamSearch.Options(maximumTokens: 0),
      BeamSearch.Options(lengthPenalty: .nan),
    ] { #expect(throws: GenerationError.self) { try BeamSearch(model: model, options: options) } }
    let search = try BeamSearch(model: model)
    #expect(throws: GenerationError.emptyPrompt) { try search.search([]) }
    #expect(throws: GenerationError.promptTooLong(tokens: 128, capacity: 128)) {
      try search.search([Int32](repeating: 5, count: 128))
    }
  }

  @Test func theCommandSearches() throws {
    let folder = try TextGeneratorTests.folder()
    let output = try BuiltProgram("quern").run([
      "generate", "--model", folder.path, "--max-tokens", "8", "--ignore-end", "--beams", "3", "--format", "json",
      "Hello",
    ])
    #expect(output.status == 0, "\(output.standardError)")
    struct Row: Decodable {
      let tokens: [Int32]
      let text: String
      let score: Double
    }
    let row = try JSONDecoder().decode(Row.self, from: Data(output.standardOutput.utf8))
    let generator = try TextGenerator(path: folder.path, context: Context())
    let options = BeamSearch.Options(beams: 3, maximumTokens: 8, stopIDs: [])
    let model = try #require(generator.model as? DecoderModel)
    let best = try #require(
      try BeamSearch(model: model, options: options).search(generator.encode("Hello")).first)
    #expect(row.tokens == best.tokens && abs(row.score - best.score) < 1e-9)
    #expect(try row.text == generator.tokenizer.decode(best.tokens))
  }
}

import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Drafted tokens change nothing but the time: greedy ones are the same, drawn ones have the same distribution.
@Suite struct SpeculativeTests {
  private static func model(_ family: String) throws -> DecoderModel {
    try DecoderModel(path: Fixture.path("decoders/\(family)"), context: Context())
  }

  private static func run(
    _ generator: some TokenGenerator, _ prompt: [Int32], _ options: GenerationOptions
  ) throws -> (tokens: [Int32], finish: FinishReason?) {
    _ = try generator.add(prompt, options: options)
    var (tokens, finish) = ([Int32](), FinishReason?.none)
    while !generator.isIdle {
      for event in try generator.step(proceed: {}) {
        #expect(finish == nil)
        if let token = event.token { tokens.append(token) }
        finish = event.finish
      }
    }
    return (tokens, finish)
  }

  /// With a draft of another family, which is mostly wrong, and with the model itself, which is always right.
  @Test(arguments: ["qwen3", "gemma3", "mixtral", "gpt2"], [1, 3, 8])
  func greedyTokensAreTheModelsOwn(_ family: String, _ draftTokens: Int) throws {
    let model = try Self.model(family)
    let options = GenerationOptions(maximumTokens: 64, stopIDs: [])
    let prompt = (3..<40).map { Int32($0) }
    let alone = try Self.run(BatchGenerator(model: model, capacity: 120), prompt, options)
    #expect(alone.tokens.count == 64)
    for draft in [try Self.model("qwen2"), model] {
      let generator = try SpeculativeGenerator(
        model: model, draft: draft, draftTokens: draftTokens, capacity: 120, chunk: 16)
      for _ in 0..<2 { #expect(try Self.run(generator, prompt, options) == alone) }
      let (drafted, accepted) = (generator.acceptance.drafted, generator.acceptance.accepted)
      #expect(drafted > 0 && (draft === model ? accepted == drafted : accepted < drafted))
    }
  }

  @Test func endsAreThoseOfTheModelAlone() throws {
    let (model, draft) = (try Self.model("qwen3"), try Self.model("llama3"))
    let free = try Self.run(
      BatchGenerator(model: model, capacity: 30), [5, 6, 7], GenerationOptions(maximumTokens: 99, stopIDs: []))
    #expect(free.tokens.count == 30 - 3 + 1 && free.finish == .length)
    for stopIDs in [[], [free.tokens[4]], [free.tokens[11]]] as [[Int32]] {
      for penalty in [1, 1.3] as [Float] {
        let options = GenerationOptions(
          maximumTokens: 99, sampling: SamplingOptions(repetitionPenalty: penalty), stopIDs: stopIDs)
        let alone = try Self.run(BatchGenerator(model: model, capacity: 30), [5, 6, 7], options)
        for draft in [draft, model] {
          let generator = try SpeculativeGenerator(model: model, draft: draft, draftTokens: 5, capacity: 30)
          #expect(try Self.run(generator, [5, 6, 7], options) == alone)
        }
      }
    }
  }

  /// The first two tokens over many seeds, against the model's probabilities: Pearson's chi-square over the pairs.
  @Test(arguments: ["qwen2", "qwen3"], [1, 3])
  func drawnTokensHaveTheModelsDistribution(_ draftFamily: String, _ draftTokens: Int) throws {
    let (model, draft) = (try Self.model("qwen3"), try Self.model(draftFamily))
    let sampling = SamplingOptions(temperature: 4, topK: 4)
    let prompt: [Int32] = [5, 6, 7]
    func shares(_ ids: [Int32]) throws -> [Int32: Double] {
      let (cache, workspace) = (try model.makeCache(capacity: 8), try DecoderModel.Workspace())
      let hidden = try model.forward(
        ids, segments: Segments(single: ids.count), cache: cache, workspace: workspace)
      let logits = try model.logits(hidden, rows: [Int32(ids.count - 1)], workspace: workspace)
      var (sampler, copy) = (Sampler(sampling), logits.elements)
      copy.withUnsafeMutableBufferPointer { sampler.prepare($0) }
      return Dictionary(
        uniqueKeysWithValues: sampler.candidates.map { ($0.id, Double(sampler.probability(of: $0.id))) })
    }
    var expected: [[Int32]: Double] = [:]
    for (first, share) in try shares(prompt) {
      for (second, rest) in try shares(prompt + [first]) { expected[[first, second]] = share * rest }
    }
    #expect(expected.count == 16)
    let generator = try SpeculativeGenerator(model: model, draft: draft, draftTokens: draftTokens, capacity: 16)
    let draws = 8000
    var counts: [[Int32]: Int] = [:]
    for seed in 0..<draws {
      var options = GenerationOptions(maximumTokens: 5, sampling: sampling, stopIDs: [])
      options.sampling.seed = UInt64(seed)
      counts[Array(try Self.run(generator, prompt, options).tokens.prefix(2)), default: 0] += 1
    }
    #expect(Set(counts.keys).isSubset(of: expected.keys))
    var chiSquare = 0.0
    for (pair, share) in expected {
      let mean = share * Double(draws)
      chiSquare += (Double(counts[pair] ?? 0) - mean) * (Double(counts[pair] ?? 0) - mean) / mean
    }
    // The 99.99th percentile for 15 degrees of freedom is 44.3.
    #expect(chiSquare < 44.3, "\(chiSquare)")
    #expect((draftFamily == "qwen3") == (generator.acceptance.accepted == generator.acceptance.drafted))
  }

  @Test func badRequestsAreRefused() throws {
    let model = try Self.model("qwen3")
    for tokens in [0, 257] {
      #expect(throws: GenerationError.self) {
        try SpeculativeGenerator(model: model, draft: model, draftTokens: tokens, capacity: 8)
      }
    }
    let generator = try SpeculativeGenerator(model: model, draft: model, capacity: 8)
    #expect(throws: GenerationError.emptyPrompt) { try generator.add([]) }
    let request = try generator.add([1])
    #expect(throws: GenerationError.busy(sequences: 1)) { try generator.add([1]) }
    generator.cancel(request)
    #expect(generator.isIdle)
    // A pass that is called off leaves the request as it was.
    struct Off: Error {}
    let options = GenerationOptions(maximumTokens: 6, stopIDs: [])
    let whole = try Self.run(generator, [1, 2], options)
    _ = try generator.add([1, 2], options: options)
    var tokens: [Int32] = []
    for limit in 1..<40 where !generator.isIdle {
      var asked = 0
      do {
        tokens += try generator.step {
          asked += 1
          if asked > limit { throw Off() }
        }.compactMap(\.token)
      } catch is Off {}
    }
    #expect(tokens == whole.tokens)
  }

  @Test func theCommandDrafts() throws {
    let (folder, other) = (try TextGeneratorTests.folder(), try TextGeneratorTests.folder("falcon"))
    func quern(_ arguments: [String]) throws -> BuiltProgram.Output {
      try BuiltProgram("quern").run(
        ["generate", "--model", folder.path, "--max-tokens", "12", "--ignore-end", "--format", "json"] + arguments)
    }
    struct Row: Decodable {
      let tokens: [Int32]
      let draftedTokens, acceptedTokens: Int?
      let memoryBytes: [String: Int]
    }
    func row(_ output: BuiltProgram.Output) throws -> Row {
      #expect(output.status == 0, "\(output.standardError)")
      return try JSONDecoder().decode(Row.self, from: Data(output.standardOutput.utf8))
    }
    let plain = try row(quern(["Hello"]))
    let drafted = try row(quern(["--draft", folder.path, "--draft-tokens", "3", "Hello"]))
    #expect(drafted.tokens == plain.tokens && plain.draftedTokens == nil)
    #expect(drafted.acceptedTokens == drafted.draftedTokens && drafted.acceptedTokens ?? 0 > 6)
    #expect((plain.memoryBytes["total"] ?? 0) > (plain.memoryBytes["weights"] ?? .max))
    let mixed = try quern(["--draft", other.path, "Hello"])
    #expect(mixed.status == 1 && mixed.standardError.contains("vocabulary"))
    #expect(try quern(["--draft", folder.path, "--beams", "2", "Hello"]).status == 2)
  }
}

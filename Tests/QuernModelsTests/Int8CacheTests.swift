import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Keys and values in 8 bits: what that changes, and all that goes through a cache.
@Suite struct Int8CacheTests {
  private static func model(_ family: String, _ backend: String? = nil) throws -> DecoderModel {
    try DecoderModel(path: Fixture.path("decoders/\(family)"), context: Context(backend))
  }

  /// Logits of a prompt in two pieces, then of its own tokens one at a time.
  private static func logits(_ model: DecoderModel, _ type: CacheType) throws -> [Float] {
    let ids = (0..<48).map { Int32($0 * 7 % 90 + 3) }
    let (cache, workspace) = (try model.makeCache(capacity: 48, type: type), try DecoderModel.Workspace())
    var all: [Float] = []
    for range in [0..<9, 9..<20] + (20..<48).map({ $0..<$0 + 1 }) {
      let hidden = try model.forward(
        Array(ids[range]), segments: Segments(single: range.count), cache: cache, workspace: workspace)
      all += try model.logits(hidden, rows: range.indices.map { Int32($0 - range.lowerBound) }, workspace: workspace)
        .elements
    }
    return all
  }

  /// Every element is off by at most 0.4 % of its vector's largest, heads being of few elements here. Of the logits of these models that
  /// leaves 4 % of the largest, and 15 % where it makes a router choose another expert.
  @Test(arguments: DecoderModelTests.backends, DecoderModelTests.families)
  func logitsStayNearThoseOfAWideCache(_ backend: String, _ family: String) throws {
    let model = try Self.model(family, backend)
    let difference = try Parity.difference(Self.logits(model, .int8), Self.logits(model, .f32))
    print("\(backend), \(family): an int8 cache changes logits by \(difference) of the largest")
    #expect(difference > 0 && difference <= (model.configuration.experts == nil ? 0.04 : 0.15))
  }

  @Test(arguments: [("qwen3", 1), ("deepseek-v2", 0)])
  func theBytesAreKnown(_ family: String, _ hasHeads: Int) throws {
    let path = Fixture.path("decoders/\(family)")
    let configuration = try Self.model(family).configuration
    let need = try DecoderModel.memoryNeed(path: path, sequences: 3, capacity: 50, cacheType: .int8)
    let wide = try DecoderModel.memoryNeed(path: path, sequences: 3, capacity: 50)
    #expect(need.cache == KeyValueCache.byteCount(configuration, sequences: 3, capacity: 50, type: .int8))
    // A scale for each vector, of which the latent cache has one a layer.
    let vectors = 3 * 50 * configuration.numHiddenLayers * (hasHeads == 1 ? 2 * configuration.numKeyValueHeads : 1)
    #expect(need.cache == wide.cache / 4 + 4 * vectors)
    #expect(KeyValueCache.byteCount(configuration, sequences: .max, capacity: 9, type: .int8) == .max)
  }

  private static func run(
    _ generator: some TokenGenerator, _ prompts: [[Int32]], _ options: GenerationOptions
  ) throws -> [[Int32]] {
    var tokens: [Int: [Int32]] = [:]
    let requests = try prompts.map { try generator.add($0, options: options) }
    while !generator.isIdle {
      for event in try generator.step(proceed: {}) {
        if let token = event.token { tokens[event.request, default: []].append(token) }
      }
    }
    return requests.map { tokens[$0] ?? [] }
  }

  /// Beside others, in pieces, and behind what an earlier prompt has left.
  @Test(arguments: ["qwen3", "gemma3", "gpt-oss", "deepseek-v3"])
  func requestsTogetherGiveWhatTheyGiveAlone(_ family: String) throws {
    let model = try Self.model(family)
    let options = GenerationOptions(maximumTokens: 12, stopIDs: [])
    let prompts: [[Int32]] = [[5, 6, 7, 8], [9], (3..<40).map { $0 }]
    let batch = try BatchGenerator(model: model, sequences: 3, capacity: 64, cacheType: .int8, chunk: 8)
    let together = try Self.run(batch, prompts, options)
    let reused = try Self.run(batch, [prompts[2] + [50, 51], [5, 6, 9, 1]], options)
    for (prompt, tokens) in zip(prompts + [prompts[2] + [50, 51], [5, 6, 9, 1]], together + reused) {
      let alone = try BatchGenerator(model: model, capacity: 64, cacheType: .int8, chunk: 8)
      #expect(try Self.run(alone, [prompt], options) == [tokens])
    }
  }

  @Test(arguments: ["qwen3", "gemma3"]) func draftsChangeNothing(_ family: String) throws {
    let (model, draft) = (try Self.model(family), try Self.model("qwen2"))
    let options = GenerationOptions(maximumTokens: 40, stopIDs: [])
    let prompt = (3..<30).map { Int32($0) }
    let alone = try Self.run(BatchGenerator(model: model, capacity: 80, cacheType: .int8), [prompt], options)
    for draft in [draft, model] {
      let generator = try SpeculativeGenerator(
        model: model, draft: draft, draftTokens: 3, capacity: 80, cacheType: .int8)
      #expect(try Self.run(generator, [prompt], options) == alone)
      #expect(generator.acceptance.drafted > 0)
    }
  }

  /// A beam's score is that of its tokens run alone: copying a beam's positions copies codes and scales.
  @Test(arguments: ["qwen3", "deepseek-v2"]) func beamsKeepTheirCaches(_ family: String) throws {
    let model = try Self.model(family)
    let options = BeamSearch.Options(beams: 4, maximumTokens: 16, lengthPenalty: 0, stopIDs: [], cacheType: .int8)
    let prompt: [Int32] = [5, 6, 7, 8, 9]
    for beam in try BeamSearch(model: model, options: options).search(prompt) {
      let (cache, workspace) = (try model.makeCache(capacity: 32, type: .int8), try DecoderModel.Workspace())
      var (next, score) = (prompt, 0.0)
      for token in beam.tokens {
        let hidden = try model.forward(
          next, segments: Segments(single: next.count), cache: cache, workspace: workspace)
        let row = try model.logits(hidden, rows: [Int32(next.count - 1)], workspace: workspace).elements.map(
          Double.init)
        score += row[Int(token)] - log(row.reduce(0) { $0 + exp($1) })
        next = [token]
      }
      #expect(abs(score - beam.score) <= 1e-4 * abs(score), "\(score) for \(beam.score)")
    }
  }

  @Test func theCommandTakesIt() throws {
    func memory(_ arguments: [String]) throws -> Int {
      let output = try BuiltProgram("quern").run(
        [
          "generate", "--model", Fixture.path("decoders/qwen3"), "--ids", "5 6 7", "--max-tokens", "7", "--format",
          "json",
        ]
          + arguments)
      #expect(output.status == 0, "\(output.standardError)")
      let object = try JSONSerialization.jsonObject(with: Data(output.standardOutput.utf8)) as? [String: Any]
      #expect((object?["tokens"] as? [Int])?.isEmpty == false)
      return try #require((object?["memoryBytes"] as? [String: Int])?["cache"])
    }
    let configuration = try Self.model("qwen3").configuration
    #expect(
      try memory(["--cache-type", "int8"])
        == KeyValueCache.byteCount(configuration, sequences: 1, capacity: 10, type: .int8))
    let wrong = try BuiltProgram("quern").run(["generate", "--model", "x", "--cache-type", "int4", "--ids", "5"])
    #expect(wrong.status != 0 && wrong.standardError.contains("int8"))
  }
}

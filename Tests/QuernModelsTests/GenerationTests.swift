import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Continuous batching, sampling, and text that streams.
@Suite struct GenerationTests {
  private static func model(_ family: String) throws -> DecoderModel {
    try DecoderModel(path: Fixture.path("decoders/\(family)"), context: Context())
  }

  /// Each request's tokens, run together with the others as there is room.
  private static func run(
    _ generator: BatchGenerator, _ prompts: [[Int32]], _ options: GenerationOptions
  ) throws -> [[Int32]] {
    var waiting = Array(prompts.enumerated())
    var (places, tokens) = ([Int: Int](), [[Int32]](repeating: [], count: prompts.count))
    while !waiting.isEmpty || !generator.isIdle {
      while generator.hasRoom, let (place, prompt) = waiting.first {
        places[try generator.add(prompt, options: options)] = place
        waiting.removeFirst()
      }
      for event in try generator.step() {
        if let token = event.token, let place = places[event.request] { tokens[place].append(token) }
      }
    }
    return tokens
  }

  @Test(arguments: ["qwen3", "gemma3", "mixtral"]) func requestsTogetherGiveWhatTheyGiveAlone(_ family: String) throws {
    let model = try Self.model(family)
    let prompts: [[Int32]] = [[5, 6, 7], [9], (3..<40).map { $0 }, [5, 6, 7, 8, 9], [11, 12], [5, 6, 7]]
    let options = GenerationOptions(
      maximumTokens: 12, sampling: SamplingOptions(temperature: 1.3, topK: 20, topP: 0.95, seed: 7), stopIDs: [])
    let together = try Self.run(BatchGenerator(model: model, sequences: 3, capacity: 64, chunk: 8), prompts, options)
    for (prompt, tokens) in zip(prompts, together) {
      let alone = try Self.run(BatchGenerator(model: model, capacity: 64), [prompt], options)
      #expect(alone == [tokens])
      #expect(tokens.count == 12)
    }
  }

  @Test func stopIDsAndTheContextEndAText() throws {
    let model = try Self.model("qwen3")
    let free = try Self.run(
      BatchGenerator(model: model, capacity: 40), [[5, 6, 7]], GenerationOptions(maximumTokens: 99, stopIDs: []))
    #expect(free[0].count == 40 - 3 + 1)
    let generator = try BatchGenerator(model: model, capacity: 40)
    _ = try generator.add([5, 6, 7], options: GenerationOptions(stopIDs: [free[0][4]]))
    var events: [BatchGenerator.Event] = []
    while !generator.isIdle { events += try generator.step() }
    let end = free[0].firstIndex(of: free[0][4]) ?? 0
    #expect(events.map(\.token) == free[0][..<end].map { $0 } + [nil])
    #expect(events.last?.finish == .endOfText)
  }

  @Test func badRequestsAreRefused() throws {
    let generator = try BatchGenerator(model: Self.model("qwen3"), capacity: 8)
    #expect(throws: GenerationError.emptyPrompt) { try generator.add([]) }
    #expect(throws: GenerationError.promptTooLong(tokens: 8, capacity: 8)) {
      try generator.add([1, 2, 3, 4, 5, 6, 7, 8])
    }
    for sampling in [
      SamplingOptions(temperature: -1), SamplingOptions(temperature: .nan), SamplingOptions(topK: -1),
      SamplingOptions(topP: 0), SamplingOptions(minP: 2), SamplingOptions(repetitionPenalty: 0),
    ] {
      #expect(throws: GenerationError.self) { try generator.add([1], options: GenerationOptions(sampling: sampling)) }
    }
    _ = try generator.add([1])
    #expect(throws: GenerationError.busy(sequences: 1)) { try generator.add([1]) }
    #expect(throws: QuernError.self) { try BatchGenerator(model: Self.model("qwen3"), capacity: 1000) }
    let other = try BatchGenerator(model: Self.model("qwen3"), capacity: 8)
    _ = try other.add([96])
    #expect(throws: QuernError.self) { try other.step() }
  }

  /// What options leave of four tokens with probabilities 1/2, 1/4, 1/8 and 1/8.
  private static let distributions: [(options: SamplingOptions, shares: [Double])] = [
    (SamplingOptions(temperature: 1, seed: 3), [0.5, 0.25, 0.125, 0.125]),
    (SamplingOptions(temperature: 1, topK: 2, seed: 3), [0.6667, 0.3333, 0, 0]),
    (SamplingOptions(temperature: 1, topP: 0.7, seed: 3), [0.6667, 0.3333, 0, 0]),
    (SamplingOptions(temperature: 1, minP: 0.4, seed: 3), [0.6667, 0.3333, 0, 0]),
    (SamplingOptions(temperature: 0.5, seed: 3), [0.72727, 0.18182, 0.04545, 0.04545]),
    (SamplingOptions(temperature: 0), [1, 0, 0, 0]),
  ]

  @Test(arguments: 0..<6)
  func drawsFollowTheDistribution(_ index: Int) {
    let (options, shares) = Self.distributions[index]
    var sampler = Sampler(options)
    var counts = [Double](repeating: 0, count: 4)
    let draws = 20000
    for _ in 0..<draws {
      var logits: [Float] = [2.0794415, 1.3862944, 0.6931472, 0.6931472]
      logits.withUnsafeMutableBufferPointer { counts[Int(sampler.next($0))] += 1 }
    }
    for (count, share) in zip(counts, shares) {
      let deviation = (share * (1 - share) / Double(draws)).squareRoot()
      #expect(abs(count / Double(draws) - share) <= 5 * deviation + 1e-4)
    }
  }

  /// Against a plain sort of a vocabulary, equal logits included.
  @Test(arguments: [2, 5, 300, 4999, 5000, 9000]) func topKTakesTheLargest(_ k: Int) {
    var random = SeededRandom()
    let logits = (0..<5000).map { _ in (random.normal() * 20).rounded() / 20 }
    let order = logits.indices.sorted { logits[$0] > logits[$1] || (logits[$0] == logits[$1] && $0 < $1) }
    let largest = Set(order.prefix(k).map { Int32($0) })
    var (sampler, drawn) = (Sampler(SamplingOptions(temperature: 50, topK: k, seed: 5)), Set<Int32>())
    for _ in 0..<400 {
      var copy = logits
      drawn.insert(copy.withUnsafeMutableBufferPointer { sampler.next($0) })
    }
    #expect(drawn.isSubset(of: largest))
    #expect(drawn.count >= min(k, 100))
  }

  /// Against a plain sort: the fewest tokens that reach the share, alone and of the k largest; equal logits included.
  @Test(arguments: [(0.01, 0), (0.3, 0), (0.9, 0), (0.999, 0), (0.5, 40), (0.95, 2000)] as [(Float, Int)])
  func topPTakesTheFewest(_ topP: Float, _ topK: Int) {
    var random = SeededRandom()
    for size in [1, 2, 3, 100, 5000] {
      let logits = (0..<size).map { _ in (random.normal() * 20).rounded() / 10 }
      var order = logits.indices.sorted { logits[$0] > logits[$1] || (logits[$0] == logits[$1] && $0 < $1) }
      if topK > 0 { order = Array(order.prefix(topK)) }
      let shares = order.map { Double(Foundation.exp(logits[$0] - logits[order[0]])) }
      let target = Double(topP) * shares.reduce(0, +)
      var (sum, expected) = (0.0, Set<Int32>())
      for (id, share) in zip(order, shares) where sum < target {
        sum += share
        expected.insert(Int32(id))
      }
      var (sampler, copy) = (Sampler(SamplingOptions(temperature: 1, topK: topK, topP: topP)), logits)
      copy.withUnsafeMutableBufferPointer { sampler.prepare($0) }
      #expect(Set(sampler.candidates.map(\.id)) == expected)
      #expect(sampler.candidates.count == expected.count)
      let probability = sampler.candidates.reduce(0) { $0 + sampler.probability(of: $1.id) }
      #expect(abs(probability - 1) < 1e-4)
    }
  }

  @Test func repetitionsAreMadeLessLikely() {
    var sampler = Sampler(SamplingOptions(repetitionPenalty: 2))
    func best(_ values: [Float]) -> Int32 {
      var logits = values
      return logits.withUnsafeMutableBufferPointer { sampler.next($0) }
    }
    #expect(best([3, 2]) == 0)
    sampler.see(0)
    #expect(best([3, 2]) == 1)
    #expect(best([-1, -1.5]) == 1)
    #expect(best([5, 2]) == 0)
    #expect(best([.nan, 1]) == 1)
    sampler.see(0)
    sampler.forget(0)
    #expect(best([3, 2]) == 1)
    sampler.forget(0)
    sampler.forget(0)
    #expect(best([3, 2]) == 0)
  }

  @Test func stopStringsAreFoundAcrossPieces() {
    var scanner = StopScanner(["</s>", "STOP"])
    var text = ""
    var isStopped = false
    for piece in ["a<", "/", "b</", "s", "e>", "ST", "é", "S", "TO", "Pmore"] where !isStopped {
      let (certain, stopped) = scanner.append(piece)
      text += certain
      isStopped = stopped
    }
    #expect(isStopped && text == "a</b</se>STé")
    var other = StopScanner(["abc"])
    #expect(other.append("xab") == ("x", false))
    #expect(other.finish() == "ab")
    var none = StopScanner([])
    #expect(none.append("abc") == ("abc", false))
  }
}

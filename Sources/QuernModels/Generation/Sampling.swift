import Quern

/// How the next token is drawn from the logits, with the parameters of `transformers`: repetition penalty, temperature, top-k, top-p,
/// then min-p.
public struct SamplingOptions: Sendable, Equatable {
  /// Logits are divided by it; 0 takes the most likely token.
  public var temperature: Float
  /// Only the k most likely tokens; 0 for all.
  public var topK: Int
  /// Only the most likely tokens that together have this probability (nucleus sampling: Holtzman et al., arXiv 1904.09751).
  public var topP: Float
  /// Only tokens with at least this share of the most likely one's probability (Nguyen et al., arXiv 2407.01082).
  public var minP: Float
  /// Positive logits of tokens seen before are divided by it, negative ones multiplied (CTRL: Keskar et al., arXiv 1909.05858).
  public var repetitionPenalty: Float
  /// The same seed draws the same tokens from the same logits.
  public var seed: UInt64

  public init(
    temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0, repetitionPenalty: Float = 1,
    seed: UInt64 = 0
  ) {
    (self.temperature, self.topK, self.topP) = (temperature, topK, topP)
    (self.minP, self.repetitionPenalty, self.seed) = (minP, repetitionPenalty, seed)
  }

  public static var greedy: SamplingOptions { SamplingOptions() }

  /// - Throws: ``GenerationError/invalidOption(name:value:expected:)``.
  func validate() throws(GenerationError) {
    func require(_ condition: Bool, _ name: String, _ value: String, _ expected: String) throws(GenerationError) {
      if !condition { throw .invalidOption(name: name, value: value, expected: expected) }
    }
    try require(temperature >= 0 && temperature.isFinite, "temperature", "\(temperature)", "0 or more")
    try require(topK >= 0, "topK", "\(topK)", "0 or more")
    try require(topP > 0 && topP <= 1, "topP", "\(topP)", "more than 0, at most 1")
    try require(minP >= 0 && minP <= 1, "minP", "\(minP)", "0 to 1")
    try require(
      repetitionPenalty > 0 && repetitionPenalty.isFinite, "repetitionPenalty", "\(repetitionPenalty)", "more than 0")
  }
}

/// Draws the tokens of one sequence.
package struct Sampler {
  private let options: SamplingOptions
  private let key: RandomKey
  private var drawn: UInt64 = 0
  private var candidates: [(id: Int32, logit: Float)] = []
  private var isSeen: [Bool] = []

  package init(_ options: SamplingOptions) {
    self.options = options
    key = RandomKey(seed: options.seed)
  }

  /// Remembers a token for the repetition penalty.
  package mutating func see(_ id: Int32) {
    guard options.repetitionPenalty != 1, id >= 0 else { return }
    if Int(id) >= isSeen.count { isSeen += repeatElement(false, count: Int(id) + 1 - isSeen.count) }
    isSeen[Int(id)] = true
  }

  /// The next token; `logits` may be changed.
  package mutating func next(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    if options.repetitionPenalty != 1 {
      for id in 0..<min(isSeen.count, logits.count) where isSeen[id] {
        logits[id] = logits[id] > 0 ? logits[id] / options.repetitionPenalty : logits[id] * options.repetitionPenalty
      }
    }
    let best = Self.largest(UnsafeBufferPointer(logits))
    guard options.temperature > 0, options.topK != 1 else { return best.id }
    collect(UnsafeBufferPointer(logits), best.logit)
    let draw = Float(key.words(block: drawn).x >> 8) * 0x1p-24
    drawn += 1
    return pick(draw)
  }

  /// The largest logit, the first of equal ones; NaN is never chosen.
  static func largest(_ logits: UnsafeBufferPointer<Float>) -> (id: Int32, logit: Float) {
    var (id, largest) = (Int32(0), -Float.infinity)
    for index in logits.indices where logits[index] > largest { (id, largest) = (Int32(index), logits[index]) }
    return (id, largest)
  }

  /// Tokens that may be chosen, most likely first where it matters, with unnormalised probabilities in place of logits.
  private mutating func collect(_ logits: UnsafeBufferPointer<Float>, _ largest: Float) {
    let inverse = 1 / options.temperature
    candidates.removeAll(keepingCapacity: true)
    // Beyond 104 below the largest e^x is zero in f32.
    var floor = max(largest - 104 * options.temperature, -Float.greatestFiniteMagnitude)
    let kept = options.topK > 0 ? min(options.topK, logits.count) : logits.count
    for index in logits.indices where logits[index] >= floor {
      candidates.append((Int32(index), logits[index]))
      // Sorting a few at a time leaves most of a vocabulary below the floor.
      if candidates.count - kept > kept + 256 { floor = keepLargest(kept) }
    }
    if candidates.count > kept || options.topP < 1 { _ = keepLargest(kept) }
    for index in candidates.indices {
      candidates[index].logit = Real.exponential((candidates[index].logit - largest) * inverse)
    }
    if options.topP < 1 {
      let nucleus = options.topP * candidates.reduce(0) { $0 + $1.logit }
      var (kept, sum) = (0, Float(0))
      while kept < candidates.count, sum < nucleus {
        sum += candidates[kept].logit
        kept += 1
      }
      candidates.removeLast(candidates.count - max(kept, 1))
    }
    if options.minP > 0 { candidates.removeAll { $0.logit < options.minP } }
  }

  /// Sorts the candidates and drops those after the first `count`; the smallest logit that stays.
  private mutating func keepLargest(_ count: Int) -> Float {
    candidates.sort { $0.logit > $1.logit || ($0.logit == $1.logit && $0.id < $1.id) }
    candidates.removeLast(max(candidates.count - count, 0))
    return candidates.last?.logit ?? -.infinity
  }

  /// The candidate in whose share `draw`, of [0, 1), falls.
  private func pick(_ draw: Float) -> Int32 {
    var rest = draw * candidates.reduce(0) { $0 + $1.logit }
    for candidate in candidates {
      rest -= candidate.logit
      if rest < 0 { return candidate.id }
    }
    return candidates.last?.id ?? 0
  }
}

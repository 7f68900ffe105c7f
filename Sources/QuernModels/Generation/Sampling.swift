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
  /// A token that may be drawn. Its share is not normalised: ``total`` is what all of them add up to.
  package struct Candidate: Sendable {
    package var id: Int32
    package var share: Float
  }

  private let options: SamplingOptions
  private let key: RandomKey
  private var drawn: UInt64 = 0
  package private(set) var candidates: [Candidate] = []
  package private(set) var total: Float = 0
  /// How often each token has been seen, up to the largest id of them.
  private var counts: [UInt32] = []

  package init(_ options: SamplingOptions) {
    self.options = options
    key = RandomKey(seed: options.seed)
  }

  /// Remembers a token for the repetition penalty.
  package mutating func see(_ id: Int32) {
    guard options.repetitionPenalty != 1, id >= 0 else { return }
    if Int(id) >= counts.count { counts += repeatElement(0, count: Int(id) + 1 - counts.count) }
    counts[Int(id)] &+= 1
  }

  /// Takes back a ``see(_:)``.
  package mutating func forget(_ id: Int32) {
    if counts.indices.contains(Int(id)), counts[Int(id)] > 0 { counts[Int(id)] -= 1 }
  }

  /// The next token; `logits` may be changed.
  package mutating func next(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    prepare(logits)
    return candidates.count == 1 ? candidates[0].id : pick(uniform())
  }

  /// Works out what may be drawn; `logits` may be changed.
  package mutating func prepare(_ logits: UnsafeMutableBufferPointer<Float>) {
    if options.repetitionPenalty != 1 {
      for id in 0..<min(counts.count, logits.count) where counts[id] > 0 {
        logits[id] = logits[id] > 0 ? logits[id] / options.repetitionPenalty : logits[id] * options.repetitionPenalty
      }
    }
    let best = Self.largest(UnsafeBufferPointer(logits))
    candidates.removeAll(keepingCapacity: true)
    if options.temperature > 0, options.topK != 1 { collect(UnsafeBufferPointer(logits), best.logit) }
    if candidates.isEmpty { candidates.append(Candidate(id: best.id, share: 1)) }
    total = candidates.reduce(0) { $0 + $1.share }
  }

  /// The next number of this sequence's stream, of [0, 1).
  package mutating func uniform() -> Float {
    defer { drawn += 1 }
    return Float(key.words(block: drawn).x >> 8) * 0x1p-24
  }

  /// The candidate in whose share `draw`, of [0, 1), falls.
  package func pick(_ draw: Float) -> Int32 {
    var rest = draw * total
    for candidate in candidates {
      rest -= candidate.share
      if rest < 0 { return candidate.id }
    }
    return candidates.last?.id ?? 0
  }

  /// The probability of a token.
  package func probability(of id: Int32) -> Float {
    candidates.first { $0.id == id }.map { $0.share / total } ?? 0
  }

  /// The largest logit, the first of equal ones; NaN is never chosen.
  static func largest(_ logits: UnsafeBufferPointer<Float>) -> (id: Int32, logit: Float) {
    var (id, largest) = (Int32(0), -Float.infinity)
    for index in logits.indices where logits[index] > largest { (id, largest) = (Int32(index), logits[index]) }
    return (id, largest)
  }

  /// Tokens that may be chosen, in no order that matters.
  private mutating func collect(_ logits: UnsafeBufferPointer<Float>, _ largest: Float) {
    let inverse = 1 / options.temperature
    // Beyond 104 below the largest e^x is zero in f32.
    var floor = max(largest - 104 * options.temperature, -Float.greatestFiniteMagnitude)
    let kept = options.topK > 0 ? min(options.topK, logits.count) : logits.count
    for index in logits.indices where logits[index] >= floor {
      candidates.append(Candidate(id: Int32(index), share: logits[index]))
      // Selecting a few at a time leaves most of a vocabulary below the floor.
      if candidates.count - kept > kept + 256 {
        candidates.keepMostLikely(reaching: Double(kept)) { _ in 1 }
        floor = candidates.reduce(.infinity) { min($0, $1.share) }
      }
    }
    if candidates.count > kept { candidates.keepMostLikely(reaching: Double(kept)) { _ in 1 } }
    for index in candidates.indices {
      candidates[index].share = Real.exponential((candidates[index].share - largest) * inverse)
    }
    if options.topP < 1 {
      let sum = candidates.reduce(0) { $0 + Double($1.share) }
      candidates.keepMostLikely(reaching: Double(options.topP) * sum) { Double($0.share) }
    }
    if options.minP > 0 { candidates.removeAll { $0.share < options.minP } }
  }
}

extension [Sampler.Candidate] {
  /// Keeps the fewest of the largest, the first of equal ones, whose weights add up to `target`; at least one. They are not sorted: as in
  /// Hoare's selection, only the part that the boundary lies in is looked at again.
  fileprivate mutating func keepMostLikely(reaching target: Double, _ weight: (Element) -> Double) {
    // Before `low` all are kept, from `high` on none.
    var (low, high, sum) = (0, count, 0.0)
    withUnsafeMutableBufferPointer { items in
      while low < high {
        let pivot = Self.median(items[low], items[low + (high - low) / 2], items[high - 1])
        var (end, before, place) = (low, 0.0, low)
        for index in low..<high where !Self.isBefore(pivot, items[index]) {
          if items[index].id == pivot.id { place = end } else { before += weight(items[index]) }
          items.swapAt(index, end)
          end += 1
        }
        items.swapAt(place, end - 1)
        if sum + before >= target, end - 1 > low {
          high = end - 1
        } else {
          sum += before + weight(pivot)
          low = end
          if sum >= target { break }
        }
      }
    }
    removeLast(count - low)
  }

  private static func isBefore(_ a: Element, _ b: Element) -> Bool {
    a.share > b.share || (a.share == b.share && a.id < b.id)
  }

  private static func median(_ a: Element, _ b: Element, _ c: Element) -> Element {
    if isBefore(a, b) { return isBefore(b, c) ? b : isBefore(a, c) ? c : a }
    return isBefore(a, c) ? a : isBefore(b, c) ? c : b
  }
}

/// Positions: rotary embeddings, biases, the key-value cache. See ``Backend`` for what every requirement may rely on.
public protocol PositionOperations {
  /// Turns pairs of each head of x `[tokens, heads, size]` by the angles of the token's position, a row of the table; the
  /// elements from ``RotaryTable/size`` on are copied. Unit stride along the last axis; y has the shape of x and may be x.
  func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing, into y: MutableTensor)

  /// Writes rows of x `[tokens, heads, size]` behind those a cache `[sequences, capacity, heads, size]` holds: row i of
  /// sequence s becomes row `lengths[s] + i`. Unit stride along the last axes.
  func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor)

  /// The same to a cache in 8 bits: each vector becomes codes and a scale.
  func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache)
}

extension Backend {
  public func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing, into y: MutableTensor
  ) {
    handOn(.rope).rope(x, table: table, positions: positions, pairing: pairing, into: y)
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor) {
    handOn(.appendToCache).appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache) {
    handOn(.appendToInt8Cache).appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
  }
}

extension Context {
  /// Rotary position embedding (Su et al., arXiv 2104.09864): each pair (a, b) of a head becomes
  /// `(a cos θ - b sin θ, b cos θ + a sin θ)`, with θ that of the token's position and the pair in the table.
  ///
  /// Accuracy: an element is off by at most `γ(2) (|a cos θ| + |b sin θ|)` from what the table's entries give, and by
  /// `γ(3) (|a cos θ| + |b sin θ|) + 2⁻¹⁴⁹` from exact angles.
  ///
  /// - Parameters:
  ///   - x: `[tokens, heads, size]`, any strides but unit stride along the last axis. Elements from the table's size on are
  ///     copied: partial rotation.
  ///   - positions: a row of the table for each token, so that sequences of any lengths share a call.
  ///   - pairing: which elements form a pair.
  ///   - y: the shape of x, and may be x.
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` naming the shapes, or the first position outside the table.
  public func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing = .split, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .rope)
    try check.heads(x, "x")
    try check.heads(y, "y")
    try check.same(y.shape, "y", x.shape, "x")
    try check.require(
      positions.count == x.shape[0], "\(positions.count) positions for \(x.shape[0]) tokens")
    try check.require(
      table.size <= x.shape[2], "the table turns \(table.size) elements, a head of x has \(x.shape[2])")
    for (token, position) in positions.enumerated() where position < 0 || Int(position) >= table.positions {
      try check.require(
        false, "position \(position) of token \(token) is outside the table of \(table.positions) positions")
    }
    try check.destination(y, "y")
    try check.disjoint(x, "x", from: y, mayBeSame: true)
    try check.disjoint(table.values.view, "the table", from: y)
    try run(runner(.rope, x.types, y.types)) {
      $0.rope(x, table: table, positions: positions, pairing: pairing, into: y)
    }
  }

  /// Writes new keys, or values, behind those that a cache holds, rounded to the cache's data type.
  ///
  /// ``AttentionLayout/init(queries:cache:counts:)`` then attends over `cache.reshaped([sequences * capacity, heads, size])`.
  ///
  /// - Parameters:
  ///   - x: `[tokens, heads, size]`, sequences end to end; unit stride along the last axis.
  ///   - sequences: how many new rows each sequence has; 0 for one that stands still.
  ///   - lengths: rows that the cache holds of each sequence.
  ///   - cache: `[sequences, capacity, heads, size]`; unit stride along the last axis. Other rows stay as they are.
  /// - Throws: ``QuernError/cacheFull(sequence:held:new:capacity:)`` where a sequence's rows do not fit, and
  ///   ``QuernError/invalidOperand(operation:reason:)``; nothing is written then.
  public func appendToCache(
    _ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .appendToCache)
    try check.require(
      cache.shape.rank == 4 && (cache.shape.last <= 1 || cache.strides[3] == 1),
      "the cache \(cache.shape) needs rank 4, [sequences, capacity, heads, size], and unit stride along its last axis")
    try requireRoom(check, x, sequences, lengths, in: cache.shape)
    try check.destination(cache, "the cache")
    try check.disjoint(x, "x", from: cache)
    try run(runner(.appendToCache, x.types, cache.types)) {
      $0.appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
    }
  }

  /// The same to a cache in 8 bits: each vector becomes codes and a scale, off by at most half a step; see ``Int8Cache``.
  public func appendToCache(
    _ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache
  ) throws(QuernError) {
    let check = Check(operation: .appendToInt8Cache)
    let shape = Shape(cache.sequences, cache.capacity, cache.heads, cache.size)
    try requireRoom(check, x, sequences, lengths, in: shape)
    try run(runner(.appendToInt8Cache, x.types)) {
      $0.appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
    }
  }

  private func requireRoom(
    _ check: Check, _ x: TensorView, _ sequences: Segments, _ lengths: [Int32], in cache: Shape
  ) throws(QuernError) {
    try check.heads(x, "x")
    try check.require(
      cache[2] == x.shape[1] && cache[3] == x.shape[2],
      "x \(x.shape) and the cache \(cache) differ in heads or head size")
    try check.require(
      sequences.count == cache[0] && lengths.count == cache[0],
      "\(sequences.count) sequences and \(lengths.count) lengths for a cache of \(cache[0])")
    try check.require(sequences.total == x.shape[0], "the sequences have \(sequences.total) rows, x has \(x.shape[0])")
    let capacity = cache[1]
    for (sequence, length) in lengths.enumerated() {
      try check.require(length >= 0, "the cache holds \(length) rows of sequence \(sequence)")
      let new = sequences[sequence].count
      guard Int(length) + new <= capacity else {
        throw .cacheFull(sequence: sequence, held: Int(length), new: new, capacity: capacity)
      }
    }
  }
}

/// Which elements of a head a rotary embedding turns together.
public enum RotaryPairing: String, Sendable, CaseIterable {
  /// j and j + size/2: GPT-NeoX, Llama and what Hugging Face calls `rotate_half`.
  case split
  /// 2j and 2j + 1: RoFormer, GPT-J.
  case interleaved
}

/// Changes to the frequencies of a rotary embedding that stretch its context.
public enum RotaryScaling: Sendable, Equatable {
  case none
  /// Positions are divided by the factor (Chen et al., arXiv 2306.15595): `linear` in a `config.json`.
  case linear(factor: Double)
  /// Wavelengths beyond `originalContext / lowFrequencyFactor` are stretched by the factor, those up to
  /// `originalContext / highFrequencyFactor` stay, and between them it is interpolated: `llama3` in a `config.json`.
  case llama3(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalContext: Int)
  /// The frequency of pair j is divided by element j: what `rope_freqs` of a GGUF file and long-context factors are.
  case divided(by: [Double])
  /// YaRN (Peng et al., arXiv 2309.00071): pairs that turn more than `betaFast` times within `originalContext` stay, those that
  /// turn less than `betaSlow` times are stretched by the factor, and between them it is interpolated along the pairs; the ends of
  /// that ramp are whole pairs where it `truncates`. Cosines and sines are multiplied by `attentionFactor`, which
  /// ``yarnAttentionFactor(_:)`` gives where a file does not.
  case yarn(
    factor: Double, betaFast: Double = 32, betaSlow: Double = 1, originalContext: Int, attentionFactor: Double,
    truncates: Bool = true)

  /// LongRoPE (Ding et al., arXiv 2402.13753), as Phi-3 has it: the frequency of pair j is divided by element j of `short`, or of `long` in a table
  /// of more than `originalContext` positions. Cosines and sines are multiplied by `attentionFactor`.
  case longrope(short: [Double], long: [Double], originalContext: Int, attentionFactor: Double)

  /// `0.1 log(factor) + 1`, the temperature that the paper recommends; 1 for a factor up to 1.
  public static func yarnAttentionFactor(_ factor: Double) -> Double { factor <= 1 ? 1 : 0.1 * Real.log(factor) + 1 }

  /// What cosines and sines are multiplied by.
  var magnitude: Double {
    switch self {
    case .yarn(_, _, _, _, let factor, _), .longrope(_, _, _, let factor): factor
    default: 1
    }
  }

  /// The frequency in place of this one, of pair j of `size / 2` with this base, in a table of this many positions.
  func scaled(_ frequency: Double, pair j: Int, size: Int, theta: Double, positions: Int) -> Double {
    switch self {
    case .none: return frequency
    case .divided(let divisors): return j < divisors.count ? frequency / divisors[j] : frequency
    case .longrope(let short, let long, let context, _):
      let divisors = positions > context ? long : short
      return j < divisors.count ? frequency / divisors[j] : frequency
    case .yarn(let factor, let fast, let slow, let context, _, let truncates):
      func pair(turning times: Double) -> Double {
        Double(size) * Real.log(Double(context) / (times * 2 * .pi)) / (2 * Real.log(theta))
      }
      var (low, high) = (pair(turning: fast), pair(turning: slow))
      if truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
      (low, high) = (max(low, 0), min(high, Double(size - 1)))
      if low == high { high += 0.001 }
      let stretched = min(max((Double(j) - low) / (high - low), 0), 1)
      return stretched * frequency / factor + (1 - stretched) * frequency
    case .linear(let factor): return frequency / factor
    case .llama3(let factor, let low, let high, let context):
      let turns = Double(context) * frequency / (2 * .pi)
      if turns < low { return frequency / factor }
      if turns > high { return frequency }
      let share = (turns - low) / (high - low)
      return (1 - share) * frequency / factor + share * frequency
    }
  }

  /// Whether its numbers make sense.
  public var isValid: Bool {
    switch self {
    case .none: true
    case .divided(let divisors): divisors.allSatisfy { $0 > 0 && $0.isFinite }
    case .longrope(let short, let long, let context, let magnitude):
      (short + long).allSatisfy { $0 > 0 && $0.isFinite } && context > 0 && magnitude.isFinite
    case .linear(let factor): factor > 0 && factor.isFinite
    case .llama3(let factor, let low, let high, let context):
      factor > 0 && factor.isFinite && low > 0 && high > low && high.isFinite && context > 0
    case .yarn(let factor, let fast, let slow, let context, let magnitude, _):
      factor > 0 && factor.isFinite && slow > 0 && fast >= slow && fast.isFinite && context > 0 && magnitude.isFinite
    }
  }
}

/// The cosines and sines of a rotary embedding, made once for a model and shared by its layers.
public struct RotaryTable: Sendable {
  /// `[positions, size]`, f32: size/2 cosines, then size/2 sines. Computed in Double and rounded once.
  public let values: Tensor

  public var positions: Int { values.shape[0] }
  /// Elements of a head that are turned; the head may have more.
  public var size: Int { values.shape[1] }

  /// Position p turns pair j by `p theta^(-2j/size)`, with the frequency changed by `scaling`.
  ///
  /// - Parameters:
  ///   - size: the head size, or, for partial rotation, its first elements that are turned; even.
  ///   - theta: the base, `rope_theta` in a `config.json`.
  /// - Throws: ``QuernError/invalidShape(_:)`` for an odd or negative size, or parameters out of range;
  ///   ``QuernError/outOfMemory(bytes:)``.
  public init(positions: Int, size: Int, theta: Double = 10000, scaling: RotaryScaling = .none) throws(QuernError) {
    guard positions >= 0, positions <= Int(Int32.max), size >= 0, size % 2 == 0 else {
      throw .invalidShape("a rotary table of \(positions) positions and \(size) elements: an even size, none negative")
    }
    guard theta > 0, theta.isFinite, scaling.isValid else {
      throw .invalidShape("a rotary table with theta \(theta) and scaling \(scaling): numbers out of range")
    }
    let table = try MutableTensor(zeros: try Shape(checking: [positions, size]))
    let half = size / 2
    for j in 0..<half {
      let frequency = scaling.scaled(
        Real.power(theta, -2 * Double(j) / Double(size)), pair: j, size: size, theta: theta,
        positions: positions)
      for position in 0..<positions {
        let angle = Double(position) * frequency
        let (cosine, sine) = (Real.cosine(angle), Real.sine(angle))
        (table[position, j], table[position, half + j]) = (scaling.magnitude * cosine, scaling.magnitude * sine)
      }
    }
    values = try table.moved()
  }
}

/// Counter-based random numbers. See ``Backend`` for what every requirement may rely on.
public protocol RandomOperations {
  /// Element (i, j) of y is number `key.offset + i n + j` of the key's stream, modulo 2⁶⁴, made by the arithmetic of
  /// ``RandomDistribution`` in f32 and rounded once to y's type. Every backend gives the same bits.
  func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor)
}

extension Backend {
  public func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor) {
    handOn(.random).random(distribution, key: key, into: y)
  }
}

/// Which random numbers: a seed, one of its 2⁶⁴ streams, and the element to start at.
///
/// The generator is Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC'11): four
/// words are a function of a counter and a key, and nothing is kept from one call to the next. Number e of a stream is made
/// of word `e mod 4` of the block with counter `(e / 4, stream)` and key `seed`, low words first. So a tensor may be made
/// in pieces, by any number of threads or machines, and have the same elements.
///
/// Not for cryptography.
public struct RandomKey: Sendable, Hashable {
  public var seed: UInt64
  /// Numbers of different streams, or of different seeds, are independent of each other.
  public var stream: UInt64
  /// The number of the first element. Numbers are counted modulo 2⁶⁴: after the last comes number 0 again.
  public var offset: UInt64

  public init(seed: UInt64, stream: UInt64 = 0, offset: UInt64 = 0) {
    (self.seed, self.stream, self.offset) = (seed, stream, offset)
  }

  /// The key of the elements that follow the next `count`, modulo 2⁶⁴.
  ///
  /// - Precondition: `count` is not negative.
  public func advanced(by count: Int) -> RandomKey {
    RandomKey(seed: seed, stream: stream, offset: offset &+ UInt64(count))
  }

  /// The four words of the Philox block with counter `(block, stream)`, whatever the offset: 128 random bits.
  public func words(block: UInt64) -> SIMD4<UInt32> {
    var (c0, c1) = (UInt32(truncatingIfNeeded: block), UInt32(truncatingIfNeeded: block >> 32))
    var (c2, c3) = (UInt32(truncatingIfNeeded: stream), UInt32(truncatingIfNeeded: stream >> 32))
    var (k0, k1) = (UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
    for _ in 0..<10 {
      let (p0, p1) = (c0.multipliedFullWidth(by: 0xD251_1F53), c2.multipliedFullWidth(by: 0xCD9E_8D57))
      (c0, c1, c2, c3) = (p1.high ^ c1 ^ k0, p1.low, p0.high ^ c3 ^ k1, p0.low)
      (k0, k1) = (k0 &+ 0x9E37_79B9, k1 &+ 0xBB67_AE85)
    }
    return SIMD4(c0, c1, c2, c3)
  }
}

/// What becomes of the words of a block. The arithmetic is in f32, in a fixed order and rounded after every step, so that the
/// bits are the same on every backend, instruction set and number of threads. In a narrow type the f32 value is rounded once.
public enum RandomDistribution: String, Sendable, CaseIterable {
  /// Evenly over the multiples of 2⁻²⁴ in [0, 1): `⌊w / 2⁸⌋ 2⁻²⁴` of word w. Rounded to a narrow type it may be 1.
  case uniform
  /// Mean 0 and variance 1, by the transform of Box and Muller (*A note on the generation of random normal deviates*, 1958):
  /// words u and v make the two elements `√(-2 log((u | 1) 2⁻³²)) (cos, sin)(2π v 2⁻³²)`. At most 6.7 from 0.
  case normal
  /// The standard Gumbel distribution, `-log(-log((⌊w / 2⁹⌋ + ½) 2⁻²³))` of word w: from -2.82 to 16.7. The largest element of
  /// logits plus such noise is a draw from their softmax.
  case gumbel
}

extension Context {
  /// Fills y with random numbers: the element at row-major position p is number `key.offset + p` of the key's stream,
  /// modulo 2⁶⁴. ``RandomKey`` has the generator and ``RandomDistribution`` the transforms.
  ///
  /// Bits depend on the distribution, the key and y's type alone, not on backend, machine, threads, strides or the shape that
  /// the elements are counted in. Take ``RandomKey/advanced(by:)`` of what a call filled for the numbers after them.
  ///
  /// - Parameters:
  ///   - y: any data type, rank at least 1, unit stride along the last axis, leading axes that fold into rows.
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for another y.
  public func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .random)
    let y = try check.rows(y, "y")
    try check.destination(y, "y")
    try run(runner(.random, y.types)) { $0.random(distribution, key: key, into: y) }
  }
}

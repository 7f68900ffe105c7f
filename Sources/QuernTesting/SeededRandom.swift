#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A repeatable source of random numbers: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
public struct SeededRandom: RandomNumberGenerator, Sendable {
  /// The seed of a test run: `QUERN_TEST_SEED`, else a fixed one. Tests print it when they fail.
  public static let runSeed: UInt64 =
    getenv("QUERN_TEST_SEED").flatMap { UInt64(String(cString: $0)) } ?? 0x5155_4552_4E

  private var state: UInt64

  public init(seed: UInt64 = SeededRandom.runSeed) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Roughly normal: the sum of four uniforms, scaled to unit variance.
  public mutating func normal() -> Float {
    let bits = next()
    let sum = (0..<4).reduce(Float(0)) { $0 + Float((bits >> (16 * UInt64($1))) & 0xFFFF) / 65536 }
    return (sum - 2) * Float(3).squareRoot()
  }
}

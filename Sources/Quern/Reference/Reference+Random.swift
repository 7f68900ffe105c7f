extension ReferenceBackend {
  public func random(_ distribution: RandomDistribution, key: RandomKey, into y: MutableTensor) {
    let n = y.shape[1]
    for i in 0..<y.shape[0] {
      let first = key.advanced(by: i * n)
      for j in 0..<n { y[i, j] = Double(distribution.element(first.advanced(by: j))) }
    }
  }
}

/// The arithmetic that every backend repeats bit for bit: f32, each operation rounded, nothing fused.
extension RandomDistribution {
  /// The element a key starts at.
  fileprivate func element(_ key: RandomKey) -> Float {
    let words = key.words(block: key.offset / 4)
    let lane = Int(key.offset % 4)
    switch self {
    case .uniform: return Float(words[lane] >> 8) * 0x1p-24
    case .normal:
      let (first, second) = Self.pair(words[lane & 2], words[lane | 1])
      return lane % 2 == 0 ? first : second
    case .gumbel: return -Self.logarithm(-Self.logarithm(Float((words[lane] >> 9) << 1 | 1) * 0x1p-24))
    }
  }

  /// Two normal numbers from two words: along the nearest quarter turn and across it, for the angle that is left.
  private static func pair(_ u: UInt32, _ v: UInt32) -> (Float, Float) {
    let length = (logarithm(Float(u | 1) * 0x1p-32) * -2).squareRoot()
    let quarter = v &+ 0x2000_0000
    let turn = Float(Int32(bitPattern: v &- (quarter & 0xC000_0000))) * 0x1p-32
    let square = turn * turn
    let along = length * (square * polynomial(cosine, square) + 1)
    let across = length * (turn * polynomial(sine, square))
    return switch quarter >> 30 {
    case 0: (along, across)
    case 1: (-across, along)
    case 2: (-along, -across)
    default: (across, -along)
    }
  }

  /// log x for a normal x > 0: x = 2ᵉ (1 + f), √½ ≤ 1 + f < √2, log(1 + f) = f - f² / 2 + f³ P(f).
  private static func logarithm(_ x: Float) -> Float {
    let bits = x.bitPattern
    let exponent = Int32(bitPattern: bits &- 0x3F35_04F3) >> 23  // 0x3F3504F3 is √½
    let e = Float(exponent)
    let f = Float(bitPattern: bits &- UInt32(bitPattern: exponent) << 23) - 1
    let square = f * f
    let rest = square * f * polynomial(log, f) + e * 0x1.7f7d1cp-20  // log 2 in two parts, the upper of 15 bits
    return f + (rest - square * 0.5) + e * 0x1.62e4p-1
  }

  /// c[0] + x (c[1] + x (...)).
  private static func polynomial(_ c: SIMD8<Float>, _ x: Float) -> Float {
    var p = c[7]
    for i in (0..<7).reversed() { p = p * x + c[i] }
    return p
  }

  // Fitted by `tools/fit_math.py`; missing terms are zeros, which change nothing.
  private static let log = SIMD8<Float>(
    0x1.555554p-2, -0x1.000226p-2, 0x1.99a01cp-3, -0x1.54728cp-3, 0x1.22d936p-3, -0x1.0d8232p-3, 0x1.055e62p-3,
    -0x1.38c910p-4)
  private static let sine = SIMD8<Float>(
    0x1.921fb6p+2, -0x1.4abc24p+5, 0x1.4680a2p+6, -0x1.3318dep+6, 0, 0, 0, 0)
  private static let cosine = SIMD8<Float>(
    -0x1.3bd3ccp+4, 0x1.03c1aep+6, -0x1.55b146p+6, 0x1.d47d46p+5, 0, 0, 0, 0)
}

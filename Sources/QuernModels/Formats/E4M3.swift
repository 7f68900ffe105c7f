/// FP8 in the form E4M3 (Micikevicius et al., arXiv 2209.05433, section 3): a sign, 4 bits of exponent and 3 of fraction. There are no
/// infinities, and the codes whose other bits are all ones are NaN.
package enum E4M3 {
  /// The largest number.
  static let largest: Float = 448

  /// What each code stands for.
  package static let values: [Float] = (0..<256).map { code in
    let (sign, exponent, fraction) = (code >> 7, code >> 3 & 15, code & 7)
    guard !isNaN(UInt8(code)) else { return .nan }
    // Below the normal range the exponent is that of its end, without the leading one.
    let magnitude =
      exponent == 0
      ? Float(fraction) * 0x1p-9
      : Float(sign: .plus, exponent: exponent - 7, significand: 1 + Float(fraction) / 8)
    return sign == 1 ? -magnitude : magnitude
  }

  static func isNaN(_ code: UInt8) -> Bool { code & 0x7F == 0x7F }

  /// As many codes as `destination` has places, times a scale. False where one of them is NaN.
  static func widen(
    _ codes: UnsafeRawBufferPointer, scale: Float, into destination: UnsafeMutableBufferPointer<Float>
  ) -> Bool {
    values.withUnsafeBufferPointer { values in
      var hasNaN = false
      for index in destination.indices {
        let code = codes[index]
        hasNaN = hasNaN || isNaN(code)
        destination[index] = values[Int(code)] * scale
      }
      return !hasNaN
    }
  }
}

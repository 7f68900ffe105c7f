/// Rounding to the super-blocks of 256 weights: scales first, each for the weights that share it, then codes by the scales as stored.
extension QuantizedFormat {
  /// One block of Q4_K or, where `fifths` is the place of its codes' fifth bits, Q5_K; false where it has no finite scales.
  static func encodeQ4K(
    _ values: UnsafePointer<Float>, fifths: UnsafeMutablePointer<UInt8>?, into block: UnsafeMutableRawPointer
  ) -> Bool {
    let top: Float = fifths == nil ? 15 : 31
    fifths?.update(repeating: 0, count: 32)
    var (scales, lows) = ([Float](repeating: 0, count: 8), [Float](repeating: 0, count: 8))
    for part in 0..<8 {
      var (least, most) = (Float(0), Float(0))
      for i in part * 32..<part * 32 + 32 {
        guard values[i].isFinite else { return false }
        (least, most) = (min(least, values[i]), max(most, values[i]))
      }
      scales[part] = most / top - least / top
      lows[part] = -least
    }
    guard let d = store((scales.max() ?? 0) / 63, to: block), let m = store((lows.max() ?? 0) / 63, to: block + 2)
    else { return false }
    for part in 0..<8 {
      let (scale, low) = (nearest(scales[part], d, 0, 63), nearest(lows[part], m, 0, 63))
      let packed = (block + 4).assumingMemoryBound(to: UInt8.self)
      if part < 4 {
        (packed[part], packed[part + 4]) = (scale, low)
      } else {
        packed[part + 4] = scale & 15 | low << 4
        packed[part - 4] |= (scale >> 4) << 6
        packed[part] |= (low >> 4) << 6
      }
      let codes = (block + (fifths == nil ? 16 : 48) + part / 2 * 32).assumingMemoryBound(to: UInt8.self)
      for i in 0..<32 {
        let code = nearest(values[part * 32 + i] + m * Float(low), d * Float(scale), 0, top)
        codes[i] = part % 2 == 0 ? code & 15 : codes[i] | code << 4
        if let fifths { fifths[i] |= (code >> 4) << UInt8(part) }
      }
    }
    return true
  }

  /// One block of Q6_K; false where it has no finite scales.
  static func encodeQ6K(_ values: UnsafePointer<Float>, into block: UnsafeMutableRawPointer) -> Bool {
    let bytes = block.assumingMemoryBound(to: UInt8.self)
    var scales = [Float](repeating: 0, count: 16)
    for i in 0..<256 {
      guard values[i].isFinite else { return false }
      scales[i / 16] = max(scales[i / 16], abs(values[i]) / 31)
    }
    guard let d = store((scales.max() ?? 0) / 127, to: block + 208) else { return false }
    for i in 0..<192 { bytes[i] = 0 }
    for i in 0..<256 {
      let scale = nearest(scales[i / 16], d, 0, 127)
      bytes[192 + i / 16] = scale
      let code = nearest(values[i], d * Float(scale), -32, 31) &+ 32
      let part = i % 128
      bytes[i / 128 * 64 + part % 64] |= (code & 15) << (part / 64 * 4)
      bytes[128 + i / 128 * 32 + part % 32] |= (code >> 4) << (part / 32 * 2)
    }
    return true
  }
}

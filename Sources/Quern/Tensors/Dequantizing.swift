/// Whole blocks at a time. The products are exact in f32 but for Q6_K's and the differences of two terms, which are rounded once, so the
/// values are those of `weight`, to the bit.
extension QuantizedFormat {
  /// The weights of as many blocks as `blocks` and `values` both have room for.
  package func dequantize(_ blocks: UnsafeRawBufferPointer, into values: UnsafeMutableBufferPointer<Float>) {
    guard let source = blocks.baseAddress, let target = values.baseAddress else { return }
    for index in 0..<min(blocks.count / blockBytes, values.count / blockSize) {
      let (block, weights) = (source + index * blockBytes, target + index * blockSize)
      switch self {
      case .q8: Self.dequantizeQ8(block, into: weights)
      case .q4: Self.dequantizeQ4(block, into: weights)
      case .mxfp4: Self.dequantizeMXFP4(block, into: weights)
      case .q4K: Self.dequantizeQ4K(block, fifths: nil, into: weights)
      case .q5K: Self.dequantizeQ4K(block, fifths: block + 16, into: weights)
      case .q5One: Self.dequantizeQ5One(block, into: weights)
      case .q6K: Self.dequantizeQ6K(block, into: weights)
      }
    }
  }

  @inline(__always)
  private static func half(_ block: UnsafeRawPointer, _ offset: Int) -> Float { DataType.f16.load(block + offset, 0) }

  private static func dequantizeQ8(_ block: UnsafeRawPointer, into weights: UnsafeMutablePointer<Float>) {
    let (d, codes) = (half(block, 0), (block + 2).assumingMemoryBound(to: Int8.self))
    for i in 0..<32 { weights[i] = d * Float(codes[i]) }
  }

  private static func dequantizeQ4(_ block: UnsafeRawPointer, into weights: UnsafeMutablePointer<Float>) {
    let (d, codes) = (half(block, 0), (block + 2).assumingMemoryBound(to: UInt8.self))
    for i in 0..<16 {
      weights[i] = d * Float(Int32(codes[i] & 15) &- 8)
      weights[i + 16] = d * Float(Int32(codes[i] >> 4) &- 8)
    }
  }

  private static func dequantizeMXFP4(_ block: UnsafeRawPointer, into weights: UnsafeMutablePointer<Float>) {
    let (d, codes) = (DataType.bf16.load(block, 0), (block + 2).assumingMemoryBound(to: UInt8.self))
    e2m1.withUnsafeBufferPointer { values in
      for i in 0..<16 {
        weights[i] = d * Float(values[Int(codes[i] & 15)])
        weights[i + 16] = d * Float(values[Int(codes[i] >> 4)])
      }
    }
  }

  private static func dequantizeQ5One(_ block: UnsafeRawPointer, into weights: UnsafeMutablePointer<Float>) {
    let (d, m) = (half(block, 0), half(block, 2))
    let fifths = block.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
    let codes = (block + 8).assumingMemoryBound(to: UInt8.self)
    for i in 0..<16 {
      let (low, high) = (fifths >> UInt32(i) & 1, fifths >> UInt32(i + 16) & 1)
      weights[i] = d * Float(UInt32(codes[i] & 15) | low << 4) + m
      weights[i + 16] = d * Float(UInt32(codes[i] >> 4) | high << 4) + m
    }
  }

  /// Q5_K too, whose fifth bits lie at `fifths`, before the others.
  @inline(__always)
  private static func dequantizeQ4K(
    _ block: UnsafeRawPointer, fifths: UnsafeRawPointer?, into weights: UnsafeMutablePointer<Float>
  ) {
    let (d, m) = (half(block, 0), half(block, 2))
    let nibbles = fifths.map { $0 + 32 } ?? block + 16
    for part in 0..<8 {
      let (scale, low) = scales(of: part, at: block + 4)
      let (step, least) = (d * Float(scale), m * Float(low))
      let codes = (nibbles + part / 2 * 32).assumingMemoryBound(to: UInt8.self)
      let shift = UInt8(part % 2 * 4)
      for i in 0..<32 {
        var code = codes[i] >> shift & 15
        if let fifths { code |= (fifths.load(fromByteOffset: i, as: UInt8.self) >> UInt8(part) & 1) << 4 }
        weights[part * 32 + i] = step * Float(code) - least
      }
    }
  }

  private static func dequantizeQ6K(_ block: UnsafeRawPointer, into weights: UnsafeMutablePointer<Float>) {
    let d = half(block, 208)
    let bytes = block.assumingMemoryBound(to: UInt8.self)
    for part in 0..<16 {
      let step = d * Float(Int8(bitPattern: bytes[192 + part]))
      let (side, within) = (part / 8, part % 8 * 16)
      let low = bytes + side * 64 + within % 64
      let high = bytes + 128 + side * 32 + within % 32
      let (lowShift, highShift) = (UInt8(within / 64 * 4), UInt8(within / 32 * 2))
      for i in 0..<16 {
        let code = Int32(low[i] >> lowShift & 15) | Int32(high[i] >> highShift & 3) << 4
        weights[part * 16 + i] = step * Float(code &- 32)
      }
    }
  }
}

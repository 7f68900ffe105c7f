import Quern

/// Blocks of a GGUF file that no product reads as they lie: what they stand for, and the blocks they become as a model is loaded.
///
/// Q4_1, Q5_0, IQ4_NL, Q3_K and MXFP4 become others exactly. The rest become Q8_0: IQ4_XS with its scales rounded to f16, within 2^-11 of
/// each weight; Q2_K rounded as ``QuantizedFormat/largestError`` says, which is a small part of a step of its own.
/// Source: https://github.com/ggml-org/ggml, `src/ggml-common.h`.
enum StoredBlocks: Sendable, Equatable, CaseIterable {
  /// ggml's `block_mxfp4`: see ``MXFP4Blocks``.
  case mxfp4
  /// `w = d (q - 16)`, q of 5 bits, for 32 weights.
  case q5
  /// `w = d e[q]`, q of 4 bits, for 32.
  case iq4NL
  /// `w = d (s - 32) (q - 4)`, s of 6 bits for each 16 and q of 3 bits, for 256.
  case q3K
  /// `w = d (s - 32) e[q]`, s of 6 bits for each 32 and q of 4 bits, for 256.
  case iq4XS
  /// `w = d q + m`, q of 4 bits, for 32.
  case q4One
  /// `w = d s q - m l`, s and l of 4 bits for each 16 and q of 2 bits, for 256.
  case q2K

  /// Weights of a block.
  var size: Int {
    switch self {
    case .mxfp4, .q5, .iq4NL, .q4One: 32
    case .q3K, .iq4XS, .q2K: 256
    }
  }

  /// Bytes of a block.
  var bytes: Int {
    switch self {
    case .mxfp4: MXFP4Blocks.ggmlBytes
    case .q5: 22
    case .iq4NL: 18
    case .q3K: 110
    case .iq4XS: 136
    case .q4One: 20
    case .q2K: 84
    }
  }

  /// That of the blocks they become.
  var format: QuantizedFormat {
    switch self {
    case .mxfp4: .mxfp4
    case .q3K: .q6K
    case .q4One: .q5One
    case .q5, .iq4NL, .iq4XS, .q2K: .q8
    }
  }

  /// Bytes of what one block becomes.
  var formatBytes: Int { size / format.blockSize * format.blockBytes }

  /// The weights of whole blocks, as exact as f32 has them.
  func dequantize(_ stored: UnsafeRawBufferPointer, into weights: UnsafeMutableBufferPointer<Float>) {
    guard let source = stored.baseAddress, let target = weights.baseAddress else { return }
    for block in 0..<stored.count / bytes {
      let (from, to) = (source + block * bytes, target + block * size)
      switch self {
      case .q2K: Self.q2K(from, into: to)
      case .iq4XS:
        for part in 0..<8 {
          let step = Self.stepOfIQ4XS(from, part)
          Self.forEachEntry(from + 8 + part * 16) { place, entry in to[part * 32 + place] = step * Float(entry) }
        }
      case .mxfp4, .q5, .iq4NL, .q3K, .q4One:
        withUnsafeTemporaryAllocation(byteCount: formatBytes, alignment: 2) { bytes in
          _ = rewrite(from, into: bytes)
          format.dequantize(
            UnsafeRawBufferPointer(bytes), into: UnsafeMutableBufferPointer(start: to, count: size))
        }
      }
    }
  }

  /// Whole blocks to as many of the format.
  ///
  /// - Returns: the first that has no finite scale, so that the format has none for it; `nil` for none.
  func rewrite(_ stored: UnsafeRawBufferPointer, into blocks: UnsafeMutableRawBufferPointer) -> Int? {
    guard let source = stored.baseAddress else { return nil }
    return (0..<stored.count / bytes).first { block in
      let to = UnsafeMutableRawBufferPointer(rebasing: blocks[block * formatBytes..<(block + 1) * formatBytes])
      return !rewrite(source + block * bytes, into: to)
    }
  }

  private func rewrite(_ from: UnsafeRawPointer, into block: UnsafeMutableRawBufferPointer) -> Bool {
    guard let to = block.baseAddress else { return true }
    switch self {
    case .mxfp4: MXFP4Blocks.widen(UnsafeRawBufferPointer(start: from, count: bytes), into: block)
    case .q5:
      to.copyMemory(from: from, byteCount: 2)
      Self.forEachFiveBits(from + 2) { place, code in
        to.storeBytes(of: Int8(code) - 16, toByteOffset: 2 + place, as: Int8.self)
      }
    case .iq4NL:
      to.copyMemory(from: from, byteCount: 2)
      Self.forEachEntry(from + 2) { place, entry in to.storeBytes(of: entry, toByteOffset: 2 + place, as: Int8.self) }
    case .q3K: Self.q3K(from, into: block)
    case .iq4XS:
      for part in 0..<8 {
        let (step, at) = (Self.stepOfIQ4XS(from, part), part * format.blockBytes)
        DataType.f16.store(step, to: to + at, 0)
        guard DataType.f16.load(to + at, 0).isFinite else { return false }
        Self.forEachEntry(from + 8 + part * 16) { place, entry in
          to.storeBytes(of: entry, toByteOffset: at + 2 + place, as: Int8.self)
        }
      }
    case .q4One:  // its minimum, no fifth bits, and its codes
      to.copyMemory(from: from, byteCount: 4)
      to.storeBytes(of: 0, toByteOffset: 4, as: UInt32.self)
      (to + 8).copyMemory(from: from + 4, byteCount: 16)
    case .q2K:
      return withUnsafeTemporaryAllocation(of: Float.self, capacity: size) { weights in
        dequantize(UnsafeRawBufferPointer(start: from, count: bytes), into: weights)
        guard let base = weights.baseAddress else { return true }
        return (0..<size / format.blockSize).allSatisfy {
          format.encode(base + $0 * format.blockSize, into: to + $0 * format.blockBytes)
        }
      }
    }
    return true
  }

  @inline(__always)
  private static func half(_ block: UnsafeRawPointer, _ offset: Int) -> Float { DataType.f16.load(block + offset, 0) }

  @inline(__always)
  private static func byte(_ block: UnsafeRawPointer, _ offset: Int) -> UInt8 {
    block.load(fromByteOffset: offset, as: UInt8.self)
  }

  /// The fifth bits of 32 codes, then the other four: i in the low half of byte i, i + 16 in its high half.
  @inline(__always)
  private static func forEachFiveBits(_ block: UnsafeRawPointer, _ body: (Int, UInt8) -> Void) {
    let high = block.loadUnaligned(as: UInt32.self)
    for i in 0..<16 {
      let low = byte(block, 4 + i)
      body(i, low & 15 | UInt8(truncatingIfNeeded: high >> UInt32(i) & 1) << 4)
      body(i + 16, low >> 4 | UInt8(truncatingIfNeeded: high >> UInt32(i + 16) & 1) << 4)
    }
  }

  /// e of 32 codes of 4 bits, in the same order.
  @inline(__always)
  private static func forEachEntry(_ codes: UnsafeRawPointer, _ body: (Int, Int8) -> Void) {
    for i in 0..<16 {
      body(i, entry(byte(codes, i) & 15))
      body(i + 16, entry(byte(codes, i) >> 4))
    }
  }

  /// e[code]: ggml's `kvalues_iq4nl`.
  @inline(__always)
  private static func entry(_ code: UInt8) -> Int8 {
    switch code {
    case 0: -127
    case 1: -104
    case 2: -83
    case 3: -65
    case 4: -49
    case 5: -35
    case 6: -22
    case 7: -10
    case 8: 1
    case 9: 13
    case 10: 25
    case 11: 38
    case 12: 53
    case 13: 69
    case 14: 89
    default: 113
    }
  }

  private static func q2K(_ block: UnsafeRawPointer, into weights: UnsafeMutablePointer<Float>) {
    let (d, m) = (half(block, 80), half(block, 82))
    for part in 0..<16 {
      let scales = byte(block, part)
      let (step, least) = (d * Float(scales & 15), m * Float(scales >> 4))
      let (codes, shift) = (block + 16 + part / 8 * 32 + part % 2 * 16, UInt8(part % 8 / 2 * 2))
      for i in 0..<16 { weights[part * 16 + i] = step * Float(byte(codes, i) >> shift & 3) - least }
    }
  }

  /// `d (s - 32)` of 32 weights.
  private static func stepOfIQ4XS(_ block: UnsafeRawPointer, _ part: Int) -> Float {
    let low = byte(block, 4 + part / 2) >> UInt8(part % 2 * 4) & 15
    let high = UInt8(
      truncatingIfNeeded: block.loadUnaligned(fromByteOffset: 2, as: UInt16.self) >> UInt16(2 * part) & 3)
    return half(block, 0) * Float(Int(low | high << 4) - 32)
  }

  /// Q3_K's bits in Q6_K's places: four low ones of each code, two high ones, scales in int8, d.
  private static func q3K(_ block: UnsafeRawPointer, into to: UnsafeMutableRawBufferPointer) {
    to.initializeMemory(as: UInt8.self, repeating: 0)
    for part in 0..<16 {
      let low = part < 8 ? byte(block, 96 + part) & 15 : byte(block, 96 + part - 8) >> 4
      let high = byte(block, 104 + part % 4) >> UInt8(part / 4 * 2) & 3
      to[192 + part] = UInt8(bitPattern: Int8(low | high << 4) - 32)
    }
    for i in 0..<256 {
      let (side, within) = (i / 128, i % 128)
      let two = byte(block, 32 + side * 32 + i % 32) >> UInt8(within / 32 * 2) & 3
      let isHigh = byte(block, i % 32) >> UInt8(i / 32) & 1
      let code = two + (isHigh << 2) + 28
      to[side * 64 + within % 64] |= (code & 15) << UInt8(within / 64 * 4)
      to[128 + side * 32 + within % 32] |= (code >> 4) << UInt8(within / 32 * 2)
    }
    to[208] = byte(block, 108)
    to[209] = byte(block, 109)
  }
}

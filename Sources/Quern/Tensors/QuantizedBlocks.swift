import CKernels

/// One weight of a block: `scale * (code - offset) - low`.
struct QuantizedWeight {
  var scale: Double
  var code: UInt8
  var low = 0.0
  /// How codes are read: as two's complement, or less this.
  var offset: Int?

  var steps: Double { offset.map { Double(Int(code) - $0) } ?? Double(Int8(bitPattern: code)) }
  var value: Double { scale * steps - low }
  /// The larger of the terms whose difference the weight is.
  var reach: Double { max(abs(scale * steps), abs(low)) }
}

extension QuantizedFormat {
  /// What is taken off a code; `nil` for int8.
  private var offset: Int? {
    switch self {
    case .q8, .mxfp4: nil
    case .q4: 8
    case .q4K, .q5K, .q5One: 0
    case .q6K: 32
    }
  }

  /// Twice the values of the 4-bit floats.
  static let e2m1: [Int8] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

  /// Weight i of a block as a file stores it.
  func weight(_ block: UnsafeRawPointer, _ i: Int) -> QuantizedWeight {
    func byte(_ at: Int) -> UInt8 { block.load(fromByteOffset: at, as: UInt8.self) }
    func half(_ at: Int) -> Double { Double(DataType.f16.load(block + at, 0)) }
    func nibble(_ first: Int, _ half: Int, _ i: Int) -> UInt8 { byte(first + i % half) >> (i / half * 4) & 15 }
    var weight = QuantizedWeight(scale: half(self == .q6K ? 208 : 0), code: 0, offset: offset)
    switch self {
    case .q8: weight.code = byte(2 + i)
    case .q4: weight.code = nibble(2, 16, i)
    case .mxfp4:
      weight.scale = Double(DataType.bf16.load(block, 0))
      weight.code = UInt8(bitPattern: Self.e2m1[Int(nibble(2, 16, i))])
    case .q5One:
      weight.low = -half(2)
      weight.code = nibble(8, 16, i) | (byte(4 + i / 8) >> (i % 8) & 1) << 4
    case .q4K, .q5K:
      let (scale, low) = Self.scales(of: i / 32, at: block + 4)
      weight.scale *= Double(scale)
      weight.low = half(2) * Double(low)
      weight.code = nibble((self == .q5K ? 48 : 16) + i / 64 * 32, 32, i % 64)
      if self == .q5K { weight.code |= (byte(16 + i % 32) >> (i / 32) & 1) << 4 }
    case .q6K:
      let part = i % 128
      weight.scale *= Double(Int8(bitPattern: byte(192 + i / 16)))
      let high = byte(128 + i / 128 * 32 + part % 32) >> (part / 32 * 2) & 3
      weight.code = nibble(i / 128 * 64, 64, part) | high << 4
    }
    return weight
  }

  /// The two 6-bit scales of 32 weights of Q4_K or Q5_K: the first four pairs lie in bytes of their own, the others' high bits above.
  static func scales(of part: Int, at packed: UnsafeRawPointer) -> (UInt8, UInt8) {
    func byte(_ at: Int) -> UInt8 { packed.load(fromByteOffset: at, as: UInt8.self) }
    if part < 4 { return (byte(part) & 63, byte(part + 4) & 63) }
    return (byte(part + 4) & 15 | (byte(part - 4) >> 6) << 4, byte(part + 4) >> 4 | (byte(part) >> 6) << 4)
  }

  /// Weight i of a column of a block of a panel, as `CKernels/include/ck_types.h` lays it out.
  func weight(panel block: UnsafeRawPointer, width: Int, column: Int, _ i: Int) -> QuantizedWeight {
    func byte(_ at: Int) -> UInt8 { block.load(fromByteOffset: at, as: UInt8.self) }
    func half(_ at: Int) -> Double { Double(DataType.f16.load(block + at, column)) }
    let (pair, odd) = (i % 32 / 2, i % 2)
    // Codes of `bits` bits, in 16-bit words from `first` on.
    func code(_ first: Int, _ bits: Int) -> UInt8 {
      let shift = bits == 1 ? ck_fifth(pair) : bits == 2 ? 2 * ck_crumb(pair) : pair * bits % 16
      return byte(first + ((pair * bits / 16 * width + column) * 2 + odd) * 2 + shift / 8) >> (shift % 8)
        & (1 << bits - 1)
    }
    var weight = QuantizedWeight(scale: half(0), code: 0, offset: offset)
    switch self {
    case .q8: weight.code = byte(2 * width + (pair * width + column) * 2 + odd)
    case .q4: weight.code = code(2 * width, 4)
    case .mxfp4:
      weight.scale = Double(DataType.bf16.load(block, column))
      weight.code = UInt8(bitPattern: Self.e2m1[Int(code(2 * width, 4))])
    case .q5One:
      weight.low = -half(2 * width)
      weight.code = code(4 * width, 4) | code(20 * width, 1) << 4
    case .q4K, .q5K:
      let part = 4 * width + i / 32 * (self == .q5K ? 22 : 18) * width
      weight.scale *= Double(byte(part + column))
      weight.low = half(2 * width) * Double(byte(part + width + column))
      weight.code = code(part + 2 * width, 4)
      if self == .q5K { weight.code |= code(part + 18 * width, 1) << 4 }
    case .q6K:
      let part = 2 * width + i / 32 * 26 * width
      weight.scale *= Double(Int8(bitPattern: byte(part + i % 32 / 16 * width + column)))
      weight.code = code(part + 2 * width, 4) | code(part + 18 * width, 2) << 4
    }
    return weight
  }

  /// Bytes of a column of a block of a panel.
  var panelBytes: Int { self == .q4K || self == .q5K ? blockBytes + 4 : blockBytes }
}

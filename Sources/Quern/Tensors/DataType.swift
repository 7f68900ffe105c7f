import CKernels

/// How the elements of a tensor are stored. Arithmetic is in f32 whatever the storage: an operation widens what it reads
/// and rounds what it writes once, to nearest even.
public enum DataType: String, Sendable, CaseIterable {
  /// IEEE 754 binary32.
  case f32
  /// The upper half of binary32: 8 bits of precision, the same range.
  case bf16
  /// IEEE 754 binary16: 11 bits of precision, up to 65504.
  case f16

  /// Bytes of an element.
  public var size: Int { self == .f32 ? 4 : 2 }

  /// The largest relative error of rounding to this type, in its normal range.
  public var unitRoundoff: Double {
    switch self {
    case .f32: 0x1p-24
    case .bf16: 0x1p-8
    case .f16: 0x1p-11
    }
  }

  /// The smallest positive value, hence twice the largest error of rounding below the normal range.
  public var leastNonzeroMagnitude: Double {
    switch self {
    case .f32: 0x1p-149
    case .bf16: 0x1p-133
    case .f16: 0x1p-24
    }
  }

  /// The C name.
  package var code: ck_dtype {
    switch self {
    case .f32: CK_F32
    case .bf16: CK_BF16
    case .f16: CK_F16
    }
  }
}

extension DataType {
  /// Rounds `values` to elements of this type, each once, into memory of their size.
  package func narrow(
    _ values: UnsafeBufferPointer<Float>, into bytes: UnsafeMutableRawBufferPointer
  ) throws(QuernError) {
    guard let from = values.baseAddress, let to = bytes.baseAddress else { return }
    try KernelTable().kernels.f32_narrow(code, values.count, from, to)
  }
}

/// A set of data types: what an operation's operands have, or what a backend reads.
public struct DataTypes: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let f32 = DataTypes(rawValue: 1)
  public static let bf16 = DataTypes(rawValue: 2)
  public static let f16 = DataTypes(rawValue: 4)
  public static let all: DataTypes = [.f32, .bf16, .f16]

  init(_ type: DataType) {
    switch type {
    case .f32: self = .f32
    case .bf16: self = .bf16
    case .f16: self = .f16
    }
  }
}

/// One element in memory, of any type.
extension DataType {
  @inline(__always)
  package func load(_ address: UnsafeRawPointer, _ index: Int) -> Float {
    switch self {
    case .f32: address.load(fromByteOffset: index &* 4, as: Float.self)
    case .bf16: Float(bitPattern: UInt32(address.load(fromByteOffset: index &* 2, as: UInt16.self)) << 16)
    case .f16: Self.widened(half: address.load(fromByteOffset: index &* 2, as: UInt16.self))
    }
  }

  @inline(__always)
  package func store(_ value: Float, to address: UnsafeMutableRawPointer, _ index: Int) {
    switch self {
    case .f32: address.storeBytes(of: value, toByteOffset: index &* 4, as: Float.self)
    case .bf16: address.storeBytes(of: Self.bfloat(value), toByteOffset: index &* 2, as: UInt16.self)
    case .f16: address.storeBytes(of: Self.half(value), toByteOffset: index &* 2, as: UInt16.self)
    }
  }

  /// binary16 widened. The product rescales the exponent exactly, subnormals included; NaN becomes quiet.
  @inline(__always)
  package static func widened(half: UInt16) -> Float {
    let magnitude = UInt32(half & 0x7FFF)
    let rescaled = (Float(bitPattern: magnitude << 13) * 0x1p112).bitPattern
    let special = 0x7F80_0000 | magnitude << 13 | (magnitude > 0x7C00 ? 1 << 22 : 0)
    return Float(bitPattern: UInt32(half & 0x8000) << 16 | (magnitude >= 0x7C00 ? special : rescaled))
  }

  /// Rounded to nearest even; NaN stays NaN.
  package static func bfloat(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    return UInt16(truncatingIfNeeded: (value.isNaN ? bits | 1 << 22 : bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
  }

  /// Rounded to nearest even, infinity from 65520 on; NaN stays NaN.
  package static func half(_ value: Float) -> UInt16 {
    let (bits, body) = (value.bitPattern, value.magnitude.bitPattern)
    let magnitude: UInt32 =
      switch body {
      case 0x7F80_0001...: 0x7E00 | (body >> 13 & 0x3FF)
      case 0x477F_F000...: 0x7C00
      case ..<0x3880_0000: (value.magnitude + 0.5).bitPattern - 0x3F00_0000  // multiples of the last place of 0.5
      default: (body - 0x3800_0000 + 0xFFF + (body >> 13 & 1)) >> 13
      }
    return UInt16(truncatingIfNeeded: bits >> 16 & 0x8000 | magnitude)
  }
}

import Quern

/// Little-endian elements of a file as `Float`.
package enum FloatConversion {
  typealias Function = (UnsafeRawBufferPointer, UnsafeMutableBufferPointer<Float>) -> Void

  /// The conversion for `dtype`, or nil when it has none.
  static func from(_ dtype: SafetensorsDType) -> Function? {
    switch dtype {
    case .f16: { convert($0, $1, UInt16.self, DataType.widened) }
    case .bf16: { convert($0, $1, UInt16.self) { Float(bitPattern: UInt32($0) << 16) } }
    case .f64: { convert($0, $1, UInt64.self) { Float(Double(bitPattern: $0)) } }
    default: nil
    }
  }

  @inline(__always)
  private static func convert<T: FixedWidthInteger>(
    _ bytes: UnsafeRawBufferPointer, _ destination: UnsafeMutableBufferPointer<Float>, _: T.Type, _ body: (T) -> Float
  ) {
    for index in 0..<min(destination.count, bytes.count / MemoryLayout<T>.size) {
      let element = bytes.loadUnaligned(fromByteOffset: index &* MemoryLayout<T>.size, as: T.self)
      destination[index] = body(T(littleEndian: element))
    }
  }
}

/// Little-endian elements of a file as `Int64`.
enum IntegerConversion {
  /// Appends the elements; false, with those before it appended, at one that cannot be represented.
  typealias Function = (UnsafeRawBufferPointer, inout [Int64]) -> Bool

  static func from(_ dtype: SafetensorsDType) -> Function? {
    switch dtype {
    case .i64: { append($0, &$1, Int64.self) }
    case .i32: { append($0, &$1, Int32.self) }
    case .i16: { append($0, &$1, Int16.self) }
    case .i8: { append($0, &$1, Int8.self) }
    case .u64: { append($0, &$1, UInt64.self) }
    case .u32: { append($0, &$1, UInt32.self) }
    case .u16: { append($0, &$1, UInt16.self) }
    case .u8: { append($0, &$1, UInt8.self) }
    case .bool: { append($0, &$1, UInt8.self, limit: 1) }
    default: nil
    }
  }

  @inline(__always)
  private static func append<T: FixedWidthInteger>(
    _ bytes: UnsafeRawBufferPointer, _ values: inout [Int64], _: T.Type, limit: Int64 = .max
  ) -> Bool {
    for index in 0..<bytes.count / MemoryLayout<T>.size {
      let element = T(littleEndian: bytes.loadUnaligned(fromByteOffset: index &* MemoryLayout<T>.size, as: T.self))
      guard let value = Int64(exactly: element), value <= limit else { return false }
      values.append(value)
    }
    return true
  }
}

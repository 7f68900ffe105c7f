import Quern
import Testing

/// `copy` between data types at every 16-bit pattern and around every rounding, on each instruction set.
@Suite struct ConversionTests {
  private static let patterns = 1 << 16

  private static func every(_ type: DataType) throws -> Tensor {
    try Tensor(shape: Shape(patterns), dataType: type) { bytes in
      for pattern in 0..<patterns {
        bytes.storeBytes(of: UInt16(pattern), toByteOffset: 2 * pattern, as: UInt16.self)
      }
    }
  }

  /// What a pattern means, from the formats' definitions alone.
  private static func value(_ pattern: Int, of type: DataType) -> Double {
    let (fraction, bias) = type == .bf16 ? (7, 127) : (10, 15)
    let (exponent, mantissa) = ((pattern & 0x7FFF) >> fraction, pattern & ((1 << fraction) - 1))
    let sign: Double = pattern >> 15 == 0 ? 1 : -1
    if exponent == (1 << (15 - fraction)) - 1 { return mantissa == 0 ? sign * .infinity : .nan }
    let significand = exponent == 0 ? mantissa : mantissa + 1 << fraction
    return sign * Double(sign: .plus, exponent: max(exponent, 1) - bias - fraction, significand: Double(significand))
  }

  private static func converted(_ x: Tensor, to type: DataType, isa: ISA) throws -> MutableTensor {
    let y = try MutableTensor(zeros: x.shape, dataType: type)
    try Context(backend: MultithreadedBackend(options: BackendOptions(isa: isa))).copy(x.view, into: y)
    return y
  }

  @Test(arguments: ISA.available, [DataType.bf16, .f16]) func wideningIsExact(_ isa: ISA, _ type: DataType) throws {
    let y = try Self.converted(Self.every(type), to: .f32, isa: isa).elements
    for pattern in 0..<Self.patterns {
      let (got, expected) = (Double(y[pattern]), Self.value(pattern, of: type))
      let same = got.isNaN ? expected.isNaN : got == expected && got.sign == expected.sign
      #expect(same, "\(type.rawValue) pattern \(pattern) becomes \(got), not \(expected)")
    }
  }

  /// Each finite pattern p comes back from itself, from the floats just inside the midpoints around it, and from a midpoint
  /// where p is even. The midpoint above the largest is where infinity begins.
  @Test(arguments: ISA.available, [DataType.bf16, .f16]) func narrowingIsToNearestEven(
    _ isa: ISA, _ type: DataType
  ) throws {
    let infinity = type == .bf16 ? 0x7F80 : 0x7C00
    var (inputs, expected): ([Float], [Int]) = ([], [])
    for pattern in 0..<infinity {
      let exact = Self.value(pattern, of: type)
      let largest = pattern == infinity - 1
      let next = largest ? 2 * exact - Self.value(pattern - 1, of: type) : Self.value(pattern + 1, of: type)
      let midpoint = Float((exact + next) / 2)
      for (input, result) in [
        (Float(exact), pattern), (midpoint.nextDown, pattern), (midpoint, pattern + pattern % 2),
        (midpoint.nextUp, pattern + 1),
      ] where input != 0 {
        inputs += [input, -input]
        expected += [result, result | 0x8000]
      }
    }
    inputs += [
      0, -0.0, .infinity, -.infinity, .greatestFiniteMagnitude, .leastNonzeroMagnitude, -.leastNonzeroMagnitude,
    ]
    expected += [0, 0x8000, infinity, infinity | 0x8000, infinity, 0, 0x8000]
    let y = try Self.converted(Tensor(inputs), to: type, isa: isa)
    for (index, pattern) in expected.enumerated() {
      let got = y.address.load(fromByteOffset: 2 * index, as: UInt16.self)
      #expect(got == pattern, "\(inputs[index]) becomes \(got), not \(pattern), as \(type.rawValue)")
    }
  }

  @Test(arguments: ISA.available, [DataType.bf16, .f16]) func notANumberStays(_ isa: ISA, _ type: DataType) throws {
    let payloads: [UInt32] = [
      0x7F80_0001, 0x7FC0_0000, 0x7FFF_FFFF, 0xFF80_0001, 0xFFC0_0000, 0xFFFF_FFFF, 0x7F80_8000,
    ]
    let x = try Tensor((0..<40).map { Float(bitPattern: payloads[$0 % payloads.count]) })
    #expect(try Self.converted(x, to: type, isa: isa).elements.allSatisfy(\.isNaN))
  }

  /// bf16 to f16 goes through f32 exactly and is rounded once.
  @Test(arguments: ISA.available) func oneRoundingBetweenNarrowTypes(_ isa: ISA) throws {
    for (from, to) in [(DataType.bf16, DataType.f16), (.f16, .bf16)] {
      let x = try Self.every(from)
      let direct = try Self.converted(x, to: to, isa: isa).elements
      let expected = try x.converted(to: .f32).converted(to: to).elements
      for index in 0..<Self.patterns {
        let same = direct[index].isNaN ? expected[index].isNaN : direct[index] == expected[index]
        #expect(same, "\(from.rawValue) pattern \(index) becomes \(direct[index]), not \(expected[index])")
      }
    }
  }
}

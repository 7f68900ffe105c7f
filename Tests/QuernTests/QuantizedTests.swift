import Quern
import QuernTesting
import Testing

/// Quantised weights: block layouts, errors of the codes, and what is refused. Products are checked by ``ConformanceTests``.
@Suite struct QuantizedTests {
  /// Steps of 1/4, whose largest is -32 steps for Q4_0 and 127 for Q8_0.
  @Test func blocksAreThoseOfGGUF() throws {
    let q8 = try QuantizedMatrix(
      quantizing: Tensor((0..<32).map { Float($0) * 4 + 3 }, shape: Shape(1, 32)).view, as: .q8)
    q8.withBlocks { bytes in  // d = 127 / 127 = 0x3C00
      let codes = (0..<32).map { UInt8($0 * 4 + 3) }
      #expect(Array(bytes) == [0x00, 0x3C] + codes)
    }
    let values = (0..<32).map { Float($0 % 16 - 8) / 4 }
    let q4 = try QuantizedMatrix(quantizing: Tensor(values, shape: Shape(1, 32)).view, as: .q4)
    q4.withBlocks { bytes in  // d = -2 / -8 = 0x3400
      let codes = (0..<16).map { UInt8($0) * 17 }
      #expect(Array(bytes) == [0x00, 0x34] + codes)
    }
    #expect(try q4.dequantized().elements == values)
    let again = try q8.withBlocks { try QuantizedMatrix(blocks: $0, outputs: 1, inputs: 32, format: .q8) }
    #expect(try again.dequantized().elements == q8.dequantized().elements)
  }

  @Test(arguments: QuantizedFormat.allCases)
  func noWeightIsFurtherOffThanStated(_ format: QuantizedFormat) throws {
    var random = SeededRandom()
    for exponent in [-20, -3, 0, 9] {
      let size = Float(sign: .plus, exponent: exponent, significand: 1)
      let values = (0..<64 * 256).map { $0 % 7 == 0 ? size * ($0 % 2 == 0 ? 1 : -1) : size * random.normal() }
      let matrix = try QuantizedMatrix(quantizing: Tensor(values, shape: Shape(64, 256)).view, as: format)
      let found = try matrix.dequantized().elements
      for first in stride(from: 0, to: values.count, by: format.blockSize) {
        let block = first..<first + format.blockSize
        let largest = Double(values[block].map(abs).max() ?? 0)
        let bound = format.largestError * largest + 2048 * 0x1p-24
        #expect(block.allSatisfy { abs(Double(values[$0] - found[$0])) <= bound }, "block at \(first), 2^\(exponent)")
      }
    }
  }

  /// Any bytes are blocks; the scales of these are finite, zero, denormal and not numbers.
  @Test(arguments: QuantizedFormat.allCases)
  func blocksAreDequantisedByTheirDefinition(_ format: QuantizedFormat) throws {
    var random = SeededRandom()
    let blocks = 64
    let bytes = (0..<blocks * format.blockBytes / 2).map { _ in UInt16.random(in: 0...(.max), using: &random) }
    try bytes.withUnsafeBytes { bytes in
      let matrix = try QuantizedMatrix(blocks: bytes, outputs: 2, inputs: blocks / 2 * format.blockSize, format: format)
      var found = [Float](repeating: 0, count: blocks * format.blockSize)
      found.withUnsafeMutableBufferPointer { format.dequantize(bytes, into: $0) }
      for (value, expected) in try zip(found, matrix.dequantized().elements) {
        #expect(value.isNaN ? expected.isNaN : value.bitPattern == expected.bitPattern)
      }
    }
  }

  @Test(arguments: QuantizedFormat.allCases)
  func zerosStayZeros(_ format: QuantizedFormat) throws {
    let matrix = try QuantizedMatrix(quantizing: MutableTensor(zeros: Shape(3, 256)).view, as: format)
    #expect(try matrix.dequantized().elements == [Float](repeating: 0, count: 768))
  }

  @Test(arguments: QuantizedFormat.allCases)
  func whatCannotBeStoredIsRefused(_ format: QuantizedFormat) throws {
    func quantize(_ value: Float, _ shape: Shape) throws {
      _ = try QuantizedMatrix(
        quantizing: Tensor([Float](repeating: value, count: shape.count), shape: shape).view, as: format)
    }
    let size = format.blockSize
    refuses("multiple of \(size)") { try quantize(1, Shape(2, size + 1)) }
    refuses("rank 2") { try quantize(1, Shape(64)) }
    // MXFP4 has the exponents of bf16.
    for value in [Float.nan, .infinity, -.infinity] + (format == .mxfp4 ? [] : [1e30]) {
      refuses("finite") { try quantize(value, Shape(1, size)) }
    }
    let bytes = [UInt8](repeating: 0, count: format.blockBytes - 1)
    refuses("bytes of") {
      _ = try bytes.withUnsafeBytes { try QuantizedMatrix(blocks: $0, outputs: 1, inputs: size, format: format) }
    }
    refuses("exceed the address space") {
      _ = try bytes.withUnsafeBytes {
        try QuantizedMatrix(blocks: $0, outputs: .max / 2, inputs: 1 << 40, format: format)
      }
    }
    refuses("need inputs") {
      _ = try bytes.withUnsafeBytes { try QuantizedMatrix(blocks: $0, outputs: -1, inputs: size, format: format) }
    }
  }

  @Test func groupedLinearDoesNotTakeThem() throws {
    let context = Context(backend: ReferenceBackend())
    let weights = try context.pack(QuantizedMatrix(quantizing: MutableTensor(zeros: Shape(4, 32)).view, as: .q8))
    let (x, y) = (try MutableTensor(zeros: Shape(2, 32)), try MutableTensor(zeros: Shape(2, 4)))
    #expect(throws: QuernError.self) { try context.groupedLinear(x.view, weights: [weights], into: y) }
    try context.linear(x.view, weights: weights, into: y)
  }
}

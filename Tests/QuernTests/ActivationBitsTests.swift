import Quern
import QuernTesting
import Testing

/// Products by quantised weights with x in codes of 16 and of 8 bits: their errors, and where the short codes are taken.
@Suite struct ActivationBitsTests {
  private static func linear(
    _ x: TensorView, _ weights: QuantizedMatrix, isa: ISA, _ bits: ActivationBits, threads: Int = 2
  ) throws -> [Float] {
    let options = BackendOptions(threads: threads, isa: isa, activationBits: bits)
    let context = Context(backend: try MultithreadedBackend(options: options))
    let y = try MutableTensor(zeros: Shape(x.shape[0], weights.outputs))
    try context.linear(x, weights: context.pack(weights), into: y)
    return y.elements
  }

  private static func operands(_ format: QuantizedFormat, rows: Int) throws -> (TensorView, QuantizedMatrix) {
    let x = try MutableTensor.normal(Shape(rows, 512), seed: 1)
    let w = try MutableTensor.normal(Shape(70, 512), seed: 2)
    return (x.view, try QuantizedMatrix(quantizing: w.view, as: format))
  }

  /// Whether short codes pay on an instruction set.
  private static func multipliesBytes(_ isa: ISA, _ format: QuantizedFormat) -> Bool {
    switch isa {
    case .scalar, .neon: false
    case .avx2, .avx512: format != .q8
    default: true
    }
  }

  @Test(arguments: ISA.available, QuantizedFormat.allCases)
  func theErrorIsHalfAStep(_ isa: ISA, _ format: QuantizedFormat) throws {
    let (x, quantized) = try Self.operands(format, rows: 13)
    let values = x.values
    let weights = try quantized.dequantized().elements
    let long = try Self.linear(x, quantized, isa: isa, .sixteen)
    let short = try Self.linear(x, quantized, isa: isa, .eight)
    for i in 0..<13 {
      for j in 0..<70 {
        let w = (0..<512).map { Double(weights[j * 512 + $0]) }
        let terms = (0..<512).map { Double(values[i * 512 + $0]) * w[$0] }
        let roundings = terms.reduce(0) { $0 + abs($1) } * 515 * 0x1p-20
        let halfStep = stride(from: 0, to: 512, by: 32).reduce(0) { sum, first in
          let largest = values[i * 512 + first..<i * 512 + first + 32].map(abs).max() ?? 0
          return sum + Double(largest) * w[first..<first + 32].reduce(0) { $0 + abs($1) } * 0.51
        }
        let truth = terms.reduce(0, +)
        #expect(abs(Double(long[i * 70 + j]) - truth) <= roundings + halfStep / 32767)
        #expect(abs(Double(short[i * 70 + j]) - truth) <= roundings + halfStep / 127)
      }
    }
    #expect((long != short) == Self.multipliesBytes(isa, format))
  }

  /// Whoever judges a backend's results allows what its options do, through the backend that verifies it too.
  @Test func boundsAreThoseOfTheOptions() throws {
    let backend = try MultithreadedBackend(options: BackendOptions(f32: .bf16, activationBits: .eight))
    let allowed = Rounding.anyOrder.of(backend)
    #expect(allowed != .anyOrder && Rounding.anyOrder.of(VerifyingBackend(backend)) == allowed)
    #expect(Rounding.anyOrder.of(ReferenceBackend()) == .anyOrder)
  }

  @Test(arguments: ISA.available, QuantizedFormat.allCases)
  func neitherThreadsNorOtherRowsChangeBits(_ isa: ISA, _ format: QuantizedFormat) throws {
    let (x, quantized) = try Self.operands(format, rows: 77)
    let all = try Self.linear(x, quantized, isa: isa, .eight, threads: 1)
    for threads in [2, 3, 8] { #expect(try Self.linear(x, quantized, isa: isa, .eight, threads: threads) == all) }
    for rows in [0..<1, 5..<9, 70..<77] {
      let some = try Self.linear(x.rows(rows), quantized, isa: isa, .eight)
      #expect(some == Array(all[rows.lowerBound * 70..<rows.upperBound * 70]))
    }
  }
}

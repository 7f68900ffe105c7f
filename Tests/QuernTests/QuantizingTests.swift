import Quern
import QuernTesting
import Testing

/// How weights are rounded to blocks and to bf16: whatever their layout, the bits of the plain rule.
@Suite struct QuantizingTests {
  private static let formats: [QuantizedFormat] = [.q8, .q4]

  /// A block by the rule as it is written down, one element at a time.
  private static func block(_ values: [Float], _ format: QuantizedFormat) -> [UInt8] {
    let largest = values.max { abs($0) < abs($1) } ?? 0
    let bits = DataType.half(format == .q8 ? abs(largest) / 127 : largest / -8)
    let scale = DataType.widened(half: bits)
    let steps = values.map { scale == 0 ? 0 : ($0 / scale).rounded(.toNearestOrEven) }
    let head = [UInt8(bits & 255), UInt8(bits >> 8)]
    if format == .q8 { return head + steps.map { UInt8(bitPattern: Int8(max(-127, min(127, $0)))) } }
    let codes = steps.map { UInt8(max(0, min(15, $0 + 8))) }
    return head + (0..<16).map { codes[$0] | codes[$0 + 16] << 4 }
  }

  /// Blocks of every kind: normal, tied for the largest, on the ties of rounding, tiny, zeros of either sign.
  private static func weights(_ rows: Int, _ columns: Int) -> [Float] {
    var random = SeededRandom()
    return (0..<rows * columns).map { index in
      switch index / 32 % 7 {
      case 0: Float(index % 2 == 0 ? 8 : -8) * 0.5
      case 1: index % 32 == 5 ? 127 : Float(index % 9) + 0.5
      case 2: index % 32 == 9 ? -8 : Float(index % 7) - 3.5
      case 3: random.normal() * 0x1p-22
      case 4: index % 3 == 0 ? -0.0 : 0
      case 5: random.normal() * 0x1p-130
      default: random.normal()
      }
    }
  }

  @Test(arguments: formats, DataType.allCases)
  func everyLayoutGivesTheBlocksOfTheRule(_ format: QuantizedFormat, _ type: DataType) throws {
    // Rows for more than one piece, and a piece that is shorter.
    let (rows, columns) = (300, 96)
    let tensor = try Tensor(Self.weights(rows, columns), shape: Shape(rows, columns)).converted(to: type)
    let values = tensor.elements
    let expected = (0..<rows * columns / 32).flatMap { Self.block(Array(values[$0 * 32..<$0 * 32 + 32]), format) }

    let transposed = try MutableTensor(zeros: Shape(columns, rows), dataType: type)
    let padded = try MutableTensor(zeros: Shape(rows, columns + 5), dataType: type)
    for row in 0..<rows {
      for column in 0..<columns {
        transposed[column, row] = Double(values[row * columns + column])
        padded[row, column + 3] = Double(values[row * columns + column])
      }
    }
    let views = [tensor.view, transposed.view.transposed(), padded.view.columns(3..<columns + 3)]
    for view in views {
      let matrix = try QuantizedMatrix(quantizing: view, as: format)
      #expect(matrix.withBlocks { $0.elementsEqual(expected) }, "strides \(view.strides)")
    }
  }

  @Test(arguments: formats) func theFirstBlockThatCannotBeStoredIsNamed(_ format: QuantizedFormat) throws {
    var values = [Float](repeating: 1, count: 600 * 64)
    for (row, column) in [(590, 1), (301, 40), (302, 2)] { values[row * 64 + column] = .nan }
    let tensor = try Tensor(values, shape: Shape(600, 64))
    refuses("[301, 32...]") { _ = try QuantizedMatrix(quantizing: tensor.view, as: format) }
    refuses("[301, 32...]") { _ = try tensor.view.roundedToBFloat16() }
  }

  @Test func bf16IsRoundedToNearestAndMustStayFinite() throws {
    let values = Self.weights(270, 50)
    let tensor = try Tensor(values, shape: Shape(270, 50))
    let rounded = try tensor.view.roundedToBFloat16().0
    let expected = try tensor.converted(to: .bf16).elements
    #expect(rounded.dataType == .bf16 && rounded.elements == expected)
    let normal = try Tensor(values.map { $0.magnitude < 0x1p-126 ? 1 : $0 }, shape: Shape(270, 50))
    let error = try normal.view.roundedToBFloat16().1
    #expect(error.largestShare > 0 && error.largestShare <= DataType.bf16.unitRoundoff)
    refuses("bf16") { _ = try Tensor([.greatestFiniteMagnitude], shape: Shape(1, 1)).view.roundedToBFloat16() }
    refuses("rank 2") { _ = try Tensor([1]).view.roundedToBFloat16() }
  }

  @Test(arguments: formats) func theErrorIsThatOfTheBlocks(_ format: QuantizedFormat) throws {
    var random = SeededRandom()
    let values = (0..<280 * 64).map { _ in random.normal() }
    let tensor = try Tensor(values, shape: Shape(280, 64))
    let matrix = try QuantizedMatrix(quantizing: tensor.view, as: format)
    let found = try matrix.dequantized().elements
    var (share, squares, weights) = (0.0, 0.0, 0.0)
    for first in stride(from: 0, to: values.count, by: 32) {
      let block = first..<first + 32
      let largest = block.map { abs(Double(values[$0])) }.max() ?? 0
      let errors = block.map { abs(Double(values[$0]) - Double(found[$0])) }
      share = max(share, (errors.max() ?? 0) / largest)
      squares += errors.reduce(0) { $0 + $1 * $1 }
      weights += block.reduce(0) { $0 + Double(values[$1]) * Double(values[$1]) }
    }
    let error = try matrix.roundingError(of: tensor.view)
    #expect(error.largestShare == share && share <= format.largestError)
    // Sums in another order.
    #expect(abs(error.relative - (squares / weights).squareRoot()) < 1e-12)
    refuses("blocks of") { _ = try matrix.roundingError(of: tensor.view.transposed()) }
  }

  @Test func matricesWithoutElementsAreTaken() throws {
    for shape in [Shape(0, 64), Shape(5, 0), Shape(1 << 40, 0)] {
      let tensor = try MutableTensor(zeros: shape)
      let matrix = try QuantizedMatrix(quantizing: tensor.view, as: .q8)
      #expect(try matrix.roundingError(of: tensor.view) == RoundingError())
      #expect(try tensor.view.roundedToBFloat16().1 == RoundingError())
    }
  }
}

import Quern
import QuernTesting
import Testing

/// Copies, combinations and reductions: operands that do not fit give a typed error; edges are as documented.
@Suite struct DataErrorTests {
  private let context = Context(backend: ReferenceBackend())

  private func zeros(_ shape: Shape, _ type: DataType = .f32) throws -> MutableTensor {
    try MutableTensor(zeros: shape, dataType: type)
  }

  @Test func copiesCheckShapesAndOverlap() throws {
    let (x, y) = (try zeros(Shape(3, 4)), try zeros(Shape(4, 3)))
    refuses("y has shape [4, 3], x has shape [3, 4]") { try context.copy(x.view, into: y) }
    try context.copy(x.view, into: y.transposed())  // a permuted destination is one
    let repeated = y.reinterpreted(offset: 0, shape: Shape(3, 4), strides: Shape(0, 1))
    refuses("overlap") { try context.copy(x.view, into: repeated) }
    let short = y.reinterpreted(offset: 0, shape: Shape(3, 4), strides: Shape(2, 1))
    refuses("overlap") { try context.copy(x.view, into: short) }
    refuses("x overlaps the destination") { try context.copy(x.view, into: x) }
    refuses("two axes") { try context.transpose(zeros(Shape(3)).view, into: zeros(Shape(3))) }
    refuses("y has shape [3, 4], x has shape [4, 3]") { try context.transpose(x.view, into: x) }
  }

  @Test func partsMustFillTheWhole() throws {
    let (a, b, y) = (try zeros(Shape(3, 4)), try zeros(Shape(3, 2)), try zeros(Shape(3, 6)))
    try context.concat([a.view, b.view], axis: 1, into: y)
    refuses("axis 2 is outside [3, 6]") { try context.concat([a.view, b.view], axis: 2, into: y) }
    refuses("axis -1 is outside") { try context.split(y.view, axis: -1, into: [a, b]) }
    refuses("the parts have 4 along axis 1, the whole 6") { try context.concat([a.view], axis: 1, into: y) }
    refuses("part 1 has shape [3, 2], the whole [6, 4]") {
      try context.concat([a.view, b.view], axis: 0, into: zeros(Shape(6, 4)))
    }
    refuses("part 0 has shape [6], the whole [3, 6]") {
      try context.split(y.view, axis: 1, into: [zeros(Shape(6))])
    }
    refuses("a part overlaps") { try context.concat([y.view.columns(0..<4), b.view], axis: 1, into: y) }
    refuses("the parts have 0 along axis 1") { try context.split(y.view, axis: 1, into: []) }
    try context.concat([], axis: 0, into: zeros(Shape(0, 6)))
  }

  @Test func combinationsCheckOperands() throws {
    let (x, y, other) = (try zeros(Shape(3, 4)), try zeros(Shape(3, 4)), try zeros(Shape(2, 4)))
    refuses("y has shape [2, 4], x has shape [3, 4]") { try context.binary(.divide, x.view, x.view, into: other) }
    refuses("b has shape [2, 4]") { try context.binary(.maximum, x.view, other.view, into: y) }
    refuses("low is 2.0, high 1.0") { try context.clamp(x.view, low: 2, high: 1, into: y) }
    refuses("low is at most high") { try context.clamp(x.view, low: .nan, high: 1, into: y) }
    refuses("x overlaps") { try context.select(y.view, mask: x.view, into: y) }
    refuses("mask overlaps") { try context.select(x.view, mask: y.view, into: y) }
    refuses("mask has shape [2, 4]") { try context.select(x.view, mask: other.view, into: y) }
    refuses("the fraction is nan") { try context.lerp(x.view, x.view, fraction: .nan, into: y) }
    refuses("the fraction is inf") { try context.slerp(x.view, x.view, fraction: .infinity, into: y) }
    refuses("b has shape [2, 4]") { try context.slerp(x.view, other.view, fraction: 0.5, into: y) }
  }

  @Test func reductionsCheckShapes() throws {
    let (x, y) = (try zeros(Shape(3, 4)), try zeros(Shape(4)))
    refuses("3 elements without gaps are expected for the rows of x [3, 4]") {
      try context.reduce(.sum, x.view, into: y)
    }
    refuses("4 elements without gaps are expected for the columns") {
      try context.reduce(.mean, x.view, along: .columns, into: zeros(Shape(3)))
    }
    refuses("without gaps") {
      try context.reduce(.sum, x.view, along: .columns, into: zeros(Shape(4, 2)).columns(0..<1))
    }
    refuses("x overlaps") { try context.reduce(.sum, x.view, along: .columns, into: x.rows(0..<1)) }
    var indices: [Int32] = [0, 0]
    refuses("2 indices for the rows of x [3, 4]") { try context.argmax(x.view, into: &indices) }
    refuses("empty rows have no extreme") { try context.argmin(zeros(Shape(2, 0)).view, into: &indices) }
    refuses("y has shape [4], x has shape [3, 4]") { try context.cumulativeSum(x.view, into: y) }
  }

  @Test func extremesAreTheFirst() throws {
    let rows: [[Float]] = [
      [1, 3, 3, -2, -2], [0, -0.0, 0, 0, 0], [5, .nan, 9, .nan, -9], [-.infinity, 1, .infinity, 0, 0],
    ]
    let x = try Tensor(rows.flatMap { $0 }, shape: Shape(4, 5))
    for backend: any Backend in [ReferenceBackend(), try MultithreadedBackend()] {
      var indices = [Int32](repeating: -1, count: 4)
      try Context(backend: backend).argmax(x.view, into: &indices)
      #expect(indices == [1, 0, 1, 2])
      try Context(backend: backend).argmin(x.view, into: &indices)
      #expect(indices == [3, 0, 1, 0])
    }
  }

  @Test func nothingReducesToWhatIsDocumented() throws {
    for backend: any Backend in [ReferenceBackend(), try MultithreadedBackend()] {
      for direction in ReductionDirection.allCases {
        for type in [DataType.f32, .bf16, .f16] {
          let x = try zeros(direction == .rows ? Shape(2, 0) : Shape(0, 2), type)
          func of(_ reduction: Reduction) throws -> [Float] {
            let y = try zeros(Shape(2), type)
            try Context(backend: backend).reduce(reduction, x.view, along: direction, into: y)
            return y.elements
          }
          #expect(try of(.sum) == [0, 0] && of(.sumOfSquares) == [0, 0])
          #expect(try of(.mean).allSatisfy(\.isNaN))
          #expect(try of(.maximum) == [-.infinity, -.infinity] && of(.minimum) == [.infinity, .infinity])
          #expect(try of(.logSumExp) == [-.infinity, -.infinity])
        }
      }
    }
  }

  @Test func logSumExpNeitherOverflowsNorTakesInfinityOff() throws {
    let x = try Tensor([1000, 1000, -.infinity, -.infinity, .infinity, 0], shape: Shape(3, 2))
    for backend: any Backend in [ReferenceBackend(), try MultithreadedBackend()] {
      for direction in ReductionDirection.allCases {
        let view = direction == .rows ? x.view : try transposed(x)
        let y = try zeros(Shape(3))
        try Context(backend: backend).reduce(.logSumExp, view, along: direction, into: y)
        #expect(abs(y.elements[0] - 1000.6931) < 1e-3 && y.elements[1] == -.infinity && y.elements[2] == .infinity)
      }
    }
  }

  private func transposed(_ x: Tensor) throws -> TensorView {
    let turned = try zeros(Shape(x.shape[1], x.shape[0]))
    try context.transpose(x.view, into: turned)
    return turned.view
  }
}

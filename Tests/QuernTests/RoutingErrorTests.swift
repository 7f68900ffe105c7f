import Quern
import QuernTesting
import Testing

/// Routing: operands that do not fit give a typed error; ties, NaN and zeros order as documented.
@Suite struct RoutingErrorTests {
  private let context = Context(backend: ReferenceBackend())

  @Test func topKChecksShapes() throws {
    let (x, values) = (try MutableTensor(zeros: Shape(2, 4)), try MutableTensor(zeros: Shape(2, 5)))
    var indices = [Int32](repeating: 0, count: 10)
    refuses("k is 5") { try context.topK(x.view, values: values, indices: &indices) }
    refuses("10 indices for values [2, 3]") {
      try context.topK(x.view, values: values.columns(0..<3), indices: &indices)
    }
    refuses("x has 2 rows, values 1") { try context.topK(x.view, values: values.rows(0..<1), indices: &indices) }
    indices = [0, 0, 0, 0]
    refuses("overlaps") { try context.topK(x.view, values: x.columns(0..<2), indices: &indices) }
  }

  @Test func topKOrdersTiesZerosAndNaN() throws {
    let x = try Tensor([1, .nan, -0.0, 3, 0, 3, .infinity, .nan], shape: Shape(1, 8))
    for backend: any Backend in [ReferenceBackend(), try MultithreadedBackend()] {
      let values = try MutableTensor(zeros: Shape(1, 8))
      var indices = [Int32](repeating: -1, count: 8)
      try Context(backend: backend).topK(x.view, values: values, indices: &indices)
      #expect(indices == [1, 7, 6, 3, 5, 0, 2, 4])
      #expect(values.elements[6].sign == .minus && values.elements[7].sign == .plus)
    }
  }

  @Test func scatterAddChecksIds() throws {
    let (x, y) = (try MutableTensor(zeros: Shape(2, 3)), try MutableTensor(zeros: Shape(4, 3)))
    refuses("id 4 at position 1") { try context.scatterAdd(x.view, ids: [0, 4], into: y) }
    refuses("id -1 at position 0") { try context.scatterAdd(x.view, ids: [-1, 0], into: y) }
    refuses("1 ids for x [2, 3]") { try context.scatterAdd(x.view, ids: [1], into: y) }
    refuses("expected f32 [2]") {
      try context.scatterAdd(x.view, ids: [1, 1], weights: MutableTensor(zeros: Shape(3)).view, into: y)
    }
    refuses("x overlaps") { try context.scatterAdd(y.rows(0..<2).view, ids: [1, 1], into: y) }
    refuses("rows of x have 3 elements") { try context.scatterAdd(x.view, ids: [1, 1], into: y.columns(0..<2)) }
  }

  @Test func segmentsMustCover() throws {
    let weights = try context.pack(MutableTensor(zeros: Shape(2, 3)).view)
    let (x, y) = (try MutableTensor(zeros: Shape(4, 3)), try MutableTensor(zeros: Shape(4, 2)))
    func run(_ lengths: [Int], _ count: Int, bias: Tensor? = nil) throws {
      try context.expertLinear(
        x.view, segments: Segments(lengths: lengths), weights: [PackedMatrix](repeating: weights, count: count),
        epilogue: Epilogue(bias: bias), into: y)
    }
    refuses("segments hold 3 rows, x has 4") { try run([2, 1], 2) }
    refuses("segments hold 5 rows, x has 4") { try run([2, 3], 2) }
    refuses("2 segments for 3 experts") { try run([2, 2], 3) }
    refuses("no weights") { try run([], 0) }
    refuses("expected f32 [2] or [2, 2]") { try run([2, 2], 2, bias: Tensor([0, 0, 0])) }
  }
}

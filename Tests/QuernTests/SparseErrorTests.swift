import Quern
import QuernTesting
import Testing

/// Structured products: operands that do not fit give a typed error.
@Suite struct SparseErrorTests {
  private let context = Context(backend: ReferenceBackend())

  private func matrix(offsets: [Int32], columns: [Int32], blocks: Int? = nil) throws -> BlockSparseMatrix {
    try BlockSparseMatrix(
      outputs: 5, inputs: 7, blockOutputs: 2, blockInputs: 3, offsets: offsets, columns: columns,
      values: MutableTensor(zeros: Shape(blocks ?? columns.count, 2, 3)).copied())
  }

  @Test func blockIndicesAreChecked() throws {
    #expect(try matrix(offsets: [0, 2, 2, 3], columns: [0, 2, 1]).blocks == 3)
    refuses("not ascending") { _ = try matrix(offsets: [0, 2, 2, 3], columns: [2, 0, 1]) }
    refuses("not ascending") { _ = try matrix(offsets: [0, 2, 2, 3], columns: [1, 1, 1]) }
    refuses("outside the 3 block columns") { _ = try matrix(offsets: [0, 2, 2, 3], columns: [0, 3, 1]) }
    refuses("outside the 3 block columns") { _ = try matrix(offsets: [0, 2, 2, 3], columns: [-1, 0, 1]) }
    refuses("exceeds the next") { _ = try matrix(offsets: [0, 4, 2, 3], columns: [0, 2, 1]) }
    refuses("offsets run from") { _ = try matrix(offsets: [0, 2, 2, 4], columns: [0, 2, 1]) }
    refuses("offsets run from") { _ = try matrix(offsets: [1, 2, 2, 3], columns: [0, 2, 1]) }
    refuses("3 offsets for 3 block rows") { _ = try matrix(offsets: [0, 2, 3], columns: [0, 2, 1]) }
    refuses("values has shape") { _ = try matrix(offsets: [0, 2, 2, 3], columns: [0, 2, 1], blocks: 2) }
    refuses("sides are from 1") {
      _ = try BlockSparseMatrix(MutableTensor(zeros: Shape(2, 2)).view, blockOutputs: 0, blockInputs: 1)
    }
    refuses("expected rank 2") {
      _ = try BlockSparseMatrix(MutableTensor(zeros: Shape(2)).view, blockOutputs: 1, blockInputs: 1)
    }
  }

  @Test func denseAndBack() throws {
    let dense = try Tensor((0..<35).map { $0 % 9 < 4 ? 0 : Float($0) }, shape: Shape(5, 7))
    let sparse = try BlockSparseMatrix(dense.view, blockOutputs: 2, blockInputs: 3)
    #expect(try sparse.dense().elements == dense.elements)
    let none = try BlockSparseMatrix(dense.view, blockOutputs: 2, blockInputs: 3, threshold: 100)
    #expect(none.blocks == 0 && none.sparsity == 1)
    let unknown = try Tensor([0, .nan], shape: Shape(1, 2))
    #expect(try BlockSparseMatrix(unknown.view, blockOutputs: 1, blockInputs: 1).columns == [1])
  }

  @Test func blockSparseLinearChecksShapes() throws {
    let weights = try context.pack(try matrix(offsets: [0, 2, 2, 3], columns: [0, 2, 1]))
    let (x, y) = (try MutableTensor(zeros: Shape(2, 7)), try MutableTensor(zeros: Shape(2, 5)))
    refuses("x [2, 5] does not fit weights [5, 7]") {
      try context.blockSparseLinear(y.view, weights: weights, into: y)
    }
    refuses("y has shape [2, 7]") { try context.blockSparseLinear(x.view, weights: weights, into: x) }
    refuses("x overlaps the destination") {
      try context.blockSparseLinear(x.view, weights: weights, into: x.columns(0..<5))
    }
    refuses("bias has shape [4]") {
      let bias = try Tensor([Float](repeating: 0, count: 4))
      try context.blockSparseLinear(x.view, weights: weights, epilogue: Epilogue(bias: bias), into: y)
    }
  }

  @Test func groupsAndRanksMustAgree() throws {
    let a = try context.pack(MutableTensor(zeros: Shape(2, 3)).view)
    let b = try context.pack(MutableTensor(zeros: Shape(2, 4)).view)
    let (x, y) = (try MutableTensor(zeros: Shape(1, 6)), try MutableTensor(zeros: Shape(1, 4)))
    refuses("no weights") { try context.groupedLinear(x.view, weights: [], into: y) }
    refuses("weights 1 are [2, 4]") { try context.groupedLinear(x.view, weights: [a, b], into: y) }
    refuses("x [1, 4] does not fit") { try context.groupedLinear(y.view, weights: [a, a], into: x.columns(0..<4)) }
    refuses("do not fit weights [2, 3]") {
      try context.lowRankLinear(x.view, weights: a, down: b, up: a, into: y)
    }
    refuses("do not fit each other") {
      try context.lowRankLinear(x.columns(0..<4).view, weights: nil, down: b, up: a, into: y)
    }
  }
}

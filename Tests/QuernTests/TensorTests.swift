import Quern
import Testing

/// Shapes, slices and segments at their edges.
@Suite struct TensorTests {
  // MARK: Shape

  @Test func untrustedExtentsAreChecked() throws {
    #expect(try Shape(checking: []) == Shape())
    #expect(try Shape(checking: [2, 0, 3]).count == 0)
    #expect(try Shape(checking: [1, 2, 3, 4]).array == [1, 2, 3, 4])
    let bad: [[Int]] = [
      [-1], [2, -3], [1, 1, 1, 1, 1], [.max, 2], [1 << 32, 1 << 32], [.max], [1 << 21, 1 << 21, 1 << 21, 1 << 21],
    ]
    for extents in bad {
      let error = #expect(throws: QuernError.self) { _ = try Shape(checking: extents) }
      guard case .invalidShape? = error else {
        Issue.record("\(extents): \(String(describing: error))")
        continue
      }
      #expect("\(error!)".contains("\(extents)") && !"\(error!)".contains("\n"))
    }
  }

  @Test func shapesCompareByRankAndExtents() {
    #expect(Shape(2, 3) == [2, 3] && Shape(2, 3) != Shape(3, 2) && Shape(2) != Shape(2, 1) && Shape() != Shape(1))
    #expect(Set([Shape(1), Shape(1, 1), Shape(1), Shape()]).count == 3)
    #expect(Shape().count == 1 && Shape().last == 1 && Shape(4, 7).last == 7 && "\(Shape(4, 7))" == "[4, 7]")
  }

  // MARK: Tensor

  @Test func elementsMustFillTheShape() throws {
    for shape in [Shape(2, 2), Shape(), Shape(0), Shape(6)] {
      let error = #expect(throws: QuernError.self) { _ = try Tensor([1, 2, 3, 4, 5], shape: shape) }
      #expect(error == .invalidShape("5 elements cannot fill shape \(shape)"))
    }
    #expect(try Tensor([] as [Float]).shape == Shape(0))
    #expect(try Tensor([7], shape: Shape()).elements == [7])
  }

  @Test func memoryThatCannotBeHadIsAnError() throws {
    let shape = try Shape(checking: [1 << 50])
    let error = #expect(throws: QuernError.self) { _ = try MutableTensor(zeros: shape) }
    guard case .outOfMemory(let bytes)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(bytes == 1 << 52 && "\(error!)".contains("\(bytes) bytes"))
  }

  @Test func storageIsAlignedAndZeroed() throws {
    for count in [0, 1, 17, 1 << 20] {
      let tensor = try MutableTensor(zeros: Shape(count))
      #expect(UInt(bitPattern: tensor.base) % UInt(TensorStorage.alignment) == 0)
      #expect((0..<count).allSatisfy { tensor.base[$0] == 0 })
    }
  }

  private func counting(_ extents: Shape) throws -> Tensor {
    try Tensor((0..<extents.count).map(Float.init), shape: extents)
  }

  @Test func slicesSeeTheSameMemory() throws {
    let x = try counting(Shape(4, 6))
    #expect(x.rows(1..<3).elements == (6..<18).map(Float.init))
    #expect(x.columns(2..<4).elements == [2, 3, 8, 9, 14, 15, 20, 21])
    #expect(x.rows(1..<2).columns(5..<6).elements == [11])
    #expect(x.rows(4..<4).shape == Shape(0, 6) && x.rows(4..<4).elements == [])
    #expect(x.columns(0..<0).elements == [] && x.columns(0..<0).isContiguous)
    #expect(x.isContiguous && x.rows(1..<3).isContiguous && !x.columns(0..<3).isContiguous)
    #expect(x.rows(2..<3).columns(1..<4).isContiguous, "one row has no gaps")

    let memory = try MutableTensor(zeros: Shape(3, 4))
    memory.rows(1..<2).columns(2..<3).base[0] = 5
    #expect(memory.elements == [0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0])
    let copy = try memory.columns(2..<4).copied()
    memory.base[6] = 9
    #expect(copy.elements == [0, 0, 5, 0, 0, 0] && copy.shape == Shape(3, 2), "a copy has memory of its own")
  }

  @Test func aViewKeepsItsMemory() throws {
    func view() throws -> TensorView { try counting(Shape(1000)).view.slice(axis: 0, 990..<1000) }
    let kept = try view()
    _ = try (0..<50).map { _ in try MutableTensor(zeros: Shape(1000)) }
    #expect(kept.elements == (990..<1000).map(Float.init))
  }

  @Test func axesExchange() throws {
    let x = try counting(Shape(2, 3))
    #expect(x.transposed().shape == Shape(3, 2) && x.transposed().elements == [0, 3, 1, 4, 2, 5])
    #expect(x.transposed().transposed().elements == x.elements && !x.transposed().isContiguous)
    let batched = try counting(Shape(2, 2, 2)).transposed()
    #expect(batched.elements == [0, 2, 1, 3, 4, 6, 5, 7], "the last two axes only")
  }

  @Test func headsCutTheLastAxis() throws {
    let x = try counting(Shape(2, 6))
    let heads = x.heads(3)
    #expect(heads.shape == Shape(2, 3, 2) && heads.strides == Shape(6, 2, 1) && heads.elements == x.elements)
    // As an encoder takes keys from a joint projection: columns, then heads.
    let part = x.columns(2..<6).heads(2)
    #expect(part.shape == Shape(2, 2, 2) && part.elements == [2, 3, 4, 5, 8, 9, 10, 11])
    #expect(x.heads(1).shape == Shape(2, 1, 6) && x.heads(6).shape == Shape(2, 6, 1))
  }

  @Test func reshapingKeepsTheOrder() throws {
    let x = try counting(Shape(2, 6))
    #expect(x.reshaped(Shape(3, 4)).elements == x.elements)
    #expect(x.rows(1..<2).reshaped(Shape(2, 3)).elements == [6, 7, 8, 9, 10, 11])
    #expect(x.reshaped(Shape(12)).shape == Shape(12) && x.reshaped(Shape(1, 12, 1)).strides == Shape(12, 1, 1))
  }

  // MARK: Segments

  @Test func segmentsLieEndToEnd() throws {
    let segments = try Segments(lengths: [3, 0, 5])
    #expect(segments.offsets == [0, 3, 3, 8] && segments.count == 3 && segments.total == 8)
    #expect(segments[0] == 0..<3 && segments[1].isEmpty && segments[2] == 3..<8 && segments.maximumLength == 5)
    let none = try Segments(lengths: [])
    #expect(none.count == 0 && none.total == 0 && none.maximumLength == 0 && none.offsets == [0])
    #expect(try Segments(single: 4) == Segments(lengths: [4]))
  }

  @Test func segmentsRefuseWhatCannotBeCounted() throws {
    let most = Int(Int32.max)
    #expect(try Segments(lengths: [most]).total == most)
    for lengths in [[-1], [3, -3], [most, 1], [.max, .max], [.max]] {
      let error = #expect(throws: QuernError.self) { _ = try Segments(lengths: lengths) }
      guard case .invalidShape(let reason)? = error else {
        Issue.record("\(lengths)")
        continue
      }
      #expect(reason.hasPrefix("segment length ") && !reason.contains("\n"))
    }
  }
}

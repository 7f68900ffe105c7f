import Quern
import Testing

@Suite struct LinearAlgebraErrorTests {
  private func failure(_ body: () throws -> Void) -> LinearAlgebra.Failure? {
    do {
      try body()
    } catch QuernError.linearAlgebra(_, let failure) {
      return failure
    } catch {
      Issue.record("threw \(error)")
    }
    return nil
  }

  #if OpenBLAS
    @Test func indefiniteMatricesNameTheMinor() throws {
      let a = try Tensor([4, 0, 0, 0, 1, 3, 0, 3, 2], shape: [3, 3])
      let b = try Tensor([1, 2, 3])
      #expect(failure { _ = try LinearAlgebra.cholesky(a.view) } == .notPositiveDefinite(order: 3))
      #expect(failure { _ = try LinearAlgebra.solvePositiveDefinite(a.view, b.view) } == .notPositiveDefinite(order: 3))
      let negative = try Tensor([-1], shape: [1, 1])
      #expect(failure { _ = try LinearAlgebra.cholesky(negative.view) } == .notPositiveDefinite(order: 1))
    }

    @Test func singularMatricesNameThePivot() throws {
      let a = try Tensor([1, 2, 3, 2, 4, 6, 1, 0, 5], shape: [3, 3])
      #expect(failure { _ = try LinearAlgebra.solve(a.view, try Tensor([1, 2, 3]).view) } == .singular(at: 3))
      let zero = try Tensor([0, 1, 0, 2, 0, 3], shape: [3, 2])
      #expect(
        failure { _ = try LinearAlgebra.leastSquares(zero.view, try Tensor([1, 2, 3]).view) } == .singular(at: 1))
    }

    @Test func extentsMustFit() throws {
      let (a, b) = (try Tensor([1, 2, 3, 4, 5, 6], shape: [2, 3]), try Tensor([1, 2, 3]))
      let square = LinearAlgebra.Failure.notSquare(rows: 2, columns: 3)
      #expect(failure { _ = try LinearAlgebra.cholesky(a.view) } == square)
      #expect(failure { _ = try LinearAlgebra.symmetricEigen(a.view) } == square)
      #expect(failure { _ = try LinearAlgebra.solve(a.view, b.view) } == square)
      #expect(failure { _ = try LinearAlgebra.solvePositiveDefinite(a.view, b.view) } == square)
      for wrong: () throws -> Void in [
        { _ = try LinearAlgebra.svd(b.view) }, { _ = try LinearAlgebra.qr(b.view) },
        { _ = try LinearAlgebra.leastSquares(a.view, b.view) }, { _ = try LinearAlgebra.svd(a.view, rank: 3) },
        { _ = try LinearAlgebra.svd(a.view, rank: -1) }, { _ = try LinearAlgebra.lowRank(a.view, rank: 3) },
        { _ = try LinearAlgebra.solve(try Tensor([1], shape: [1, 1]).view, try Tensor([1], shape: [1, 1, 1]).view) },
      ] {
        guard case .shape = failure(wrong) else {
          Issue.record("took operands that do not fit")
          continue
        }
      }
    }

    @Test(arguments: [Float.nan, .infinity]) func elementsMustBeFinite(_ value: Float) throws {
      let a = try Tensor([1, 2, value, 4], shape: [2, 2])
      let (b, good) = (try Tensor([1, value]), try Tensor([1, 0, 0, 1], shape: [2, 2]))
      let inA = LinearAlgebra.Failure.notFinite(operand: "a", row: 1, column: 0)
      #expect(failure { _ = try LinearAlgebra.svd(a.view) } == inA)
      #expect(failure { _ = try LinearAlgebra.qr(a.view) } == inA)
      #expect(failure { _ = try LinearAlgebra.cholesky(a.view) } == inA)
      #expect(failure { _ = try LinearAlgebra.symmetricEigen(a.view) } == inA)
      #expect(failure { _ = try LinearAlgebra.solve(a.view, try Tensor([1, 2]).view) } == inA)
      #expect(failure { _ = try LinearAlgebra.leastSquares(a.view, try Tensor([1, 2]).view) } == inA)
      let inB = LinearAlgebra.Failure.notFinite(operand: "b", row: 1, column: 0)
      #expect(failure { _ = try LinearAlgebra.solve(good.view, b.view) } == inB)
      #expect(failure { _ = try LinearAlgebra.solvePositiveDefinite(good.view, b.view) } == inB)
    }
  #else
    @Test func withoutTheTraitEveryFunctionSaysWhichOneIsMissing() throws {
      let (a, b) = (try Tensor([1], shape: [1, 1]), try Tensor([1]))
      for function: () throws -> Void in [
        { _ = try LinearAlgebra.svd(a.view) }, { _ = try LinearAlgebra.svd(a.view, rank: 1) },
        { _ = try LinearAlgebra.qr(a.view) }, { _ = try LinearAlgebra.cholesky(a.view) },
        { _ = try LinearAlgebra.symmetricEigen(a.view) }, { _ = try LinearAlgebra.solve(a.view, b.view) },
        { _ = try LinearAlgebra.solvePositiveDefinite(a.view, b.view) },
        { _ = try LinearAlgebra.leastSquares(a.view, b.view) }, { _ = try LinearAlgebra.lowRank(a.view, rank: 1) },
      ] {
        #expect(failure(function) == .unavailable)
      }
    }
  #endif

  @Test func descriptionsAreOneLineThatSaysWhatToDo() {
    let failures: [LinearAlgebra.Failure] = [
      .unavailable, .shape("x"), .notSquare(rows: 2, columns: 3), .notFinite(operand: "a", row: 1, column: 0),
      .notPositiveDefinite(order: 3), .singular(at: 2), .notConverged, .refused(argument: 4),
    ]
    for failure in failures {
      let text = "\(QuernError.linearAlgebra(function: "svd", failure: failure))"
      #expect(text.hasPrefix("svd: ") && !text.contains("\n"))
    }
    #expect("\(LinearAlgebra.Failure.unavailable)".contains("OpenBLAS trait"))
  }
}

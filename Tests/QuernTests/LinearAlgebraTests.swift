import Foundation
import Quern
import QuernTesting
import Testing

/// A dense matrix in Double, for residuals.
struct DoubleMatrix {
  let rows, columns: Int
  var values: [Double]

  init(rows: Int, columns: Int, _ element: (Int, Int) -> Double) {
    (self.rows, self.columns) = (rows, columns)
    values = []
    for i in 0..<rows { for j in 0..<columns { values.append(element(i, j)) } }
  }

  init(_ tensor: Tensor) {
    let elements = tensor.elements
    self.init(rows: tensor.shape[0], columns: tensor.shape[1]) { Double(elements[$0 * tensor.shape[1] + $1]) }
  }

  static func diagonal(_ values: [Float]) -> DoubleMatrix {
    DoubleMatrix(rows: values.count, columns: values.count) { $0 == $1 ? Double(values[$0]) : 0 }
  }

  static func identity(_ n: Int) -> DoubleMatrix { DoubleMatrix(rows: n, columns: n) { $0 == $1 ? 1 : 0 } }

  subscript(i: Int, j: Int) -> Double { values[i * columns + j] }

  var transposed: DoubleMatrix { DoubleMatrix(rows: columns, columns: rows) { self[$1, $0] } }

  /// The largest column sum, LAPACK's choice.
  var norm: Double {
    (0..<columns).map { j in (0..<rows).reduce(0) { $0 + abs(self[$1, j]) } }.max() ?? 0
  }

  static func * (a: DoubleMatrix, b: DoubleMatrix) -> DoubleMatrix {
    var product = DoubleMatrix(rows: a.rows, columns: b.columns) { _, _ in 0 }
    for i in 0..<a.rows {
      for p in 0..<a.columns {
        let factor = a[i, p]
        for j in 0..<b.columns { product.values[i * b.columns + j] += factor * b[p, j] }
      }
    }
    return product
  }

  static func - (a: DoubleMatrix, b: DoubleMatrix) -> DoubleMatrix {
    DoubleMatrix(rows: a.rows, columns: a.columns) { a[$0, $1] - b[$0, $1] }
  }

  func tensor() throws -> Tensor { try Tensor(values.map(Float.init), shape: Shape(rows, columns)) }
}

/// Residual ratios in LAPACK's own manner: differences over norms, sizes and the unit roundoff, each below 30.
enum Ratio {
  static let threshold = 30.0
  private static let u = 0x1p-24

  /// `‖A - B‖ / (‖A‖ n u)`; 0 for equal matrices.
  static func difference(_ a: DoubleMatrix, _ b: DoubleMatrix) -> Double {
    let gap = (a - b).norm
    return gap == 0 ? 0 : gap / (max(a.norm, 1e-300) * Double(max(a.rows, a.columns, 1)) * u)
  }

  /// `‖I - QᵀQ‖ / (n u)` of orthonormal columns.
  static func orthogonality(_ q: DoubleMatrix) -> Double {
    (DoubleMatrix.identity(q.columns) - q.transposed * q).norm / (Double(max(q.rows, 1)) * u)
  }

  /// `‖B - A X‖ / (‖A‖ ‖X‖ u)`, the largest over the columns of B.
  static func solution(_ a: DoubleMatrix, _ x: DoubleMatrix, _ b: DoubleMatrix) -> Double {
    let gap = b - a * x
    let ratios = (0..<b.columns).map { column in
      func column1(_ m: DoubleMatrix) -> Double { (0..<m.rows).reduce(0) { $0 + abs(m[$1, column]) } }
      return column1(gap) == 0 ? 0 : column1(gap) / (a.norm * column1(x) * u)
    }
    return ratios.max() ?? 0
  }
}

enum MatrixKind: String, CaseIterable, Sendable {
  case random, rankDeficient, graded, permutation, zero

  func make(_ m: Int, _ n: Int) -> DoubleMatrix {
    var random = SeededRandom()
    func normal(_ rows: Int, _ columns: Int) -> DoubleMatrix {
      DoubleMatrix(rows: rows, columns: columns) { _, _ in Double(random.normal()) }
    }
    let whole: DoubleMatrix
    switch self {
    case .random: whole = normal(m, n)
    case .rankDeficient: whole = normal(m, max(1, min(m, n) / 3)) * normal(max(1, min(m, n) / 3), n)
    case .graded:
      // Rows from 1e-7 to 1e7.
      let values = normal(m, n)
      whole = DoubleMatrix(rows: m, columns: n) {
        values[$0, $1] * pow(10, 14 * Double($0) / Double(max(m - 1, 1)) - 7)
      }
    case .permutation: whole = DoubleMatrix(rows: m, columns: n) { ($0 + 2) % max(m, n) == $1 ? 1 : 0 }
    case .zero: whole = DoubleMatrix(rows: m, columns: n) { _, _ in 0 }
    }
    return DoubleMatrix(rows: m, columns: n) { Double(Float(whole[$0, $1])) }
  }

  static let shapes = [
    (1, 1), (1, 5), (5, 1), (2, 2), (2, 17), (17, 5), (5, 17), (17, 17), (64, 64), (130, 17), (17, 130), (130, 64),
    (130, 130),
  ]
}

#if OpenBLAS
  @Suite struct LinearAlgebraTests {
    @Test(arguments: MatrixKind.allCases) func svdRebuildsTheMatrix(_ kind: MatrixKind) throws {
      for (m, n) in MatrixKind.shapes {
        let a = kind.make(m, n)
        for fullBases in [false, true] {
          let svd = try LinearAlgebra.svd(try a.tensor().view, fullBases: fullBases)
          let k = min(m, n)
          let (u, vT, values) = (DoubleMatrix(svd.u), DoubleMatrix(svd.vT), svd.singularValues.elements)
          #expect(u.columns == (fullBases ? m : k) && vT.rows == (fullBases ? n : k) && values.count == k)
          let thin = svd.truncated(rank: k)
          let rebuilt = DoubleMatrix(thin.u) * .diagonal(values) * DoubleMatrix(thin.vT)
          #expect(Ratio.difference(a, rebuilt) < Ratio.threshold, "\(kind) \(m) by \(n)")
          #expect(Ratio.orthogonality(u) < Ratio.threshold && Ratio.orthogonality(vT.transposed) < Ratio.threshold)
          #expect(values.allSatisfy { $0 >= 0 } && zip(values, values.dropFirst()).allSatisfy { $0 >= $1 })
        }
      }
    }

    @Test func truncationKeepsTheRankAndTheErrorOfTheValuesLeftOut() throws {
      let (m, n) = (64, 40)
      let a = MatrixKind.rankDeficient.make(m, n)
      let view = try a.tensor().view
      #expect(try LinearAlgebra.svd(view, tolerance: 1e-4).singularValues.shape == Shape(13), "40 / 3")
      #expect(try LinearAlgebra.svd(try DoubleMatrix.identity(9).tensor().view, tolerance: 0.5).u.shape == Shape(9, 9))
      #expect(try LinearAlgebra.svd(try MatrixKind.zero.make(3, 4).tensor().view, tolerance: 0).u.shape == Shape(3, 0))
      for rank in [0, 1, 5, 13, 40] {
        let part = try LinearAlgebra.svd(view, rank: rank)
        #expect(part.u.shape == Shape(m, rank) && part.vT.shape == Shape(rank, n))
        let rebuilt = DoubleMatrix(part.u) * .diagonal(part.singularValues.elements) * DoubleMatrix(part.vT)
        let left = try LinearAlgebra.svd(view).singularValues.elements[rank...].reduce(0.0) { $0 + Double($1 * $1) }
        let error = (a - rebuilt).values.reduce(0) { $0 + $1 * $1 }
        #expect(abs(error.squareRoot() - left.squareRoot()) < 1e-4 * a.norm, "rank \(rank)")
      }
    }

    @Test func knownSingularValues() throws {
      // Diagonal entries, whatever their order and sign.
      let a = try Tensor([0, 3, 0, -2, 0, 0, 0, 0, 0.5], shape: [3, 3])
      let values = try LinearAlgebra.svd(a.view).singularValues.elements
      for (value, exact) in zip(values, [3, 2, 0.5]) { #expect(abs(value - Float(exact)) < 1e-6) }
    }

    @Test(arguments: MatrixKind.allCases) func qrRebuildsTheMatrix(_ kind: MatrixKind) throws {
      for (m, n) in MatrixKind.shapes {
        let a = kind.make(m, n)
        let (q, r) = try LinearAlgebra.qr(try a.tensor().view)
        let (q2, r2) = (DoubleMatrix(q), DoubleMatrix(r))
        #expect(q.shape == Shape(m, min(m, n)) && r.shape == Shape(min(m, n), n))
        #expect(Ratio.difference(a, q2 * r2) < Ratio.threshold, "\(kind) \(m) by \(n)")
        #expect(Ratio.orthogonality(q2) < Ratio.threshold, "\(kind) \(m) by \(n)")
        for i in 0..<r2.rows { for j in 0..<min(i, n) { #expect(r2[i, j] == 0) } }
      }
    }

    /// G Gᵀ + I, rounded to f32, exactly symmetric.
    private func positiveDefinite(_ n: Int) -> DoubleMatrix {
      let g = MatrixKind.random.make(n, n)
      let product = g * g.transposed
      return DoubleMatrix(rows: n, columns: n) { Double(Float(product[max($0, $1), min($0, $1)])) + ($0 == $1 ? 1 : 0) }
    }

    @Test(arguments: [1, 2, 5, 17, 64, 130]) func choleskyRebuildsTheMatrix(_ n: Int) throws {
      let a = DoubleMatrix(try positiveDefinite(n).tensor())
      // What lies above the diagonal is not read.
      let lower = DoubleMatrix(rows: n, columns: n) { $1 > $0 ? .nan : a[$0, $1] }
      let factor = DoubleMatrix(try LinearAlgebra.cholesky(try lower.tensor().view))
      #expect(Ratio.difference(a, factor * factor.transposed) < Ratio.threshold)
      for i in 0..<n { for j in 0..<n { #expect(j > i ? factor[i, j] == 0 : i != j || factor[i, j] > 0) } }
    }

    @Test(arguments: [1, 2, 5, 17, 64, 130]) func eigenvectorsRebuildTheMatrix(_ n: Int) throws {
      for kind in [MatrixKind.random, .rankDeficient, .zero] {
        let g = kind.make(n, n)
        let a = DoubleMatrix(try DoubleMatrix(rows: n, columns: n) { g[max($0, $1), min($0, $1)] }.tensor())
        let (values, vectors) = try LinearAlgebra.symmetricEigen(try a.tensor().view)
        let v = DoubleMatrix(vectors)
        #expect(Ratio.difference(a, v * .diagonal(values.elements) * v.transposed) < Ratio.threshold, "\(kind)")
        #expect(Ratio.orthogonality(v) < Ratio.threshold, "\(kind)")
        #expect(zip(values.elements, values.elements.dropFirst()).allSatisfy { $0 <= $1 })
      }
    }

    @Test(arguments: [1, 2, 5, 17, 64, 130]) func solutionsLeaveSmallResiduals(_ n: Int) throws {
      let (general, definite) = (MatrixKind.random.make(n, n), DoubleMatrix(try positiveDefinite(n).tensor()))
      for r in [1, 3, 70] {
        let b = MatrixKind.random.make(n, r)
        let right = try b.tensor().view
        let x = DoubleMatrix(try LinearAlgebra.solve(try general.tensor().view, right))
        #expect(Ratio.solution(general, x, b) < Ratio.threshold)
        let y = DoubleMatrix(try LinearAlgebra.solvePositiveDefinite(try definite.tensor().view, right))
        #expect(Ratio.solution(definite, y, b) < Ratio.threshold)
        let z = DoubleMatrix(try LinearAlgebra.leastSquares(try general.tensor().view, right))
        #expect(Ratio.solution(general, z, b) < Ratio.threshold)
      }
      let graded = MatrixKind.graded.make(n, n)
      let b = graded * MatrixKind.random.make(n, 2)
      let x = DoubleMatrix(try LinearAlgebra.solve(try graded.tensor().view, try b.tensor().view))
      #expect(Ratio.solution(graded, x, DoubleMatrix(try b.tensor())) < Ratio.threshold)
    }

    @Test func permutationsAreSolvedExactly() throws {
      for n in [1, 5, 64] {
        let (p, b) = (MatrixKind.permutation.make(n, n), MatrixKind.random.make(n, 3))
        let x = DoubleMatrix(try LinearAlgebra.solve(try p.tensor().view, try b.tensor().view))
        #expect(x.values == (p.transposed * b).values)
      }
      let x = try LinearAlgebra.solve(try Tensor([0, 2, 4, 0], shape: [2, 2]).view, try Tensor([6, 4]).view)
      #expect(x.shape == Shape(2) && x.elements == [1, 3])
    }

    @Test(arguments: [(17, 5), (130, 64), (5, 17), (64, 130)])
    func leastSquaresIsOrthogonalToItsResidualAndShort(_ m: Int, _ n: Int) throws {
      let (a, b) = (MatrixKind.random.make(m, n), MatrixKind.random.make(m, 4))
      let x = DoubleMatrix(try LinearAlgebra.leastSquares(try a.tensor().view, try b.tensor().view))
      #expect(x.rows == n && x.columns == 4)
      let size = Double(max(m, n)) * 0x1p-24
      if m >= n {
        let gradient = a.transposed * (b - a * x)
        #expect(gradient.norm / (a.norm * b.norm * size) < Ratio.threshold)
      } else {
        #expect(Ratio.solution(a, x, b) < Ratio.threshold)
        // Of least norm: within the span of A's rows.
        let q = DoubleMatrix(try LinearAlgebra.qr(try a.transposed.tensor().view).q)
        #expect((x - q * (q.transposed * x)).norm / (x.norm * size) < Ratio.threshold)
      }
    }

    @Test func stridesAndDataTypesMakeNoDifference() throws {
      let a = MatrixKind.random.make(17, 5)
      let padded = try DoubleMatrix(rows: 17, columns: 9) { $1 < 5 ? a[$0, $1] : .nan }.tensor().columns(0..<5)
      let across = try a.transposed.tensor().transposed()
      let straight = try LinearAlgebra.svd(try a.tensor().view)
      for other in [padded, across] {
        let svd = try LinearAlgebra.svd(other.view)
        #expect(svd.u.elements == straight.u.elements && svd.vT.elements == straight.vT.elements)
      }
      let halves = try a.tensor().converted(to: .bf16)
      let widened = try halves.converted(to: .f32)
      #expect(try LinearAlgebra.qr(halves.view).r.elements == LinearAlgebra.qr(widened.view).r.elements)
    }

    @Test func emptyMatricesHaveEmptyResults() throws {
      let (tall, wide, none) = (
        try Tensor([], shape: [3, 0]), try Tensor([], shape: [0, 4]), try Tensor([], shape: [0, 0])
      )
      let svd = try LinearAlgebra.svd(tall.view, fullBases: true)
      #expect(svd.u.elements == DoubleMatrix.identity(3).values.map(Float.init) && svd.singularValues.shape == Shape(0))
      #expect(try LinearAlgebra.svd(wide.view).vT.shape == Shape(0, 4))
      #expect(try LinearAlgebra.qr(tall.view).q.shape == Shape(3, 0))
      #expect(try LinearAlgebra.cholesky(none.view).shape == Shape(0, 0))
      #expect(try LinearAlgebra.symmetricEigen(none.view).values.shape == Shape(0))
      #expect(try LinearAlgebra.solve(none.view, wide.view).shape == Shape(0, 4))
      #expect(try LinearAlgebra.leastSquares(wide.view, none.view).shape == Shape(4, 0))
    }

    @Test func thinLayersStandForOne() throws {
      let (inputs, outputs, rank) = (40, 56, 12)
      let weights = MatrixKind.rankDeficient.make(outputs, inputs)
      let thin = try LinearAlgebra.lowRank(try weights.tensor().view, rank: 13)
      #expect(thin.relativeError < 1e-6, "the rank is 13")
      #expect(Ratio.difference(weights, DoubleMatrix(thin.b) * DoubleMatrix(thin.a)) < Ratio.threshold)

      // The two layers, run, are as far from the one as the error says.
      let part = try LinearAlgebra.lowRank(try weights.tensor().view, rank: rank)
      #expect(part.a.shape == Shape(rank, inputs) && part.b.shape == Shape(outputs, rank))
      let context = try Context()
      let identity = try DoubleMatrix.identity(inputs).tensor()
      let (hidden, y) = (
        try MutableTensor(zeros: Shape(inputs, rank)), try MutableTensor(zeros: Shape(inputs, outputs))
      )
      try context.linear(identity.view, weights: try context.pack(part.a.view), into: hidden)
      try context.linear(hidden.view, weights: try context.pack(part.b.view), into: y)
      let gap = DoubleMatrix(try y.copied()).transposed - weights
      let (error, size) = (gap.values.reduce(0) { $0 + $1 * $1 }, weights.values.reduce(0) { $0 + $1 * $1 })
      #expect(abs((error / size).squareRoot() - Double(part.relativeError)) < 1e-5)
      #expect(part.relativeError > 0.01)
    }

    @Test func manyTasksAtOnceAgree() async throws {
      let a = try MatrixKind.random.make(64, 64).tensor()
      let expected = try LinearAlgebra.svd(a.view).u.elements
      try await withThrowingTaskGroup(of: [Float].self) { group in
        for _ in 0..<16 { group.addTask { try LinearAlgebra.svd(a.view).u.elements } }
        for try await u in group { #expect(u == expected) }
      }
    }
  }
#endif

#if OpenBLAS
  import COpenBLAS
#endif

extension LinearAlgebra {
  /// X of `A X = B`, by Gaussian elimination with partial pivoting (LAPACK's `sgesv`).
  ///
  /// A matrix that is singular but for rounding has no zero pivot: X is then large and says little.
  ///
  /// - Parameters:
  ///   - a: `[n, n]`.
  ///   - b: `[n, r]`, or `[n]`.
  /// - Returns: the shape of b.
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notSquare`, `notFinite`, `singular`,
  ///   `unavailable`.
  public static func solve(_ a: TensorView, _ b: TensorView) throws(QuernError) -> Tensor {
    let function = "solve"
    #if OpenBLAS
      let n = try order(a, "a", function)
      let x = try rightHandSides(b, rows: n, room: n, function)
      let factors = try copy(a, "a", function, transposed: true)
      var pivots = [Int32](repeating: 0, count: max(n, 1))
      defer { withExtendedLifetime(factors) {} }
      let info = try run(function) {
        LAPACKE_sgesv_work(
          LAPACK_COL_MAJOR, Int32(n), Int32(x.shape[0]), factors.base, leading(n), &pivots, x.base, leading(n))
      }
      guard info == 0 else { throw .linearAlgebra(function: function, failure: .singular(at: info)) }
      return try solution(x, rows: n, like: b)
    #else
      throw unavailable(function)
    #endif
  }

  /// X of `A X = B` for a symmetric positive definite A, by Cholesky's factors (LAPACK's `sposv`): half the work of
  /// ``solve(_:_:)``.
  ///
  /// - Parameters:
  ///   - a: `[n, n]`; only the lower triangle is read.
  ///   - b: `[n, r]`, or `[n]`.
  /// - Returns: the shape of b.
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notSquare`, `notFinite`,
  ///   `notPositiveDefinite`, `unavailable`.
  public static func solvePositiveDefinite(_ a: TensorView, _ b: TensorView) throws(QuernError) -> Tensor {
    let function = "solvePositiveDefinite"
    #if OpenBLAS
      let n = try order(a, "a", function)
      let x = try rightHandSides(b, rows: n, room: n, function)
      let factor = try copy(a, "a", function, lower: true)
      defer { withExtendedLifetime(factor) {} }
      let info = try run(function) {
        LAPACKE_sposv_work(
          LAPACK_COL_MAJOR, option("U"), Int32(n), Int32(x.shape[0]), factor.base, leading(n), x.base, leading(n))
      }
      guard info == 0 else { throw .linearAlgebra(function: function, failure: .notPositiveDefinite(order: info)) }
      return try solution(x, rows: n, like: b)
    #else
      throw unavailable(function)
    #endif
  }

  /// X that makes `‖A X - B‖` least, column by column; where several do, because A is wide, the X of least norm
  /// (LAPACK's `sgels`, by QR or LQ).
  ///
  /// - Parameters:
  ///   - a: `[m, n]`, of full rank min(m, n), or all zeros, which give zeros.
  ///   - b: `[m, r]`, or `[m]`.
  /// - Returns: `[n, r]`, or `[n]`.
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notFinite`, `singular` where a diagonal
  ///   element of the triangular factor is exactly zero, `unavailable`.
  public static func leastSquares(_ a: TensorView, _ b: TensorView) throws(QuernError) -> Tensor {
    let function = "leastSquares"
    #if OpenBLAS
      let (m, n) = try extents(a, "a", function)
      let x = try rightHandSides(b, rows: m, room: max(m, n), function)
      let factors = try copy(a, "a", function, transposed: true)
      defer { withExtendedLifetime(factors) {} }
      let info = try run(function) { work, count in
        LAPACKE_sgels_work(
          LAPACK_COL_MAJOR, option("N"), Int32(m), Int32(n), Int32(x.shape[0]), factors.base, leading(m), x.base,
          leading(max(m, n)), work, count)
      }
      guard info == 0 else { throw .linearAlgebra(function: function, failure: .singular(at: info)) }
      return try solution(x, rows: n, like: b)
    #else
      throw unavailable(function)
    #endif
  }
}

#if OpenBLAS
  extension LinearAlgebra {
    /// B column by column, which is its transpose row by row: `[r, room]`, the first `rows` of each filled.
    private static func rightHandSides(
      _ b: TensorView, rows: Int, room: Int, _ function: String
    ) throws(QuernError) -> MutableTensor {
      guard (1...2).contains(b.shape.rank), b.shape[0] == rows, b.shape.last <= Int(Int32.max) / 64 else {
        throw .linearAlgebra(
          function: function, failure: .shape("b has shape \(b.shape), which does not belong to \(rows) rows of a"))
      }
      let columns =
        b.shape.rank == 2
        ? b
        : b.reinterpreted(
          offset: 0, shape: Shape(rows, 1), strides: Shape(b.strides[0], 1))
      let copy = try copy(columns, "b", function, transposed: true)
      if room == rows { return copy }
      let padded = try MutableTensor(zeros: Shape(copy.shape[0], room))
      for i in 0..<copy.shape[0] {
        for j in 0..<rows { padded.base[i * room + j] = copy.base[i * rows + j] }
      }
      return padded
    }

    private static func solution(_ x: MutableTensor, rows: Int, like b: TensorView) throws(QuernError) -> Tensor {
      let matrix = try x.columns(0..<rows).transposed().copied()
      return b.shape.rank == 2 ? matrix : matrix.reshaped(Shape(rows))
    }
  }
#endif

#if OpenBLAS
  import COpenBLAS
#endif

extension LinearAlgebra {
  /// `A = Q R`: Q `[m, k]` with orthonormal columns, R `[k, n]` upper triangular, k = min(m, n), by Householder reflections.
  ///
  /// Signs are LAPACK's: the diagonal of R may be negative. `sgelqf` and `sorglq` factor the transpose, which is how
  /// LAPACK sees a row-major matrix.
  ///
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notFinite`, `unavailable`.
  public static func qr(_ a: TensorView) throws(QuernError) -> (q: Tensor, r: Tensor) {
    let function = "qr"
    #if OpenBLAS
      let (m, n) = try extents(a, "a", function)
      let k = min(m, n)
      let factors = try copy(a, "a", function)
      let tau = try MutableTensor(zeros: Shape(max(k, 1)))
      defer { withExtendedLifetime(tau) {} }
      // Aᵀ = L Qᵀ by columns is A = Q R by rows, R = Lᵀ.
      _ = try run(function) { work, count in
        LAPACKE_sgelqf_work(
          LAPACK_COL_MAJOR, Int32(n), Int32(m), factors.base, leading(n), tau.base, work, count)
      }
      let r = try MutableTensor(zeros: Shape(k, n))
      for i in 0..<k {
        for j in i..<n { r.base[i * n + j] = factors.base[i * n + j] }
      }
      _ = try run(function) { work, count in
        LAPACKE_sorglq_work(
          LAPACK_COL_MAJOR, Int32(k), Int32(m), Int32(k), factors.base, leading(n), tau.base, work, count)
      }
      return (try factors.columns(0..<k).copied(), try r.moved())
    #else
      throw unavailable(function)
    #endif
  }

  /// `A = L Lᵀ`, L lower triangular with a positive diagonal, of a symmetric positive definite A (LAPACK's `spotrf`).
  ///
  /// - Parameter a: `[n, n]`; only the lower triangle is read.
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notSquare`, `notFinite`,
  ///   `notPositiveDefinite`, `unavailable`.
  public static func cholesky(_ a: TensorView) throws(QuernError) -> Tensor {
    let function = "cholesky"
    #if OpenBLAS
      let n = try order(a, "a", function)
      let factor = try copy(a, "a", function, lower: true)
      let info = try run(function) {
        LAPACKE_spotrf_work(LAPACK_COL_MAJOR, option("U"), Int32(n), factor.base, leading(n))
      }
      guard info == 0 else { throw .linearAlgebra(function: function, failure: .notPositiveDefinite(order: info)) }
      return try factor.moved()
    #else
      throw unavailable(function)
    #endif
  }

  /// The eigenvalues and eigenvectors of a symmetric matrix, `A = V diag(w) Vᵀ`, by divide and conquer (LAPACK's `ssyevd`).
  ///
  /// - Parameter a: `[n, n]`; only the lower triangle is read.
  /// - Returns: `values [n]`, smallest first, and `vectors [n, n]`: column j belongs to value j, and columns are
  ///   orthonormal.
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notSquare`, `notFinite`, `notConverged`,
  ///   `unavailable`.
  public static func symmetricEigen(_ a: TensorView) throws(QuernError) -> (values: Tensor, vectors: Tensor) {
    let function = "symmetricEigen"
    #if OpenBLAS
      let n = try order(a, "a", function)
      let vectors = try copy(a, "a", function, lower: true)
      let values = try MutableTensor(zeros: Shape(n))
      var integers = [Int32](repeating: 0, count: 3 + 5 * n)
      let info = try run(function) { work, count in
        LAPACKE_ssyevd_work(
          LAPACK_COL_MAJOR, option("V"), option("U"), Int32(n), vectors.base, leading(n), values.base, work, count,
          &integers, Int32(3 + 5 * n))
      }
      guard info == 0 else { throw .linearAlgebra(function: function, failure: .notConverged) }
      return (try values.moved(), try vectors.transposed().copied())
    #else
      throw unavailable(function)
    #endif
  }
}

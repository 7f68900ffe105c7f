#if OpenBLAS
  import COpenBLAS
#endif

/// A singular value decomposition `A = U diag(s) Vᵀ`, or the part of one that belongs to the largest singular values.
public struct SVD: Sendable {
  /// `[m, k]`: orthonormal columns, the left singular vectors.
  public let u: Tensor
  /// `[k]`: not negative, largest first.
  public let singularValues: Tensor
  /// `[k, n]`: orthonormal rows, the right singular vectors.
  public let vT: Tensor

  /// The part of the largest singular values: of all matrices of that rank the nearest to A, in the Frobenius and the
  /// spectral norm (Eckart and Young; Mirsky). Slices, without copying.
  ///
  /// - Precondition: 0 ≤ rank ≤ k.
  public func truncated(rank: Int) -> SVD {
    SVD(u: u.columns(0..<rank), singularValues: singularValues.rows(0..<rank), vT: vT.rows(0..<rank))
  }

  /// How many singular values exceed `tolerance` times the largest: the numerical rank.
  public func rank(tolerance: Float) -> Int {
    let values = singularValues.elements
    let least = tolerance * (values.first ?? 0)
    return values.prefix { $0 > least }.count
  }
}

extension LinearAlgebra {
  /// The singular value decomposition `A = U diag(s) Vᵀ`, by divide and conquer (LAPACK's `sgesdd`).
  ///
  /// - Parameters:
  ///   - a: `[m, n]`.
  ///   - fullBases: completes the bases to `U [m, m]` and `Vᵀ [n, n]`; otherwise k = min(m, n).
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `shape`, `notFinite`, `notConverged`, `unavailable`.
  public static func svd(_ a: TensorView, fullBases: Bool = false) throws(QuernError) -> SVD {
    let function = "svd"
    #if OpenBLAS
      let (m, n) = try extents(a, "a", function)
      let k = min(m, n)
      let (left, right) = fullBases ? (m, n) : (k, k)
      if k == 0 {
        // No singular value: any basis will do.
        return SVD(
          u: try identity(m).columns(0..<left).moved(), singularValues: try Tensor([]),
          vT: try identity(n).rows(0..<right).moved())
      }
      // LAPACK reads Aᵀ = V diag(s) Uᵀ by columns: what it calls U is Vᵀ by rows, and the other way round.
      let copy = try copy(a, "a", function)
      let u = try MutableTensor(zeros: Shape(m, left))
      let vT = try MutableTensor(zeros: Shape(right, n))
      let values = try MutableTensor(zeros: Shape(k))
      var integers = [Int32](repeating: 0, count: 8 * k)
      defer { withExtendedLifetime(copy) {} }
      let info = try run(function) { work, count in
        LAPACKE_sgesdd_work(
          LAPACK_COL_MAJOR, option(fullBases ? "A" : "S"), Int32(n), Int32(m), copy.base, leading(n), values.base,
          vT.base, leading(n), u.base, leading(left), work, count, &integers)
      }
      guard info == 0 else { throw .linearAlgebra(function: function, failure: .notConverged) }
      return SVD(u: try u.moved(), singularValues: try values.moved(), vT: try vT.moved())
    #else
      throw unavailable(function)
    #endif
  }

  /// The decomposition that keeps the `rank` largest singular values: `U [m, rank]`, `s [rank]`, `Vᵀ [rank, n]`.
  ///
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``, as ``svd(_:fullBases:)``; `shape` for a rank outside
  ///   0 through min(m, n).
  public static func svd(_ a: TensorView, rank: Int) throws(QuernError) -> SVD {
    let whole = try svd(a)
    guard (0...whole.singularValues.shape[0]).contains(rank) else {
      throw .linearAlgebra(function: "svd", failure: .shape("a matrix of shape \(a.shape) has no rank \(rank)"))
    }
    return whole.truncated(rank: rank)
  }

  /// The decomposition that keeps the singular values above `tolerance` times the largest.
  ///
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``, as ``svd(_:fullBases:)``.
  public static func svd(_ a: TensorView, tolerance: Float) throws(QuernError) -> SVD {
    let whole = try svd(a)
    return whole.truncated(rank: whole.rank(tolerance: tolerance))
  }
}

/// The weights of a linear layer as a product of two thinner ones: `W ≈ B A`.
public struct LowRankWeights: Sendable {
  /// `[rank, inputs]`: the weights of the first layer.
  public let a: Tensor
  /// `[outputs, rank]`: the weights of the second.
  public let b: Tensor
  /// `‖W - B A‖ / ‖W‖` in the Frobenius norm, from the singular values left out; 0 for weights of zeros.
  public let relativeError: Float
}

extension LinearAlgebra {
  /// Two thin layers in place of one: `x Wᵀ ≈ (x Aᵀ) Bᵀ`, with `rank (inputs + outputs)` weights in place of
  /// `inputs outputs`. A = diag(√s) Vᵀ and B = U diag(√s), of the truncated decomposition of W, so that no other pair of
  /// that rank has a smaller error, and both have the same scale.
  ///
  /// ```swift
  /// let thin = try LinearAlgebra.lowRank(weights.view, rank: 64)
  /// let (first, second) = (try context.pack(thin.a.view), try context.pack(thin.b.view))
  /// try context.linear(x, weights: first, into: hidden)
  /// try context.linear(hidden.view, weights: second, epilogue: Epilogue(bias: bias), into: y)
  /// ```
  ///
  /// - Parameter weights: `[outputs, inputs]`, as ``Context/pack(_:)`` takes them.
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``, as ``svd(_:rank:)``.
  public static func lowRank(_ weights: TensorView, rank: Int) throws(QuernError) -> LowRankWeights {
    let whole = try svd(weights)
    let values = whole.singularValues.elements
    guard (0...values.count).contains(rank) else {
      throw .linearAlgebra(
        function: "lowRank", failure: .shape("weights of shape \(weights.shape) have no rank \(rank)"))
    }
    let (u, vT) = (whole.u.view, whole.vT.view)
    let a = try MutableTensor(zeros: Shape(rank, vT.shape[1]))
    let b = try MutableTensor(zeros: Shape(u.shape[0], rank))
    for r in 0..<rank {
      let scale = Double(values[r].squareRoot())
      for j in 0..<vT.shape[1] { a[r, j] = scale * vT[r, j] }
      for i in 0..<u.shape[0] { b[i, r] = scale * u[i, r] }
    }
    func squares(_ part: some Sequence<Float>) -> Double { part.reduce(0) { $0 + Double($1) * Double($1) } }
    let all = squares(values)
    let error = all == 0 ? 0 : (squares(values[rank...]) / all).squareRoot()
    return LowRankWeights(a: try a.moved(), b: try b.moved(), relativeError: Float(error))
  }
}

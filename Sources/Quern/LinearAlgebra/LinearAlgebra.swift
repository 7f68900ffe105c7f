#if OpenBLAS
  import COpenBLAS
#endif

/// Factorisations of matrices and what follows from them, through LAPACK.
///
/// Operands are `[rows, columns]` of any data type and any strides; results are f32, row-major and contiguous. Operands are
/// copied, never written to. Arithmetic is f32, on one thread: these are steps of preparation, and many tasks may take
/// them at once. A matrix without rows or columns is taken as it is.
///
/// Errors of results are those of LAPACK: backward stable, so that a result belongs exactly to a matrix within a small
/// multiple of `max(m, n) u ‖A‖` of A, u = 2⁻²⁴ (Anderson et al., LAPACK Users' Guide, chapter 4).
///
/// Every function throws ``QuernError/linearAlgebra(function:failure:)``, or ``QuernError/outOfMemory(bytes:)``.
public enum LinearAlgebra {
  /// Why a function of ``LinearAlgebra`` gave no result.
  public enum Failure: Sendable, Equatable, CustomStringConvertible {
    /// The build leaves out the `OpenBLAS` trait.
    case unavailable
    /// The operands are no matrices, do not fit one another, or are beyond LAPACK's 32-bit sizes.
    case shape(String)
    case notSquare(rows: Int, columns: Int)
    /// The first element, row by row, that is NaN or infinite.
    case notFinite(operand: String, row: Int, column: Int)
    /// The leading minor of this order, counted from 1, is not positive.
    case notPositiveDefinite(order: Int)
    /// The pivot of this order, counted from 1, is exactly zero.
    case singular(at: Int)
    /// The iteration gave up, which LAPACK's authors know of no finite matrix to cause.
    case notConverged
    /// LAPACK did not take the argument at this place, counted from 1: a fault of this library.
    case refused(argument: Int)

    public var description: String {
      switch self {
      case .unavailable: "this build leaves out LAPACK; build with the OpenBLAS trait"
      case .shape(let reason): reason
      case .notSquare(let rows, let columns): "the matrix is \(rows) by \(columns), not square"
      case .notFinite(let operand, let row, let column):
        "element [\(row), \(column)] of \(operand) is not finite"
      case .notPositiveDefinite(let order): "not positive definite: the leading minor of order \(order) is not positive"
      case .singular(let at): "singular: pivot \(at) is zero"
      case .notConverged: "the iteration did not converge"
      case .refused(let argument): "LAPACK refused argument \(argument)"
      }
    }
  }
}

extension LinearAlgebra {
  /// Says before any work that this build cannot do it.
  ///
  /// - Throws: ``QuernError/linearAlgebra(function:failure:)``: `unavailable`.
  package static func requireLibrary(_ function: String) throws(QuernError) {
    #if !OpenBLAS
      throw unavailable(function)
    #endif
  }
}

#if OpenBLAS
  extension LinearAlgebra {
    /// OpenBLAS runs one thread for the process, as ``BLASBackend`` has it too.
    private static let serial: Void = openblas_set_num_threads(1)

    /// The extents of a matrix.
    static func extents(_ x: TensorView, _ name: String, _ function: String) throws(QuernError) -> (Int, Int) {
      guard x.shape.rank == 2 else {
        throw .linearAlgebra(function: function, failure: .shape("\(name) has shape \(x.shape), not that of a matrix"))
      }
      // LAPACK counts in Int32: extents, and workspaces of up to eight times the smaller extent squared.
      let (rows, columns) = (x.shape[0], x.shape[1])
      let (square, overflow) = min(rows, columns).multipliedReportingOverflow(by: 8 * min(rows, columns))
      guard !overflow, square <= Int(Int32.max) / 2, max(rows, columns) <= Int(Int32.max) / 64 else {
        throw .linearAlgebra(
          function: function, failure: .shape("\(name) has shape \(x.shape), beyond what LAPACK counts in 32 bits"))
      }
      return (rows, columns)
    }

    static func order(_ x: TensorView, _ name: String, _ function: String) throws(QuernError) -> Int {
      let (rows, columns) = try extents(x, name, function)
      guard rows == columns else {
        throw .linearAlgebra(function: function, failure: .notSquare(rows: rows, columns: columns))
      }
      return rows
    }

    /// A row-major copy. LAPACK goes by columns: it sees the transpose, and the lower triangle as the upper one.
    ///
    /// - Parameter lower: reads the lower triangle alone and leaves zeros above it.
    static func copy(
      _ x: TensorView, _ name: String, _ function: String, lower: Bool = false, transposed: Bool = false
    ) throws(QuernError) -> MutableTensor {
      let source = transposed ? x.transposed() : x
      let copy = try MutableTensor(zeros: source.shape)
      for i in 0..<source.shape[0] {
        for j in 0..<(lower ? i + 1 : source.shape[1]) {
          let element = source.load(i * source.strides[0] + j * source.strides[1])
          guard element.isFinite else {
            throw .linearAlgebra(
              function: function,
              failure: .notFinite(operand: name, row: transposed ? j : i, column: transposed ? i : j))
          }
          copy.base[i * copy.strides[0] + j] = element
        }
      }
      return copy
    }

    /// Runs a routine that needs no workspace; what its `info` says, 0 for success.
    static func run(_ function: String, _ routine: () -> Int32) throws(QuernError) -> Int {
      _ = serial
      let info = Int(routine())
      guard info >= 0 else { throw .linearAlgebra(function: function, failure: .refused(argument: -info)) }
      return info
    }

    /// Asks a routine for the size of its workspace, then runs it.
    static func run(
      _ function: String, workspace routine: (UnsafeMutablePointer<Float>, Int32) -> Int32
    ) throws(QuernError) -> Int {
      var wanted: Float = 0
      _ = try run(function) { routine(&wanted, -1) }
      // A size reported as a Float may have been rounded down.
      let work = try MutableTensor(zeros: Shape(max(1, Int(wanted.nextUp.rounded(.up)))))
      defer { withExtendedLifetime(work) {} }
      return try run(function) { routine(work.base, Int32(work.shape[0])) }
    }

    /// A leading dimension: LAPACK takes none below 1.
    static func leading(_ extent: Int) -> Int32 { Int32(max(extent, 1)) }

    static func option(_ letter: Unicode.Scalar) -> CChar { CChar(truncatingIfNeeded: letter.value) }

    /// An identity matrix.
    static func identity(_ n: Int) throws(QuernError) -> MutableTensor {
      let matrix = try MutableTensor(zeros: Shape(n, n))
      for i in 0..<n { matrix.base[i * n + i] = 1 }
      return matrix
    }
  }
#else
  extension LinearAlgebra {
    static func unavailable(_ function: String) -> QuernError {
      .linearAlgebra(function: function, failure: .unavailable)
    }
  }
#endif

import Quern

/// How far ``ModelCompressor`` goes.
public enum CompressionTarget: Sendable, Equatable {
  /// This rank for every matrix; at least 1.
  case rank(Int)
  /// For each matrix the highest rank whose factors take at most this share of its elements; between 0 and 1.
  case share(Double)
}

/// What ``ModelCompressor`` did.
public struct CompressionReport: Sendable, Encodable {
  /// A matrix that became two factors.
  public struct Matrix: Sendable, Encodable {
    public var name: String
    public var outputs: Int
    public var inputs: Int
    public var rank: Int
    public var bytesBefore: Int
    public var bytesAfter: Int
    /// `‖W - B A‖ / ‖W‖` in the Frobenius norm, with the factors as they are stored, rounding included.
    public var relativeError: Double
  }

  public var matrices: [Matrix] = []
  public var kept: [KeptMatrix] = []
  /// Tensors that belong to no linear layer of the model, or to one that is kept; they are the same bytes as before.
  public var otherTensors = 0
  /// The largest relative error of a matrix.
  public var largestError = 0.0
  /// Of all files with weights.
  public var bytesBefore = 0
  public var bytesAfter = 0
}

/// Writes a copy of a model directory in which the matrices of linear layers are products of two thinner ones, `W ≈ B A`, from their
/// singular value decomposition: of all factors of a rank, those nearest to W (Eckart and Young, Psychometrika 1, 1936).
///
/// A matrix `NAME.weight` `[outputs, inputs]` becomes A, `NAME.down.weight` `[r, inputs]`, and B, `NAME.up.weight` `[outputs, r]`, in
/// its own element type (F32 for F64), each with the roots of the singular values. Matrices that factors would not make smaller stay
/// as they are, and so do output embeddings and the experts of a mixture. `docs/compressed-models.md` describes the files.
///
/// ```swift
/// let compressor = try ModelCompressor(model: ".model/all-MiniLM-L6-v2", to: .share(0.5))
/// let report = try compressor.write(to: "minilm-half")
/// ```
public final class ModelCompressor: Sendable {
  public let target: CompressionTarget
  private let rewriter: ModelRewriter
  public var directory: String { rewriter.directory }
  /// Bytes of the files with weights.
  public var bytesBefore: Int { rewriter.bytesBefore }

  /// Reads the configuration and the headers, and decides what is to be done. Nothing is written.
  ///
  /// - Throws: ``ModelError`` naming file, field and offset, for a target out of its range, a directory that the model would not load
  ///   and one that is quantised; ``QuernError/linearAlgebra(function:failure:)`` in a build without the `OpenBLAS` trait.
  public init(model directory: String, to target: CompressionTarget) throws {
    try LinearAlgebra.requireLibrary("compress")
    switch target {
    case .rank(let rank):
      guard rank >= 1 else { throw ModelError(file: directory, field: "rank", reason: "\(rank) is less than 1") }
    case .share(let share):
      guard share > 0, share < 1 else {
        throw ModelError(file: directory, field: "share", reason: "\(share) is not between 0 and 1")
      }
    }
    self.target = target
    rewriter = try ModelRewriter(model: directory) { matrix in
      guard matrix.layer.takesFactors else { return .keep(reason: "output embeddings and experts take no factors") }
      switch target.rank(outputs: matrix.outputs, inputs: matrix.inputs) {
      case .some(let rank):
        let type: SafetensorsDType = matrix.info.dtype.stored == nil ? .f32 : matrix.info.dtype
        let part = LinearLayer.Part(name: String(matrix.name.dropLast(".weight".count)), outputs: matrix.outputs)
        return .replace([(part.down, type, [rank, matrix.inputs]), (part.up, type, [matrix.outputs, rank])])
      case .none:
        return .keep(reason: target.reasonToKeep("[\(matrix.outputs), \(matrix.inputs)]"))
      }
    }
  }

  /// Writes the directory. Its `config.json` comes last, so that a directory that is not complete does not load.
  ///
  /// - Parameters:
  ///   - output: a folder that is empty or not there; neither the model's own nor inside it.
  ///   - replacing: take a folder that is not empty, and replace the model in it.
  ///   - progress: called after each tensor with the bytes read so far; what it throws ends the run.
  /// - Throws: ``ModelError``, also for weights that are not finite and matrices beyond what LAPACK counts; ``QuernError`` for memory
  ///   that cannot be had. A folder that was empty or not there is so again.
  public func write(
    to output: String, replacing: Bool = false, progress: (Int) throws -> Void = { _ in }
  ) throws -> CompressionReport {
    var report = CompressionReport()
    let context = try Context("multithreaded")
    let outcome = try rewriter.write(to: output, replacing: replacing, progress: progress) { matrix, stored in
      let weights = matrix.layer.isTransposed ? stored.view.transposed() : stored.view
      let rank = target.rank(outputs: matrix.outputs, inputs: matrix.inputs) ?? 0
      let factors = try LinearAlgebra.lowRank(weights, rank: rank)
      let (down, up) = (try factors.a.converted(to: stored.dataType), try factors.b.converted(to: stored.dataType))
      let error = try Self.relativeError(of: weights, down, up, context)
      report.largestError = max(report.largestError, error)
      report.matrices.append(
        CompressionReport.Matrix(
          name: matrix.name, outputs: matrix.outputs, inputs: matrix.inputs, rank: rank,
          bytesBefore: matrix.info.byteRange.count,
          bytesAfter: (down.shape.count + up.shape.count) * stored.dataType.size, relativeError: error))
      return [.tensor(down), .tensor(up)]
    }
    (report.kept, report.otherTensors) = (rewriter.kept, outcome.otherTensors)
    (report.bytesBefore, report.bytesAfter) = (bytesBefore, outcome.bytes)
    return report
  }

  /// `‖W - B A‖ / ‖W‖` in the Frobenius norm; 0 for weights of zeros.
  private static func relativeError(
    of weights: TensorView, _ down: Tensor, _ up: Tensor, _ context: Context
  ) throws -> Double {
    let product = try MutableTensor(zeros: weights.shape)
    try context.matmul(up.view, down.view, into: product)
    var (errors, squares) = (0.0, 0.0)
    for row in 0..<weights.shape[0] {
      let (exact, near) = (weights.row(row), product.view.row(row))
      for column in 0..<weights.shape[1] {
        let error = exact[column] - near[column]
        errors += error * error
        squares += exact[column] * exact[column]
      }
    }
    guard errors.isFinite else {
      throw QuernError.invalidOperand(
        operation: .matmul, reason: "its factors are beyond what \(down.dataType) holds")
    }
    return squares > 0 ? (errors / squares).squareRoot() : 0
  }
}

extension CompressionTarget {
  /// The rank of a matrix; `nil` where factors would not make it smaller, or not small enough.
  fileprivate func rank(outputs: Int, inputs: Int) -> Int? {
    guard outputs > 0, inputs > 0 else { return nil }
    let most = Double(outputs) * Double(inputs) / (Double(outputs) + Double(inputs))
    switch self {
    case .rank(let rank): return Double(rank) < most ? rank : nil
    case .share(let share):
      let rank = Int(share * most)
      return rank > 0 ? rank : nil
    }
  }

  /// Why a matrix of this shape has no rank.
  fileprivate func reasonToKeep(_ shape: String) -> String {
    switch self {
    case .rank(let rank): "factors of rank \(rank) take no less than \(shape)"
    case .share(let share): "a share of \(share) of \(shape) leaves no rank"
    }
  }
}

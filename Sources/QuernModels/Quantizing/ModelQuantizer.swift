import Quern

/// Writes a copy of a model directory in which the matrices of linear layers are stored in fewer bits.
///
/// Which those are is what the model's family says; embeddings, norms, biases and tensors that the model does not read stay as
/// they are. `docs/quantized-models.md` describes the files. One tensor is in memory at a time.
///
/// ```swift
/// let quantizer = try ModelQuantizer(model: ".model/all-MiniLM-L6-v2", as: .blocks(.q8))
/// let report = try quantizer.write(to: "minilm-q8")
/// ```
public final class ModelQuantizer: Sendable {
  public let storage: WeightStorage
  private let rewriter: ModelRewriter
  public var directory: String { rewriter.directory }
  /// Bytes of the files with weights.
  public var bytesBefore: Int { rewriter.bytesBefore }

  /// Reads the configuration and the headers, and decides what is to be done. Nothing is written.
  ///
  /// - Throws: ``ModelError`` naming file, field and offset, for a directory that the model would not load and for one that
  ///   is quantised already.
  public init(model directory: String, as storage: WeightStorage) throws(ModelError) {
    self.storage = storage
    rewriter = try ModelRewriter(model: directory) { matrix in
      guard !matrix.layer.isTransposed || storage == .bf16 else {
        return .keep(reason: "its rows are inputs; blocks lie along the inputs")
      }
      guard matrix.inputs % storage.granularity == 0 else {
        return .keep(reason: "\(matrix.inputs) inputs are no multiple of \(storage.granularity)")
      }
      switch storage {
      case .bf16: return .replace([(matrix.name, .bf16, matrix.info.shape)])
      case .blocks(let format):
        let row = matrix.inputs / format.blockSize * format.blockBytes
        return .replace(
          [(matrix.name, .u8, [matrix.outputs, row])],
          TensorInfo.Quantization(format: format, outputs: matrix.outputs, inputs: matrix.inputs))
      }
    }
  }

  /// Writes the directory. Its `config.json` comes last, so that a directory that is not complete does not load.
  ///
  /// - Parameters:
  ///   - output: a folder that is empty or not there; neither the model's own nor inside it.
  ///   - replacing: take a folder that is not empty, and replace the model in it.
  ///   - progress: called after each tensor with the bytes read so far; what it throws ends the run.
  /// - Throws: ``ModelError``, also for weights that are not finite; ``QuernError`` for memory that cannot be had. A folder that
  ///   was empty or not there is so again.
  public func write(
    to output: String, replacing: Bool = false, progress: (Int) throws -> Void = { _ in }
  ) throws -> QuantizationReport {
    var report = QuantizationReport(storage: storage.name)
    let outcome = try rewriter.write(to: output, replacing: replacing, progress: progress) { matrix, weights in
      let (content, error, size) = try convert(weights)
      report.matrices.append(
        QuantizationReport.Matrix(
          name: matrix.name, outputs: matrix.info.shape[0], inputs: matrix.info.shape[1],
          bytesBefore: matrix.info.byteRange.count, bytesAfter: size, largestError: error.largestShare,
          relativeError: error.relative))
      return [content]
    }
    (report.kept, report.otherTensors) = (rewriter.kept, outcome.otherTensors)
    (report.bytesBefore, report.bytesAfter) = (bytesBefore, outcome.bytes)
    return report
  }

  /// A matrix in its new storage, what was lost, and its size.
  private func convert(_ weights: Tensor) throws -> (ModelRewriter.Content, RoundingError, Int) {
    switch storage {
    case .blocks(let format):
      let matrix = try QuantizedMatrix(quantizing: weights.view, as: format)
      return (.blocks(matrix), try matrix.roundingError(of: weights.view), matrix.withBlocks(\.count))
    case .bf16:
      let (rounded, error) = try weights.view.roundedToBFloat16()
      return (.tensor(rounded), error, rounded.shape.count * rounded.dataType.size)
    }
  }
}

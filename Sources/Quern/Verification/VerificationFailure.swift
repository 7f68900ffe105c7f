/// An element of a result that lies outside its error bound: what a backend under ``VerifyingBackend`` got wrong.
public struct VerificationFailure: Sendable, Equatable, CustomStringConvertible {
  public let operation: Operation
  /// The backend that ran the operation.
  public let backend: String
  /// The operands with their data types and shapes, such as `x f32 [4, 16], weights q4_0 [8, 16]`.
  public let operands: String
  /// Which result: `y`, or the name of a second one, such as `logSumExp`.
  public let result: String
  /// The shape of the result.
  public let shape: [Int]
  /// Where the element is.
  public let index: [Int]
  public let value: Float
  /// What the reference has.
  public let expected: Float
  /// The largest error; 0 where the result must be exact. Not finite where operands are not.
  public let bound: Double
  /// What is wrong, in words.
  public let reason: String

  public var description: String {
    "\(operation.rawValue): \(backend) has \(value) at \(index) of \(result) \(shape), the reference \(expected): \(reason) "
      + "(bound \(bound)); \(operands)"
  }
}

/// An operand of a call, in words.
protocol VerifiedOperand {
  var summary: String { get }
}

extension VerifiedOperand where Self: Strided {
  var summary: String { "\(dataType.rawValue) \(shape)" }
}

extension TensorView: VerifiedOperand {}

extension Tensor: VerifiedOperand {}

extension MutableTensor: VerifiedOperand {}

extension PackedMatrix: VerifiedOperand {
  var summary: String { "\(layout == .int8 ? "int8" : formatName) [\(outputs), \(inputs)]" }
}

extension PackedConvolution: VerifiedOperand {
  var summary: String {
    "\(dataType.rawValue) kernel \(kernel), \(channels) to \(outputs) channels, groups \(convolution.groups)"
  }
}

extension PackedBlockSparseMatrix: VerifiedOperand {
  var summary: String { "blocks of \(blockOutputs)x\(blockInputs) in [\(outputs), \(inputs)]" }
}

extension QuantizedMatrix: VerifiedOperand {
  var summary: String { "\(format.rawValue) [\(outputs), \(inputs)]" }
}

extension BlockSparseMatrix: VerifiedOperand {
  var summary: String { "blocks of \(blockOutputs)x\(blockInputs) in [\(outputs), \(inputs)]" }
}

extension Int8Cache: VerifiedOperand {
  var summary: String { "int8 [\(sequences), \(capacity), \(heads), \(size)]" }
}

extension AttentionRows: VerifiedOperand {
  var summary: String {
    switch self {
    case .tensor(let view): view.summary
    case .int8(let cache): cache.summary
    }
  }
}

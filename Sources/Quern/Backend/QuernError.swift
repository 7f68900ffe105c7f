/// What the library throws. Every description is one line that says what is wrong and, where it helps, what to do.
public enum QuernError: Error, Sendable, Equatable, CustomStringConvertible {
  /// An operation was given operands it does not take.
  case invalidOperand(operation: Operation, reason: String)
  /// A shape that no tensor can have.
  case invalidShape(String)
  /// `QUERN_BACKEND`, or a name given to the API, that no registered backend has.
  case unknownBackend(name: String, valid: [String])
  /// A backend that exists but cannot run here.
  case unavailableBackend(name: String, reason: String, valid: [String])
  /// An environment variable or option out of range.
  case invalidSetting(name: String, value: String, expected: String)
  /// A weight packed for a backend that this one cannot read.
  case foreignPacking(operation: Operation, layout: String, backend: String)
  /// New rows of a sequence that its cache has no room for.
  case cacheFull(sequence: Int, held: Int, new: Int, capacity: Int)
  /// A result outside its error bound: what ``VerifyingBackend``, that is `QUERN_VERIFY=1`, looks for.
  case verification(VerificationFailure)
  /// A function of ``LinearAlgebra`` that has no result for its operands.
  case linearAlgebra(function: String, failure: LinearAlgebra.Failure)
  /// Memory the system would not give.
  case outOfMemory(bytes: Int)

  public var description: String {
    switch self {
    case .invalidOperand(let operation, let reason): "\(operation.rawValue): \(reason)"
    case .invalidShape(let reason): "shape: \(reason)"
    case .unknownBackend(let name, let valid):
      "unknown backend \"\(name)\": the backends are \(valid.joined(separator: ", "))"
    case .unavailableBackend(let name, let reason, let valid):
      "backend \"\(name)\" is not available: \(reason); available: \(valid.joined(separator: ", "))"
    case .invalidSetting(let name, let value, let expected): "\(name)=\(value): expected \(expected)"
    case .foreignPacking(let operation, let layout, let backend):
      "\(operation.rawValue): weights packed as \(layout) cannot be read by \(backend); pack them with this backend"
    case .cacheFull(let sequence, let held, let new, let capacity):
      "appendToCache: sequence \(sequence) holds \(held) rows and \(new) more do not fit its \(capacity)"
    case .verification(let failure): "\(failure)"
    case .linearAlgebra(let function, let failure): "\(function): \(failure)"
    case .outOfMemory(let bytes): "out of memory: \(bytes) bytes could not be allocated"
    }
  }
}

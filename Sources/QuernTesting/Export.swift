import Quern

/// The operands and the result of a workload as plain numbers, for a library outside this package to repeat.
public struct ExportedTensor: Sendable {
  public enum Values: Sendable {
    case float32([Float])
    case int64([Int64])
  }

  /// `operand.0`, `operand.1` ... in the order the workload made them; `initial` and `result` for its destination.
  public let name: String
  public let shape: [Int]
  public let values: Values
}

extension Workload {
  /// Every operand, what the destination holds before the call, and what it holds after one on `context`.
  public func exported(on context: Context) throws -> [ExportedTensor] {
    let result = try result(on: context)
    reset(output)
    let shape = output.shape.array
    var tensors = operands.made.filter { !$0.isDestination(output) }.enumerated().map { index, operand in
      operand.exported(as: "operand.\(index)")
    }
    tensors.append(ExportedTensor(name: "initial", shape: shape, values: .float32(output.view.values)))
    tensors.append(ExportedTensor(name: "result", shape: shape, values: .float32(result)))
    return tensors
  }
}

extension Operands {
  /// What was made, as it was handed out.
  enum Made {
    case tensor(TensorView)
    case integers([Int32])

    func isDestination(_ output: MutableTensor) -> Bool {
      guard case .tensor(let view) = self else { return false }
      return view.address == UnsafeRawPointer(output.address) && view.shape == output.shape
    }

    func exported(as name: String) -> ExportedTensor {
      switch self {
      case .tensor(let view):
        ExportedTensor(name: name, shape: view.shape.array, values: .float32(view.values))
      case .integers(let values):
        ExportedTensor(name: name, shape: [values.count], values: .int64(values.map(Int64.init)))
      }
    }
  }
}

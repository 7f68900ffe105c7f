import Quern

/// Runs a model directory on named tensors, named as Hugging Face names them: how anyone checks parity and speed.
public final class NamedForward {
  private let model: BertModel
  private let workspace: BertModel.Workspace

  /// - Throws: ``ModelError``, also for a `model_type` that is not supported.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    model = try BertModel(directory: directory, context: context, precision: precision)
    workspace = try BertModel.Workspace()
  }

  /// The inputs of an encoder: `input_ids` and, optionally, `attention_mask` and `token_type_ids`, each
  /// `[batch, length]`.
  public struct Inputs {
    let rows, columns: Int
    let ids, mask, types: [Int32]
  }

  /// Reads and checks the inputs.
  public func inputs(from source: any TensorSource, file: String) throws -> Inputs {
    let shape = try source.info("input_ids").shape
    func fail(_ name: String, _ reason: String) -> ModelError {
      ModelError(file: file, field: "tensors.\(name)", reason: reason)
    }
    guard shape.count == 2 else { throw fail("input_ids", "shape \(shape); expected [batch, length]") }
    func integers(_ name: String, default value: Int32) throws -> [Int32] {
      guard source.contains(name) else { return [Int32](repeating: value, count: shape[0] * shape[1]) }
      guard try source.info(name).shape == shape else {
        throw fail(name, "shape \(try source.info(name).shape); input_ids have \(shape)")
      }
      return try source.readInt64(name).enumerated().map { position, number in
        guard let narrow = Int32(exactly: number) else {
          throw fail(name, "\(number) at position \(position) is out of range")
        }
        return narrow
      }
    }
    let ids = try integers("input_ids", default: 0)
    let mask = try integers("attention_mask", default: 1)
    guard mask.allSatisfy({ $0 == 0 || $0 == 1 }) else { throw fail("attention_mask", "values other than 0 and 1") }
    return Inputs(
      rows: shape[0], columns: shape[1], ids: ids, mask: mask, types: try integers("token_type_ids", default: 0))
  }

  /// `last_hidden_state`, `[batch, length, hidden_size]`. Rows that the mask hides are zeros: they are not computed.
  public func lastHiddenState(_ inputs: Inputs) throws -> MutableTensor {
    let width = model.configuration.hiddenSize
    var (sequences, types, positions): ([[Int32]], [[Int32]], [[Int32]]) = ([], [], [])
    for row in 0..<inputs.rows {
      let visible = (0..<inputs.columns).filter { inputs.mask[row * inputs.columns + $0] == 1 }
      sequences.append(visible.map { inputs.ids[row * inputs.columns + $0] })
      types.append(visible.map { inputs.types[row * inputs.columns + $0] })
      positions.append(visible.map { Int32($0) })
    }
    let hidden = try model.forward(
      EncoderBatch(sequences, typeIDs: types, positions: positions), workspace: workspace)
    let output = try MutableTensor(zeros: Shape(inputs.rows * inputs.columns, width))
    var token = 0
    for (row, columns) in positions.enumerated() {
      for column in columns {
        for element in 0..<width { output[row * inputs.columns + Int(column), element] = hidden[token, element] }
        token += 1
      }
    }
    return output.reshaped(Shape(inputs.rows, inputs.columns, width))
  }
}

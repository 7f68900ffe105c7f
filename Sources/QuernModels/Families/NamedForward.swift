import Quern

/// Runs a model directory on named tensors, named as Hugging Face names them: how anyone checks parity and speed.
public final class NamedForward {
  private let model: Model

  private enum Model {
    case encoder(BertModel, BertModel.Workspace)
    case decoder(DecoderModel, DecoderModel.Workspace)
  }

  /// The tensor that ``output(_:)`` computes: `last_hidden_state` of an encoder, `logits` of a decoder.
  public var outputName: String { if case .encoder = model { "last_hidden_state" } else { "logits" } }

  /// - Parameter directory: a Hugging Face model directory, or a GGUF file.
  /// - Throws: ``ModelError``, also for a `model_type` that is not supported.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    if directory.hasSuffix(".gguf") {
      let decoder = try DecoderModel(path: directory, context: context, precision: precision)
      model = .decoder(decoder, try DecoderModel.Workspace())
      return
    }
    switch try ModelFamilies.read(directory: directory) {
    case let configuration as DecoderConfiguration:
      let decoder = try DecoderModel(
        configuration, source: SafetensorsDirectory(path: directory), file: directory, context: context,
        precision: precision)
      model = .decoder(decoder, try DecoderModel.Workspace())
    default:
      let encoder = try BertModel(directory: directory, context: context, precision: precision)
      model = .encoder(encoder, try BertModel.Workspace())
    }
  }

  /// `input_ids` and, optionally, `attention_mask` and `token_type_ids`, each `[batch, length]`.
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

  /// The output, `[batch, length, hidden_size]` or `[batch, length, vocab_size]`. Rows that the mask hides are zeros: they are not
  /// computed.
  public func output(_ inputs: Inputs) throws -> MutableTensor {
    let positions = (0..<inputs.rows).map { row in
      (0..<inputs.columns).filter { inputs.mask[row * inputs.columns + $0] == 1 }
    }
    func visible(_ values: [Int32]) -> [[Int32]] {
      positions.enumerated().map { row, columns in columns.map { values[row * inputs.columns + $0] } }
    }
    let computed: MutableTensor
    switch model {
    case .encoder(let model, let workspace):
      let batch = try EncoderBatch(
        visible(inputs.ids), typeIDs: visible(inputs.types), positions: positions.map { $0.map(Int32.init) })
      computed = try model.forward(batch, workspace: workspace)
    case .decoder(let model, let workspace):
      let cache = try model.makeCache(sequences: max(inputs.rows, 1), capacity: max(inputs.columns, 1))
      let segments = try Segments(lengths: inputs.rows == 0 ? [0] : positions.map(\.count))
      let hidden = try model.forward(
        visible(inputs.ids).flatMap { $0 }, segments: segments, cache: cache, workspace: workspace)
      computed = try model.logits(hidden, rows: (0..<Int32(segments.total)).map { $0 }, workspace: workspace)
    }
    let width = computed.shape[1]
    let output = try MutableTensor(zeros: Shape(inputs.rows * inputs.columns, width))
    var token = 0
    for (row, columns) in positions.enumerated() {
      for column in columns {
        for element in 0..<width { output[row * inputs.columns + column, element] = computed[token, element] }
        token += 1
      }
    }
    return output.reshaped(Shape(inputs.rows, inputs.columns, width))
  }
}

import Quern
import QuernModels

/// `linear_2(silu(linear_1(x)))`: what diffusers calls `TimestepEmbedding`. Computed in f32.
package struct TimestepMLP: Sendable {
  private let first, second: Linear

  package init(_ name: String, inputs: Int, outputs: Int, _ reader: LayerReader) throws {
    first = try reader.linear([("\(name).linear_1", outputs)], inputs: inputs, activation: .silu)
    second = try reader.linear([("\(name).linear_2", outputs)], inputs: outputs)
  }

  /// - Parameters:
  ///   - x: `[rows, inputs]`.
  ///   - hidden: `[rows, outputs]`, for what lies between.
  ///   - residual: added to the result.
  package func callAsFunction(
    _ x: TensorView, hidden: MutableTensor, residual: TensorView? = nil, into y: MutableTensor, _ context: Context
  ) throws(QuernError) {
    try first(x, into: hidden, context)
    try second(hidden.view, residual: residual, into: y, context)
  }
}

import Quern
import QuernModels

/// Half the height and width: a 3x3 convolution of stride 2.
package struct Downsample2D: Sendable {
  private let convolution: ConvolutionLayer

  /// - Parameter padding: 1 on every side, or 0, which stands for one row below and one column to the right, as the autoencoder has it.
  package init(_ name: String, inputs: Int, outputs: Int, padding: Int, _ reader: LayerReader) throws {
    let margins =
      padding == 0 ? Convolution.Padding(top: 0, left: 0, bottom: 1, right: 1) : .init(integerLiteral: padding)
    convolution = try reader.convolution(
      "\(name).conv", inputs: inputs, outputs: outputs, Convolution(stride: 2, padding: margins))
  }

  /// Height or width of the result for one of `extent`.
  package static func extent(_ extent: Int, padding: Int) -> Int {
    (extent + (padding == 0 ? 1 : 2 * padding) - 3) / 2 + 1
  }

  /// - Parameter y: `[batch, extent(height), extent(width), outputs]`.
  package func callAsFunction(_ x: TensorView, into y: MutableTensor, _ context: Context) throws(QuernError) {
    try convolution(x, into: y, context)
  }
}

extension Convolution {
  /// The nearest pixels at the height and width of the result, which is twice those of x or one less, then 3x3 taps.
  package static let enlarging = Convolution(padding: 1, upsampling: 2)
}

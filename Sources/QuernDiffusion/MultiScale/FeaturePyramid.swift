import Quern
import QuernModels

/// Features of several sizes that know of the larger picture (Lin et al., arXiv 1612.03144): each is brought to one width by a 1x1
/// convolution, takes the next smaller one at its own size, nearest pixels repeated, and goes through a 3x3 convolution.
///
///     inner_i = lateral_i(x_i) + nearest(inner_(i+1)),   y_i = conv_i(inner_i)
public struct FeaturePyramid: Sendable {
  private let channels: [Int]
  private let width: Int
  private let laterals: [ConvolutionLayer]
  private let outputs: [ConvolutionLayer]
  private let precision: DataType
  private let context: Context

  /// - Parameters:
  ///   - name: what comes before torchvision's names, `inner_blocks.0.0.weight` and `layer_blocks.0.0.weight` and so on.
  ///   - channels: of the features of each size, the largest first.
  ///   - width: channels of every result.
  /// - Throws: ``ModelError`` naming the tensor that is missing or of another shape.
  public init(
    _ name: String, channels: [Int], width: Int, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    let reader = LayerReader(
      try Weights(source, file: file, probe: "\(name).inner_blocks.0.0.weight"), precision: precision, context: context)
    laterals = try channels.enumerated().map { index, inputs in
      try reader.convolution(
        "\(name).inner_blocks.\(index).0", inputs: inputs, outputs: width, kernel: 1, Convolution())
    }
    outputs = try channels.indices.map {
      try reader.convolution("\(name).layer_blocks.\($0).0", inputs: width, outputs: width)
    }
    (self.channels, self.width, self.precision, self.context) = (channels, width, precision, context)
  }

  /// - Parameter features: `[batch, height, width, channels]` of each size, the largest first, without gaps.
  /// - Returns: as many, of the same sizes.
  public func callAsFunction(
    _ features: [TensorView], workspace: MultiScaleWorkspace
  ) throws(QuernError) -> [MutableTensor] {
    try Scales.check(features, channels: channels)
    let shapes = features.map { Shape($0.shape[0], $0.shape[1], $0.shape[2], width) }
    let arena = workspace.arena
    // An inner image, a repeated one and a result of each size.
    try arena.reset(capacity: shapes.reduce(0) { $0 + 3 * Scales.elements($1) }, precision)
    var (results, coarser): ([MutableTensor], MutableTensor?) = ([], nil)
    for index in features.indices.reversed() {
      let inner = try arena.take(shapes[index])
      var repeated: MutableTensor?
      if let coarser {
        let larger = try arena.take(shapes[index])
        try context.resize(coarser.view, by: .nearest, into: larger)
        repeated = larger
      }
      try laterals[index](features[index], residual: repeated?.view, into: inner, context)
      let result = try arena.take(shapes[index])
      try outputs[index](inner.view, into: result, context)
      results.append(result)
      coarser = inner
    }
    return results.reversed()
  }
}

import Quern
import QuernModels

/// One encoder for all sizes of an image: an image pyramid (Adelson et al., RCA Engineer 29, 1984), each level the means of 2x2 pixels of
/// the one before, and the same convolutions on every level.
public struct PyramidEncoder: Sendable {
  private let layers: [ConvolutionLayer]
  private let channels: [Int]
  private let strides: [Int]
  private let precision: DataType
  private let context: Context

  /// - Parameters:
  ///   - name: what comes before the names `0.weight`, `[outputs, inputs, 3, 3]`, `0.bias`, `1.weight` and so on.
  ///   - channels: of the image, and behind each convolution.
  ///   - strides: of each convolution, which has 3x3 taps, a padding of 1 and ReLU behind it.
  /// - Throws: ``ModelError`` naming the tensor that is missing or of another shape.
  public init(
    _ name: String, channels: [Int], strides: [Int], source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32
  ) throws {
    guard channels.count == strides.count + 1, !strides.isEmpty else {
      throw QuernError.invalidShape("\(strides.count) strides for \(channels.count) numbers of channels")
    }
    let reader = LayerReader(
      try Weights(source, file: file, probe: "\(name).0.weight"), precision: precision, context: context)
    layers = try strides.enumerated().map { index, stride in
      try reader.convolution(
        "\(name).\(index)", inputs: channels[index], outputs: channels[index + 1],
        Convolution(stride: Convolution.Pair(stride, stride), padding: 1), activation: .relu)
    }
    (self.channels, self.strides, self.precision, self.context) = (channels, strides, precision, context)
  }

  /// What the encoder makes of each level, the image's own first.
  ///
  /// - Parameters:
  ///   - image: `[batch, height, width, channels]` without gaps.
  ///   - levels: at least 1; the smallest has a pixel at least.
  public func callAsFunction(
    _ image: TensorView, levels: Int, workspace: MultiScaleWorkspace
  ) throws(QuernError) -> [MutableTensor] {
    try Scales.check([image], channels: [channels[0]])
    let least = min(image.shape[1], image.shape[2])
    guard levels > 0, levels < Int.bitWidth, least >> (levels - 1) > 0 else {
      throw .invalidShape("\(levels) levels of an image of \(image.shape[1])x\(image.shape[2])")
    }
    var (shapes, capacity): ([[Shape]], Int) = ([], 0)
    for level in 0..<levels {
      var chain = [Shape(image.shape[0], image.shape[1] >> level, image.shape[2] >> level, channels[0])]
      for layer in layers { chain.append(try layer.weights.outputShape(of: chain[chain.count - 1])) }
      capacity += chain.reduce(0) { $0 + Scales.elements($1) }
      shapes.append(chain)
    }
    let arena = workspace.arena
    try arena.reset(capacity: capacity, precision)
    var (results, smaller): ([MutableTensor], TensorView) = ([], image)
    for (level, chain) in shapes.enumerated() {
      var current = try arena.take(chain[0])
      if level == 0 {
        try context.copy(image, into: current)
      } else {
        try context.averagePool(smaller, window: PoolWindow(size: 2), into: current)
      }
      smaller = current.view
      for (layer, shape) in zip(layers, chain.dropFirst()) {
        let next = try arena.take(shape)
        try layer(current.view, into: next, context)
        current = next
      }
      results.append(current)
    }
    return results
  }
}

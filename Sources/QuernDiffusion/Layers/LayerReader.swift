import Quern
import QuernModels

/// Makes layers of the tensors of a file that have diffusers' names.
package struct LayerReader {
  package let weights: Weights
  /// The storage of matrices, and of activations.
  package let precision: DataType
  package let context: Context

  package init(_ weights: Weights, precision: DataType, context: Context) {
    (self.weights, self.precision, self.context) = (weights, precision, context)
  }

  /// One product of the matrices `NAME.weight`, `[outputs, inputs]`, or `[outputs, inputs, 1, 1]` of 1x1 convolutions.
  package func linear(
    _ parts: [(name: String, outputs: Int)], inputs: Int, isConvolution: Bool = false, hasBias: Bool = true,
    activation: Activation = .identity
  ) throws -> Linear {
    try weights.linear(
      LinearLayer(parts, inputs: inputs, isConvolution: isConvolution), as: precision, hasBias: hasBias,
      activation: activation, context: context)
  }

  /// The first product of a gated feed-forward part, `NAME.weight` `[2 outputs, inputs]`, whose last outputs are the gate.
  package func gatedLinear(
    _ name: String, outputs: Int, inputs: Int, activation: Activation
  ) throws -> GatedLinear {
    try weights.gatedLinear(
      LinearLayer([(name, 2 * outputs)], inputs: inputs), as: precision, hasBias: true, isGateFirst: false,
      activation: activation, context: context)
  }

  /// A convolution of `kernel` by `kernel` taps.
  package func convolution(
    _ name: String, inputs: Int, outputs: Int, kernel: Int = 3, _ convolution: Convolution = Convolution(padding: 1),
    hasBias: Bool = true, activation: Activation = .identity
  ) throws -> ConvolutionLayer {
    let shape = try Shape(checking: [outputs, inputs, kernel, kernel])
    var convolution = convolution
    convolution.allowsWinograd = true
    return ConvolutionLayer(
      weights: try context.packConvolution(
        weights.tensor("\(name).weight", shape, as: precision).view, convolution),
      epilogue: Epilogue(
        bias: hasBias ? try weights.tensor("\(name).bias", Shape(outputs)) : nil, activation: activation))
  }

  package func groupNorm(
    _ name: String, channels: Int, _ kind: GroupNorm.Kind, activation: Activation = .identity
  ) throws -> GroupNorm {
    GroupNorm(
      kind: kind, weight: try weights.tensor("\(name).weight", Shape(channels)),
      bias: try weights.tensor("\(name).bias", Shape(channels)), activation: activation)
  }

  package func layerNorm(_ name: String, _ width: Int, epsilon: Float = 1e-5) throws -> Norm {
    Norm(
      isCentred: true, weight: try weights.tensor("\(name).weight", Shape(width)),
      bias: try weights.tensor("\(name).bias", Shape(width)), epsilon: epsilon)
  }
}

/// GroupNorm of an image with channels last, and the activation behind it.
package struct GroupNorm: Sendable {
  /// What the norms of a model share.
  package struct Kind: Sendable, Equatable {
    package var groups: Int
    package var epsilon: Float

    package init(groups: Int, epsilon: Float) { (self.groups, self.epsilon) = (groups, epsilon) }
  }

  let kind: Kind
  let weight, bias: Tensor
  let activation: Activation

  package func callAsFunction(_ x: TensorView, into y: MutableTensor, _ context: Context) throws(QuernError) {
    try context.groupNorm(
      x, groups: kind.groups, weight: weight, bias: bias, epsilon: kind.epsilon, activation: activation, into: y)
  }
}

/// A convolution of images with channels last.
package struct ConvolutionLayer: Sendable {
  let weights: PackedConvolution
  let epilogue: Epilogue

  package var outputs: Int { weights.outputs }

  /// `y = activation(conv(x) + bias + add) + residual`; add is `[batch, outputs]`.
  package func callAsFunction(
    _ x: TensorView, add: TensorView? = nil, residual: TensorView? = nil, into y: MutableTensor, _ context: Context
  ) throws(QuernError) {
    try context.conv2d(x, weights: weights, epilogue: epilogue, add: add, residual: residual, into: y)
  }
}

import Quern

/// A linear layer as a model family declares it: the tensors `NAME.weight`, each `[outputs, inputs]`, stacked in one product.
struct LinearLayer: Sendable, Equatable {
  var names: [String]
  var outputs: Int
  var inputs: Int

  var weights: [String] { names.map { "\($0).weight" } }
}

/// `activation(x Wᵀ + bias) + residual`: a packed weight and what follows the product.
struct Linear: Sendable {
  let weights: PackedMatrix
  let epilogue: Epilogue

  func callAsFunction(
    _ x: TensorView, residual: TensorView? = nil, into y: MutableTensor, _ context: Context
  ) throws(QuernError) {
    try context.linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
  }
}

/// Layer normalisation with its affine parameters.
struct LayerNorm: Sendable {
  let weight: Tensor
  let bias: Tensor
  let epsilon: Float

  func callAsFunction(_ x: MutableTensor, _ context: Context) throws(QuernError) {
    try context.layerNorm(x.view, weight: weight, bias: bias, epsilon: epsilon, into: x)
  }
}

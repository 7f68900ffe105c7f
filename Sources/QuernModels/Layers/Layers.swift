import Quern

/// `activation(x Wᵀ + bias) + residual`: a packed weight and what follows the product.
struct Linear: Sendable {
  let weights: PackedMatrix
  let epilogue: Epilogue

  init(_ weight: Tensor, bias: Tensor?, activation: Activation = .identity, context: Context) throws {
    weights = try context.pack(weight.view)
    epilogue = Epilogue(bias: bias, activation: activation)
  }

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

import Quern

/// A linear layer as a model family declares it: the tensors `NAME.weight`, each `[outputs, inputs]`, stacked in one product.
struct LinearLayer: Sendable, Equatable {
  struct Part: Sendable, Equatable {
    var name: String
    var outputs: Int

    var weight: String { "\(name).weight" }
  }

  var parts: [Part]
  var inputs: Int
  /// The tensor, a single one, is `[inputs, outputs]`, as GPT-2's are.
  var isTransposed = false
  /// Some checkpoints lack it: a head, where the model is one that gives embeddings.
  var isOptional = false

  /// The same with this before the names.
  func prefixed(_ prefix: String) -> LinearLayer {
    var layer = self
    for index in parts.indices { layer.parts[index].name = prefix + parts[index].name }
    return layer
  }

  var outputs: Int { parts.reduce(0) { $0 + $1.outputs } }

  /// The shape of a part's tensor.
  func shape(_ part: Part) -> Shape { isTransposed ? Shape(inputs, part.outputs) : Shape(part.outputs, inputs) }
}

/// `activation(x Wᵀ + bias) + residual`: packed weights and what follows the product.
struct Linear: Sendable {
  /// Some of the outputs: one product.
  struct Part: Sendable {
    let weights: PackedMatrix
    let epilogue: Epilogue
    /// Of adapters: `up (down x)` is added to the product.
    var update: (down: PackedMatrix, up: PackedMatrix)?
  }

  /// One, unless the tensors of the layer are stored in different formats.
  let parts: [Part]

  var outputs: Int { parts.reduce(0) { $0 + $1.weights.outputs } }

  func callAsFunction(
    _ x: TensorView, residual: TensorView? = nil, into y: MutableTensor, _ context: Context
  ) throws(QuernError) {
    var first = 0
    for part in parts {
      let columns = first..<first + part.weights.outputs
      if let (down, up) = part.update {
        try context.lowRankLinear(
          x, weights: part.weights, down: down, up: up, epilogue: part.epilogue, residual: residual?.columns(columns),
          into: y.columns(columns))
      } else {
        try context.linear(
          x, weights: part.weights, epilogue: part.epilogue, residual: residual?.columns(columns),
          into: y.columns(columns))
      }
      first = columns.upperBound
    }
  }
}

/// LayerNorm or RMSNorm with its parameters.
struct Norm: Sendable {
  /// LayerNorm instead of RMSNorm.
  let isCentred: Bool
  let weight: Tensor
  let bias: Tensor?
  let epsilon: Float

  func callAsFunction(_ x: TensorView, into y: MutableTensor, _ context: Context) throws(QuernError) {
    if isCentred {
      try context.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon, into: y)
    } else {
      try context.rmsNorm(x, weight: weight, epsilon: epsilon, into: y)
    }
  }

  func callAsFunction(_ x: MutableTensor, _ context: Context) throws(QuernError) { try self(x.view, into: x, context) }
}

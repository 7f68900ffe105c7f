import Quern

/// A linear layer as a model family declares it: the tensors `NAME.weight`, each `[outputs, inputs]`, stacked in one product.
struct LinearLayer: Sendable, Equatable {
  struct Part: Sendable, Equatable {
    var name: String
    var outputs: Int

    var weight: String { "\(name).weight" }
    /// In place of `weight`, two factors: `[r, inputs]`, and `[outputs, r]`.
    var down: String { "\(name).down.weight" }
    var up: String { "\(name).up.weight" }
  }

  var parts: [Part]
  var inputs: Int
  /// The tensor, a single one, is `[inputs, outputs]`, as GPT-2's are.
  var isTransposed = false
  /// Some checkpoints lack it: a head, where the model is one that gives embeddings.
  var isOptional = false
  /// Whether the model reads it as two factors too, by ``Weights/linear(_:as:hasBias:activation:context:)``.
  var takesFactors = true

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
  /// What stands for W.
  enum Matrix: Sendable {
    case whole(PackedMatrix)
    /// `weights + up down`: beside weights the update of adapters, alone the factors of a compressed matrix.
    case factors(PackedMatrix?, down: PackedMatrix, up: PackedMatrix)

    var outputs: Int {
      switch self {
      case .whole(let weights): weights.outputs
      case .factors(_, _, let up): up.outputs
      }
    }
  }

  /// Some of the outputs.
  struct Part: Sendable {
    let matrix: Matrix
    let epilogue: Epilogue
  }

  /// One, unless the tensors of the layer are stored in different formats or as factors.
  let parts: [Part]

  var outputs: Int { parts.reduce(0) { $0 + $1.matrix.outputs } }

  func callAsFunction(
    _ x: TensorView, residual: TensorView? = nil, into y: MutableTensor, _ context: Context
  ) throws(QuernError) {
    var first = 0
    for part in parts {
      let columns = first..<first + part.matrix.outputs
      switch part.matrix {
      case .whole(let weights):
        try context.linear(
          x, weights: weights, epilogue: part.epilogue, residual: residual?.columns(columns), into: y.columns(columns))
      case .factors(let weights, let down, let up):
        try context.lowRankLinear(
          x, weights: weights, down: down, up: up, epilogue: part.epilogue, residual: residual?.columns(columns),
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

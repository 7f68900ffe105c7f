import Quern

/// A linear layer as a model family declares it: the tensors `NAME.weight`, each `[outputs, inputs]`, stacked in one product.
package struct LinearLayer: Sendable, Equatable {
  package struct Part: Sendable, Equatable {
    package var name: String
    package var outputs: Int

    package var weight: String { "\(name).weight" }
    /// In place of `weight`, two factors: `[r, inputs]`, and `[outputs, r]`.
    package var down: String { "\(name).down.weight" }
    package var up: String { "\(name).up.weight" }
  }

  package var parts: [Part]
  package var inputs: Int
  /// The tensor, a single one, is `[inputs, outputs]`, as GPT-2's are.
  package var isTransposed = false
  /// The tensors are those of 1x1 convolutions, `[outputs, inputs, 1, 1]`.
  package var isConvolution = false
  /// Some checkpoints lack it: a head, where the model is one that gives embeddings.
  package var isOptional = false
  /// Whether the model reads it as two factors too, by ``Weights/linear(_:as:hasBias:activation:context:)``.
  package var takesFactors = true

  /// The same with this before the names.
  package func prefixed(_ prefix: String) -> LinearLayer {
    var layer = self
    for index in parts.indices { layer.parts[index].name = prefix + parts[index].name }
    return layer
  }

  package var outputs: Int { parts.reduce(0) { $0 + $1.outputs } }

  /// The shape of a part's tensor.
  package func shape(_ part: Part) -> Shape {
    if isConvolution { return Shape(part.outputs, inputs, 1, 1) }
    return isTransposed ? Shape(inputs, part.outputs) : Shape(part.outputs, inputs)
  }
}

extension LinearLayer {
  package init(_ parts: [(name: String, outputs: Int)], inputs: Int, isConvolution: Bool = false) {
    self.init(parts: parts.map { Part(name: $0.name, outputs: $0.outputs) }, inputs: inputs)
    self.isConvolution = isConvolution
  }
}

/// `activation(x Wᵀ + bias) + residual`: packed weights and what follows the product.
package struct Linear: Sendable {
  /// What stands for W.
  package enum Matrix: Sendable {
    case whole(PackedMatrix)
    /// `weights + up down`: beside weights the update of adapters, alone the factors of a compressed matrix.
    case factors(PackedMatrix?, down: PackedMatrix, up: PackedMatrix)

    package var outputs: Int {
      switch self {
      case .whole(let weights): weights.outputs
      case .factors(_, _, let up): up.outputs
      }
    }
  }

  /// Some of the outputs.
  package struct Part: Sendable {
    package let matrix: Matrix
    package let epilogue: Epilogue
  }

  /// One, unless the tensors of the layer are stored in different formats or as factors.
  package let parts: [Part]

  package var outputs: Int { parts.reduce(0) { $0 + $1.matrix.outputs } }

  package func callAsFunction(
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
package struct Norm: Sendable {
  /// LayerNorm instead of RMSNorm.
  package let isCentred: Bool
  package let weight: Tensor
  package let bias: Tensor?
  package let epsilon: Float

  package init(isCentred: Bool, weight: Tensor, bias: Tensor?, epsilon: Float) {
    (self.isCentred, self.weight, self.bias, self.epsilon) = (isCentred, weight, bias, epsilon)
  }

  package func callAsFunction(_ x: TensorView, into y: MutableTensor, _ context: Context) throws(QuernError) {
    if isCentred {
      try context.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon, into: y)
    } else {
      try context.rmsNorm(x, weight: weight, epsilon: epsilon, into: y)
    }
  }

  package func callAsFunction(_ x: MutableTensor, _ context: Context) throws(QuernError) {
    try self(x.view, into: x, context)
  }
}

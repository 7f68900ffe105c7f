import Quern

/// `down(act(gate x) up x)`, or without a gate `down(act(up x))`.
struct FeedForward: Sendable {
  enum First: Sendable {
    case gated(GatedLinear)
    case plain(Linear)
  }

  let first: First
  let down: Linear

  /// Columns of memory that ``inner(_:in:_:)`` takes.
  var width: Int {
    switch first {
    case .gated(let gated): gated.width
    case .plain(let linear): linear.outputs
    }
  }

  /// What `down` is to be applied to, in `memory`, whose rows have at least ``width`` columns.
  func inner(_ x: TensorView, in memory: MutableTensor, _ context: Context) throws(QuernError) -> MutableTensor {
    switch first {
    case .gated(let gated): return try gated(x, in: memory, context)
    case .plain(let linear):
      let inner = memory.columns(0..<linear.outputs)
      try linear(x, into: inner, context)
      return inner
    }
  }
}

/// `activation(gate x) value x`, the first product of a gated feed-forward part.
package struct GatedLinear: Sendable {
  enum Matrices: Sendable {
    case fused(GatedWeights)
    /// Both in one product, the gate's outputs first or last: where factors stand for some of the weights.
    case stacked(Linear, isGateFirst: Bool)
  }

  let matrices: Matrices
  let activation: Activation

  /// Columns of memory that a call takes.
  package var width: Int {
    switch matrices {
    case .fused(let weights): weights.outputs
    case .stacked(let linear, _): linear.outputs
    }
  }

  /// The result, in `memory`, whose rows have at least ``width`` columns.
  package func callAsFunction(
    _ x: TensorView, in memory: MutableTensor, _ context: Context
  ) throws(QuernError) -> MutableTensor {
    switch matrices {
    case .fused(let weights):
      let result = memory.columns(0..<weights.outputs)
      try context.gatedLinear(x, weights: weights, activation: activation, into: result)
      return result
    case .stacked(let linear, let isGateFirst):
      let both = memory.columns(0..<linear.outputs)
      try linear(x, into: both, context)
      let halves = both.halves(isGateFirst)
      try context.gated(activation, gate: halves.gate.view, value: halves.value.view, into: halves.gate)
      return halves.gate
    }
  }
}

extension MutableTensor {
  fileprivate func halves(_ isGateFirst: Bool) -> (gate: MutableTensor, value: MutableTensor) {
    let (first, last) = (columns(0..<shape[1] / 2), columns(shape[1] / 2..<shape[1]))
    return isGateFirst ? (first, last) : (last, first)
  }
}

/// What joins the halves of an expert's first product.
struct Gate: Sendable, Equatable {
  var activation: Activation
  /// Of gpt-oss: the gate is at most this, the value within it, and the value has 1 added.
  var limit: Float?

  /// `act(gate) value` of rows `[gate | value]`, in place of the gates.
  func callAsFunction(_ x: MutableTensor, _ context: Context) throws(QuernError) -> MutableTensor {
    let (gate, value) = x.halves(true)
    guard let limit else {
      try context.gated(activation, gate: gate.view, value: value.view, into: gate)
      return gate
    }
    try context.clamp(gate.view, low: -.infinity, high: limit, into: gate)
    try context.clamp(value.view, low: -limit, high: limit, into: value)
    try context.activation(activation, gate.view, into: gate)
    try context.multiply(gate.view, value.view, into: value)
    try context.add(gate.view, value.view, into: gate)
    return gate
  }
}

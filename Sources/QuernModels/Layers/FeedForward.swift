import Quern

/// `down(act(gate x) up x)`, or without a gate `down(act(up x))`.
struct FeedForward: Sendable {
  let gateUp, down: Linear
  let gate: Gate?

  /// What `down` is to be applied to, in `up`, whose rows are at least as wide as the outputs of `gateUp`.
  func inner(_ x: TensorView, in up: MutableTensor, _ context: Context) throws(QuernError) -> MutableTensor {
    let inner = up.columns(0..<gateUp.outputs)
    try gateUp(x, into: inner, context)
    return try gate?(inner, context) ?? inner
  }
}

/// What joins the halves of a gated feed-forward part.
struct Gate: Sendable, Equatable {
  var activation: Activation
  /// Of gpt-oss: the gate is at most this, the value within it, and the value has 1 added.
  var limit: Float?

  /// `act(gate) value` of rows `[gate | value]`, in place of the gates.
  func callAsFunction(_ x: MutableTensor, _ context: Context) throws(QuernError) -> MutableTensor {
    let width = x.shape[1] / 2
    let (gate, value) = (x.columns(0..<width), x.columns(width..<2 * width))
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

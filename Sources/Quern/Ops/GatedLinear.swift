import CKernels

/// The weights of a gated product: `activation(x gateᵀ + gateBias) (x valueᵀ + valueBias)`.
public struct GatedWeights: Sendable {
  /// `[outputs, inputs]` each, from ``Context/pack(_:)-(TensorView)`` or its siblings. They are read fastest where both are stored alike.
  public let gate, value: PackedMatrix
  /// `[outputs]` each.
  public let gateBias, valueBias: Tensor?

  public init(gate: PackedMatrix, value: PackedMatrix, gateBias: Tensor? = nil, valueBias: Tensor? = nil) {
    (self.gate, self.value, self.gateBias, self.valueBias) = (gate, value, gateBias, valueBias)
  }

  public var outputs: Int { gate.outputs }
  public var inputs: Int { gate.inputs }
}

extension Backend {
  public func gatedLinear(
    _ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor
  ) {
    if !gatedLinearByLinear(x, weights: weights, activation: activation, into: y) {
      handOn(.gatedLinear).gatedLinear(x, weights: weights, activation: activation, into: y)
    }
  }

  /// ``gatedLinear(_:weights:activation:into:)`` as two products and a gate, some rows at a time; false, with nothing written, where
  /// memory for them cannot be had.
  func gatedLinearByLinear(
    _ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor
  ) -> Bool {
    let (m, n, most) = (y.shape[0], y.shape[1], 256)
    let (size, overflows) = (2 * min(m, most)).multipliedReportingOverflow(by: n)
    guard size > 0 else { return !overflows }
    guard !overflows, let scratch = ck_scratch(Int(CK_SCRATCH_CALLER), size) else { return false }
    for first in stride(from: 0, to: m, by: most) {
      let rows = first..<min(first + most, m)
      func product(_ index: Int, _ matrix: PackedMatrix, _ bias: Tensor?) -> TensorView {
        let result = MutableTensor(
          unsafeBase: scratch + index * rows.count * n, shape: Shape(rows.count, n), strides: Shape(n, 1))
        linear(x.rows(rows), weights: matrix, epilogue: Epilogue(bias: bias), residual: nil, into: result)
        return result.view
      }
      gated(
        activation, gate: product(0, weights.gate, weights.gateBias),
        value: product(1, weights.value, weights.valueBias), into: y.rows(rows))
    }
    return true
  }
}

extension Context {
  /// `y = activation(x Gᵀ + g) (x Vᵀ + v)`, element by element: the first half of a gated feed-forward part (Shazeer, arXiv
  /// 2002.05202). SwiGLU has SiLU for its activation, GEGLU one of the GELUs, ReGLU ReLU, GLU the sigmoid.
  ///
  /// The same as two ``linear(_:weights:epilogue:residual:into:)`` and ``gated(_:gate:value:into:)``, but on `multithreaded` x is
  /// read, and rounded to codes where the weights are quantised, once, and neither product leaves the cache: there is no tensor of twice the
  /// outputs.
  ///
  /// With `a` and `b` the two factors and e(a), e(b) their errors, those of `linear` and the first one's through the activation, y is
  /// within `|a| e(b) + |b| e(a) + e(a) e(b)` and one rounding of the exact value. On `multithreaded`, thread counts do not change the bits.
  ///
  /// - Parameters:
  ///   - x: `[..., inputs]`, unit stride along the last axis.
  ///   - weights: two matrices of one shape, each stored in any way that `linear` takes.
  ///   - y: `[..., outputs]`; overlaps neither x nor the weights.
  public func gatedLinear(
    _ x: TensorView, weights: GatedWeights, activation: Activation, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .gatedLinear)
    let (gate, value) = (weights.gate, weights.value)
    try check.require(
      gate.outputs == value.outputs && gate.inputs == value.inputs,
      "the gate's weights are [\(gate.outputs), \(gate.inputs)], the value's [\(value.outputs), \(value.inputs)]")
    let (x, y, _) = try check.product(
      x, inputs: gate.inputs, outputs: gate.outputs, bias: weights.gateBias, residual: nil, into: y)
    try check.vector(weights.valueBias, "the value's bias", count: value.outputs)
    let runner = runner(.gatedLinear, x.types, gate.storage.types, value.storage.types, y.types)
    try check.readable(gate, by: runner)
    try check.readable(value, by: runner)
    try run(runner) { $0.gatedLinear(x, weights: weights, activation: activation, into: y) }
  }
}

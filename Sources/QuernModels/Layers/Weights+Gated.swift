import Quern

/// Gated feed-forward parts.
extension Weights {
  /// A feed-forward part, gated or not; `gateUp` has the gate's outputs before the others.
  func feedForward(
    gateUp: LinearLayer, down: LinearLayer, isGated: Bool, activation: Activation, as type: DataType?, hasBias: Bool,
    context: Context
  ) throws -> FeedForward {
    FeedForward(
      first: isGated
        ? .gated(try gatedLinear(gateUp, as: type, hasBias: hasBias, activation: activation, context: context))
        : .plain(try linear(gateUp, as: type, hasBias: hasBias, activation: activation, context: context)),
      down: try linear(down, as: type, hasBias: hasBias, context: context))
  }

  /// The first product of a gated part: two tensors, or one that has the outputs of both.
  package func gatedLinear(
    _ layer: LinearLayer, as type: DataType?, hasBias: Bool, isGateFirst: Bool = true, activation: Activation,
    context: Context
  ) throws -> GatedLinear {
    let sides =
      layer.parts.count == 1
      ? try halves(layer, as: type, hasBias: hasBias, context: context)
      : try layer.parts.map { part in
        var side = layer
        side.parts = [part]
        return try linear(side, as: type, hasBias: hasBias, context: context)
      }
    guard sides.count == 2, let first = sides[0].whole, let last = sides[1].whole else {
      let both = Linear(parts: sides.flatMap(\.parts))
      return GatedLinear(matrices: .stacked(both, isGateFirst: isGateFirst), activation: activation)
    }
    let (gate, value) = isGateFirst ? (first, last) : (last, first)
    let weights = GatedWeights(
      gate: gate.weights, value: value.weights, gateBias: gate.bias, valueBias: value.bias)
    return GatedLinear(matrices: .fused(weights), activation: activation)
  }

  /// Whether ``gatedLinear(_:as:hasBias:isGateFirst:activation:context:)`` has one row of memory for both products of a layer
  /// without adapters.
  func isStacked(_ layer: LinearLayer) throws(ModelError) -> Bool {
    for part in layer.parts where try storage(part) == .factors { return true }
    return false
  }

  /// The first and the last outputs of a layer of one tensor; all of them where factors stand for it.
  private func halves(
    _ layer: LinearLayer, as type: DataType?, hasBias: Bool, context: Context
  ) throws -> [Linear] {
    guard let matrix = try whole(layer, as: type, context: context) else {
      return [try linear(layer, as: type, hasBias: hasBias, context: context)]
    }
    let (bias, half) = (try hasBias ? bias(layer) : nil, layer.outputs / 2)
    return try [0..<half, half..<layer.outputs].map { rows in
      Linear(parts: [
        Linear.Part(
          matrix: .whole(try matrix.packed(rows, context)), epilogue: Epilogue(bias: bias?.rows(rows)))
      ])
    }
  }

  /// A layer of one tensor, with the adapters that are merged into it; `nil` where factors stand for it.
  private func whole(_ layer: LinearLayer, as type: DataType?, context: Context) throws -> Matrix? {
    guard try !isStacked(layer) else { return nil }
    guard let adapters, let update = try adapters.update(layer) else { return try matrix(layer, as: type) }
    return adapters.merges ? .plain(try merged(layer, update, as: type, context: context).view) : nil
  }
}

extension Linear {
  /// The weights and bias of a layer that is one product.
  fileprivate var whole: (weights: PackedMatrix, bias: Tensor?)? {
    guard parts.count == 1, case .whole(let weights) = parts[0].matrix else { return nil }
    return (weights, parts[0].epilogue.bias)
  }
}

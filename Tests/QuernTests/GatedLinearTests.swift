import Quern
import QuernTesting
import Testing

/// `gatedLinear` beside the operations it stands for.
@Suite struct GatedLinearTests {
  private static func values(_ shape: Shape, seed: Int) throws -> Tensor {
    try Tensor((0..<shape.count).map { Float(($0 * 37 + seed * 11) % 101 - 50) / 40 }, shape: shape)
  }

  private enum Storage: CaseIterable {
    case f32, bf16, q8, q4K, int8

    func pack(_ weights: Tensor, _ context: Context) throws -> PackedMatrix {
      switch self {
      case .f32: try context.pack(weights.view)
      case .bf16: try context.pack(weights.converted(to: .bf16).view)
      case .q8: try context.pack(QuantizedMatrix(quantizing: weights.view, as: .q8))
      case .q4K: try context.pack(QuantizedMatrix(quantizing: weights.view, as: .q4K))
      case .int8: try context.packInt8(weights.view)
      }
    }
  }

  /// Every pair of storages, those of two kinds included, which are composed.
  @Test(arguments: [1, 5, 40, 300]) func hasTheBitsOfTwoProductsAndAGate(_ m: Int) throws {
    let (n, k) = (70, 512)
    let x = try Self.values(Shape(m, k), seed: 1)
    let (g, v) = (try Self.values(Shape(n, k), seed: 2), try Self.values(Shape(n, k), seed: 3))
    let (gateBias, valueBias) = (try Self.values(Shape(n), seed: 4), try Self.values(Shape(n), seed: 5))
    let context = try Context(MultithreadedBackend.name)
    for gateStorage in Storage.allCases {
      for valueStorage in Storage.allCases {
        let (gate, value) = (try gateStorage.pack(g, context), try valueStorage.pack(v, context))
        let (first, second) = (try MutableTensor(zeros: Shape(m, n)), try MutableTensor(zeros: Shape(m, n)))
        try context.linear(x.view, weights: gate, epilogue: Epilogue(bias: gateBias), into: first)
        try context.linear(x.view, weights: value, epilogue: Epilogue(bias: valueBias), into: second)
        try context.gated(.silu, gate: first.view, value: second.view, into: first)
        let result = try MutableTensor(zeros: Shape(m, n))
        try context.gatedLinear(
          x.view, weights: GatedWeights(gate: gate, value: value, gateBias: gateBias, valueBias: valueBias),
          activation: .silu, into: result)
        #expect(result.view.elements.map(\.bitPattern) == first.view.elements.map(\.bitPattern))
      }
    }
  }

  /// Weights that another backend packed, row by row, are composed too.
  @Test func readsWeightsOfOtherLayouts() throws {
    let x = try Self.values(Shape(3, 40), seed: 1)
    let (g, v) = (try Self.values(Shape(9, 40), seed: 2), try Self.values(Shape(9, 40), seed: 3))
    let (own, reference) = (try Context(MultithreadedBackend.name), Context(backend: ReferenceBackend()))
    let weights = GatedWeights(gate: try reference.pack(g.view), value: try own.pack(v.view))
    let (y, expected) = (try MutableTensor(zeros: Shape(3, 9)), try MutableTensor(zeros: Shape(3, 9)))
    try own.gatedLinear(x.view, weights: weights, activation: .gelu, into: y)
    try reference.gatedLinear(x.view, weights: weights, activation: .gelu, into: expected)
    for (a, b) in zip(y.view.elements, expected.view.elements) { #expect(abs(a - b) <= 1e-4 * max(1, abs(b))) }
  }

  @Test func refusesOperandsThatDoNotFit() throws {
    let context = Context(backend: ReferenceBackend())
    func packed(_ n: Int, _ k: Int) throws -> PackedMatrix {
      try context.pack(MutableTensor(zeros: Shape(n, k)).view)
    }
    let (x, y) = (try MutableTensor(zeros: Shape(2, 7)), try MutableTensor(zeros: Shape(2, 5)))
    let (fitting, bias) = (try packed(5, 7), try Self.values(Shape(4), seed: 0))
    func run(_ weights: GatedWeights, _ x: MutableTensor, into y: MutableTensor) throws {
      try context.gatedLinear(x.view, weights: weights, activation: .silu, into: y)
    }
    let weights = GatedWeights(gate: fitting, value: fitting)
    refuses(.gatedLinear, "the gate's weights are [5, 7], the value's [4, 7]") {
      try run(GatedWeights(gate: fitting, value: try packed(4, 7)), x, into: y)
    }
    refuses(.gatedLinear, "the gate's weights are [5, 7], the value's [5, 6]") {
      try run(GatedWeights(gate: fitting, value: try packed(5, 6)), x, into: y)
    }
    refuses(.gatedLinear, "x [2, 5] does not fit weights [5, 7]") { try run(weights, y, into: y) }
    refuses(.gatedLinear, "y has shape [2, 7]") { try run(weights, x, into: x) }
    refuses(.gatedLinear, "x overlaps the destination") { try run(weights, x, into: x.columns(0..<5)) }
    refuses(.gatedLinear, "bias has shape [4]") {
      try run(GatedWeights(gate: fitting, value: fitting, gateBias: bias), x, into: y)
    }
    refuses(.gatedLinear, "the value's bias has shape [4]") {
      try run(GatedWeights(gate: fitting, value: fitting, valueBias: bias), x, into: y)
    }
  }
}

import Quern

/// `gatedLinear`: two products of one x, the first activated and multiplied by the second.
public struct GatedLinearShape: Sendable, CustomStringConvertible {
  public var m, n, k: Int
  public var activation = Activation.silu
  public var hasBias = false
  /// How the weights are stored; `nil` for the operands' data type.
  public var quantization: QuantizedFormat?
  /// Weights and x rounded to int8.
  public var isInt8 = false

  public init(
    m: Int, n: Int, k: Int, activation: Activation = .silu, bias: Bool = false, quantization: QuantizedFormat? = nil,
    int8: Bool = false
  ) {
    (self.m, self.n, self.k, self.activation, hasBias) = (m, n, k, activation, bias)
    (self.quantization, isInt8) = (quantization, int8)
  }

  public var description: String {
    "m=\(m) n=\(n) k=\(k) \(activation.rawValue)" + (hasBias ? " bias" : "")
      + (quantization.map { " \($0.rawValue)" } ?? (isInt8 ? " int8" : ""))
  }

  /// One of the two products.
  var product: LinearShape {
    LinearShape(m: m, n: n, k: k, bias: hasBias, quantization: quantization, int8: isInt8)
  }
}

extension Workload {
  public static func gatedLinear(
    _ shape: GatedLinearShape, name: String? = nil, exchanged: Bool = false, forgetsBias: Bool = false,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.m, shape.k))
    let gate = try LinearOperands(shape.product, operands)
    var value = try LinearOperands(shape.product, operands)
    if forgetsBias { value.bias = nil }
    return gatedLinear(
      shape, name, operands, x: x.view, gate: exchanged ? value : gate, value: exchanged ? gate : value,
      output: try operands.make(Shape(shape.m, shape.n)))
  }

  private static func gatedLinear(
    _ shape: GatedLinearShape, _ name: String?, _ operands: Operands, x: TensorView, gate: LinearOperands,
    value: LinearOperands, output: MutableTensor
  ) -> Workload {
    let (m, n, k, activation) = (shape.m, shape.n, shape.k, shape.activation)
    let product = shape.product
    func weights(_ context: Context) throws -> GatedWeights {
      GatedWeights(
        gate: try gate.packed(context), value: try value.packed(context), gateBias: gate.bias, valueBias: value.bias)
    }
    let workload = Workload(
      .gatedLinear, name ?? "\(shape)", kernels: product.kernels, flops: 4 * Double(m) * Double(n) * Double(k),
      bytes: 4 * Double(m * k + m * n) + 2 * product.weightBytes,
      // The product of the sums is exact where both have 12 bits.
      isExactOnIntegers: shape.quantization == nil && !shape.isInt8 && k <= 250
        && (activation == .identity || activation == .relu),
      operands: operands, output: output,
      prepare: { context in
        let weights = try weights(context)
        return { y in try context.gatedLinear(x, weights: weights, activation: activation, into: y) }
      },
      bound: { bounds, expected in
        try bounds.gatedLinear(
          x, weights: try weights(Context(backend: ReferenceBackend())), activation: activation, expected: expected)
      })
    workload.sampling = Sampling(rows: m, work: 2 * Double(n) * Double(k)) { rows in
      var part = shape
      part.m = rows.count
      return gatedLinear(
        part, name, operands, x: try gather(rows, of: x), gate: gate, value: value,
        output: try MutableTensor(zeros: Shape(rows.count, n), dataType: operands.dataType))
    }
    return workload
  }
}

extension Suite {
  static let gatedLinear = Suite(
    tests: gatedLinearTests, benchmarks: gatedLinearBenchmarks,
    mutants: [
      Mutant(.gatedLinear, "the matrices exchanged") {
        try .gatedLinear(GatedLinearShape(m: 3, n: 17, k: 33), operands: $0)
      } wrong: {
        try .gatedLinear(GatedLinearShape(m: 3, n: 17, k: 33), exchanged: true, operands: $0)
      },
      Mutant(.gatedLinear, "no bias of the value") {
        try .gatedLinear(GatedLinearShape(m: 3, n: 17, k: 33, bias: true), operands: $0)
      } wrong: {
        try .gatedLinear(GatedLinearShape(m: 3, n: 17, k: 33, bias: true), forgetsBias: true, operands: $0)
      },
    ])

  private static let gatedLinearTests: [TestCases.Entry] = {
    var shapes: [GatedLinearShape] = []
    for (index, m) in [0, 1, 2, 5, 6, 7, 13, 16, 17, 33].enumerated() {
      for n in [0, 1, 15, 16, 33, 65] {
        shapes.append(
          GatedLinearShape(
            m: m, n: n, k: (m * 7 + n) % 37, activation: Activation.allCases[index % Activation.allCases.count],
            bias: n % 2 == 1))
      }
    }
    for activation in Activation.allCases {
      shapes.append(GatedLinearShape(m: 19, n: 45, k: 64, activation: activation, bias: true))
    }
    shapes += [
      GatedLinearShape(m: 1, n: 1023, k: 511), GatedLinearShape(m: 150, n: 200, k: 700, bias: true),
      GatedLinearShape(m: 301, n: 67, k: 129, activation: .gelu), GatedLinearShape(m: 3, n: 1100, k: 40),
      GatedLinearShape(m: 3, n: 40, k: 8200, bias: true),
    ]
    for format in QuantizedFormat.allCases {
      shapes += [
        GatedLinearShape(m: 1, n: 130, k: 9 * 256, quantization: format),
        GatedLinearShape(m: 5, n: 33, k: format.blockSize, activation: .geluTanh, bias: true, quantization: format),
        GatedLinearShape(m: 70, n: 65, k: 256, bias: true, quantization: format),
        GatedLinearShape(m: 3, n: 50, k: 0, bias: true, quantization: format),
      ]
    }
    shapes += [
      GatedLinearShape(m: 1, n: 31, k: 100, int8: true), GatedLinearShape(m: 35, n: 67, k: 300, bias: true, int8: true),
      GatedLinearShape(m: 70, n: 130, k: 64, activation: .gelu, int8: true),
    ]
    return shapes.map { shape in TestCases.Entry(.gatedLinear) { try .gatedLinear(shape, operands: $0) } }
  }()

  private static let gatedLinearBenchmarks: [BenchmarkCases.Entry] = {
    func llama(_ m: Int, _ format: QuantizedFormat? = nil, int8: Bool = false) -> GatedLinearShape {
      GatedLinearShape(m: m, n: 8192, k: 2048, quantization: format, int8: int8)
    }
    let rows: [(String, GatedLinearShape, DataType)] = [
      ("Llama-3.2-1B SwiGLU 1", llama(1), .f32), ("Llama-3.2-1B SwiGLU 1", llama(1), .bf16),
      ("Llama-3.2-1B SwiGLU 1", llama(1, .q8), .f32), ("Llama-3.2-1B SwiGLU 1", llama(1, .q4), .f32),
      ("Llama-3.2-1B SwiGLU 1", llama(1, .q4K), .f32), ("Llama-3.2-1B SwiGLU 128", llama(128), .f32),
      ("Llama-3.2-1B SwiGLU 128", llama(128), .bf16), ("Llama-3.2-1B SwiGLU 128", llama(128, .q4), .f32),
      ("Llama-3.2-1B SwiGLU 128", llama(128, int8: true), .f32),
      ("SD-1.5 GEGLU 4096", GatedLinearShape(m: 4096, n: 1280, k: 320, activation: .gelu, bias: true), .f32),
    ]
    return rows.map { model, shape, dataType in
      BenchmarkCases.Entry(
        .gatedLinear, "\(model): \(shape)" + (dataType == .f32 ? "" : " \(dataType.rawValue)"),
        kernels: shape.product.kernels, dataType: dataType
      ) {
        try .gatedLinear(shape, name: $0, operands: $1)
      }
    }
  }()
}

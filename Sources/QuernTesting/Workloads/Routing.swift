import Quern

extension Workload {
  /// The result is values and, as floats beside them, indices; `onlyValues` leaves the copying out for benchmarks.
  public static func topK(
    _ shape: RowShape, k: Int, name: String? = nil, onlyValues: Bool = false, forgetsTies: Bool = false,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    let values = try operands.make(Shape(shape.rows, k))
    let output = onlyValues ? values : try operands.make(Shape(shape.rows, 2 * k), as: .f32)
    var indices = [Int32](repeating: 0, count: shape.rows * k)
    return Workload(
      .topK, name ?? "\(shape) k=\(k)", kernels: ["f32_top_k"], flops: shape.count, bytes: 4 * shape.count,
      isExactOnIntegers: true, operands: operands, output: output,
      prepare: { context in
        { y in
          if onlyValues { return try context.topK(x.view, values: y, indices: &indices) }
          try context.topK(x.view, values: values, indices: &indices)
          for i in 0..<shape.rows {
            for j in 0..<k {
              y.store(values.view.load(i * values.strides[0] + j), at: i * y.strides[0] + j)
              let index = forgetsTies ? lastEqual(x.view, row: i, indices[i * k + j]) : indices[i * k + j]
              y.store(Float(index), at: i * y.strides[0] + k + j)
            }
          }
        }
      },
      bound: { $0.exact($1) })
  }

  /// The highest index in a row whose element equals that at `index`: what a scan that keeps later ties finds.
  private static func lastEqual(_ x: TensorView, row: Int, _ index: Int32) -> Int32 {
    let value = x.load(row * x.strides[0] + Int(index))
    return Int32((0..<x.shape[1]).last { x.load(row * x.strides[0] + $0) == value } ?? Int(index))
  }

  public static func scatterAdd(
    _ shape: RowShape, destinations: Int, weighted: Bool, name: String? = nil, forgetsWeights: Bool = false,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    let weights = weighted ? try operands.vector(shape.rows) : nil
    let ids = operands.ids(shape.rows, below: destinations)
    let output = try operands.make(Shape(destinations, shape.n))
    return Workload(
      .scatterAdd, name ?? "\(shape) destinations=\(destinations)" + (weighted ? " weighted" : ""),
      kernels: ["f32_scatter_add"], flops: 2 * shape.count,
      bytes: 4 * (shape.count + 2 * Double(destinations) * Double(shape.n)), isExactOnIntegers: true,
      operands: operands, output: output,
      prepare: { context in
        { y in try context.scatterAdd(x.view, ids: ids, weights: forgetsWeights ? nil : weights?.view, into: y) }
      },
      bound: { bounds, _ in bounds.scatterAdd(x.view, ids: ids, weights: weights?.view, held: output.view) })
  }

  public static func expert(
    _ lengths: [Int], n: Int, k: Int, finishes: Bool = false, activation: Activation = .identity, name: String? = nil,
    swapsExperts: Bool = false, operands: Operands
  ) throws -> Workload {
    let segments = try Segments(lengths: lengths)
    let (m, experts) = (segments.total, lengths.count)
    let parts = try ProductOperands(
      m, inputs: k, outputs: n, finishes: finishes, activation: activation, operands: operands)
    let weights = try (0..<experts).map { _ in try operands.make(Shape(n, k)).view }
    let used = swapsExperts ? weights.reversed() : weights
    var epilogue = parts.epilogue
    if finishes, experts % 2 == 0 {
      epilogue.bias = try Tensor(operands.vector(experts * n).elements, shape: Shape(experts, n))
    }
    let finish = epilogue
    return Workload(
      .expertLinear,
      name ?? "experts=\(experts) rows=\(m) n=\(n) k=\(k)" + (finishes ? " \(activation.rawValue)" : ""),
      kernels: ["f32_gemm_block", "f32_gemm_pack_a", "f32_gemm_pack_b"], flops: 2 * Double(m) * Double(n * k),
      bytes: 4 * Double(m * k + experts * n * k + m * n), isExactOnIntegers: activation == .identity,
      operands: operands, output: parts.output,
      prepare: { context in
        let packed = try used.map { try context.pack($0) }
        return { y in
          try context.expertLinear(
            parts.x, segments: segments, weights: packed, epilogue: finish, residual: parts.residual, into: y)
        }
      },
      bound: { bounds, expected in
        let reference = Context(backend: ReferenceBackend())
        return bounds.expertLinear(
          parts.x, segments: segments, weights: try weights.map { try reference.pack($0) }, epilogue: finish,
          residual: parts.residual, expected: expected)
      })
  }
}

extension Suite {
  static let routing = Suite(tests: routingTests, benchmarks: routingBenchmarks, mutants: routingMutants)

  private static let routingTests: [TestCases.Entry] =
    [(0, 5, 2), (3, 1, 1), (3, 7, 0), (5, 8, 2), (9, 60, 6), (7, 128, 8), (3, 133, 133), (2, 1031, 50), (40, 67, 1)].map
  {
    rows, n, k in
    TestCases.Entry(.topK) { try .topK(RowShape(rows, n), k: k, operands: $0) }
  }
    + [(0, 5, 3), (1, 1, 1), (50, 33, 7), (300, 61, 20), (40, 5, 1), (7, 700, 900), (3, 0, 2)].flatMap { rows, n, d in
      [false, true].map { weighted in
        TestCases.Entry(.scatterAdd) {
          try .scatterAdd(RowShape(rows, n), destinations: d, weighted: weighted, operands: $0)
        }
      }
    }
    + [
      ([5], 17, 9), ([4, 0, 13, 1], 33, 50), ([0, 0], 4, 3), ([1, 1, 1, 1, 1], 16, 7), ([40, 3, 0], 70, 450),
      ([3, 2], 5, 0),
    ]
    .flatMap { (lengths: [Int], n: Int, k: Int) in
      [Activation.identity, .silu].map { activation in
        TestCases.Entry(.expertLinear) {
          try .expert(
            lengths, n: n, k: k, finishes: activation != .identity || n > 20, activation: activation, operands: $0)
        }
      }
    }

  private static let routingBenchmarks: [BenchmarkCases.Entry] =
    [(1, 151936, 50), (512, 128, 8)].map { rows, n, k in
      let model = n > 1000 ? "Qwen3-0.6B logits" : "router"
      return BenchmarkCases.Entry(.topK, "\(model): rows=\(rows) n=\(n) k=\(k)", kernels: ["f32_top_k"]) {
        try .topK(RowShape(rows, n), k: k, name: $0, onlyValues: true, operands: $1)
      }
    } + [
      BenchmarkCases.Entry(
        .scatterAdd, "experts to tokens: rows=2048 n=2048 destinations=256", kernels: ["f32_scatter_add"]
      ) { try .scatterAdd(RowShape(2048, 2048), destinations: 256, weighted: true, name: $0, operands: $1) },
      BenchmarkCases.Entry(
        .expertLinear, "experts: 16x16 rows n=768 k=1024", kernels: ["f32_gemm_block", "f32_gemm_pack_a"]
      ) { try .expert([Int](repeating: 16, count: 16), n: 768, k: 1024, name: $0, operands: $1) },
      BenchmarkCases.Entry(
        .expertLinear, "Qwen3-MoE gate+up: 16x32 rows n=1536 k=2048", kernels: ["f32_gemm_block", "f32_gemm_pack_a"]
      ) { try .expert([Int](repeating: 32, count: 16), n: 1536, k: 2048, name: $0, operands: $1) },
    ]

  private static let routingMutants: [Mutant] = [
    Mutant(.topK, "takes the later of equal elements") { _ in
      try .topK(RowShape(4, 40), k: 5, operands: Operands(seed: 3, fill: .integers))
    } wrong: { _ in
      try .topK(RowShape(4, 40), k: 5, forgetsTies: true, operands: Operands(seed: 3, fill: .integers))
    },
    Mutant(.scatterAdd, "forgets the weights") {
      try .scatterAdd(RowShape(20, 9), destinations: 4, weighted: true, operands: $0)
    } wrong: {
      try .scatterAdd(RowShape(20, 9), destinations: 4, weighted: true, forgetsWeights: true, operands: $0)
    },
    Mutant(.expertLinear, "takes another expert's weights") {
      try .expert([3, 0, 4], n: 9, k: 8, operands: $0)
    } wrong: {
      try .expert([3, 0, 4], n: 9, k: 8, swapsExperts: true, operands: $0)
    },
  ]
}

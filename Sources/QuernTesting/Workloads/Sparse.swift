import Quern

/// What products with structure share: sizes, the epilogue, and the operands it brings.
struct ProductOperands {
  let x: TensorView
  let epilogue: Epilogue
  let residual: TensorView?
  let output: MutableTensor

  /// Operands for x `[m, inputs]` and y `[m, outputs]`; an epilogue of everything, or of nothing.
  init(_ m: Int, inputs: Int, outputs: Int, finishes: Bool, activation: Activation, operands: Operands) throws {
    x = try operands.make(Shape(m, inputs)).view
    epilogue =
      finishes ? Epilogue(scale: 0.5, bias: try operands.vector(outputs), activation: activation) : Epilogue.none
    residual = finishes ? try operands.make(Shape(m, outputs)).view : nil
    output = try operands.make(Shape(m, outputs))
  }
}

/// Weights as block-sparse ones: of each `of` blocks about `kept` are stored.
public struct BlockSparseShape: Sendable, CustomStringConvertible {
  public var m, n, k, blockOutputs, blockInputs, kept, of: Int
  public var finishes: Bool
  public var activation: Activation

  public init(
    m: Int, n: Int, k: Int, block: (Int, Int), kept: Int = 1, of: Int = 2, finishes: Bool = false,
    activation: Activation = .identity
  ) {
    (self.m, self.n, self.k, (blockOutputs, blockInputs), self.kept, self.of) = (m, n, k, block, kept, of)
    (self.finishes, self.activation) = (finishes, activation)
  }

  public var description: String {
    "m=\(m) n=\(n) k=\(k) \(blockOutputs)x\(blockInputs) \(kept) of \(of)" + (finishes ? " \(activation.rawValue)" : "")
  }
}

extension Workload {
  public static func blockSparse(
    _ shape: BlockSparseShape, name: String? = nil, forgetsLastBlock: Bool = false, operands: Operands
  ) throws -> Workload {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    let parts = try ProductOperands(
      m, inputs: k, outputs: n, finishes: shape.finishes, activation: shape.activation, operands: operands)
    let dense = try operands.make(Shape(n, k), as: .f32)
    let across = (k + shape.blockInputs - 1) / shape.blockInputs
    let dice = operands.ids(across * ((n + shape.blockOutputs - 1) / shape.blockOutputs), below: shape.of)
    for i in 0..<n {
      for j in 0..<k where Int(dice[i / shape.blockOutputs * across + j / shape.blockInputs]) >= shape.kept {
        dense.store(0, at: dense.offset(of: i * k + j))
      }
    }
    var matrix = try BlockSparseMatrix(dense.view, blockOutputs: shape.blockOutputs, blockInputs: shape.blockInputs)
    if forgetsLastBlock, var last = matrix.offsets.last, last > 0 {
      last -= 1
      matrix = try BlockSparseMatrix(
        outputs: n, inputs: k, blockOutputs: shape.blockOutputs, blockInputs: shape.blockInputs,
        offsets: matrix.offsets.map { min($0, last) }, columns: [Int32](matrix.columns.dropLast()),
        values: matrix.values.rows(0..<Int(last)))
    }
    let (weights, stored) = (matrix, matrix.values.shape.count)
    return Workload(
      .blockSparseLinear, name ?? "\(shape)", kernels: ["f32_sparse_block"], flops: 2 * Double(m) * Double(stored),
      bytes: 4 * Double(m * k + stored + m * n), isExactOnIntegers: shape.activation == .identity, operands: operands,
      output: parts.output,
      prepare: { context in
        let packed = try context.pack(weights)
        return { y in
          try context.blockSparseLinear(
            parts.x, weights: packed, epilogue: parts.epilogue, residual: parts.residual, into: y)
        }
      },
      bound: {
        $0.blockSparseLinear(
          parts.x, weights: try Context(backend: ReferenceBackend()).pack(weights), epilogue: parts.epilogue,
          residual: parts.residual, expected: $1)
      })
  }

  public static func grouped(
    _ groups: Int, m: Int, n: Int, k: Int, finishes: Bool = false, activation: Activation = .identity,
    name: String? = nil, swapsGroups: Bool = false, operands: Operands
  ) throws -> Workload {
    let parts = try ProductOperands(
      m, inputs: groups * k, outputs: groups * n, finishes: finishes, activation: activation, operands: operands)
    let weights = try (0..<groups).map { _ in try operands.make(Shape(n, k)).view }
    let used = swapsGroups ? weights.reversed() : weights
    return Workload(
      .groupedLinear, name ?? "groups=\(groups) m=\(m) n=\(n) k=\(k)" + (finishes ? " \(activation.rawValue)" : ""),
      kernels: ["f32_gemm_block", "f32_gemm_pack_a", "f32_gemm_pack_b"],
      flops: 2 * Double(groups * m) * Double(n * k), bytes: 4 * Double(groups * (m * k + n * k + m * n)),
      isExactOnIntegers: activation == .identity, operands: operands, output: parts.output,
      prepare: { context in
        let packed = try used.map { try context.pack($0) }
        return { y in
          try context.groupedLinear(
            parts.x, weights: packed, epilogue: parts.epilogue, residual: parts.residual, into: y)
        }
      },
      bound: { bounds, expected in
        let reference = Context(backend: ReferenceBackend())
        return bounds.groupedLinear(
          parts.x, weights: try weights.map { try reference.pack($0) }, epilogue: parts.epilogue,
          residual: parts.residual, expected: expected)
      })
  }

  public static func lowRank(
    m: Int, n: Int, k: Int, rank: Int, hasBase: Bool = true, scale: Float = 0.5, finishes: Bool = false,
    activation: Activation = .identity, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let parts = try ProductOperands(
      m, inputs: k, outputs: n, finishes: finishes, activation: activation, operands: operands)
    let (weights, down) = (try operands.make(Shape(n, k)).view, try operands.make(Shape(rank, k)).view)
    let up = try operands.make(Shape(n, rank)).view
    let base = hasBase ? n * k : 0
    func packed(_ context: Context) throws -> (PackedMatrix?, PackedMatrix, PackedMatrix) {
      (try hasBase ? context.pack(weights) : nil, try context.pack(down), try context.pack(up))
    }
    let shape = "m=\(m) n=\(n) k=\(k) rank=\(rank)" + (hasBase ? "" : " alone")
    return Workload(
      .lowRankLinear, name ?? shape + (finishes ? " \(activation.rawValue)" : ""),
      kernels: ["f32_gemm_block", "f32_gemm_pack_a", "f32_gemm_pack_b", "f32_epilogue"],
      flops: 2 * Double(m) * Double(base + rank * (n + k)), bytes: 4 * Double(m * (n + k) + base + rank * (n + k)),
      isExactOnIntegers: activation == .identity, operands: operands, output: parts.output,
      prepare: { context in
        let packed = try packed(context)
        return { y in
          try context.lowRankLinear(
            parts.x, weights: packed.0, down: packed.1, up: packed.2, scale: scale, epilogue: parts.epilogue,
            residual: parts.residual, into: y)
        }
      },
      bound: { bounds, expected in
        let packed = try packed(Context(backend: ReferenceBackend()))
        return bounds.lowRankLinear(
          parts.x, weights: packed.0, down: packed.1, up: packed.2, scale: scale, epilogue: parts.epilogue,
          residual: parts.residual, expected: expected)
      })
  }
}

extension Suite {
  static let sparse = Suite(tests: sparseTests, benchmarks: sparseBenchmarks, mutants: sparseMutants)

  private static let sparseTests: [TestCases.Entry] = {
    var shapes: [BlockSparseShape] = []
    for (index, block) in [(1, 1), (3, 4), (8, 7), (16, 16), (17, 5), (24, 16), (32, 32), (16, 32), (40, 9)]
      .enumerated()
    {
      for m in [1, 5, 6, 7, 13, 33] {
        shapes.append(
          BlockSparseShape(
            m: m, n: 1 + (m * 17 + index * 11) % 90, k: 1 + (m * 29 + index * 13) % 120, block: block,
            finishes: (m + index) % 2 == 0))
      }
    }
    shapes += [
      BlockSparseShape(m: 0, n: 5, k: 4, block: (2, 2)), BlockSparseShape(m: 3, n: 0, k: 4, block: (2, 2)),
      BlockSparseShape(m: 3, n: 5, k: 0, block: (2, 2), finishes: true),
      BlockSparseShape(m: 3, n: 40, k: 40, block: (16, 16), kept: 0, finishes: true),
      BlockSparseShape(m: 50, n: 300, k: 512, block: (16, 16), kept: 1, of: 4, finishes: true),
      BlockSparseShape(m: 19, n: 45, k: 64, block: (16, 16), finishes: true, activation: .gelu),
      BlockSparseShape(m: 19, n: 45, k: 64, block: (8, 16), finishes: true, activation: .silu),
    ]
    let blocks = shapes.map { shape in
      TestCases.Entry(.blockSparseLinear) { try .blockSparse(shape, operands: $0) }
    }
    let groups = [
      (1, 5, 17, 9), (4, 13, 16, 24), (3, 33, 40, 450), (7, 1, 3, 5), (2, 0, 3, 4), (2, 3, 4, 0), (3, 6, 0, 2),
    ]
    let grouped = groups.flatMap { groups, m, n, k in
      [Activation.identity, .gelu].map { activation in
        TestCases.Entry(.groupedLinear) {
          try .grouped(
            groups, m: m, n: n, k: k, finishes: activation != .identity || m > 5, activation: activation, operands: $0)
        }
      }
    }
    let ranks = [(1, 5, 7, 1), (13, 33, 64, 8), (40, 50, 450, 16), (300, 20, 9, 4), (3, 4, 5, 0), (0, 4, 5, 2)]
    let lowRank = ranks.flatMap { m, n, k, rank in
      [(Activation.identity, true), (.silu, true), (.silu, false), (.identity, false)].map { activation, hasBase in
        TestCases.Entry(.lowRankLinear) {
          try .lowRank(
            m: m, n: n, k: k, rank: rank, hasBase: hasBase, finishes: activation != .identity || m > 5,
            activation: activation, operands: $0)
        }
      }
    }
    return blocks + grouped + lowRank
  }()

  private static let sparseBenchmarks: [BenchmarkCases.Entry] =
    [(1, 4), (1, 10)].map { kept, of in
      let shape = BlockSparseShape(m: 128, n: 2048, k: 2048, block: (32, 32), kept: kept, of: of)
      return BenchmarkCases.Entry(.blockSparseLinear, "Llama-3.2-1B q: \(shape)", kernels: ["f32_sparse_block"]) {
        try .blockSparse(shape, name: $0, operands: $1)
      }
    } + [
      BenchmarkCases.Entry(
        .groupedLinear, "grouped: groups=8 m=256 n=128 k=128", kernels: ["f32_gemm_block", "f32_gemm_pack_a"]
      ) { try .grouped(8, m: 256, n: 128, k: 128, name: $0, operands: $1) },
      BenchmarkCases.Entry(
        .lowRankLinear, "Qwen3-0.6B q: m=128 n=2048 k=1024 rank=16", kernels: ["f32_gemm_block", "f32_gemm_pack_a"]
      ) { try .lowRank(m: 128, n: 2048, k: 1024, rank: 16, name: $0, operands: $1) },
      BenchmarkCases.Entry(
        .lowRankLinear, "Qwen3-0.6B q: m=8 n=2048 k=1024 rank=16", kernels: ["f32_gemm_block", "f32_gemm_pack_a"]
      ) { try .lowRank(m: 8, n: 2048, k: 1024, rank: 16, name: $0, operands: $1) },
    ]

  private static let sparseMutants: [Mutant] = [
    Mutant(.blockSparseLinear, "forgets the last block") {
      try .blockSparse(BlockSparseShape(m: 7, n: 33, k: 40, block: (8, 8)), operands: $0)
    } wrong: {
      try .blockSparse(BlockSparseShape(m: 7, n: 33, k: 40, block: (8, 8)), forgetsLastBlock: true, operands: $0)
    },
    Mutant(.groupedLinear, "takes another group's weights") {
      try .grouped(3, m: 5, n: 9, k: 8, operands: $0)
    } wrong: {
      try .grouped(3, m: 5, n: 9, k: 8, swapsGroups: true, operands: $0)
    },
    Mutant(.lowRankLinear, "forgets the scale") {
      try .lowRank(m: 5, n: 9, k: 8, rank: 2, operands: $0)
    } wrong: {
      try .lowRank(m: 5, n: 9, k: 8, rank: 2, scale: 1, operands: $0)
    },
    Mutant(.lowRankLinear, "takes a base that is not there") {
      try .lowRank(m: 5, n: 9, k: 8, rank: 2, hasBase: false, operands: $0)
    } wrong: {
      try .lowRank(m: 5, n: 9, k: 8, rank: 2, operands: $0)
    },
  ]
}

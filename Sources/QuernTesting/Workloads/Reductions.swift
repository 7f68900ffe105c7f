import Quern

extension Workload {
  public static func reduce(
    _ reduction: Reduction, _ shape: RowShape, along direction: ReductionDirection, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    let byRow = direction == .rows
    let results = byRow ? shape.rows : shape.n
    return Workload(
      .reduce, name ?? "\(reduction.rawValue) of \(direction.rawValue) \(shape)",
      kernels: [byRow ? "f32_reduce" : "f32_reduce_columns"], flops: shape.count, bytes: 4 * shape.count,
      isExactOnIntegers: reduction != .logSumExp, operands: operands, output: try operands.make(Shape(results)),
      prepare: { context in { y in try context.reduce(reduction, x.view, along: direction, into: y) } },
      bound: { $0.reduce(reduction, x.view, along: direction, expected: $1) })
  }

  public static func cumulativeSum(
    _ shape: RowShape, forgetsTheFirst: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    return Workload(
      .cumulativeSum, name ?? "\(shape)", kernels: ["f32_cumsum"], flops: shape.count, bytes: 8 * shape.count,
      isExactOnIntegers: true, operands: operands, output: try operands.make(x.shape),
      prepare: { context in
        { y in
          let first = forgetsTheFirst ? 1 : 0
          try context.cumulativeSum(x.view.columns(first..<shape.n), into: y.columns(first..<shape.n))
        }
      },
      bound: { bounds, _ in bounds.cumulativeSum(x.view) })
  }

  /// The result is the indices, as floats.
  public static func argmax(
    _ shape: RowShape, least: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    var indices = [Int32](repeating: 0, count: shape.rows)
    return Workload(
      .argmax, name ?? "\(shape)" + (least ? " least" : ""), kernels: ["f32_argmax"], flops: shape.count,
      bytes: 4 * shape.count, isExactOnIntegers: true, operands: operands,
      output: try operands.make(Shape(shape.rows), as: .f32),
      prepare: { context in
        { y in
          try least ? context.argmin(x.view, into: &indices) : context.argmax(x.view, into: &indices)
          for i in 0..<shape.rows { y.store(Float(indices[i]), at: i) }
        }
      },
      bound: { $0.exact($1) })
  }
}

extension Suite {
  static let reductions = Suite(
    tests: reductionTests, benchmarks: reductionBenchmarks,
    mutants: [
      Mutant(.reduce, "the mean for the sum") {
        try .reduce(.sum, RowShape(3, 17), along: .rows, operands: $0)
      } wrong: {
        try .reduce(.mean, RowShape(3, 17), along: .rows, operands: $0)
      },
      Mutant(.reduce, "rows for columns") {
        try .reduce(.logSumExp, RowShape(9, 9), along: .columns, operands: $0)
      } wrong: {
        try .reduce(.logSumExp, RowShape(9, 9), along: .rows, operands: $0)
      },
      Mutant(.cumulativeSum, "forgets the first") {
        try .cumulativeSum(RowShape(3, 17), operands: $0)
      } wrong: {
        try .cumulativeSum(RowShape(3, 17), forgetsTheFirst: true, operands: $0)
      },
      Mutant(.argmax, "the least for the largest") {
        try .argmax(RowShape(3, 17), operands: $0)
      } wrong: {
        try .argmax(RowShape(3, 17), least: true, operands: $0)
      },
    ])

  private static let reductionTests: [TestCases.Entry] =
    [RowShape(0, 5), RowShape(3, 0), RowShape(1, 1), RowShape(37, 133), RowShape(2, 1031)].flatMap { shape in
      Reduction.allCases.flatMap { reduction in
        ReductionDirection.allCases.map { direction in
          TestCases.Entry(.reduce) { try .reduce(reduction, shape, along: direction, operands: $0) }
        }
      } + [TestCases.Entry(.cumulativeSum) { try .cumulativeSum(shape, operands: $0) }]
    }
    + [RowShape(1, 63), RowShape(2, 8200)].map { shape in
      TestCases.Entry(.cumulativeSum) { try .cumulativeSum(shape, operands: $0) }
    }
    + [(0, 5), (1, 1), (5, 8), (37, 133), (2, 1031)].flatMap { rows, n in
      [false, true].map { least in
        TestCases.Entry(.argmax) { try .argmax(RowShape(rows, n), least: least, operands: $0) }
      }
    }

  private static let reductionBenchmarks: [BenchmarkCases.Entry] = [
    BenchmarkCases.Entry(.reduce, "Llama-3.2-1B logSumExp: rows=8 n=128256", kernels: ["f32_reduce"]) {
      try .reduce(.logSumExp, RowShape(8, 128256), along: .rows, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.reduce, "MiniLM mean of rows: rows=4096 n=384", kernels: ["f32_reduce"]) {
      try .reduce(.mean, RowShape(4096, 384), along: .rows, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.reduce, "MiniLM sum of columns: rows=4096 n=384", kernels: ["f32_reduce_columns"]) {
      try .reduce(.sum, RowShape(4096, 384), along: .columns, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.cumulativeSum, "Qwen3-0.6B logits: rows=1 n=151936", kernels: ["f32_cumsum"]) {
      try .cumulativeSum(RowShape(1, 151936), name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.argmax, "Qwen3-0.6B logits: rows=1 n=151936", kernels: ["f32_argmax"]) {
      try .argmax(RowShape(1, 151936), name: $0, operands: $1)
    },
  ]
}

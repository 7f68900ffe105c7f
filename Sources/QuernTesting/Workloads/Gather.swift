import Quern

extension Workload {
  public static func embedding(
    _ shape: RowShape, table rows: Int, accumulate: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let table = try operands.make(Shape(rows, shape.n))
    let ids = operands.ids(shape.rows, below: rows)
    return Workload(
      .embedding, name ?? "\(shape) table=\(rows)" + (accumulate ? " accumulate" : ""), kernels: ["f32_gather"],
      flops: accumulate ? shape.count : 0, bytes: (accumulate ? 12 : 8) * shape.count, isExactOnIntegers: true,
      operands: operands, output: try operands.make(Shape(shape.rows, shape.n)),
      prepare: { context in { y in try context.embedding(ids, table: table.view, accumulate: accumulate, into: y) } },
      bound: { $0.embedding(accumulate: accumulate, expected: $1) })
  }

  public static func meanPool(
    _ lengths: [Int], n: Int, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let segments = try Segments(lengths: lengths)
    let x = try operands.make(Shape(segments.total, n))
    return Workload(
      .meanPool, name ?? "segments=\(lengths.count) rows=\(segments.total) n=\(n)", kernels: ["f32_mean_pool"],
      flops: Double(x.shape.count), bytes: 4 * Double(x.shape.count + lengths.count * n), operands: operands,
      output: try operands.make(Shape(lengths.count, n)),
      prepare: { context in { y in try context.meanPool(x.view, segments: segments, into: y) } },
      bound: { bounds, _ in bounds.meanPool(x.view, segments: segments) })
  }
}

extension Suite {
  static let gather = Suite(tests: gatherTests, benchmarks: gatherBenchmarks)

  private static let gatherTests: [TestCases.Entry] =
    RowShape.tests.flatMap { shape in
      [false, true].map { accumulate in
        TestCases.Entry(.embedding) { try .embedding(shape, table: 11, accumulate: accumulate, operands: $0) }
      }
    }
    + [[], [0], [1], [4, 0, 7], [128, 3, 64, 1]].flatMap { lengths in
      [1, 16, 33, 384].map { n in TestCases.Entry(.meanPool) { try .meanPool(lengths, n: n, operands: $0) } }
    }

  private static let gatherBenchmarks: [BenchmarkCases.Entry] = [
    BenchmarkCases.Entry(.embedding, "MiniLM: rows=4096 n=384 table=30522", kernels: ["f32_gather"]) {
      try .embedding(RowShape(4096, 384), table: 30522, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.meanPool, "MiniLM: 32x128 n=384", kernels: ["f32_mean_pool"]) {
      try .meanPool([Int](repeating: 128, count: 32), n: 384, name: $0, operands: $1)
    },
  ]
}

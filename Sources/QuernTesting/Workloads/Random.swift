import Quern

extension Workload {
  public static func random(
    _ distribution: RandomDistribution, _ shape: RowShape, key: RandomKey = RandomKey(seed: 1), name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let name = name ?? "\(distribution.rawValue) \(shape) offset=\(key.offset)"
    let workload = random(
      distribution, name, operands, keys: [key], output: try operands.make(Shape(shape.rows, shape.n)))
    workload.sampling = Sampling(rows: shape.rows, work: 50 * Double(shape.n)) { rows in
      random(
        distribution, name, operands, keys: rows.map { key.advanced(by: $0 * shape.n) },
        output: try MutableTensor(zeros: Shape(rows.count, shape.n), dataType: operands.dataType))
    }
    return workload
  }

  /// - Parameter keys: one for the whole, or one a row.
  private static func random(
    _ distribution: RandomDistribution, _ name: String, _ operands: Operands, keys: [RandomKey], output: MutableTensor
  ) -> Workload {
    let count = Double(output.shape.count)
    return Workload(
      .random, name, kernels: ["f32_random"], flops: 30 * count, bytes: Double(output.dataType.size) * count,
      isExactOnIntegers: true, operands: operands, output: output,
      prepare: { context in
        { y in
          for (row, key) in keys.enumerated() {
            try context.random(distribution, key: key, into: keys.count == 1 ? y : y.rows(row..<row + 1))
          }
        }
      },
      // The arithmetic is specified to the last bit.
      bound: { $0.exact($1) })
  }
}

extension Suite {
  static let random = Suite(
    tests: randomTests,
    benchmarks: [
      benchmark(.normal, "SD-1.5 latents: 4x64x64 normal", RowShape(4, 4096)),
      benchmark(.normal, "normal: 16M", RowShape(4096, 4096)),
      benchmark(.uniform, "uniform: 16M", RowShape(4096, 4096)),
      benchmark(.gumbel, "Qwen3-0.6B sampling: 151936 logits", RowShape(1, 151936)),
    ],
    mutants: [
      mutant("another seed") { $0.seed += 1 }, mutant("ignores the upper half of the seed") { $0.seed &= 0xFFFF_FFFF },
      mutant("another stream") { $0.stream += 1 }, mutant("ignores the stream") { $0.stream = 0 },
      mutant("starts an element late") { $0.offset += 1 }, mutant("starts a block late") { $0.offset += 4 },
      Mutant(.random, "uniform for normal") {
        try .random(.normal, RowShape(3, 17), operands: $0)
      } wrong: {
        try .random(.uniform, RowShape(3, 17), operands: $0)
      },
    ])

  private static func benchmark(
    _ distribution: RandomDistribution, _ name: String, _ shape: RowShape
  ) -> BenchmarkCases.Entry {
    BenchmarkCases.Entry(.random, name, kernels: ["f32_random"]) {
      try .random(distribution, shape, name: $0, operands: $1)
    }
  }

  private static func mutant(_ fault: String, _ change: @escaping @Sendable (inout RandomKey) -> Void) -> Mutant {
    let key = RandomKey(seed: 0x1_0000_0002, stream: 3, offset: 5)
    var wrong = key
    change(&wrong)
    let other = wrong
    return Mutant(.random, fault) {
      try .random(.uniform, RowShape(3, 17), key: key, operands: $0)
    } wrong: {
      try .random(.uniform, RowShape(3, 17), key: other, operands: $0)
    }
  }

  /// Around blocks of 4, groups of 16 blocks, chunks of 1024 elements, and the end of the numbers.
  private static let randomTests: [TestCases.Entry] = RandomDistribution.allCases.flatMap { distribution in
    let cases: [(RowShape, UInt64)] = [
      (RowShape(0, 5), 0), (RowShape(3, 0), 0), (RowShape(1, 1), 3), (RowShape(5, 3), 2), (RowShape(3, 64), 0),
      (RowShape(2, 65), 1), (RowShape(4, 131), 0x3_FFFF_FFF0), (RowShape(3, 1027), 0xFFFF_FFFF_FFFF_FA01),
      (RowShape(20, 1031), 6),
    ]
    return cases.map { shape, offset in
      TestCases.Entry(.random) {
        try .random(distribution, shape, key: RandomKey(seed: 42, stream: 7, offset: offset), operands: $0)
      }
    }
  }
}

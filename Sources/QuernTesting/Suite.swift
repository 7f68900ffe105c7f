import Quern

/// One family of operations: the shapes it is tested and timed at, and the faults that must be caught.
///
/// A file under `Workloads/` describes a family once: its workloads, their error bounds, and its suite.
public struct Suite: Sendable {
  let tests: [TestCases.Entry]
  let benchmarks: [BenchmarkCases.Entry]
  let mutants: [Mutant]

  /// Every family.
  public static let all: [Suite] = [
    linear, gatedLinear, attention, norms, elementwise, gather, convolution, image, positions, sparse, routing, data,
    reductions, random, streaming,
  ]

  init(
    tests: [TestCases.Entry] = [], benchmarks: [BenchmarkCases.Entry] = [], mutants: [Mutant] = []
  ) {
    (self.tests, self.benchmarks, self.mutants) = (tests, benchmarks, mutants)
  }
}

/// The shapes every operation is tested at.
public enum TestCases {
  /// One operation at one shape.
  public struct Entry: Sendable {
    public let operation: Quern.Operation
    let make: @Sendable (Operands) throws -> Workload

    init(_ operation: Quern.Operation, make: @escaping @Sendable (Operands) throws -> Workload) {
      (self.operation, self.make) = (operation, make)
    }

    /// The workload, its operands made from this seed in ordinary memory.
    public func workload(seed: UInt64) throws -> Workload { try make(Operands(seed: seed)) }
  }

  /// One way to lay out and fill the operands.
  struct Variation: Sendable {
    var fill: Operands.Fill
    var placement: Operands.Placement
    var padding: Int
    var dataType = DataType.f32

    func operands(seed: UInt64) -> Operands {
      Operands(seed: seed, fill: fill, placement: placement, padding: padding, dataType: dataType)
    }
  }

  /// Each fill once, and once in each narrow data type; the side, the misalignment and the padding rotate with the case, so that together the cases
  /// meet every misalignment of a cache line at both guard pages.
  static func variations(of index: Int) -> [Variation] {
    let fills: [(Operands.Fill, DataType)] = [
      (.integers, .f32), (.normal, .f32), (.special, .f32), (.integers, .bf16), (.normal, .bf16), (.normal, .f16),
    ]
    return fills.enumerated().map { position, kind in
      let side: GuardedBuffer.Side = (index + position) % 2 == 0 ? .end : .start
      let flush = index % 3 != 0
      return Variation(
        fill: kind.0, placement: .guarded(side, misalignment: flush ? 0 : (index / 3 + position) % 16),
        padding: (index + position) % 4 == 1 ? 3 : 0, dataType: kind.1)
    }
  }

  /// Every case, the seeded random ones included.
  public static let all: [Entry] = Suite.all.flatMap(\.tests)
}

/// A fault that the harness must catch: the same operands, but a call with one thing wrong.
public struct Mutant: Sendable {
  public let operation: Quern.Operation
  /// What is wrong, such as `ignores the padding`.
  public let fault: String
  let right: @Sendable (Operands) throws -> Workload
  let wrong: @Sendable (Operands) throws -> Workload

  /// - Parameters:
  ///   - right: the workload as asked for.
  ///   - wrong: the workload that a faulty backend would run instead; its result has the same shape.
  init(
    _ operation: Quern.Operation, _ fault: String, right: @escaping @Sendable (Operands) throws -> Workload,
    wrong: @escaping @Sendable (Operands) throws -> Workload
  ) {
    (self.operation, self.fault, self.right, self.wrong) = (operation, fault, right, wrong)
  }

  /// Every mutant.
  public static let all: [Mutant] = Suite.all.flatMap(\.mutants)

  /// Whether the result of the wrong call fails verification.
  public func isCaught(on context: Context, seed: UInt64 = SeededRandom.runSeed) throws -> Bool {
    let (right, wrong) = (try right(Operands(seed: seed)), try wrong(Operands(seed: seed)))
    let values = try wrong.result(on: context)
    let verification = try right.verify(
      {
        for (position, value) in values.enumerated() {
          right.output.store(value, at: right.output.offset(of: position))
        }
      },
      against: try right.expectation())
    return !verification.isVerified
  }
}

import Quern

/// The harness any backend can be put through, from this package or another.
///
/// ```swift
/// let report = try Conformance.check(MyBackend())
/// #expect(report.failures.isEmpty)
/// ```
public enum Conformance {
  /// What a run found.
  public struct Report: Sendable {
    /// Cases run.
    public var cases = 0
    /// What went wrong, each with the case, the fill, the placement and the seed that repeat it.
    public var failures: [String] = []
    /// The largest share of an error bound that any case used, for each operation.
    public var errorOverBound: [String: Double] = [:]
    /// Operations handed to another backend.
    public var fallbacks: Set<Trace.Fallback> = []
  }

  /// A backend under test.
  public struct Subject: Sendable {
    /// What failures call it.
    public let label: String
    public let backend: any Backend
    /// How deep its sums are.
    public let rounding: Rounding

    public init(_ backend: any Backend, label: String? = nil, rounding: Rounding = .anyOrder) {
      (self.backend, self.label, self.rounding) = (backend, label ?? type(of: backend).name, rounding)
    }
  }

  /// Runs every case of the given operations with integers, normal and special values, against both guard pages.
  public static func check(
    _ backend: any Backend, operations: [Quern.Operation] = Quern.Operation.allCases,
    seed: UInt64 = SeededRandom.runSeed
  ) throws -> Report {
    try check([Subject(backend)], operations: operations, seed: seed)
  }

  /// The same for several backends on the same operands, which the reference then runs only once.
  public static func check(
    _ subjects: [Subject], operations: [Quern.Operation] = Quern.Operation.allCases, seed: UInt64 = SeededRandom.runSeed
  ) throws -> Report {
    var report = Report()
    for (index, entry) in TestCases.all.enumerated() where operations.contains(entry.operation) {
      for variation in TestCases.variations(of: index) {
        let caseSeed = seed &+ UInt64(report.cases)
        let operands = Operands(
          seed: caseSeed, fill: variation.fill, placement: variation.placement, padding: variation.padding)
        let workload = try entry.make(operands)
        let verify = try workload.verifier()
        let operation = entry.operation.rawValue
        report.cases += 1
        for subject in subjects {
          let verification = try verify(Context(backend: subject.backend), subject.rounding)
          report.errorOverBound[operation] = max(report.errorOverBound[operation] ?? 0, verification.errorOverBound)
          guard let failure = verification.failure else { continue }
          report.failures.append(
            "\(subject.label) \(operation) \(workload.name) [\(variation.fill), \(variation.placement), "
              + "padding \(variation.padding), seed \(caseSeed)]: \(failure)")
        }
      }
    }
    let names = subjects.map { type(of: $0.backend).name }
    report.fallbacks = Set(Trace.fallbacks.keys.filter { names.contains($0.backend) })
    return report
  }
}

/// The shapes every operation is tested at.
public enum TestCases {
  /// One operation at one shape.
  public struct Entry: Sendable {
    public let operation: Quern.Operation
    let make: @Sendable (Operands) throws -> Workload

    /// The workload, its operands made from this seed in ordinary memory.
    public func workload(seed: UInt64) throws -> Workload { try make(Operands(seed: seed)) }
  }

  /// One way to lay out and fill the operands.
  struct Variation: Sendable {
    var fill: Operands.Fill
    var placement: Operands.Placement
    var padding: Int
  }

  /// Each fill once; the side, the misalignment and the padding rotate with the case, so that together the cases
  /// meet every misalignment of a cache line at both guard pages.
  static func variations(of index: Int) -> [Variation] {
    [Operands.Fill.integers, .normal, .special].enumerated().map { position, fill in
      let side: GuardedBuffer.Side = (index + position) % 2 == 0 ? .end : .start
      let flush = index % 3 != 0
      return Variation(
        fill: fill, placement: .guarded(side, misalignment: flush ? 0 : (index / 3 + position) % 16),
        padding: (index + position) % 4 == 1 ? 3 : 0)
    }
  }

  /// Every case, the seeded random ones included.
  public static let all: [Entry] = linear + matmul + attention + softmax + norms + elementwise + gathers

  /// Around the tile heights and widths of every instruction set, and primes.
  private static let edges = [0, 1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 31, 32, 33, 49]

  private static let linear: [Entry] = {
    var shapes: [LinearShape] = []
    for m in edges {
      for n in [0, 1, 15, 16, 17, 33, 65] { shapes.append(LinearShape(m: m, n: n, k: 1 + (m * 7 + n) % 37)) }
    }
    for k in [0, 1, 2, 3, 4, 5, 8, 31, 257, 1031] { shapes.append(LinearShape(m: 7, n: 37, k: k, bias: true)) }
    for activation in Activation.allCases {
      for m in [1, 6, 19] {
        shapes.append(LinearShape(m: m, n: 45, k: 64, activation: activation, bias: true, residual: true, scale: 0.5))
      }
    }
    shapes += [
      LinearShape(m: 150, n: 200, k: 700, bias: true, residual: true), LinearShape(m: 301, n: 67, k: 129),
      LinearShape(m: 1, n: 1023, k: 511, activation: .silu),
    ]
    var random = SeededRandom()
    for _ in 0..<20 {
      shapes.append(
        LinearShape(
          m: .random(in: 0...90, using: &random), n: .random(in: 0...140, using: &random),
          k: .random(in: 0...300, using: &random), activation: .allCases.randomElement(using: &random)!,
          bias: .random(using: &random), residual: .random(using: &random)))
    }
    return shapes.map { shape in Entry(operation: .linear) { try .linear(shape, operands: $0) } }
  }()

  private static let matmul: [Entry] = {
    var shapes: [MatmulShape] = []
    for transposesA in [false, true] {
      for transposesB in [false, true] {
        for (m, n, k) in [
          (1, 1, 1), (5, 17, 9), (13, 33, 64), (40, 70, 130), (0, 3, 4), (3, 0, 4), (3, 4, 0), (97, 203, 401),
        ] {
          let shape = MatmulShape(batch: m % 2 == 0 ? 1 : 3, m: m, n: n, k: k)
          shapes.append(shape.with { ($0.transposesA, $0.transposesB) = (transposesA, transposesB) })
          shapes.append(
            shape.with {
              ($0.transposesA, $0.transposesB, $0.sharesB) = (transposesA, transposesB, true)
              ($0.alpha, $0.beta, $0.hasBias) = (-2, 0.5, true)
            })
        }
      }
    }
    let base = MatmulShape(batch: 2, m: 11, n: 29, k: 31)
    shapes += [
      base.with { $0.beta = 1 }, base.with { ($0.alpha, $0.beta, $0.hasResidual) = (0.25, -1, true) },
      base.with { ($0.activation, $0.hasBias, $0.hasResidual) = (.gelu, true, true) },
      MatmulShape(batch: 64, m: 4, n: 4, k: 4), MatmulShape(m: 600, n: 40, k: 300), MatmulShape(m: 40, n: 600, k: 300),
    ]
    return shapes.map { shape in Entry(operation: .matmul) { try .matmul(shape, operands: $0) } }
  }()

  private static let attention: [Entry] = {
    var shapes: [AttentionShape] = []
    for size in [1, 3, 8, 16, 31, 32, 40, 64, 80, 128] {
      shapes.append(AttentionShape([size % 7 + 1], keys: [size + 5], heads: 2, size: size))
    }
    for mask in [AttentionShape.Mask.none, .causal, .additive, .padding, .causalAdditive] {
      shapes += [
        AttentionShape([5, 1, 17, 0, 33], heads: 2, size: 32, mask: mask),
        AttentionShape([1, 4], keys: [50, 131], heads: 4, kvHeads: 2, size: 24, mask: mask),
        AttentionShape([130], keys: [260], heads: 3, kvHeads: 1, size: 64, mask: mask),
        AttentionShape([9], keys: [4], heads: 1, size: 16, mask: mask),
        AttentionShape([200], heads: 1, size: 8, mask: mask),
      ]
    }
    shapes += [AttentionShape([3, 2], keys: [0, 7], heads: 2, size: 16), AttentionShape([], heads: 1, size: 4)]
    return shapes.map { shape in Entry(operation: .attention) { try .attention(shape, operands: $0) } }
  }()

  private static let rows: [RowShape] = [
    RowShape(0, 5), RowShape(3, 0), RowShape(1, 1), RowShape(2, 7), RowShape(5, 8), RowShape(3, 15), RowShape(4, 16),
    RowShape(7, 17), RowShape(2, 31), RowShape(3, 33), RowShape(5, 64), RowShape(4, 127), RowShape(9, 384),
    RowShape(2, 1031),
    RowShape(130, 61),
  ]

  private static let softmax: [Entry] = rows.flatMap { shape -> [Entry] in
    [
      Entry(operation: .softmax) { try .softmax(shape, operands: $0) },
      Entry(operation: .softmax) { try .softmax(shape, scale: 0.25, masked: shape.n > 1, operands: $0) },
      Entry(operation: .softmax) { try .softmax(shape, scale: 2, diagonal: shape.rows % 3 - 1, operands: $0) },
    ]
  }

  private static let norms: [Entry] = rows.flatMap { shape in
    Norm.allCases.flatMap { kind -> [Entry] in
      let operation: Quern.Operation = kind == .layerNorm ? .layerNorm : kind == .rmsNorm ? .rmsNorm : .l2Normalize
      return [
        Entry(operation: operation) { try .norm(kind, shape, operands: $0) },
        Entry(operation: operation) { try .norm(kind, shape, residual: true, affine: false, operands: $0) },
      ]
    }
  }

  private static let elementwise: [Entry] = rows.flatMap { shape -> [Entry] in
    Activation.allCases.map { activation in
      Entry(operation: .activation) { try .activation(activation, shape, operands: $0) }
    }
      + [Quern.Operation.add, .multiply].flatMap { operation in
        [false, true].map { oneRow in
          Entry(operation: operation) { try .binary(operation, shape, oneRow: oneRow && shape.rows > 0, operands: $0) }
        }
      } + [Entry(operation: .scale) { try .scale(shape, by: -1.5, operands: $0) }]
  }

  private static let gathers: [Entry] =
    rows.flatMap { shape in
      [false, true].map { accumulate in
        Entry(operation: .embedding) { try .embedding(shape, table: 11, accumulate: accumulate, operands: $0) }
      }
    }
    + [[], [0], [1], [4, 0, 7], [128, 3, 64, 1]].flatMap { lengths in
      [1, 16, 33, 384].map { n in Entry(operation: .meanPool) { try .meanPool(lengths, n: n, operands: $0) } }
    }
}

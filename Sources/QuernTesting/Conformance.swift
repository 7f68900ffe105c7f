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

  /// Runs every case of the given operations, with these values, on a backend that compares results itself.
  package static func run(
    _ backend: VerifyingBackend, operations: [Quern.Operation], fills: [Operands.Fill],
    seed: UInt64 = SeededRandom.runSeed
  ) throws -> Int {
    var (cases, caseSeed) = (0, seed)
    for (index, entry) in TestCases.all.enumerated() where operations.contains(entry.operation) {
      for variation in TestCases.variations(of: index) {
        defer { caseSeed &+= 1 }  // the same operands as in a check
        guard fills.contains(variation.fill) else { continue }
        cases += 1
        let workload = try entry.make(variation.operands(seed: caseSeed))
        _ = try workload.result(on: Context(backend: backend))
      }
    }
    return cases
  }

  /// The same for several backends on the same operands, which the reference then runs only once.
  public static func check(
    _ subjects: [Subject], operations: [Quern.Operation] = Quern.Operation.allCases, seed: UInt64 = SeededRandom.runSeed
  ) throws -> Report {
    var report = Report()
    for (index, entry) in TestCases.all.enumerated() where operations.contains(entry.operation) {
      for variation in TestCases.variations(of: index) {
        let caseSeed = seed &+ UInt64(report.cases)
        let workload = try entry.make(variation.operands(seed: caseSeed))
        let verify = try workload.verifier()
        let operation = entry.operation.rawValue
        report.cases += 1
        for subject in subjects {
          let verification = try verify(Context(backend: subject.backend), subject.rounding)
          report.errorOverBound[operation] = max(report.errorOverBound[operation] ?? 0, verification.errorOverBound)
          guard let failure = verification.failure else { continue }
          report.failures.append(
            "\(subject.label) \(operation) \(workload.name) [\(variation.dataType), \(variation.fill), \(variation.placement), "
              + "padding \(variation.padding), seed \(caseSeed)]: \(failure)")
        }
      }
    }
    let names = subjects.map { type(of: $0.backend).name }
    report.fallbacks = Set(Trace.fallbacks.keys.filter { names.contains($0.backend) })
    return report
  }
}

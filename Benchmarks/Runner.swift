import Foundation
import Quern
import QuernTesting

/// Checks and times the cases, one after the other, with every backend taking turns at each.
struct Runner {
  /// A backend that did not run a case, and why.
  struct Omission {
    let operation: String
    let name: String
    let backend: String
    let reason: String
  }

  let machine: Machine
  let backends: [any Backend]
  /// Time for one case, all contenders together.
  let seconds: Double

  private(set) var measurements: [Measurement] = []
  private(set) var omissions: [Omission] = []
  /// What was wrong with results, in words.
  private(set) var failures: [String] = []

  init(machine: Machine, backends: [any Backend], seconds: Double) {
    (self.machine, self.backends, self.seconds) = (machine, backends, seconds)
  }

  /// Steps of about a nanosecond that the reference may take to say what a result must be: beyond, rows are sampled.
  private static let checkingWork = 3e7
  /// The longest turn: long enough to have the caches to oneself, short against what a busy machine changes.
  private static let longestTurn = 0.06

  /// The longest call of the reference, so that every operation has a figure of it.
  private static let longestReferenceCall = 4.0

  mutating func run(_ cases: [BenchmarkCases.Entry]) throws {
    let progress = Progress(total: cases.count)
    defer { progress.finish() }
    for (index, entry) in cases.enumerated() {
      progress.show(index, "\(entry.operation.rawValue) \(entry.name)")
      let isLast = !cases[(index + 1)...].contains { $0.operation == entry.operation }
      try run(entry, isLast: isLast)
      machine.measure(trials: 1)
    }
    reportOmissions(progress)
  }

  /// - Parameter isLast: the operation's last case, where the reference takes longer if it has measured none of the others.
  private mutating func run(_ entry: BenchmarkCases.Entry, isLast: Bool) throws {
    let workload = try entry.workload()
    // Rows without products are cheap to check whole, and are; this only samples large products and attention.
    let expectation = try workload.expectation(work: Self.checkingWork)
    var contenders: [Contender] = []
    for backend in backends {
      let name = type(of: backend).name
      let isMeasured = measurements.contains { $0.operation == entry.operation.rawValue && $0.backend == name }
      let limit = isLast && !isMeasured ? Self.longestReferenceCall : seconds
      if backend is ReferenceBackend, expectation.referenceSeconds > limit {
        let reason = String(
          format: "one call takes %.1f s, beyond --seconds %g", expectation.referenceSeconds, seconds)
        omissions.append(Omission(operation: entry.operation.rawValue, name: entry.name, backend: name, reason: reason))
        continue
      }
      contenders.append(
        try Contender(
          name: name, isa: backend.isa?.rawValue ?? (backend is ReferenceBackend ? "portable" : Peers.coreName),
          fallbackISA: machine.isa.rawValue, threads: backend.threads, workload: workload, expectation: expectation,
          rounding: Rounding.anyOrder.of(backend), operation: entry.operation,
          call: try workload.ready(on: Context(backend: backend))))
    }
    let peer = try Peers.openBLAS(workload, threads: machine.threads, work: Self.checkingWork)
    if let peer, !contenders.isEmpty { contenders.append(peer) }
    try takeTurns(contenders)
    for contender in contenders {
      measurements.append(Measurement(entry, workload, contender, machine, rows: expectation.rows?.count))
      if let failure = contender.verification.failure {
        failures.append("\(contender.name): \(entry.operation.rawValue): \(entry.name): \(failure)")
      }
    }
  }

  /// Round after round until each has had its share; another one starts each round.
  private func takeTurns(_ contenders: [Contender]) throws {
    guard !contenders.isEmpty else { return }
    let share = seconds / Double(contenders.count)
    var (round, ran) = (0, true)
    while ran {
      ran = false
      for position in contenders.indices {
        let contender = contenders[(position + round) % contenders.count]
        if try contender.takeTurn(slice: min(Self.longestTurn, share / 3), share: share) { ran = true }
      }
      round += 1
    }
  }

  private func reportOmissions(_ progress: Progress) {
    guard !omissions.isEmpty else { return }
    progress.finish()
    for omission in omissions {
      let place = "\(omission.backend): \(omission.operation): \(omission.name)"
      StandardError.writeLine("benchmarks: not run: \(place): \(omission.reason)")
    }
  }
}

/// A line on the terminal that says how far the run is; nothing where nobody watches.
final class Progress {
  private let total: Int
  private var isShown = false

  init(total: Int) { self.total = total }

  func show(_ done: Int, _ text: String) {
    guard StandardError.isTerminal else { return }
    isShown = true
    StandardError.write("\r\u{1B}[K\(100 * done / max(total, 1))% \(text)")
  }

  func finish() {
    if isShown { StandardError.write("\r\u{1B}[K") }
    isShown = false
  }
}

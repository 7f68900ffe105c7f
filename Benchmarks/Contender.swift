import Foundation
import Quern
import QuernTesting

/// One implementation of one case: a call that is ready to run, and the times it has taken.
final class Contender {
  let name: String
  let isa: String
  let threads: Int
  let verification: Verification
  /// The backend that ran the operation, where this one handed it on.
  let fallback: String?
  /// What is different about this call.
  let note: String?
  private let call: () throws -> Void
  private let enter: () -> Void
  private let leave: () -> Void

  /// Seconds a call, one for each sample.
  private(set) var samples: [Double] = []
  private(set) var repetitions = 0
  private var spent = 0.0
  private var expected: Double

  /// - Parameters:
  ///   - rounding: what the sums are held to.
  ///   - fallbackISA: the instruction set of what runs operations that a backend hands on.
  ///   - enter: runs before each turn, `leave` after it; neither is timed.
  init(
    name: String, isa: String, fallbackISA: String? = nil, threads: Int, note: String? = nil, workload: Workload,
    expectation: Expectation, rounding: Rounding = .anyOrder, operation: Quern.Operation,
    call: @escaping () throws -> Void, enter: @escaping () -> Void = {}, leave: @escaping () -> Void = {}
  ) throws {
    (self.name, self.threads, self.note) = (name, threads, note)
    (self.call, self.enter, self.leave) = (call, enter, leave)
    var first = 0.0
    Trace.reset()
    enter()
    defer { leave() }
    // The call that is checked is the one that is timed, with the same packed weights and the same destination.
    verification = try workload.verify({ first = try Stopwatch.time(call) }, against: expectation, rounding: rounding)
    fallback = Trace.fallbacks.keys.first { $0.backend == name && $0.operation == operation }?.fallback
    self.isa = fallback == nil ? isa : fallbackISA ?? isa
    expected = first
  }

  /// Spends a turn of about `slice` seconds, unless the share is used up. Whether it ran.
  ///
  /// Where the share is too short for three calls it may be passed, up to three times: one slow call may be an accident.
  func takeTurn(slice: Double, share: Double) throws -> Bool {
    guard spent < share || samples.count < 3 && spent < 3 * share else { return false }
    enter()
    defer { leave() }
    // The others have had the caches since the last turn.
    if expected < slice / 10 { expected = min(expected, try Stopwatch.time(call)) }
    let end = min(spent + slice, share)
    repeat { try sample(calls: max(1, Int(5e-5 / expected))) } while spent < end
    return true
  }

  /// Very short calls are timed by the dozen, as reading the clock takes time as well.
  private func sample(calls: Int) throws {
    let seconds = try Stopwatch.time { for _ in 0..<calls { try call() } }
    spent += seconds
    repetitions += calls
    samples.append(seconds / Double(calls))
    expected = min(expected, seconds / Double(calls))
  }

  /// A quantile of the samples, between neighbours by proportion.
  func quantile(_ q: Double) -> Double {
    let sorted = samples.sorted()
    guard let last = sorted.last else { return .nan }
    let position = q * Double(sorted.count - 1)
    let index = Int(position)
    let next = index + 1 < sorted.count ? sorted[index + 1] : last
    return sorted[index] + (position - Double(index)) * (next - sorted[index])
  }
}

import Foundation
import Quern
import QuernTesting

/// Many tasks that call at once, against the same calls made in turn: one team of threads must serve both as well.
enum Concurrency {
  static let tasks = 64
  static let callsEach = 8
  static let rounds = 7

  /// One request of a server: its own operands, shared weights. A layer of MiniLM on 128 tokens.
  ///
  /// Unchecked, since only one task at a time runs a request and nothing else refers to its memory.
  private struct Request: @unchecked Sendable {
    static let (tokens, inputs, outputs) = (128, 384, 1152)

    let context: Context
    let weights: PackedMatrix
    let x, y: MutableTensor

    init(_ context: Context, weights: PackedMatrix, seed: UInt64) throws {
      (self.context, self.weights) = (context, weights)
      x = try Operands(seed: seed).make(Shape(Self.tokens, Self.inputs))
      y = try MutableTensor(zeros: Shape(Self.tokens, Self.outputs))
    }

    func run() throws {
      for _ in 0..<Concurrency.callsEach { try context.linear(x.view, weights: weights, into: y) }
    }
  }

  static func run(_ backends: [any Backend], asJSON: Bool) throws {
    var rows: [String] = []
    for backend in backends {
      let name = type(of: backend).name
      let (inTurn, atOnce) = try measure(Context(backend: backend))
      let calls = Double(tasks * callsEach)
      if asJSON {
        rows.append(
          "{\"op\": \"concurrency\", \"case\": \"MiniLM qkv 128: \(tasks) tasks x \(callsEach) calls\", "
            + "\"backend\": \"\(name)\", \"threads\": \(backend.threads), \"rounds\": \(rounds), "
            + "\"in_turn_seconds\": \(inTurn), \"at_once_seconds\": \(atOnce), "
            + "\"throughput_ratio\": \(inTurn / atOnce)}")
      } else {
        rows.append(
          String(
            format: "%@: %d tasks at once %.0f calls/s, in turn %.0f calls/s, ratio %.3f", name, tasks, calls / atOnce,
            calls / inTurn, inTurn / atOnce))
      }
    }
    print(asJSON ? "[\n  " + rows.joined(separator: ",\n  ") + "\n]" : rows.joined(separator: "\n"))
  }

  /// Median seconds of all calls in turn and of all calls at once, the two alternating.
  private static func measure(_ context: Context) throws -> (inTurn: Double, atOnce: Double) {
    let weights = try context.pack(try Operands(seed: 1).make(Shape(Request.outputs, Request.inputs)).view)
    let requests = try (0..<tasks).map { try Request(context, weights: weights, seed: UInt64($0 + 2)) }
    var (inTurn, atOnce): ([Double], [Double]) = ([], [])
    for round in 0...rounds {
      let first = try Stopwatch.time { for request in requests { try request.run() } }
      let second = try Stopwatch.time { try runAtOnce(requests) }
      if round > 0 {  // the first warms up threads and their scratch memory
        inTurn.append(first)
        atOnce.append(second)
      }
    }
    return (inTurn.sorted()[rounds / 2], atOnce.sorted()[rounds / 2])
  }

  /// A task for each request; the thread that asks only waits.
  private static func runAtOnce(_ requests: [Request]) throws {
    let done = DispatchSemaphore(value: 0)
    let outcome = Outcome()
    Task.detached {
      do {
        try await withThrowingTaskGroup(of: Void.self) { group in
          for request in requests { group.addTask { try request.run() } }
          try await group.waitForAll()
        }
      } catch {
        outcome.error = error
      }
      done.signal()
    }
    done.wait()
    if let error = outcome.error { throw error }
  }

  /// What went wrong: written before the semaphore is signalled, read after.
  private final class Outcome: @unchecked Sendable {
    var error: (any Error)?
  }
}

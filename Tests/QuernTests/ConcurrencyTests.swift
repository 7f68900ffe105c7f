import Foundation
import Quern
import QuernTesting
import Testing

/// Many tasks that call at once: the results of calls in turn, and no more threads than a server can bear.
@Suite struct ConcurrencyTests {
  private static let tasks = 64

  /// Small enough to run in place, large enough to ask for the team, and in between.
  private static func workload(_ task: Int) throws -> Workload {
    let operands = Operands(seed: SeededRandom.runSeed &+ UInt64(task))
    return switch task % 4 {
    case 0: try .linear(LinearShape(m: 70, n: 130, k: 300, activation: .gelu, bias: true), operands: operands)
    case 1: try .attention(AttentionShape([60, 9, 31], heads: 4, size: 32), operands: operands)
    case 2: try .norm(.layerNorm, RowShape(200, 384), residual: true, operands: operands)
    default: try .matmul(MatmulShape(batch: 8, m: 40, n: 50, k: 60), operands: operands)
    }
  }

  @Test(arguments: ["multithreaded", "blas"]) func tasksAtOnceGetTheResultsOfCallsInTurn(_ name: String) async throws {
    if let reason = Backends.unavailability(of: name) { return print("not run: \(name): \(reason)") }
    let context = Context(backend: try Backends.make(name, options: BackendOptions(threads: 4)))
    let inTurn = try (0..<Self.tasks).map { try Self.workload($0).result(on: context).map(\.bitPattern) }
    let atOnce = try await withThrowingTaskGroup(of: (Int, Bool).self) { group in
      for task in 0..<Self.tasks {
        group.addTask {
          let workload = try Self.workload(task)
          var same = true
          for _ in 0..<5 {
            same = try workload.result(on: context).map(\.bitPattern) == inTurn[task] && same
            await Task.yield()
          }
          return (task, same)
        }
      }
      return try await group.reduce(into: [Int: Bool]()) { $0[$1.0] = $1.1 }
    }
    #expect(atOnce.count == Self.tasks)
    #expect(atOnce.filter { !$0.value }.keys.sorted() == [], "tasks whose results differ")
  }

  /// What the probe prints.
  private struct Threads: Decodable { let before, peak, cores, team: Int }

  @Test(
    .disabled(if: ProcessInfo.processInfo.environment["QUERN_SANITIZE"] != nil, "sanitizers have threads of their own"),
    arguments: ["multithreaded", "blas"])
  func threadsDoNotMultiply(_ name: String) throws {
    #if os(Linux)
      if let reason = Backends.unavailability(of: name) { return print("not run: \(name): \(reason)") }
      // A team larger than the machine, so that teams of its size would be seen if each task had one.
      let output = try BuiltProgram("AllocationProbe").run(
        [name, "--threads"], environment: ["QUERN_NUM_THREADS": "4"])
      try #require(output.status == 0, "\(output.standardError)")
      let threads = try JSONDecoder().decode(Threads.self, from: Data(output.standardOutput.utf8))
      print("threads of 64 tasks on \(name): \(output.standardOutput)", terminator: "")
      #expect((1...3).contains(threads.team), "a team is at most the asked threads less the caller")
      #expect(threads.peak > threads.before)
      #expect(threads.peak - threads.before <= threads.cores + threads.team, "\(output.standardOutput)")
    #else
      print("not run: threads are counted in /proc")
    #endif
  }
}

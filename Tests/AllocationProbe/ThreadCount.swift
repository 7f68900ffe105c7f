import Foundation
import Quern
import Synchronization

/// How many threads the process has while many tasks call at once.
enum ThreadCount {
  static let tasks = 64
  static let callsEach = 20

  private static let peak = Mutex(0)

  /// Threads of this process now.
  private static var now: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count) ?? 0 }

  static func report(on name: String) async throws {
    let before = now
    let context = Context(backend: try Backends.make(name))
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<tasks {
        group.addTask {
          let x = try MutableTensor(zeros: Shape(64, 256))
          let y = try MutableTensor(zeros: Shape(64, 256))
          let weights = try context.pack(try MutableTensor(zeros: Shape(256, 256)).view)
          for _ in 0..<callsEach {
            try context.linear(x.view, weights: weights, into: y)
            let threads = now
            peak.withLock { $0 = max($0, threads) }
            await Task.yield()
          }
        }
      }
      try await group.waitForAll()
    }
    let cores = ProcessInfo.processInfo.activeProcessorCount
    print(
      "{\"before\": \(before), \"peak\": \(peak.withLock { $0 }), \"cores\": \(cores), \"team\": \(ThreadTeam.workers)}"
    )
  }
}

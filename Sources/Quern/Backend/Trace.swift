import Synchronization

/// Which operations a backend handed on to its fallback. The coverage table is made from this, by running.
public enum Trace {
  /// One operation that one backend did not do itself.
  public struct Fallback: Hashable, Sendable {
    public let backend: String
    public let operation: Operation
    public let fallback: String
  }

  private static let counts = Mutex<[Fallback: Int]>([:])
  private static let prints = (try? Settings.environment())?.tracesFallbacks ?? false

  /// Records that `backend` handed `operation` to `fallback`. The protocol's defaults call this.
  public static func recordFallback(of operation: Operation, from backend: String, to fallback: String) {
    let key = Fallback(backend: backend, operation: operation, fallback: fallback)
    let first = counts.withLock { counts in
      counts[key, default: 0] += 1
      return counts[key] == 1
    }
    if prints && first { StandardError.writeLine("quern: \(operation.rawValue): \(backend) -> \(fallback)") }
  }

  /// How often each fallback was taken since the last ``reset()``.
  public static var fallbacks: [Fallback: Int] { counts.withLock { $0.mapValues { $0 } } }

  public static func reset() { counts.withLock { $0.removeAll() } }
}

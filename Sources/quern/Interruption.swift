import Foundation

/// Control-C and the like as an error, so that what a run has begun is taken away again.
final class Interruption: @unchecked Sendable {
  struct Interrupted: Error, CustomStringConvertible {
    let description = "interrupted before the output directory was complete"
  }

  private let lock = NSLock()
  private var isInterrupted = false
  private var sources: [any DispatchSourceSignal] = []

  init() {
    for number in [SIGINT, SIGTERM] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { [self] in lock.withLock { isInterrupted = true } }
      source.resume()
      sources.append(source)
    }
  }

  func check() throws { if lock.withLock({ isInterrupted }) { throw Interrupted() } }
}

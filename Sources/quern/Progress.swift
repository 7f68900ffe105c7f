import Foundation
import Quern

/// A line on standard error for work that takes more than two seconds; nothing where no person is watching.
final class Progress {
  private let total: Int
  private let unit: String
  private let start = Date()
  private var shown = false

  init(total: Int, unit: String) { (self.total, self.unit) = (total, unit) }

  func update(_ done: Int) {
    let elapsed = Date().timeIntervalSince(start)
    guard StandardError.isTerminal, elapsed > 2, done < total else { return }
    let left = elapsed / Double(max(done, 1)) * Double(total - done)
    StandardError.write("\r\(done)/\(total) \(unit), about \(Int(left.rounded(.up))) s left \u{1B}[K")
    shown = true
  }

  func finish() { if shown { StandardError.write("\r\u{1B}[K") } }
}

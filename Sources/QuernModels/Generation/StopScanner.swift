/// Finds stop strings in text that comes in pieces, and holds back what may turn out to begin one.
package struct StopScanner {
  private let stops: [[UInt8]]
  private var held: [UInt8] = []

  package init(_ stops: [String]) { self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty } }

  /// The text that is certain by now, without a stop string and what follows it, and whether one has come.
  package mutating func append(_ text: String) -> (text: String, isStopped: Bool) {
    guard !stops.isEmpty else { return (text, false) }
    held += text.utf8
    if let end = stops.compactMap({ first($0) }).min() {
      defer { held.removeAll() }
      return (String(decoding: held[..<end], as: UTF8.self), true)
    }
    let kept = stops.map { overlap($0) }.max() ?? 0
    let certain = held.prefix(held.count - kept)
    defer { held.removeFirst(certain.count) }
    return (String(decoding: certain, as: UTF8.self), false)
  }

  /// What was held back: no stop string came.
  package mutating func finish() -> String {
    defer { held.removeAll() }
    return String(decoding: held, as: UTF8.self)
  }

  private func first(_ stop: [UInt8]) -> Int? {
    guard held.count >= stop.count else { return nil }
    return (0...held.count - stop.count).first { held[$0..<$0 + stop.count].elementsEqual(stop) }
  }

  /// Bytes at the end of the text that begin `stop`; they begin a character, as `stop` does.
  private func overlap(_ stop: [UInt8]) -> Int {
    (0..<min(stop.count, held.count + 1)).reversed().first { held.suffix($0).elementsEqual(stop.prefix($0)) } ?? 0
  }
}

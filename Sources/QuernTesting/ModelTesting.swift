import Foundation
import Quern

/// What a model makes of a fixture's inputs against what a peer made of them.
package enum Parity {
  /// A message in place of a comparison that cannot be made.
  package struct Failure: Error { package let reason: String }

  package static let backends = Backends.names.filter { Backends.unavailability(of: $0) == nil }

  /// The largest difference as a share of the largest expected value.
  package static func difference(_ values: [Float], _ expected: [Float]) throws -> Float {
    guard values.count == expected.count, !values.isEmpty else {
      throw Failure(reason: "\(values.count) values, \(expected.count) expected")
    }
    // A NaN would hide among the differences.
    guard values.allSatisfy(\.isFinite) else { return .infinity }
    let difference = zip(values, expected).map { abs($0 - $1) }.max() ?? .infinity
    return difference / (expected.map(abs).max() ?? 0)
  }
}

/// The error that `body` throws, when it is of this type.
package func thrown<E: Error>(_: E.Type, _ body: () throws -> Void) -> E? {
  do {
    try body()
    return nil
  } catch {
    return error as? E
  }
}

/// A folder that is gone when the test is over.
package final class TemporaryFolder {
  package let path: String

  package init() throws {
    path = NSTemporaryDirectory() + "/quern-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// A copy of these files of a directory.
  package convenience init(copying names: [String], of directory: String) throws {
    try self.init()
    for name in names { try write(name, Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(name)"))) }
  }

  /// Replaces a text that a file has.
  package func replace(_ old: String, with new: String, in name: String) throws {
    let text = try String(contentsOfFile: "\(path)/\(name)", encoding: .utf8)
    guard text.contains(old) else { throw Parity.Failure(reason: "\(name) has no \(old)") }
    try write(name, text.replacingOccurrences(of: old, with: new).utf8)
  }

  /// Writes a file and gives its path.
  @discardableResult
  package func write(_ name: String, _ bytes: some Sequence<UInt8>) throws -> String {
    let file = path + "/" + name
    try FileManager.default.createDirectory(
      atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    return file
  }
}

import Foundation
import Quern

/// What a model makes of a fixture's inputs against what another library made of them.
public enum Parity {
  /// The backends that run here.
  public static let backends = Backends.names.filter { Backends.unavailability(of: $0) == nil }

  /// The largest difference as a share of the largest expected value.
  ///
  /// - Throws: ``UnfitFixture`` for no values, or other counts.
  public static func difference(_ values: [Float], _ expected: [Float]) throws -> Float {
    guard values.count == expected.count, !values.isEmpty else {
      throw UnfitFixture(description: "\(values.count) values, where \(expected.count) are expected")
    }
    let difference = zip(values, expected).map { abs($0 - $1) }.max() ?? .infinity
    // A NaN is a difference, which max() may pass over.
    return values.allSatisfy(\.isFinite) ? difference / (expected.map(abs).max() ?? 0) : .infinity
  }
}

/// A fixture that cannot show what a test wants to see.
public struct UnfitFixture: Error, CustomStringConvertible {
  public var description: String
}

/// A folder that is gone when the test is over.
public final class TemporaryFolder {
  public let path: String

  public init() throws {
    path = NSTemporaryDirectory() + "/quern-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// A copy of these files of a directory.
  public convenience init(copying names: [String], of directory: String) throws {
    try self.init()
    for name in names { try write(name, Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(name)"))) }
  }

  /// Replaces a text that a file has.
  public func replace(_ old: String, with new: String, in name: String) throws {
    let text = try String(contentsOfFile: "\(path)/\(name)", encoding: .utf8)
    guard text.contains(old) else { throw UnfitFixture(description: "\(name) has no \(old)") }
    try write(name, text.replacingOccurrences(of: old, with: new).utf8)
  }

  /// Writes a file and gives its path.
  @discardableResult
  public func write(_ name: String, _ bytes: some Sequence<UInt8>) throws -> String {
    let file = path + "/" + name
    try FileManager.default.createDirectory(
      atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    return file
  }
}

/// The error of a type that `body` throws.
public func thrown<E: Error>(_: E.Type = E.self, by body: () throws -> Void) -> E? {
  do {
    try body()
    return nil
  } catch {
    return error as? E
  }
}

import Foundation
import Quern
import QuernModels
import Testing

/// Files in `Fixtures`, made by tools/fixtures/*.py.
enum Fixture {
  static func path(_ name: String) -> String {
    Bundle.module.resourceURL!.appendingPathComponent("Fixtures/\(name)").path
  }

  /// Read with Foundation, so that the reader under test does not judge itself.
  static func decode<T: Decodable>(_: T.Type, _ name: String) throws -> T {
    try JSONDecoder().decode(T.self, from: Data(contentsOf: URL(fileURLWithPath: path(name))))
  }

  /// The folder of the real all-MiniLM-L6-v2, where this machine has one.
  static let miniLM: String? = {
    let repository = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let own = repository.appendingPathComponent(".model/all-MiniLM-L6-v2").path
    let directory = ProcessInfo.processInfo.environment["QUERN_MODEL_DIR"] ?? own
    return FileManager.default.fileExists(atPath: directory + "/tokenizer.json") ? directory : nil
  }()
}

/// What a model makes of a fixture's inputs against what `transformers` made of them.
enum Parity {
  static let backends = Backends.names.filter { Backends.unavailability(of: $0) == nil }

  /// The largest difference as a share of the largest expected value.
  static func difference(_ values: [Float], _ expected: [Float]) throws -> Float {
    try #require(values.count == expected.count && !values.isEmpty)
    let difference = zip(values, expected).map { abs($0 - $1) }.max() ?? .infinity
    return difference / (expected.map(abs).max() ?? 0)
  }
}

/// A folder that is gone when the test is over.
final class TemporaryFolder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "/quern-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// A copy of these files of a directory.
  convenience init(copying names: [String], of directory: String) throws {
    try self.init()
    for name in names { try write(name, Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(name)"))) }
  }

  /// Replaces a text that a file has.
  func replace(_ old: String, with new: String, in name: String) throws {
    let text = try String(contentsOfFile: "\(path)/\(name)", encoding: .utf8)
    try #require(text.contains(old), "\(name) has no \(old)")
    try write(name, text.replacingOccurrences(of: old, with: new).utf8)
  }

  /// Writes a file and gives its path.
  @discardableResult
  func write(_ name: String, _ bytes: some Sequence<UInt8>) throws -> String {
    let file = path + "/" + name
    try FileManager.default.createDirectory(
      atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    return file
  }
}

/// How much more memory this process had at some time during a call than before it. Only for a process of its own.
enum PeakMemory {
  static func of(_ body: () throws -> Void) throws -> Int {
    // Memory that is free but still held would hide what is used.
    giveMemoryBack()
    let before = try memory("VmRSS:")
    // Makes the peak start from here.
    try "5".write(toFile: "/proc/self/clear_refs", atomically: false, encoding: .utf8)
    try body()
    return try memory("VmHWM:") - before
  }

  /// glibc's `malloc_trim`, which Swift's module of it leaves out.
  private static func giveMemoryBack() {
    guard let symbol = dlsym(nil, "malloc_trim") else { return }
    _ = unsafeBitCast(symbol, to: (@convention(c) (Int) -> Int32).self)(0)
  }

  /// A line of /proc/self/status, in bytes.
  private static func memory(_ name: String) throws -> Int {
    let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = try #require(status.split(separator: "\n").first { $0.hasPrefix(name) })
    return try #require(line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) })
      * 1024
  }
}

/// The error that `body` throws, when it is a `ModelError`.
func modelError(_ body: () throws -> Void) -> ModelError? {
  do {
    try body()
    return nil
  } catch {
    return error as? ModelError
  }
}

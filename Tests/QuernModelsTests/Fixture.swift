import Foundation
import Quern
import QuernModels
import QuernTesting
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
    let directory = ProcessInfo.processInfo.environment["QUERN_MODEL_DIR"] ?? downloaded("all-MiniLM-L6-v2")
    return FileManager.default.fileExists(atPath: directory + "/tokenizer.json") ? directory : nil
  }()

  /// The file of the real SmolLM2-135M-Instruct, where this machine has one.
  static let smolLM: String? = {
    let file = downloaded("SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf")
    return FileManager.default.fileExists(atPath: file) ? file : nil
  }()

  private static func downloaded(_ path: String) -> String {
    URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent(".model/\(path)").path
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
func modelError(_ body: () throws -> Void) -> ModelError? { thrown(by: body) }

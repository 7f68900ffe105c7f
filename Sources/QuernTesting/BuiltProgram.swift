import Foundation

/// A program of this package, built beside the running tests.
public struct BuiltProgram {
  /// What a run gave.
  public struct Output: Sendable {
    public let status: Int32
    public let standardOutput: String
    public let standardError: String
  }

  private let url: URL

  public init(_ name: String) throws {
    // The test bundle and the programs share the products directory.
    let directories = [
      Bundle.main.bundleURL, URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent(),
    ]
    guard
      let directory = directories.first(where: {
        FileManager.default.isExecutableFile(atPath: $0.appending(path: name).path)
      })
    else { throw CocoaError(.fileNoSuchFile, userInfo: [NSFilePathErrorKey: name]) }
    url = directory.appending(path: name)
  }

  /// Runs to the end with these arguments, variables added to the environment, and standard input.
  public func run(_ arguments: [String] = [], environment: [String: String] = [:], input: Data = Data()) throws
    -> Output
  {
    let process = Process()
    process.executableURL = url
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let (output, error, stdin) = (Pipe(), Pipe(), Pipe())
    (process.standardOutput, process.standardError, process.standardInput) = (output, error, stdin)
    try process.run()
    let errors = Reader(error)
    try? stdin.fileHandleForWriting.write(contentsOf: input)
    try? stdin.fileHandleForWriting.close()
    let text = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Output(
      status: process.terminationStatus, standardOutput: String(decoding: text, as: UTF8.self),
      standardError: String(decoding: errors.data(), as: UTF8.self))
  }

  /// Drains one pipe while the other is read, so that neither fills up.
  private final class Reader: @unchecked Sendable {
    private var bytes = Data()
    private let done = DispatchSemaphore(value: 0)

    init(_ pipe: Pipe) {
      DispatchQueue.global().async {
        self.bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        self.done.signal()
      }
    }

    func data() -> Data {
      done.wait()
      return bytes
    }
  }
}

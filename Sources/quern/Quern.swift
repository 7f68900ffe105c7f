import ArgumentParser
import Foundation
import Quern
import QuernModels

@main
struct QuernCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quern", abstract: "Runs published models on the CPU.",
    subcommands: [
      EmbedCommand.self, GenerateCommand.self, DiffuseCommand.self, PerplexityCommand.self, ForwardCommand.self,
      QuantizeCommand.self, CompressCommand.self, BackendsCommand.self,
    ])

  /// Usage errors exit with 2, everything else with 1 and one line on standard error.
  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      let code = exitCode(for: error)
      if code == .success || code == .validationFailure || error is CleanExit { exitWithUsage(error) }
      FileHandle.standardError.write(Data("quern: \(fullLine(error))\n".utf8))
      Foundation.exit(1)
    }
  }

  private static func exitWithUsage(_ error: any Error) -> Never {
    let text = fullMessage(for: error)
    if exitCode(for: error) == .success {
      print(text)
      Foundation.exit(0)
    }
    FileHandle.standardError.write(Data((text + "\n").utf8))
    Foundation.exit(2)
  }

  private static func fullLine(_ error: any Error) -> String {
    "\(error)".split(whereSeparator: \.isNewline).joined(separator: " ")
  }
}

/// The options that choose a backend.
struct BackendArguments: ParsableArguments {
  @Option(help: "reference, blas, multithreaded, or a registered one (default: QUERN_BACKEND, else multithreaded).")
  var backend: String?

  @Option(help: "Threads an operation may use (default: QUERN_NUM_THREADS, else the cores allowed).")
  var threads: Int?

  func context() throws -> Context { try Context(backend, options: BackendOptions(threads: threads)) }
}

extension DataType: ExpressibleByArgument {}

extension CacheType: ExpressibleByArgument {}

enum OutputFormat: String, ExpressibleByArgument, CaseIterable { case text, json }

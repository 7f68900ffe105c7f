import ArgumentParser
import Foundation
import Quern

// ArgumentParser's own exit codes are others than this package's: 0 done, 2 wrong usage, 1 any other failure.
do {
  var command = try BenchmarksCommand.parseAsRoot()
  try command.run()
} catch {
  switch BenchmarksCommand.exitCode(for: error) {
  case .success:
    print(BenchmarksCommand.fullMessage(for: error))
    exit(0)
  case .validationFailure:
    StandardError.writeLine(BenchmarksCommand.fullMessage(for: error))
    exit(2)
  default:
    if !(error is ExitCode) { StandardError.writeLine("benchmarks: \(error)") }
    exit(1)
  }
}

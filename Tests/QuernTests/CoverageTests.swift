import Foundation
import Quern
import QuernTesting
import Testing

/// `docs/coverage.md` is what running the backends gives. `make coverage` writes it; otherwise it is compared.
@Suite struct CoverageTests {
  private static let path = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("docs/coverage.md").path

  private static let introduction = """
    # Which backend does which operation

    Made by `make coverage`, by running every operation once on every backend that ships; do not edit. `own`: the backend has
    a kernel of its own. `→`: it hands the operation to the backend named, and records that it did (`QUERN_TRACE=fallback`
    prints it). Operands that a backend's kernel cannot take go the same way, and are not shown here.


    """

  @Test func thePageIsWhatRunningGives() throws {
    if let reason = Backends.unavailability(of: "blas") { return print("not run: coverage: blas: \(reason)") }
    let backends: [any Backend] = [ReferenceBackend(), try BLASBackend(), try MultithreadedBackend()]
    let page = Self.introduction + (try Coverage.table(of: backends))
    if ProcessInfo.processInfo.environment["QUERN_WRITE_COVERAGE"] == "1" {
      try page.write(toFile: Self.path, atomically: true, encoding: .utf8)
    }
    let written = try String(contentsOfFile: Self.path, encoding: .utf8)
    #expect(written == page, "docs/coverage.md is out of date; `make coverage` rewrites it")
  }
}

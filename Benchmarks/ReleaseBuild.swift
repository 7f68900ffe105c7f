import Foundation
import Quern

/// `swift run benchmarks` builds for debugging, where Swift is ten times slower and figures mean nothing.
enum ReleaseBuild {
  /// In a debug build, replaces this process by the release build with the same arguments; in a release build, does
  /// nothing. Environment and standard streams carry over.
  static func takeOverFromDebug() throws {
    #if DEBUG
      let package = try packageDirectory()
      guard let swift = executable("swift") else {
        throw Failure("a debug build measures nothing, and there is no swift in PATH to make a release build with")
      }
      StandardError.writeLine("benchmarks: this is a debug build; building and running the release build")
      let command =
        ["swift", "run", "-c", "release", "--package-path", package] + traits + ["benchmarks"]
        + CommandLine.arguments.dropFirst()
      var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) }
      arguments.append(nil)
      execv(swift, arguments)
      throw Failure("\(swift) could not be started: \(String(cString: strerror(errno)))")
    #endif
  }

  #if DEBUG
    /// The checkout this program was compiled in.
    private static func packageDirectory(source: String = #filePath) throws -> String {
      let directory = URL(fileURLWithPath: source).deletingLastPathComponent().deletingLastPathComponent()
      guard FileManager.default.fileExists(atPath: directory.appending(path: "Package.swift").path) else {
        throw Failure(
          "a debug build measures nothing, and its checkout is gone; in one, swift run -c release benchmarks")
      }
      return directory.path
    }

    private static func executable(_ name: String) -> String? {
      let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
      return path.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }

    /// The package traits this build has, so that the release build gets the same.
    private static var traits: [String] {
      var enabled: [String] = []
      #if OpenBLAS
        enabled.append("OpenBLAS")
      #endif
      #if OpenMP
        enabled.append("OpenMP")
      #endif
      if enabled.count == 2 { return [] }
      return enabled.isEmpty ? ["--disable-default-traits"] : ["--traits", enabled.joined(separator: ",")]
    }
  #endif
}

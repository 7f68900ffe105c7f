import Foundation

/// A snippet of a test file between `// readme:NAME` and `// readme:end`, which README.md must show.
public enum ReadmeSnippet {
  /// Whether the README two folders above the test's folder has the lines of the snippet, in order and side by side.
  ///
  /// Indentation and empty lines do not count.
  ///
  /// - Throws: an error where a file or the snippet is missing.
  public static func isShown(_ name: String, in testFile: String) throws -> Bool {
    let source = try lines(of: testFile)
    guard let start = source.firstIndex(of: "// readme:\(name)"),
      let end = source[start...].firstIndex(of: "// readme:end")
    else { throw CocoaError(.formatting, userInfo: [NSFilePathErrorKey: testFile]) }
    let repository = URL(fileURLWithPath: testFile).resolvingSymlinksInPath()
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let readme = try lines(of: repository.appendingPathComponent("README.md").path)
    return readme.indices.contains { readme[$0...].starts(with: source[(start + 1)..<end]) }
  }

  private static func lines(of path: String) throws -> [String] {
    try String(contentsOfFile: path, encoding: .utf8).split(whereSeparator: \.isNewline)
      .map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
  }
}

import ArgumentParser
import Foundation

/// What commands that write a changed copy of a model directory share: the options, and how a run goes.
struct RewriteArguments: ParsableArguments {
  @Option(help: "A Hugging Face model directory.") var model: String
  @Option(help: "The directory to write: a new or an empty one.") var output: String
  @Flag(help: "Take a directory that is not empty, and replace the model in it.") var force = false
  @Option var format = OutputFormat.text

  /// Writes with progress of a total of bytes, until it is interrupted, and prints the report, as JSON or as these lines.
  func run<Report: Encodable>(
    bytes: Int, write: ((Int) throws -> Void) throws -> Report, lines: (Report) -> [String]
  ) throws {
    let interruption = Interruption()
    let progress = Progress(total: bytes / 1_000_000, unit: "MB")
    let report = try write { bytes in
      progress.update(bytes / 1_000_000)
      try interruption.check()
    }
    progress.finish()
    switch format {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(report), as: UTF8.self))
    case .text: for line in lines(report) { print(line) }
    }
  }

  /// A command that the written directory is for.
  func next(_ options: String = "") -> String {
    let folder = output.contains(where: { " '\"$\\".contains($0) }) ? "DIR" : output
    return FileManager.default.fileExists(atPath: "\(output)/tokenizer.json")
      ? "next: quern embed --model \(folder)\(options) \"a sentence\""
      : "next: quern forward --model \(folder)\(options) --inputs IN.safetensors --outputs OUT.safetensors"
  }
}

/// Words of reports.
enum ReportText {
  /// Rows of a name and three numbers.
  static func table(_ rows: [[String]]) -> [String] {
    rows.map { row in
      zip(row, [20, 8, 12, 12]).enumerated().map { column, cell in
        let padding = String(repeating: " ", count: max(0, cell.1 - cell.0.count))
        return column == 0 ? cell.0 + padding : padding + cell.0
      }.joined()
    }
  }

  static func megabytes(_ bytes: [Int]) -> String { String(format: "%.1f MB", Double(bytes.reduce(0, +)) / 1e6) }

  static func percent(_ share: Double) -> String { String(format: "%.3g %%", 100 * share) }
}

import ArgumentParser
import Foundation
import Quern
import QuernModels

struct QuantizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quantize", abstract: "Writes a model directory whose linear layers take fewer bits.",
    discussion:
      "The matrices of linear layers are stored in ggml's blocks or in bf16; everything else is copied. quern embed and "
      + "quern forward take the new directory. The model's own directory is never written to.")

  @Option(help: "A Hugging Face model directory.") var model: String
  @Option(help: "How the matrices of linear layers are stored.") var dtype: WeightStorage
  @Option(help: "The directory to write: a new or an empty one.") var output: String
  @Flag(help: "Take a directory that is not empty, and replace the model in it.") var force = false
  @Option var format = OutputFormat.text

  func run() throws {
    let quantizer = try ModelQuantizer(model: model, as: dtype)
    let interruption = Interruption()
    let progress = Progress(total: quantizer.bytesBefore / 1_000_000, unit: "MB")
    let report = try quantizer.write(to: output, replacing: force) { bytes in
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

  private func lines(_ report: QuantizationReport) -> [String] {
    let (before, after) = (report.matrices.map(\.bytesBefore), report.matrices.map(\.bytesAfter))
    let rows = [
      ["", "tensors", "before", "after"],
      ["in \(report.storage)", "\(report.matrices.count)", megabytes(before), megabytes(after)],
      ["linear, as they were", "\(report.kept.count)", "", ""],
      ["others, as they were", "\(report.otherTensors)", "", ""],
      ["files with weights", "", megabytes([report.bytesBefore]), megabytes([report.bytesAfter])],
    ]
    var lines = rows.map { row in
      zip(row, [20, 8, 12, 12]).enumerated().map { column, cell in
        let padding = String(repeating: " ", count: max(0, cell.1 - cell.0.count))
        return column == 0 ? cell.0 + padding : padding + cell.0
      }.joined()
    }
    if let worst = report.matrices.max(by: { $0.largestError < $1.largestError }) {
      lines.append("largest error: \(percent(worst.largestError)) of the largest weight of its block, in \(worst.name)")
    }
    if let worst = report.matrices.max(by: { $0.relativeError < $1.relativeError }) {
      lines.append("largest relative error of a matrix: \(percent(worst.relativeError)), of \(worst.name)")
    }
    lines += report.kept.map { "as it was: \($0.name), \($0.reason)" }
    return lines + ["next: \(next)"]
  }

  private var next: String {
    let precision = dtype == .bf16 ? " --precision bf16" : ""
    let folder = output.contains(where: { " '\"$\\".contains($0) }) ? "DIR" : output
    return FileManager.default.fileExists(atPath: "\(output)/tokenizer.json")
      ? "quern embed --model \(folder)\(precision) \"a sentence\""
      : "quern forward --model \(folder)\(precision) --inputs IN.safetensors --outputs OUT.safetensors"
  }

  private func megabytes(_ bytes: [Int]) -> String {
    String(format: "%.1f MB", Double(bytes.reduce(0, +)) / 1e6)
  }

  private func percent(_ share: Double) -> String { String(format: "%.3g %%", 100 * share) }
}

extension WeightStorage: ExpressibleByArgument {
  public init?(argument: String) { self.init(name: argument) }
  public static var allValueStrings: [String] { allCases.map(\.name) }
}

/// Control-C and the like as an error, so that what a run has begun is taken away again.
private final class Interruption: @unchecked Sendable {
  struct Interrupted: Error, CustomStringConvertible {
    let description = "interrupted before the output directory was complete"
  }

  private let lock = NSLock()
  private var isInterrupted = false
  private var sources: [any DispatchSourceSignal] = []

  init() {
    for number in [SIGINT, SIGTERM] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { [self] in lock.withLock { isInterrupted = true } }
      source.resume()
      sources.append(source)
    }
  }

  func check() throws { if lock.withLock({ isInterrupted }) { throw Interrupted() } }
}

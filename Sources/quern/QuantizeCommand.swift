import ArgumentParser
import Quern
import QuernModels

struct QuantizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quantize", abstract: "Writes a model directory whose linear layers take fewer bits.",
    discussion:
      "The matrices of linear layers are stored in ggml's blocks or in bf16; everything else is copied. quern embed and "
      + "quern forward take the new directory. The model's own directory is never written to.")

  @Option(help: "How the matrices of linear layers are stored.") var dtype: WeightStorage
  @OptionGroup var files: RewriteArguments

  func run() throws {
    let quantizer = try ModelQuantizer(model: files.model, as: dtype)
    try files.run(
      bytes: quantizer.bytesBefore,
      write: { try quantizer.write(to: files.output, replacing: files.force, progress: $0) }, lines: lines)
  }

  private func lines(_ report: QuantizationReport) -> [String] {
    let (before, after) = (report.matrices.map(\.bytesBefore), report.matrices.map(\.bytesAfter))
    var lines = ReportText.table([
      ["", "tensors", "before", "after"],
      [
        "in \(report.storage)", "\(report.matrices.count)", ReportText.megabytes(before), ReportText.megabytes(after),
      ],
      ["linear, as they were", "\(report.kept.count)", "", ""],
      ["others, as they were", "\(report.otherTensors)", "", ""],
      [
        "files with weights", "", ReportText.megabytes([report.bytesBefore]), ReportText.megabytes([report.bytesAfter]),
      ],
    ])
    if let worst = report.matrices.max(by: { $0.largestError < $1.largestError }) {
      let share = ReportText.percent(worst.largestError)
      lines.append("largest error: \(share) of the largest weight of its block, in \(worst.name)")
    }
    if let worst = report.matrices.max(by: { $0.relativeError < $1.relativeError }) {
      lines.append(
        "largest relative error of a matrix: \(ReportText.percent(worst.relativeError)), of \(worst.name)")
    }
    lines += report.kept.map { "as it was: \($0.name), \($0.reason)" }
    return lines + [files.next(dtype == .bf16 ? " --precision bf16" : "")]
  }
}

extension WeightStorage: ExpressibleByArgument {
  public init?(argument: String) { self.init(name: argument) }
  public static var allValueStrings: [String] { allCases.map(\.name) }
}

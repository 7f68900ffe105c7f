import ArgumentParser
import Quern
import QuernModels

struct CompressCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compress", abstract: "Writes a model directory whose linear layers are products of two thinner ones.",
    discussion:
      "The matrices of linear layers become factors of a lower rank, the nearest that there are (by LAPACK); those that would "
      + "not become smaller, and everything else, are copied. Every command takes the new directory. The model's own directory is "
      + "never written to.")

  @Option(help: "The rank of every matrix.") var rank: Int?
  @Option(help: "Choose each matrix's rank so that its factors take at most this share of it, between 0 and 1.")
  var share: Double?
  @OptionGroup var files: RewriteArguments

  func validate() throws {
    guard (rank == nil) != (share == nil) else { throw ValidationError("Give one of --rank and --share.") }
    if let rank, rank < 1 { throw ValidationError("--rank is at least 1.") }
    if let share, !(share > 0 && share < 1) { throw ValidationError("--share is between 0 and 1.") }
  }

  func run() throws {
    let target = rank.map { CompressionTarget.rank($0) } ?? .share(share ?? 0)
    let compressor = try ModelCompressor(model: files.model, to: target)
    try files.run(
      bytes: compressor.bytesBefore,
      write: { try compressor.write(to: files.output, replacing: files.force, progress: $0) }, lines: lines)
  }

  private func lines(_ report: CompressionReport) -> [String] {
    let (before, after) = (report.matrices.map(\.bytesBefore), report.matrices.map(\.bytesAfter))
    var lines = ReportText.table([
      ["", "matrices", "before", "after"],
      ["as factors", "\(report.matrices.count)", ReportText.megabytes(before), ReportText.megabytes(after)],
      ["linear, as they were", "\(report.kept.count)", "", ""],
      ["others, as they were", "\(report.otherTensors)", "", ""],
      [
        "files with weights", "", ReportText.megabytes([report.bytesBefore]), ReportText.megabytes([report.bytesAfter]),
      ],
    ])
    lines += report.matrices.map {
      "rank \($0.rank) of [\($0.outputs), \($0.inputs)], relative error \(ReportText.percent($0.relativeError)): \($0.name)"
    }
    if let worst = report.matrices.max(by: { $0.relativeError < $1.relativeError }) {
      lines.append("largest relative error: \(ReportText.percent(worst.relativeError)), of \(worst.name)")
    }
    lines += report.kept.map { "as it was: \($0.name), \($0.reason)" }
    return lines + [files.next()]
  }
}

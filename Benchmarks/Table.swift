import Foundation
import Quern

/// Measurements for people to read: a section for each operation, a line for each case, a column for each backend.
struct Table {
  private struct Section {
    let title: String
    let header: [String]
    let lines: [[String]]
  }

  private let sections: [Section]
  private let remarks: [String]

  init(_ rows: [Measurement], omissions: [Runner.Omission]) {
    let operations = rows.map(\.operation).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    // One order for every section, whichever backend sat out its first case.
    let backends = Backends.names.filter { name in
      rows.contains { $0.backend == name } || omissions.contains { $0.backend == name }
    }
    sections = operations.map { operation in Self.section(rows.filter { $0.operation == operation }, backends) }
    var remarks: [String] = []
    if rows.contains(where: { $0.backend == Peers.openBLAS }) {
      remarks.append("openblas: cblas_sgemm called directly, its own threads, the same operands, without the epilogue.")
    }
    if rows.contains(where: { $0.fallback != nil }) { remarks.append("*: handed on to another backend.") }
    if !omissions.isEmpty { remarks.append("not run: one call would take longer than --seconds.") }
    if rows.contains(where: { !$0.isVerified }) { remarks.append("WRONG: the result is not what the reference says.") }
    if let machine = rows.first?.machine {
      remarks.append("peak: share of the nearer roof, FMA rate or read bandwidth; operands in cache can exceed it.")
      remarks.append("\(machine)")
    }
    self.remarks = remarks
  }

  private static func section(_ rows: [Measurement], _ backends: [String]) -> Section {
    let hasPeer = rows.contains { $0.backend == Peers.openBLAS }
    let cases = rows.map(\.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    // Arithmetic is the measure where it bounds the operation at these shapes, bytes elsewhere.
    let isArithmetic = rows.contains { $0.flops / $0.bytes > $0.machine.peakFlops / $0.machine.readBytes }
    let best = backends.contains(MultithreadedBackend.name) ? MultithreadedBackend.name : backends.last ?? ""

    var header = ["case", "ms"] + backends
    if hasPeer { header += [Peers.openBLAS, "ratio"] }
    header.append("peak")
    let lines = cases.map { name in
      let row = Dictionary(rows.filter { $0.name == name }.map { ($0.backend, $0) }, uniquingKeysWith: { $1 })
      func cell(_ backend: String) -> String {
        guard let row = row[backend] else { return "not run" }
        let rate = isArithmetic ? row.gflops : row.gbps
        let text = String(format: rate < 10 ? "%.2f" : "%.1f", rate) + (row.fallback == nil ? "" : "*")
        return row.isVerified ? text : "WRONG"
      }
      var line = [name, row[best].map { String(format: "%.3f", $0.median * 1e3) } ?? ""] + backends.map(cell)
      if hasPeer {
        let ratio = row[Peers.openBLAS].flatMap { peer in row[best].map { peer.median / $0.median } }
        line += [
          row[Peers.openBLAS] == nil ? "" : cell(Peers.openBLAS), ratio.map { String(format: "%.2f", $0) } ?? "",
        ]
      }
      line.append(row[best].map { String(format: "%.0f%%", $0.peakFraction * 100) } ?? "")
      return line
    }
    let ratio = hasPeer ? ", ratio: \(best) to openblas" : ""
    let title = "\(rows.first?.operation ?? "") (\(isArithmetic ? "GFLOP/s" : "GB/s"); ms and peak: \(best)\(ratio))"
    return Section(title: title, header: header, lines: lines)
  }

  /// Columns aligned with spaces; one width for every section, so that the eye can go down.
  var text: String {
    let name = sections.flatMap { $0.lines.map { $0[0].count } }.max() ?? 0
    var output = ""
    for section in sections {
      let widths = section.header.indices.map { column in
        ([section.header] + section.lines).map { $0[column].count }.max() ?? 0
      }
      output += section.title + "\n"
      for line in [section.header] + section.lines {
        let cells = line.enumerated().map { column, cell in
          column == 0 ? Self.pad(cell, -name) : Self.pad(cell, max(widths[column], 7))
        }
        output += "  " + cells.joined(separator: "  ") + "\n"
      }
      output += "\n"
    }
    return output + remarks.map { $0 + "\n" }.joined()
  }

  var markdown: String {
    var output = ""
    for section in sections {
      output += "### \(section.title)\n\n"
      output += "| " + section.header.joined(separator: " | ") + " |\n"
      output += "|---|" + String(repeating: "---:|", count: section.header.count - 1) + "\n"
      for line in section.lines { output += "| " + line.joined(separator: " | ") + " |\n" }
      output += "\n"
    }
    return output + remarks.map { "- " + $0.replacingOccurrences(of: "*:", with: "\\*:") + "\n" }.joined()
  }

  /// Aligned right in a column of this width; left where it is negative.
  private static func pad(_ text: String, _ width: Int) -> String {
    let space = String(repeating: " ", count: max(0, abs(width) - text.count))
    return width < 0 ? text + space : space + text
  }
}

import Foundation
import Quern
import QuernTesting

/// One case on one backend: a row of the results.
struct Measurement {
  let operation: String
  let name: String
  let model: String?
  let backend: String
  let isa: String
  let threads: Int
  let median, p10, p90: Double
  let repetitions: Int
  let flops, bytes: Double
  let isVerified: Bool
  let errorOverBound: Double
  let fallback: String?
  let note: String?
  /// Rows of the result that were compared; `nil` for all.
  let rows: Int?
  let machine: Machine

  init(_ entry: BenchmarkCases.Entry, _ workload: Workload, _ contender: Contender, _ machine: Machine, rows: Int?) {
    (operation, name, model) = (entry.operation.rawValue, entry.name, entry.model)
    (backend, isa, threads) = (contender.name, contender.isa, contender.threads)
    (median, p10, p90) = (contender.quantile(0.5), contender.quantile(0.1), contender.quantile(0.9))
    repetitions = contender.repetitions
    (flops, bytes) = (workload.flops, workload.bytes)
    (isVerified, errorOverBound) = (contender.verification.isVerified, contender.verification.errorOverBound)
    (fallback, note, self.rows, self.machine) = (contender.fallback, contender.note, rows, machine)
  }

  var gflops: Double { flops / median / 1e9 }
  var gbps: Double { bytes / median / 1e9 }
  /// Against the best peaks that the run has shown so far: final once it is over.
  var peakFraction: Double { machine.peakFraction(flops: flops, bytes: bytes, seconds: median) }
}

/// Measurements for programs to read.
enum Records {
  enum Value {
    case text(String?), number(Double), count(Int), flag(Bool)
  }

  /// The columns in order; a contract with whoever reads JSON or CSV.
  static func fields(_ row: Measurement) -> [(name: String, value: Value)] {
    [
      ("op", .text(row.operation)), ("case", .text(row.name)), ("dtype", .text("f32")), ("backend", .text(row.backend)),
      ("isa", .text(row.isa)), ("threads", .count(row.threads)), ("median_seconds", .number(row.median)),
      ("p10_seconds", .number(row.p10)), ("p90_seconds", .number(row.p90)), ("repetitions", .count(row.repetitions)),
      ("flops", .number(row.flops)), ("bytes", .number(row.bytes)), ("gflops", .number(row.gflops)),
      ("gbps", .number(row.gbps)), ("peak_fraction", .number(row.peakFraction)), ("verified", .flag(row.isVerified)),
      ("error_over_bound", .number(row.errorOverBound)), ("rows_checked", .text(row.rows.map(String.init) ?? "all")),
      ("peak_gflops", .number(row.machine.peakFlops / 1e9)), ("read_gbps", .number(row.machine.readBytes / 1e9)),
      ("model", .text(row.model)), ("fallback", .text(row.fallback)), ("note", .text(row.note)),
    ]
  }

  static func json(_ rows: [Measurement]) -> String {
    let objects = rows.map { row in
      "  {" + fields(row).map { "\(quoted($0.name)): \(json($0.value))" }.joined(separator: ", ") + "}"
    }
    return rows.isEmpty ? "[]" : "[\n" + objects.joined(separator: ",\n") + "\n]"
  }

  static func csv(_ rows: [Measurement]) -> String {
    guard let first = rows.first else { return "" }
    let lines = [fields(first).map(\.name)] + rows.map { fields($0).map { csv($0.value) } }
    return lines.map { $0.joined(separator: ",") + "\n" }.joined()
  }

  private static func json(_ value: Value) -> String {
    switch value {
    case .text(let text): text.map(quoted) ?? "null"
    case .number(let number): decimal(number) ?? "null"
    case .count(let count): "\(count)"
    case .flag(let flag): "\(flag)"
    }
  }

  private static func csv(_ value: Value) -> String {
    switch value {
    case .text(let text):
      guard let text, text.contains(where: { ",\"\n".contains($0) }) else { return text ?? "" }
      return "\"" + text.replacingOccurrences(of: "\"", with: "\"\"") + "\""
    case .number(let number): return decimal(number) ?? ""
    case .count(let count): return "\(count)"
    case .flag(let flag): return "\(flag)"
    }
  }

  /// Six digits: more than any clock gives. `nil` for what JSON cannot say.
  private static func decimal(_ number: Double) -> String? {
    guard number.isFinite else { return nil }
    let isWhole = number == number.rounded() && abs(number) < 1e15
    return String(format: isWhole ? "%.0f" : "%.6g", number)
  }

  /// Names hold no control characters.
  private static func quoted(_ text: String) -> String {
    "\"" + text.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\"", with: "\\\"") + "\""
  }
}

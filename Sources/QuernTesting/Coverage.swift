import Quern

/// Which backend does which operation, found out by running: nothing is declared.
public enum Coverage {
  /// The operations that a backend hands on, and the backend that then runs each.
  public static func handedOn(by backend: any Backend) throws -> [Quern.Operation: String] {
    var table: [Quern.Operation: String] = [:]
    for operation in Quern.Operation.allCases { table[operation] = try fallback(of: operation, on: backend) }
    return table
  }

  /// A Markdown table: a row for each operation, a column for each backend.
  public static func table(of backends: [any Backend]) throws -> String {
    let names = backends.map { type(of: $0).name }
    let columns = try backends.map(handedOn)
    var lines = ["| Operation | " + names.map { "`\($0)`" }.joined(separator: " | ") + " |"]
    lines.append("|---|" + String(repeating: "---|", count: names.count))
    for operation in Quern.Operation.allCases {
      let cells = columns.map { column in column[operation].map { "→ `\($0)`" } ?? "own" }
      lines.append("| `\(operation.rawValue)` | " + cells.joined(separator: " | ") + " |")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// How often to look. The trace belongs to the process, so that others who use the same backend meanwhile can make an
  /// operation look handed on; they cannot make a real fallback go unseen.
  private static let attempts = 50

  private static func fallback(of operation: Quern.Operation, on backend: any Backend) throws -> String? {
    let context = Context(backend: backend)
    var seen: String?
    for _ in 0..<attempts {
      let before = Trace.fallbacks
      try run(operation, context)
      let taken = Trace.fallbacks.filter { event, count in
        event.backend == type(of: backend).name && event.operation == operation && count > before[event] ?? 0
      }
      guard let event = taken.keys.first else { return nil }
      seen = event.fallback
    }
    return seen
  }

  /// One plain call.
  private static func run(_ operation: Quern.Operation, _ context: Context) throws {
    if operation == .pack {
      _ = try context.pack(try Operands(seed: 1).make(Shape(5, 3)).view)
      return
    }
    // The first case that writes something shows which backend does the operation.
    for entry in TestCases.all where entry.operation == operation {
      let workload = try entry.workload(seed: 1)
      guard workload.output.shape.count > 0 else { continue }
      _ = try workload.result(on: context)
      return
    }
  }
}

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
    let operands = Operands(seed: 1)
    if operation == .pack {
      _ = try context.pack(try operands.make(Shape(5, 3)).view)
      return
    }
    let rows = RowShape(3, 5)
    let workload: Workload =
      switch operation {
      case .pack, .linear: try .linear(LinearShape(m: 3, n: 5, k: 4, bias: true), operands: operands)
      case .matmul: try .matmul(MatmulShape(m: 3, n: 5, k: 4), operands: operands)
      case .attention: try .attention(AttentionShape([3], heads: 2, size: 4), operands: operands)
      case .softmax: try .softmax(rows, operands: operands)
      case .layerNorm: try .norm(.layerNorm, rows, operands: operands)
      case .rmsNorm: try .norm(.rmsNorm, rows, operands: operands)
      case .l2Normalize: try .norm(.l2Normalize, rows, operands: operands)
      case .activation: try .activation(.gelu, rows, operands: operands)
      case .embedding: try .embedding(rows, table: 7, operands: operands)
      case .add, .multiply: try .binary(operation, rows, operands: operands)
      case .scale: try .scale(rows, by: 2, operands: operands)
      case .meanPool: try .meanPool([1, 2], n: 5, operands: operands)
      }
    _ = try workload.result(on: context)
  }
}

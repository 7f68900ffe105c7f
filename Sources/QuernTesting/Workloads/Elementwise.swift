import Quern

/// Operations that work along rows: `rows` of `n` elements.
public struct RowShape: Sendable, CustomStringConvertible {
  public var rows, n: Int
  public init(_ rows: Int, _ n: Int) { (self.rows, self.n) = (rows, n) }
  public var description: String { "rows=\(rows) n=\(n)" }
  var count: Double { Double(rows) * Double(n) }

  /// Around vector widths, and empty ones.
  static let tests: [RowShape] = [
    RowShape(0, 5), RowShape(3, 0), RowShape(1, 1), RowShape(2, 7), RowShape(5, 8), RowShape(3, 15), RowShape(4, 16),
    RowShape(7, 17), RowShape(2, 31), RowShape(3, 33), RowShape(5, 64), RowShape(4, 127), RowShape(9, 384),
    RowShape(2, 1031),
    RowShape(130, 61),
  ]
}

extension Workload {
  public static func activation(
    _ activation: Activation, _ shape: RowShape, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n), scale: 3)
    return Workload(
      .activation, name ?? "\(activation.rawValue) \(shape)", kernels: ["f32_activation"], flops: 10 * shape.count,
      bytes: 8 * shape.count, isExactOnIntegers: activation == .relu || activation == .identity, operands: operands,
      output: try operands.make(x.shape),
      prepare: { context in { y in try context.activation(activation, x.view, into: y) } },
      bound: { $0.activation(activation, x.view, expected: $1) })
  }

  public static func elementFunction(
    _ function: ElementFunction, _ shape: RowShape, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n), scale: 3)
    return Workload(
      .elementFunction, name ?? "\(function.rawValue) \(shape)", kernels: ["f32_\(function.rawValue)"],
      flops: 15 * shape.count, bytes: 8 * shape.count, operands: operands, output: try operands.make(x.shape),
      prepare: { context in { y in try context.elementFunction(function, x.view, into: y) } },
      bound: { $0.elementFunction(function, expected: $1) })
  }

  public static func repu(
    _ shape: RowShape, power: Int, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    return Workload(
      .repu, name ?? "\(shape) power=\(power)", kernels: ["f32_repu"], flops: Double(power) * shape.count,
      bytes: 8 * shape.count, isExactOnIntegers: power <= 8, operands: operands, output: try operands.make(x.shape),
      prepare: { context in { y in try context.repu(x.view, power: power, into: y) } },
      bound: { $0.repu(power: power, expected: $1) })
  }

  /// Gate and value are the two halves of one tensor, in either order.
  public static func gated(
    _ activation: Activation, _ shape: RowShape, gateFirst: Bool = true, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let both = try operands.make(Shape(shape.rows, 2 * shape.n), scale: 2)
    let (first, second) = (both.columns(0..<shape.n), both.columns(shape.n..<2 * shape.n))
    let (gate, value) = gateFirst ? (first, second) : (second, first)
    return Workload(
      .gated, name ?? "\(activation.rawValue) \(shape)" + (gateFirst ? "" : " value first"), kernels: ["f32_gated"],
      flops: 11 * shape.count, bytes: 12 * shape.count,
      isExactOnIntegers: activation == .relu || activation == .identity, operands: operands,
      output: try operands.make(Shape(shape.rows, shape.n)),
      prepare: { context in
        { y in try context.gated(activation, gate: gate.view, value: value.view, into: y) }
      },
      bound: { $0.gated(activation, gate: gate.view, value: value.view, expected: $1) })
  }

  /// add and multiply.
  public static func binary(
    _ operation: Quern.Operation, _ shape: RowShape, oneRow: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let a = try operands.make(Shape(shape.rows, shape.n))
    let b = try operands.make(Shape(oneRow ? 1 : shape.rows, shape.n))
    let adds = operation == .add
    return Workload(
      operation, name ?? "\(shape)" + (oneRow ? " one row" : ""), kernels: [adds ? "f32_add" : "f32_mul"],
      flops: shape.count, bytes: 12 * shape.count, isExactOnIntegers: true, operands: operands,
      output: try operands.make(a.shape),
      prepare: { context in
        { y in try adds ? context.add(a.view, b.view, into: y) : context.multiply(a.view, b.view, into: y) }
      },
      bound: { $0.roundedOnce($1) })
  }

  public static func scale(
    _ shape: RowShape, by factor: Float, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    return Workload(
      .scale, name ?? "\(shape) by \(factor)", kernels: ["f32_scale"], flops: shape.count, bytes: 8 * shape.count,
      isExactOnIntegers: true, operands: operands, output: try operands.make(x.shape),
      prepare: { context in { y in try context.scale(x.view, by: factor, into: y) } },
      bound: { $0.roundedOnce($1) })
  }
}

extension Suite {
  static let elementwise = Suite(
    tests: elementwiseTests, benchmarks: elementwiseBenchmarks,
    mutants: [
      Mutant(.activation, "tanh for the sigmoid") {
        try .activation(.sigmoid, RowShape(3, 17), operands: $0)
      } wrong: {
        try .activation(.tanh, RowShape(3, 17), operands: $0)
      },
      Mutant(.elementFunction, "exp for softplus") {
        try .elementFunction(.softplus, RowShape(3, 17), operands: $0)
      } wrong: {
        try .elementFunction(.exp, RowShape(3, 17), operands: $0)
      },
      Mutant(.repu, "a power too high") {
        try .repu(RowShape(3, 17), power: 4, operands: $0)
      } wrong: {
        try .repu(RowShape(3, 17), power: 5, operands: $0)
      },
      Mutant(.gated, "the halves exchanged") {
        try .gated(.silu, RowShape(3, 17), operands: $0)
      } wrong: {
        try .gated(.silu, RowShape(3, 17), gateFirst: false, operands: $0)
      },
      Mutant(.gated, "quick-GELU for GELU") {
        try .gated(.gelu, RowShape(3, 17), operands: $0)
      } wrong: {
        try .gated(.quickGelu, RowShape(3, 17), operands: $0)
      },
      Mutant(.scale, "a factor off by 2^-18") {
        try .scale(RowShape(3, 17), by: 1.5, operands: $0)
      } wrong: {
        try .scale(RowShape(3, 17), by: 1.5 + 0x1p-18, operands: $0)
      },
      Mutant(.add, "multiplies") {
        try .binary(.add, RowShape(3, 17), operands: $0)
      } wrong: {
        try .binary(.multiply, RowShape(3, 17), operands: $0)
      },
      Mutant(.multiply, "adds") {
        try .binary(.multiply, RowShape(3, 17), operands: $0)
      } wrong: {
        try .binary(.add, RowShape(3, 17), operands: $0)
      },
    ])

  private static let elementwiseTests: [TestCases.Entry] = RowShape.tests.flatMap { shape -> [TestCases.Entry] in
    Activation.allCases.map { activation in
      TestCases.Entry(.activation) { try .activation(activation, shape, operands: $0) }
    }
      + ElementFunction.allCases.map { function in
        TestCases.Entry(.elementFunction) { try .elementFunction(function, shape, operands: $0) }
      } + [1, 2, 3, 6, 11].map { power in TestCases.Entry(.repu) { try .repu(shape, power: power, operands: $0) } }
      + [Activation.sigmoid, .silu, .gelu, .relu].map { activation in
        TestCases.Entry(.gated) {
          try .gated(activation, shape, gateFirst: activation != .sigmoid, operands: $0)
        }
      }
      + [Quern.Operation.add, .multiply].flatMap { operation in
        [false, true].map { oneRow in
          TestCases.Entry(operation) { try .binary(operation, shape, oneRow: oneRow && shape.rows > 0, operands: $0) }
        }
      } + [TestCases.Entry(.scale) { try .scale(shape, by: -1.5, operands: $0) }]
  }

  private static let elementwiseBenchmarks: [BenchmarkCases.Entry] =
    [
      BenchmarkCases.Entry(.add, "MiniLM: rows=4096 n=384", kernels: ["f32_add"]) {
        try .binary(.add, RowShape(4096, 384), name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.multiply, "Llama-3.2-1B gate: rows=512 n=8192", kernels: ["f32_mul"]) {
        try .binary(.multiply, RowShape(512, 8192), name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.gated, "Llama-3.2-1B SwiGLU: rows=512 n=8192", kernels: ["f32_gated"]) {
        try .gated(.silu, RowShape(512, 8192), name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.repu, "squared ReLU: rows=4096 n=1536", kernels: ["f32_repu"]) {
        try .repu(RowShape(4096, 1536), power: 2, name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.scale, "MiniLM: rows=4096 n=384", kernels: ["f32_scale"]) {
        try .scale(RowShape(4096, 384), by: 0.125, name: $0, operands: $1)
      },
    ]
    + ElementFunction.allCases.map { function in
      BenchmarkCases.Entry(
        .elementFunction, "MiniLM \(function.rawValue): rows=4096 n=1536", kernels: ["f32_\(function.rawValue)"]
      ) {
        try .elementFunction(function, RowShape(4096, 1536), name: $0, operands: $1)
      }
    }
    + Activation.allCases.filter { $0 != .identity }.map { activation in
      BenchmarkCases.Entry(.activation, "MiniLM \(activation.rawValue): rows=4096 n=1536", kernels: ["f32_activation"])
      {
        try .activation(activation, RowShape(4096, 1536), name: $0, operands: $1)
      }
    }
}

import Foundation
import Quern

/// `rope`: tokens, heads, the elements turned, and how.
public struct RopeShape: Sendable, CustomStringConvertible {
  public var tokens, heads, size, turned: Int
  public var pairing: RotaryPairing
  public var isInPlace = false
  /// Added to every position.
  public var shift = 0

  public init(
    _ tokens: Int, heads: Int, size: Int, turned: Int? = nil, pairing: RotaryPairing = .split, inPlace: Bool = false
  ) {
    (self.tokens, self.heads, self.size, self.turned) = (tokens, heads, size, turned ?? size)
    (self.pairing, isInPlace) = (pairing, inPlace)
  }

  public var description: String {
    "tokens=\(tokens) heads=\(heads) d=\(size)" + (turned == size ? "" : " turned=\(turned)") + " \(pairing.rawValue)"
      + (isInPlace ? " in place" : "")
  }
}

extension Workload {
  public static func rope(_ shape: RopeShape, name: String? = nil, operands: Operands) throws -> Workload {
    let extents = Shape(shape.tokens, shape.heads, shape.size)
    let x = try operands.make(extents)
    let output = shape.isInPlace ? x : try operands.make(extents)
    let table = try RotaryTable(positions: 64 + shape.shift, size: shape.turned, theta: 500000)
    let positions = operands.ids(shape.tokens, below: 64).map { $0 + Int32(shape.shift) }
    return Workload(
      .rope, name ?? "\(shape)", kernels: ["f32_rope"],
      flops: 3 * Double(shape.tokens * shape.heads * shape.turned),
      bytes: 2 * Double(extents.count * x.dataType.size), operands: operands, output: output,
      prepare: { context in
        { y in
          try context.rope(
            shape.isInPlace ? y.view : x.view, table: table, positions: positions, pairing: shape.pairing, into: y)
        }
      },
      bound: { bounds, _ in bounds.rope(x.view, table: table, positions: positions, pairing: shape.pairing) })
  }

  /// - Parameters:
  ///   - new: rows of each sequence.
  ///   - type: that of the cache; the case's where none is given.
  public static func appendToCache(
    _ new: [Int], held: [Int32], capacity: Int, heads: Int, size: Int, type: DataType? = nil, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let sequences = try Segments(lengths: new)
    let x = try operands.make(Shape(sequences.total, heads, size))
    let cache = try operands.make(Shape(new.count, capacity, heads, size), as: type)
    return Workload(
      .appendToCache,
      name ?? "new=\(new) held=\(held) capacity=\(capacity) heads=\(heads) d=\(size) cache=\(cache.dataType)",
      kernels: ["f32_widen", "f32_narrow"], flops: 0,
      bytes: Double(x.shape.count * (x.dataType.size + cache.dataType.size)),
      isExactOnIntegers: true, operands: operands, output: cache,
      prepare: { context in
        { cache in try context.appendToCache(x.view, sequences: sequences, lengths: held, cache: cache) }
      },
      bound: { $0.exact($1) })
  }

  /// To a cache in 8 bits, whose codes and scales are the same on every backend.
  ///
  /// - Parameter isDecoded: whether the result is what the cache then stands for; a call that is timed leaves it alone.
  public static func appendToInt8Cache(
    _ new: [Int], held: [Int32], capacity: Int, heads: Int, size: Int, isDecoded: Bool = true, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let sequences = try Segments(lengths: new)
    let x = try operands.make(Shape(sequences.total, heads, size))
    let cache = try operands.int8Cache(new.count, capacity: capacity, heads: heads, size: size)
    let vectors = new.count * capacity * heads
    let output = try MutableTensor(zeros: Shape(isDecoded ? new.count : 0, capacity, heads, size))
    return Workload(
      .appendToInt8Cache, name ?? "new=\(new) held=\(held) capacity=\(capacity) heads=\(heads) d=\(size)",
      kernels: ["i8_quantize_vector"], flops: 0,
      bytes: Double(x.shape.count * (x.dataType.size + 1) + sequences.total * heads * 4), operands: operands,
      output: output,
      prepare: { context in
        { y in
          if isDecoded {
            memset(cache.codes, 3, vectors * size)
            for vector in 0..<vectors { cache.scales[vector] = 0.5 }
          }
          try context.appendToCache(x.view, sequences: sequences, lengths: held, cache: cache)
          for sequence in 0..<y.shape[0] {
            for position in 0..<capacity {
              for head in 0..<heads {
                for j in 0..<size { y[sequence, position, head, j] = cache[sequence, position, head, j] }
              }
            }
          }
        }
      },
      bound: { $0.exact($1) })
  }
}

extension Suite {
  static let positions = Suite(
    tests: ropeTests + appendTests + int8AppendTests, benchmarks: positionBenchmarks,
    mutants: [
      Mutant(
        .rope, "turns the wrong pairs", right: { try .rope(RopeShape(5, heads: 2, size: 16), operands: $0) },
        wrong: { try .rope(RopeShape(5, heads: 2, size: 16, pairing: .interleaved), operands: $0) }),
      Mutant(
        .rope, "off by one position", right: { try .rope(RopeShape(5, heads: 2, size: 16), operands: $0) },
        wrong: {
          var shape = RopeShape(5, heads: 2, size: 16)
          shape.shift = 1
          return try .rope(shape, operands: $0)
        }),
      Mutant(
        .rope, "turns the whole head", right: { try .rope(RopeShape(5, heads: 2, size: 16, turned: 8), operands: $0) },
        wrong: { try .rope(RopeShape(5, heads: 2, size: 16), operands: $0) }),
      Mutant(
        .appendToCache, "overwrites what is held",
        right: { try .appendToCache([2, 1], held: [3, 1], capacity: 6, heads: 2, size: 8, operands: $0) },
        wrong: { try .appendToCache([2, 1], held: [0, 0], capacity: 6, heads: 2, size: 8, operands: $0) }),
      Mutant(
        .appendToInt8Cache, "overwrites what is held",
        right: { try .appendToInt8Cache([2, 1], held: [3, 1], capacity: 6, heads: 2, size: 8, operands: $0) },
        wrong: { try .appendToInt8Cache([2, 1], held: [0, 0], capacity: 6, heads: 2, size: 8, operands: $0) }),
    ])

  private static let ropeTests: [TestCases.Entry] = {
    var shapes = [RopeShape(0, heads: 2, size: 8), RopeShape(3, heads: 0, size: 8), RopeShape(2, heads: 2, size: 0)]
    for pairing in RotaryPairing.allCases {
      for size in [2, 14, 16, 30, 32, 34, 64, 80, 128] {
        shapes.append(RopeShape(size % 5 + 1, heads: 3, size: size, pairing: pairing))
      }
      shapes += [
        RopeShape(4, heads: 2, size: 33, turned: 20, pairing: pairing),
        RopeShape(4, heads: 2, size: 7, turned: 0, pairing: pairing),
        RopeShape(130, heads: 5, size: 64, turned: 32, pairing: pairing),
        RopeShape(7, heads: 3, size: 40, turned: 24, pairing: pairing, inPlace: true),
      ]
    }
    return shapes.map { shape in TestCases.Entry(.rope) { try .rope(shape, operands: $0) } }
  }()

  private static let appendTests: [TestCases.Entry] = [DataType?.none, .f32, .bf16, .f16].flatMap { type in
    [
      ([2, 0, 3], [1, 4, 0], 5, 2, 8), ([1], [0], 1, 1, 1), ([0], [2], 2, 3, 5), ([], [], 4, 2, 8),
      ([17, 33], [3, 300], 400, 3, 300),
    ].map { (new: [Int], held: [Int32], capacity: Int, heads: Int, size: Int) in
      TestCases.Entry(.appendToCache) {
        try .appendToCache(new, held: held, capacity: capacity, heads: heads, size: size, type: type, operands: $0)
      }
    }
  }

  private static let int8AppendTests: [TestCases.Entry] =
    [
      ([2, 0, 3], [1, 4, 0], 5, 2, 8), ([1], [0], 1, 1, 1), ([0], [2], 2, 3, 5), ([], [], 4, 2, 8),
      ([3, 1], [0, 2], 4, 2, 33), ([17, 33], [3, 30], 70, 3, 100),
    ].map { (new: [Int], held: [Int32], capacity: Int, heads: Int, size: Int) in
      TestCases.Entry(.appendToInt8Cache) {
        try .appendToInt8Cache(new, held: held, capacity: capacity, heads: heads, size: size, operands: $0)
      }
    }

  private static let positionBenchmarks: [BenchmarkCases.Entry] =
    [
      ("Llama-3.2-1B q", RopeShape(512, heads: 32, size: 64, inPlace: true)),
      ("GPT-J", RopeShape(512, heads: 16, size: 256, turned: 64, pairing: .interleaved, inPlace: true)),
    ].map { model, shape in
      BenchmarkCases.Entry(.rope, "\(model): \(shape)", kernels: ["f32_rope"]) {
        try .rope(shape, name: $0, operands: $1)
      }
    } + [
      BenchmarkCases.Entry(.appendToCache, "Llama-3.2-1B: 512 new rows, bf16 cache", kernels: ["f32_narrow"]) {
        try .appendToCache([512], held: [100], capacity: 1024, heads: 8, size: 64, type: .bf16, name: $0, operands: $1)
      },
      BenchmarkCases.Entry(
        .appendToInt8Cache, "Llama-3.2-1B: 512 new rows, int8 cache", kernels: ["i8_quantize_vector"]
      ) {
        try .appendToInt8Cache(
          [512], held: [100], capacity: 1024, heads: 8, size: 64, isDecoded: false, name: $0, operands: $1)
      },
    ]
}

import Quern

extension Workload {
  /// `order` permutes the axes of x, whose memory has the order before; types are the case's where none is given.
  public static func copy(
    _ shape: Shape, order: Shape? = nil, from: DataType? = nil, to: DataType? = nil, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let memory = try operands.make(shape, as: from).view
    let x = order.map { memory.permuted($0) } ?? memory
    let output = try operands.make(x.shape, as: to)
    let kernels = ["f32_widen", "f32_narrow"].filter {
      from != to && ($0 == "f32_widen" ? from != .f32 : to != .f32)
    }
    let types = "\(from?.rawValue ?? "as is") to \(to?.rawValue ?? "as is")"
    let moved = order.map { " permuted \($0)" } ?? ""
    return Workload(
      .copy, name ?? "\(shape)\(moved) \(types)", kernels: kernels + (order == nil ? [] : ["f32_transpose"]), flops: 0,
      bytes: Double(shape.count) * Double(x.dataType.size + output.dataType.size), isExactOnIntegers: true,
      operands: operands, output: output,
      prepare: { context in { y in try context.copy(x, into: y) } },
      bound: { $0.exact($1) })
  }

  /// `concat` of parts of these lengths along an axis, after a `split` of one tensor into them.
  public static func concat(
    _ lengths: [Int], axis: Int, of shape: Shape, reverses: Bool = false, operands: Operands
  ) throws -> Workload {
    var whole = shape
    whole[axis] = lengths.reduce(0, +)
    let x = try operands.make(whole)
    let parts = try lengths.map { length in
      var part = shape
      part[axis] = length
      return try MutableTensor(zeros: part, dataType: operands.dataType)
    }
    return Workload(
      .copy, "concat \(lengths) along \(axis) of \(whole)", kernels: [], flops: 0,
      bytes: 4 * Double(whole.count * operands.dataType.size), isExactOnIntegers: true, operands: operands,
      output: try operands.make(whole),
      prepare: { context in
        { y in
          try context.split(x.view, axis: axis, into: parts)
          try context.concat((reverses ? parts.reversed() : parts).map(\.view), axis: axis, into: y)
        }
      },
      bound: { $0.exact($1) })
  }

  public static func binaryFunction(
    _ function: BinaryFunction, _ shape: RowShape, oneRow: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let a = try operands.make(Shape(shape.rows, shape.n))
    let b = try operands.make(Shape(oneRow ? 1 : shape.rows, shape.n))
    return Workload(
      .binary, name ?? "\(function.rawValue) \(shape)" + (oneRow ? " one row" : ""), kernels: ["f32_binary"],
      flops: shape.count, bytes: 12 * shape.count, isExactOnIntegers: true, operands: operands,
      output: try operands.make(a.shape),
      prepare: { context in { y in try context.binary(function, a.view, b.view, into: y) } },
      bound: { $0.binary($1) })
  }

  public static func clamp(
    _ shape: RowShape, low: Float, high: Float, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    return Workload(
      .clamp, name ?? "\(shape) to \(low)...\(high)", kernels: ["f32_clamp"], flops: 2 * shape.count,
      bytes: 8 * shape.count, isExactOnIntegers: true, operands: operands, output: try operands.make(x.shape),
      prepare: { context in { y in try context.clamp(x.view, low: low, high: high, into: y) } },
      bound: { $0.exact($1) })
  }

  /// A third of the mask is 0 and another third -0.
  public static func select(
    _ shape: RowShape, oneRow: Bool = false, ignoresMask: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    let mask = try operands.make(Shape(oneRow ? 1 : shape.rows, shape.n))
    for position in 0..<mask.shape.count where position % 3 != 0 {
      mask.store(position % 3 == 1 ? 0 : -0.0, at: mask.offset(of: position))
    }
    return Workload(
      .select, name ?? "\(shape)" + (oneRow ? " one row" : ""), kernels: ["f32_masked_copy"], flops: 0,
      bytes: 16 * shape.count, isExactOnIntegers: true, operands: operands, output: try operands.make(x.shape),
      prepare: { context in
        { y in try ignoresMask ? context.copy(x.view, into: y) : context.select(x.view, mask: mask.view, into: y) }
      },
      bound: { $0.exact($1) })
  }

  public static func lerp(
    _ shape: RowShape, fraction: Float, oneRow: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let a = try operands.make(Shape(shape.rows, shape.n))
    let b = try operands.make(Shape(oneRow ? 1 : shape.rows, shape.n))
    return Workload(
      .lerp, name ?? "\(shape) at \(fraction)" + (oneRow ? " one row" : ""), kernels: ["f32_lerp"],
      flops: 3 * shape.count, bytes: 12 * shape.count, operands: operands, output: try operands.make(a.shape),
      prepare: { context in { y in try context.lerp(a.view, b.view, fraction: fraction, into: y) } },
      bound: { $0.lerp(a.view, rows(b, of: a), fraction: fraction, expected: $1) })
  }

  public static func slerp(
    _ shape: RowShape, fraction: Float, oneRow: Bool = false, goesStraight: Bool = false, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let a = try operands.make(Shape(shape.rows, shape.n))
    let b = try operands.make(Shape(oneRow ? 1 : shape.rows, shape.n))
    return Workload(
      .slerp, name ?? "\(shape) at \(fraction)" + (oneRow ? " one row" : ""), kernels: ["f32_slerp"],
      flops: 9 * shape.count, bytes: 12 * shape.count, operands: operands, output: try operands.make(a.shape),
      prepare: { context in
        { y in
          if goesStraight { return try context.lerp(a.view, b.view, fraction: fraction, into: y) }
          try context.slerp(a.view, b.view, fraction: fraction, into: y)
        }
      },
      bound: { $0.slerp(a.view, rows(b, of: a), fraction: fraction, expected: $1) })
  }
}

/// b, whose one row may stand for all of a.
private func rows(_ b: MutableTensor, of a: MutableTensor) -> TensorView {
  b.shape == a.shape ? b.view : b.view.reinterpreted(offset: 0, shape: a.shape, strides: Shape(0, b.strides[1]))
}

extension Suite {
  static let data = Suite(tests: dataTests, benchmarks: dataBenchmarks, mutants: dataMutants)

  private static let dataShapes = [
    RowShape(0, 5), RowShape(3, 0), RowShape(1, 1), RowShape(3, 17), RowShape(130, 61), RowShape(2, 1031),
  ]

  private static let dataTests: [TestCases.Entry] =
    [
      (Shape(), nil), (Shape(5), nil), (Shape(3, 0), nil), (Shape(7, 33), nil), (Shape(3, 5, 9), nil),
      (Shape(7, 33), Shape(1, 0)), (Shape(64, 130), Shape(1, 0)), (Shape(9, 5, 17), Shape(1, 0, 2)),
      (Shape(9, 5, 17), Shape(2, 1, 0)), (Shape(2, 19, 4, 21), Shape(0, 2, 3, 1)),
      (Shape(2, 4, 21, 19), Shape(0, 3, 1, 2)),
      (Shape(3, 4, 5, 6), Shape(3, 1, 0, 2)), (Shape(3, 1, 70), Shape(2, 0, 1)),
    ].flatMap { (shape: Shape, order: Shape?) in
      [(nil, nil), (nil, DataType.f32), (.f32, .bf16), (.f32, .f16), (.bf16, .f16)].map {
        (types: (DataType?, DataType?)) in
        TestCases.Entry(.copy) { try .copy(shape, order: order, from: types.0, to: types.1, operands: $0) }
      }
    } + [
      TestCases.Entry(.copy) { try .concat([3, 0, 5], axis: 0, of: Shape(1, 7), operands: $0) },
      TestCases.Entry(.copy) { try .concat([4, 1], axis: 1, of: Shape(3, 1, 6), operands: $0) },
      TestCases.Entry(.copy) { try .concat([17, 9, 1], axis: 3, of: Shape(2, 3, 4, 1), operands: $0) },
    ]
    + dataShapes.flatMap { shape in
      [false, true].flatMap { (oneRow: Bool) -> [TestCases.Entry] in
        let oneRow = oneRow && shape.rows > 0
        return BinaryFunction.allCases.map { function in
          TestCases.Entry(.binary) { try .binaryFunction(function, shape, oneRow: oneRow, operands: $0) }
        } + [
          TestCases.Entry(.select) { try .select(shape, oneRow: oneRow, operands: $0) },
          TestCases.Entry(.clamp) { try .clamp(shape, low: oneRow ? -.infinity : -1, high: 0.5, operands: $0) },
          TestCases.Entry(.lerp) { try .lerp(shape, fraction: oneRow ? 0.7 : 0.3, oneRow: oneRow, operands: $0) },
          TestCases.Entry(.slerp) { try .slerp(shape, fraction: oneRow ? 0.3 : 0.75, oneRow: oneRow, operands: $0) },
        ]
      }
    }

  private static let dataBenchmarks: [BenchmarkCases.Entry] =
    [
      ("SD-1.5 NCHW to NHWC: 1x320x64x64", Shape(1, 320, 64, 64), Shape(0, 2, 3, 1)),
      ("SD-1.5 NHWC to NCHW: 1x64x64x320", Shape(1, 64, 64, 320), Shape(0, 3, 1, 2)),
      ("Llama-3.2-1B heads first: 512x32x64", Shape(512, 32, 64), Shape(1, 0, 2)),
    ].map { name, shape, order in
      BenchmarkCases.Entry(.copy, name, kernels: ["f32_transpose"]) {
        try .copy(shape, order: order, name: $0, operands: $1)
      }
    }
    + [
      ("f32 to f32", DataType.f32, DataType.f32, []), ("bf16 to f32", .bf16, .f32, ["f32_widen"]),
      ("f32 to bf16", .f32, .bf16, ["f32_narrow"]),
    ].map { (name: String, from: DataType, to: DataType, kernels: [String]) in
      BenchmarkCases.Entry(.copy, "out of cache, \(name): 4096x4096", kernels: kernels) {
        try .copy(Shape(4096, 4096), from: from, to: to, name: $0, operands: $1)
      }
    } + [
      BenchmarkCases.Entry(.binary, "Llama-3.2-1B subtract: rows=512 n=2048", kernels: ["f32_binary"]) {
        try .binaryFunction(.subtract, RowShape(512, 2048), name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.clamp, "SD-1.5 pixels: rows=1536 n=512", kernels: ["f32_clamp"]) {
        try .clamp(RowShape(1536, 512), low: -1, high: 1, name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.select, "SD-1.5 inpainting latents: rows=4 n=4096", kernels: ["f32_masked_copy"]) {
        try .select(RowShape(4, 4096), oneRow: true, name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.lerp, "SD-1.5 latents: 4x64x64", kernels: ["f32_lerp"]) {
        try .lerp(RowShape(1, 16384), fraction: 0.3, name: $0, operands: $1)
      },
      BenchmarkCases.Entry(.slerp, "SD-1.5 latents: 4x64x64", kernels: ["f32_slerp"]) {
        try .slerp(RowShape(1, 16384), fraction: 0.3, name: $0, operands: $1)
      },
    ]

  private static let dataMutants: [Mutant] = [
    Mutant(.copy, "exchanges the wrong axes") {
      try .copy(Shape(5, 5, 5), order: Shape(0, 2, 1), operands: $0)
    } wrong: {
      try .copy(Shape(5, 5, 5), order: Shape(1, 0, 2), operands: $0)
    },
    Mutant(.copy, "keeps 8 bits where 11 are asked for") {
      try .copy(Shape(3, 17), from: .f32, to: .f16, operands: $0)
    } wrong: {
      try .copy(Shape(3, 17), from: .bf16, to: .f16, operands: $0)
    },
    Mutant(.copy, "joins the parts in reverse") {
      try .concat([3, 5], axis: 1, of: Shape(4, 1), operands: $0)
    } wrong: {
      try .concat([3, 5], axis: 1, of: Shape(4, 1), reverses: true, operands: $0)
    },
    Mutant(.binary, "the larger for the smaller") {
      try .binaryFunction(.minimum, RowShape(3, 17), operands: $0)
    } wrong: {
      try .binaryFunction(.maximum, RowShape(3, 17), operands: $0)
    },
    Mutant(.clamp, "forgets the lower end") {
      try .clamp(RowShape(3, 17), low: -0.5, high: 0.5, operands: $0)
    } wrong: {
      try .clamp(RowShape(3, 17), low: -.infinity, high: 0.5, operands: $0)
    },
    Mutant(.select, "ignores the mask") {
      try .select(RowShape(3, 17), operands: $0)
    } wrong: {
      try .select(RowShape(3, 17), ignoresMask: true, operands: $0)
    },
    Mutant(.lerp, "from the other end") {
      try .lerp(RowShape(3, 17), fraction: 0.3, operands: $0)
    } wrong: {
      try .lerp(RowShape(3, 17), fraction: 0.7, operands: $0)
    },
    Mutant(.slerp, "in a straight line") {
      try .slerp(RowShape(3, 17), fraction: 0.3, operands: $0)
    } wrong: {
      try .slerp(RowShape(3, 17), fraction: 0.3, goesStraight: true, operands: $0)
    },
  ]
}

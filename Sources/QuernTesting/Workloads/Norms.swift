import Quern

public enum Norm: String, Sendable, CaseIterable { case layerNorm, rmsNorm, l2Normalize }

extension Workload {
  public static func softmax(
    _ shape: RowShape, scale: Float = 1, masked: Bool = false, diagonal: Int? = nil, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n), scale: 4)
    let mask = masked ? try operands.make(Shape(shape.rows, shape.n)) : nil
    if let mask, shape.rows > 0 {
      for column in Swift.stride(from: 1, to: shape.n, by: 4) { mask.store(-.infinity, at: mask.offset(of: column)) }
    }
    let suffix =
      (scale == 1 ? "" : " scale=\(scale)") + (masked ? " mask" : "") + (diagonal.map { " diagonal=\($0)" } ?? "")
    return Workload(
      .softmax, name ?? "\(shape)\(suffix)", kernels: ["f32_softmax"], flops: 5 * shape.count,
      bytes: (masked ? 12 : 8) * shape.count, operands: operands, output: try operands.make(x.shape),
      prepare: { context in
        { y in try context.softmax(x.view, scale: scale, mask: mask?.view, diagonal: diagonal, into: y) }
      },
      bound: { $0.softmax(x.view, scale: scale, mask: mask?.view, expected: $1) })
  }

  /// `sum` of a norm beside its result: the rows of the output are those of y, then those of z.
  public static func residualNorm(
    _ kind: Norm, _ shape: RowShape, addsResidual: Bool = true, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let extents = Shape(shape.rows, shape.n)
    let (x, residual) = (try operands.make(extents), try operands.make(extents))
    let weight = try operands.vector(shape.n)
    let zeros = try MutableTensor(zeros: extents, dataType: operands.dataType)
    let added = addsResidual ? residual : zeros
    let layer = kind == .layerNorm
    return Workload(
      layer ? .layerNorm : .rmsNorm, name ?? "\(shape) residual sum",
      kernels: [layer ? "f32_layernorm" : "f32_rmsnorm"], flops: 8 * shape.count, bytes: 16 * shape.count,
      operands: operands, output: try operands.make(Shape(2 * shape.rows, shape.n)),
      prepare: { context in
        { output in
          let (y, sum) = (output.rows(0..<shape.rows), output.rows(shape.rows..<2 * shape.rows))
          if layer {
            try context.layerNorm(x.view, residual: added.view, sum: sum, weight: weight, into: y)
          } else {
            try context.rmsNorm(x.view, residual: added.view, sum: sum, weight: weight, epsilon: 1e-5, into: y)
          }
        }
      },
      bound: { bounds, expected in
        bounds.norm(kind, x.view, residual: residual.view, weight: weight, bias: nil, epsilon: 1e-5)
          + bounds.roundedOnce(Array(expected[(shape.rows * shape.n)...]))
      })
  }

  public static func norm(
    _ kind: Norm, _ shape: RowShape, residual: Bool = false, affine: Bool = true, epsilon: Float = 1e-5,
    name: String? = nil, operands: Operands
  ) throws -> Workload {
    let extents = Shape(shape.rows, shape.n)
    let x = try operands.make(extents)
    let normalises = kind == .l2Normalize
    let added = residual && !normalises ? try operands.make(extents) : nil
    let weight = affine && !normalises ? try operands.vector(shape.n) : nil
    let bias = affine && kind == .layerNorm ? try operands.vector(shape.n) : nil
    let operation: Quern.Operation =
      switch kind {
      case .layerNorm: .layerNorm
      case .rmsNorm: .rmsNorm
      case .l2Normalize: .l2Normalize
      }
    let kernel =
      switch kind {
      case .layerNorm: "f32_layernorm"
      case .rmsNorm: "f32_rmsnorm"
      case .l2Normalize: "f32_l2norm"
      }
    return Workload(
      operation, name ?? "\(shape)" + (residual ? " residual" : "") + (affine ? "" : " plain"), kernels: [kernel],
      flops: 7 * shape.count, bytes: (residual ? 12 : 8) * shape.count, operands: operands,
      output: try operands.make(extents),
      prepare: { context in
        { y in
          switch kind {
          case .layerNorm:
            try context.layerNorm(
              x.view, residual: added?.view, weight: weight, bias: bias, epsilon: epsilon, into: y)
          case .rmsNorm: try context.rmsNorm(x.view, residual: added?.view, weight: weight, epsilon: epsilon, into: y)
          case .l2Normalize: try context.l2Normalize(x.view, epsilon: epsilon, into: y)
          }
        }
      },
      bound: { bounds, _ in
        bounds.norm(kind, x.view, residual: added?.view, weight: weight, bias: bias, epsilon: epsilon)
      })
  }
}

extension ErrorBounds {
  fileprivate func norm(
    _ kind: Norm, _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float
  ) -> [Double] {
    switch kind {
    case .layerNorm: layerNorm(x, residual: residual, weight: weight, bias: bias, epsilon: epsilon)
    case .rmsNorm: rmsNorm(x, residual: residual, weight: weight, epsilon: epsilon)
    case .l2Normalize: l2Normalize(x, epsilon: epsilon)
    }
  }
}

extension Suite {
  static let norms = Suite(
    tests: softmaxTests + normTests + groupNormTests, benchmarks: normBenchmarks + groupNormBenchmarks,
    mutants: [
      Mutant(.rmsNorm, "forgets the residual in the sum") {
        try .residualNorm(.rmsNorm, RowShape(3, 17), operands: $0)
      } wrong: {
        try .residualNorm(.rmsNorm, RowShape(3, 17), addsResidual: false, operands: $0)
      },
      Mutant(.groupNorm, "groups twice as wide") {
        try .groupNorm(GroupNormShape(2, 5, 3, 12, groups: 4), .channelsLast, operands: $0)
      } wrong: {
        try .groupNorm(GroupNormShape(2, 5, 3, 12, groups: 2), .channelsLast, operands: $0)
      },
      Mutant(.l2Normalize, "divides by the root mean square") {
        try .norm(.l2Normalize, RowShape(3, 17), operands: $0)
      } wrong: {
        try .norm(.rmsNorm, RowShape(3, 17), affine: false, operands: $0)
      },
    ])

  private static let softmaxTests: [TestCases.Entry] = RowShape.tests.flatMap { shape -> [TestCases.Entry] in
    [
      TestCases.Entry(.softmax) { try .softmax(shape, operands: $0) },
      TestCases.Entry(.softmax) { try .softmax(shape, scale: 0.25, masked: shape.n > 1, operands: $0) },
      TestCases.Entry(.softmax) { try .softmax(shape, scale: 2, diagonal: shape.rows % 3 - 1, operands: $0) },
    ]
  }

  private static let normTests: [TestCases.Entry] = RowShape.tests.flatMap { shape in
    Norm.allCases.flatMap { kind -> [TestCases.Entry] in
      let operation: Quern.Operation = kind == .layerNorm ? .layerNorm : kind == .rmsNorm ? .rmsNorm : .l2Normalize
      return [
        TestCases.Entry(operation) { try .norm(kind, shape, operands: $0) },
        TestCases.Entry(operation) { try .norm(kind, shape, residual: true, affine: false, operands: $0) },
      ]
        + (kind == .l2Normalize
          ? [] : [TestCases.Entry(operation) { try .residualNorm(kind, shape, operands: $0) }])
    }
  }

  private static let normBenchmarks: [BenchmarkCases.Entry] = [
    BenchmarkCases.Entry(.softmax, "Llama-3.2-1B scores: rows=2048 n=512", kernels: ["f32_softmax"]) {
      try .softmax(RowShape(2048, 512), name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.layerNorm, "MiniLM: rows=4096 n=384 residual", kernels: ["f32_layernorm"]) {
      try .norm(.layerNorm, RowShape(4096, 384), residual: true, epsilon: 1e-12, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.rmsNorm, "Llama-3.2-1B: rows=512 n=2048", kernels: ["f32_rmsnorm"]) {
      try .norm(.rmsNorm, RowShape(512, 2048), name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.l2Normalize, "MiniLM: rows=4096 n=384", kernels: ["f32_l2norm"]) {
      try .norm(.l2Normalize, RowShape(4096, 384), affine: false, epsilon: 1e-12, name: $0, operands: $1)
    },
  ]
}

import Foundation
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
      bound: { _, expected in
        let magnitude = zip(x.view.values, mask?.view.values ?? [Float](repeating: 0, count: x.shape.count))
          .map { abs(Double(scale) * Double($0)) + ($1.isFinite ? abs(Double($1)) : 0) }
        return stride(from: 0, to: expected.count, by: max(shape.n, 1)).flatMap { row in
          let range = magnitude[row..<row + shape.n].max() ?? 0
          // Arguments are rounded three times at the size of the row's range; exp within 4 u; n additions; one division.
          let relative = 2 * 3 * Rounding.unit * 2 * range + Rounding.gamma(shape.n + 12)
          return expected[row..<row + shape.n].map { relative * Double($0) + 0x1p-125 }
        }
      })
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
      bound: { _, expected in
        let count = shape.rows * shape.n
        return normBound(
          kind, x.view.values, residual.view.values, weight.elements, nil, n: shape.n, epsilon: 1e-5,
          expected: Array(expected[..<count])) + expected[count...].map { Rounding.unit * abs(Double($0)) }
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
      bound: { _, expected in
        normBound(
          kind, x.view.values, added?.view.values, weight?.elements, bias?.elements,
          n: shape.n, epsilon: epsilon, expected: expected)
      })
  }
}

/// Errors of the sum, the mean, the deviation, the factor and the affine step, added up for each element.
private func normBound(
  _ kind: Norm, _ x: [Float], _ residual: [Float]?, _ weight: [Float]?, _ bias: [Float]?, n: Int, epsilon: Float,
  expected: [Float]
) -> [Double] {
  let u = Rounding.unit
  var bounds: [Double] = []
  for row in Swift.stride(from: 0, to: expected.count, by: max(n, 1)) {
    let z = (row..<row + n).map { Double(x[$0]) + Double(residual?[$0] ?? 0) }
    let mean = kind == .layerNorm ? z.reduce(0, +) / Double(n) : 0
    let size = z.reduce(0) { $0 + abs($1) } / Double(n)
    let squares = z.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    let largest = z.map(abs).max() ?? 0
    // Each z is rounded once; the mean is off by γ(n + 1) of the mean size.
    let rounded = residual == nil ? 0 : u * largest
    let shift = kind == .layerNorm ? Rounding.gamma(n + 1) * size + rounded : 0
    let meanSquare = (squares / Double(n) + Double(epsilon)).squareRoot()
    let spread = kind == .l2Normalize ? max(squares.squareRoot(), Double(epsilon)) : meanSquare
    let typical = kind == .l2Normalize ? spread / Double(n).squareRoot() : spread
    let factor = Rounding.gamma(n / 2 + 8) + (rounded + shift + 2 * u * largest) / max(typical, 1e-300)
    for column in 0..<n {
      let distance = abs(z[column] - mean)
      let deviation = rounded + shift + (kind == .layerNorm ? u * distance : 0)
      let scale = abs(Double(weight?[column] ?? 1)) / spread
      let value = distance * scale
      let affine = 4 * u * (value + abs(Double(bias?[column] ?? 0)))
      bounds.append(scale * deviation + value * factor * (1 + factor) + affine)
    }
  }
  return bounds
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

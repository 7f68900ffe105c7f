import Foundation
import Quern

/// Operations that work along rows: `rows` of `n` elements.
public struct RowShape: Sendable, CustomStringConvertible {
  public var rows, n: Int
  public init(_ rows: Int, _ n: Int) { (self.rows, self.n) = (rows, n) }
  public var description: String { "rows=\(rows) n=\(n)" }
  var count: Double { Double(rows) * Double(n) }
}

public enum Norm: String, Sendable, CaseIterable { case layerNorm, rmsNorm, l2Normalize }

extension Workload {
  public static func softmax(
    _ shape: RowShape, scale: Float = 1, masked: Bool = false, diagonal: Int? = nil, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n), scale: 4)
    let mask = masked ? try operands.make(Shape(shape.rows, shape.n)) : nil
    if let mask, shape.rows > 0 {
      for column in Swift.stride(from: 1, to: shape.n, by: 4) { mask.base[mask.offset(of: column)] = -.infinity }
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
        return expected.indices.map { position in
          let row = position / max(shape.n, 1) * shape.n
          let range = magnitude[row..<row + shape.n].max() ?? 0
          // Arguments are rounded three times at the size of the row's range; exp within 4 u; n additions; one division.
          let relative = 2 * 3 * Rounding.unit * 2 * range + Rounding.gamma(shape.n + 12)
          return relative * Double(expected[position]) + 0x1p-125
        }
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

  public static func activation(
    _ activation: Activation, _ shape: RowShape, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n), scale: 3)
    return Workload(
      .activation, name ?? "\(activation.rawValue) \(shape)", kernels: ["f32_activation"], flops: 10 * shape.count,
      bytes: 8 * shape.count, isExactOnIntegers: activation == .relu || activation == .identity, operands: operands,
      output: try operands.make(x.shape),
      prepare: { context in { y in try context.activation(activation, x.view, into: y) } },
      bound: { _, expected in
        zip(x.view.values, expected).map { activation.error(at: Double($0), value: Double($1)) }
      })
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
      bound: { _, expected in expected.map { Rounding.unit * abs(Double($0)) } })
  }

  public static func scale(
    _ shape: RowShape, by factor: Float, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(Shape(shape.rows, shape.n))
    return Workload(
      .scale, name ?? "\(shape) by \(factor)", kernels: ["f32_scale"], flops: shape.count, bytes: 8 * shape.count,
      isExactOnIntegers: true, operands: operands, output: try operands.make(x.shape),
      prepare: { context in { y in try context.scale(x.view, by: factor, into: y) } },
      bound: { _, expected in expected.map { Rounding.unit * abs(Double($0)) } })
  }

  public static func embedding(
    _ shape: RowShape, table rows: Int, accumulate: Bool = false, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let table = try operands.make(Shape(rows, shape.n))
    let ids = operands.ids(shape.rows, below: rows)
    return Workload(
      .embedding, name ?? "\(shape) table=\(rows)" + (accumulate ? " accumulate" : ""), kernels: ["f32_gather"],
      flops: accumulate ? shape.count : 0, bytes: (accumulate ? 12 : 8) * shape.count, isExactOnIntegers: true,
      operands: operands, output: try operands.make(Shape(shape.rows, shape.n)),
      prepare: { context in { y in try context.embedding(ids, table: table.view, accumulate: accumulate, into: y) } },
      bound: { _, expected in expected.map { accumulate ? Rounding.unit * abs(Double($0)) : 0 } })
  }

  public static func meanPool(
    _ lengths: [Int], n: Int, name: String? = nil, operands: Operands
  ) throws -> Workload {
    let segments = try Segments(lengths: lengths)
    let x = try operands.make(Shape(segments.total, n))
    return Workload(
      .meanPool, name ?? "segments=\(lengths.count) rows=\(segments.total) n=\(n)", kernels: ["f32_mean_pool"],
      flops: Double(x.shape.count), bytes: 4 * Double(x.shape.count + lengths.count * n), operands: operands,
      output: try operands.make(Shape(lengths.count, n)),
      prepare: { context in { y in try context.meanPool(x.view, segments: segments, into: y) } },
      bound: { _, _ in
        let magnitude = try MutableTensor(zeros: Shape(lengths.count, n))
        try Context(backend: ReferenceBackend()).meanPool(try absolute(x.view), segments: segments, into: magnitude)
        return magnitude.view.values.enumerated().map { Rounding.gamma(lengths[$0 / n] + 2) * Double($1) }
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

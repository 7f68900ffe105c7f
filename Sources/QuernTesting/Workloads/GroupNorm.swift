import Quern

/// Images of a group norm.
public struct GroupNormShape: Sendable, CustomStringConvertible {
  public var batch, height, width, channels, groups: Int
  public init(_ batch: Int, _ height: Int, _ width: Int, _ channels: Int, groups: Int) {
    (self.batch, self.height, self.width, self.channels) = (batch, height, width, channels)
    self.groups = groups
  }
  public var description: String { "\(batch)x\(height)x\(width)x\(channels) groups=\(groups)" }
}

extension Workload {
  public static func groupNorm(
    _ shape: GroupNormShape, _ layout: ImageLayout, activation: Activation = .identity, affine: Bool = true,
    name: String? = nil, operands: Operands
  ) throws -> Workload {
    let size = ImageSize(shape.height, shape.width)
    let x = try operands.make(layout.shape(batch: shape.batch, channels: shape.channels, size))
    let weight = affine ? try operands.vector(shape.channels) : nil
    let bias = affine ? try operands.vector(shape.channels) : nil
    let count = Double(x.shape.count)
    return Workload(
      .groupNorm, name ?? "\(shape) \(layout.rawValue) \(activation.rawValue)",
      kernels: ["f32_group_moments", "f32_group_affine"], flops: 8 * count, bytes: 8 * count, operands: operands,
      output: try operands.make(x.shape),
      prepare: { context in
        { y in
          try context.groupNorm(
            x.view, layout: layout, groups: shape.groups, weight: weight, bias: bias, activation: activation, into: y)
        }
      },
      bound: { bounds, _ in
        bounds.groupNorm(
          x.view, layout: layout, groups: shape.groups, weight: weight, bias: bias, epsilon: 1e-5,
          activation: activation)
      })
  }
}

extension Suite {
  static let groupNormTests: [TestCases.Entry] = [
    GroupNormShape(0, 2, 2, 4, groups: 2), GroupNormShape(1, 0, 3, 4, groups: 2), GroupNormShape(1, 1, 1, 1, groups: 1),
    GroupNormShape(2, 1, 1, 6, groups: 3), GroupNormShape(1, 3, 5, 7, groups: 7),
    GroupNormShape(2, 4, 4, 30, groups: 3),
    GroupNormShape(1, 7, 3, 64, groups: 32), GroupNormShape(1, 9, 17, 40, groups: 4),
    GroupNormShape(1, 33, 31, 33, groups: 1),
  ].flatMap { shape in
    ImageLayout.allCases.flatMap { layout in
      [
        TestCases.Entry(.groupNorm) { try .groupNorm(shape, layout, activation: .silu, operands: $0) },
        TestCases.Entry(.groupNorm) { try .groupNorm(shape, layout, affine: false, operands: $0) },
      ]
    }
  }

  static let groupNormBenchmarks: [BenchmarkCases.Entry] = [
    ("Stable Diffusion 1.5 SiLU: 1x64x64x320 groups=32", GroupNormShape(1, 64, 64, 320, groups: 32), .channelsLast),
    ("Stable Diffusion VAE SiLU: 1x256x256x128 groups=32", GroupNormShape(1, 256, 256, 128, groups: 32), .channelsLast),
    ("Stable Diffusion 1.5 SiLU: 1x320x64x64 groups=32", GroupNormShape(1, 64, 64, 320, groups: 32), .channelsFirst),
  ].map { (name: String, shape: GroupNormShape, layout: ImageLayout) in
    BenchmarkCases.Entry(.groupNorm, name, kernels: ["f32_group_moments", "f32_group_affine"]) {
      try .groupNorm(shape, layout, activation: .silu, name: $0, operands: $1)
    }
  }
}

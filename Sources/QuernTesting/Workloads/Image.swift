import Quern

/// A batch of images.
public struct ImageShape: Sendable, CustomStringConvertible {
  public var batch, height, width, channels: Int
  public init(_ batch: Int, _ height: Int, _ width: Int, _ channels: Int) {
    (self.batch, self.height, self.width, self.channels) = (batch, height, width, channels)
  }
  public var description: String { "\(batch)x\(height)x\(width)x\(channels)" }
  var size: ImageSize { ImageSize(height, width) }

  /// Around vector widths, and empty ones.
  static let tests: [ImageShape] = [
    ImageShape(0, 3, 4, 5), ImageShape(1, 4, 3, 0), ImageShape(1, 3, 3, 1), ImageShape(2, 5, 7, 3),
    ImageShape(1, 8, 9, 17), ImageShape(1, 11, 33, 8), ImageShape(2, 4, 6, 65), ImageShape(1, 6, 5, 131),
  ]
}

extension Workload {
  public static func pool(
    _ operation: Quern.Operation, _ shape: ImageShape, _ window: PoolWindow, _ layout: ImageLayout,
    name: String? = nil, operands: Operands
  ) throws -> Workload {
    let x = try operands.make(layout.shape(batch: shape.batch, channels: shape.channels, shape.size))
    let output = try operands.make(
      layout.shape(batch: shape.batch, channels: shape.channels, window.output(of: shape.size)))
    let averages = operation == .averagePool
    let size = window.size.height * window.size.width
    return Workload(
      operation,
      name
        ?? "\(shape) window=\(window.size.height)x\(window.size.width) stride=\(window.stride.height) \(layout.rawValue)",
      kernels: [averages ? "f32_avg_pool" : "f32_max_pool"], flops: Double(size * output.shape.count),
      bytes: 4 * Double(x.shape.count + output.shape.count), isExactOnIntegers: !averages, operands: operands,
      output: output,
      prepare: { context in
        { y in
          if averages {
            try context.averagePool(x.view, window: window, layout: layout, into: y)
          } else {
            try context.maxPool(x.view, window: window, layout: layout, into: y)
          }
        }
      },
      bound: { bounds, expected in
        guard averages else { return bounds.exact(expected) }
        return try bounds.averagePool(x.view, window: window, layout: layout, output: output.shape)
      })
  }

  public static func resize(
    _ resampling: Resampling, _ shape: ImageShape, to size: ImageSize, _ layout: ImageLayout, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(layout.shape(batch: shape.batch, channels: shape.channels, shape.size))
    let output = try operands.make(layout.shape(batch: shape.batch, channels: shape.channels, size))
    let nearest = resampling == .nearest
    return Workload(
      .resize, name ?? "\(resampling.rawValue) \(shape) to \(size.height)x\(size.width) \(layout.rawValue)",
      kernels: [nearest ? "f32_resize_nearest" : "f32_resize_bilinear"],
      flops: nearest ? 0 : 9 * Double(output.shape.count), bytes: 4 * Double(x.shape.count + output.shape.count),
      isExactOnIntegers: nearest, operands: operands, output: output,
      prepare: { context in { y in try context.resize(x.view, by: resampling, layout: layout, into: y) } },
      bound: { bounds, _ in try bounds.resize(x.view, by: resampling, layout: layout, output: output.shape) })
  }

  public static func pad(
    _ shape: ImageShape, _ margins: ImageMargins, _ border: ImageBorder, _ layout: ImageLayout, name: String? = nil,
    operands: Operands
  ) throws -> Workload {
    let x = try operands.make(layout.shape(batch: shape.batch, channels: shape.channels, shape.size))
    let size = ImageSize(
      shape.height + margins.top + margins.bottom, shape.width + margins.left + margins.right)
    let output = try operands.make(layout.shape(batch: shape.batch, channels: shape.channels, size))
    return Workload(
      .pad, name ?? "\(shape) \(border) \(layout.rawValue)", kernels: ["f32_pad"], flops: 0,
      bytes: 4 * Double(x.shape.count + output.shape.count), isExactOnIntegers: true, operands: operands,
      output: output,
      prepare: { context in
        { y in try context.pad(x.view, margins: margins, border: border, layout: layout, into: y) }
      },
      bound: { $0.exact($1) })
  }
}

extension Suite {
  static let image = Suite(
    tests: poolTests + resizeTests + padTests, benchmarks: imageBenchmarks,
    mutants: [
      Mutant(.averagePool, "counts the padding") {
        try .pool(.averagePool, small, window(3, countsPadding: false), .channelsLast, operands: $0)
      } wrong: {
        try .pool(.averagePool, small, window(3), .channelsLast, operands: $0)
      },
      Mutant(.maxPool, "averages") {
        try .pool(.maxPool, small, window(3), .channelsFirst, operands: $0)
      } wrong: {
        try .pool(.averagePool, small, window(3), .channelsFirst, operands: $0)
      },
      Mutant(.resize, "aligns the corners") {
        try .resize(.bilinear, small, to: ImageSize(8, 9), .channelsFirst, operands: $0)
      } wrong: {
        try .resize(.bilinearAlignedCorners, small, to: ImageSize(8, 9), .channelsFirst, operands: $0)
      },
      Mutant(.pad, "replicates where it should reflect") {
        try .pad(small, margins, .reflect, .channelsLast, operands: $0)
      } wrong: {
        try .pad(small, margins, .replicate, .channelsLast, operands: $0)
      },
    ])

  private static let small = ImageShape(1, 5, 6, 3)
  private static let margins = ImageMargins(top: 2, bottom: 1, left: 1, right: 2)

  private static func window(
    _ size: Int, stride: Int = 2, dilation: Int = 1, countsPadding: Bool = true
  ) -> PoolWindow {
    PoolWindow(
      size: ImageSize(size, size), stride: ImageSize(stride, stride), padding: ImageSize(size / 2, size / 2),
      dilation: ImageSize(dilation, dilation), countsPadding: countsPadding)
  }

  private static let poolTests: [TestCases.Entry] = ImageShape.tests.flatMap { shape in
    ImageLayout.allCases.flatMap { layout -> [TestCases.Entry] in
      [window(2), window(3, stride: 1, countsPadding: false), window(3, stride: 3), PoolWindow(size: shape.size)].map {
        window in
        TestCases.Entry(.averagePool) { try .pool(.averagePool, shape, window, layout, operands: $0) }
      }
        + [window(2), window(3), window(2, stride: 1, dilation: 2), window(3, stride: 3), PoolWindow(size: shape.size)]
        .map {
          window in TestCases.Entry(.maxPool) { try .pool(.maxPool, shape, window, layout, operands: $0) }
        }
    }
  }

  private static let resizeTests: [TestCases.Entry] = ImageShape.tests.flatMap { shape in
    ImageLayout.allCases.flatMap { layout in
      Resampling.allCases.flatMap { resampling in
        [ImageSize(2 * shape.height, 2 * shape.width), ImageSize(shape.height + 1, 2), ImageSize(1, 3 * shape.width)]
          .map {
            size in TestCases.Entry(.resize) { try .resize(resampling, shape, to: size, layout, operands: $0) }
          }
      }
    }
  }

  private static let padTests: [TestCases.Entry] = ImageShape.tests.flatMap { shape in
    ImageLayout.allCases.flatMap { layout in
      [ImageBorder.constant(-1.5), .reflect, .replicate].map { border in
        TestCases.Entry(.pad) { try .pad(shape, margins, border, layout, operands: $0) }
      }
    }
  }

  private static let imageBenchmarks: [BenchmarkCases.Entry] = [
    BenchmarkCases.Entry(.maxPool, "ResNet-50 stem: 1x112x112x64 window=3 stride=2", kernels: ["f32_max_pool"]) {
      try .pool(.maxPool, ImageShape(1, 112, 112, 64), window(3), .channelsLast, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.averagePool, "ResNet-50 global: 8x7x7x2048", kernels: ["f32_avg_pool"]) {
      try .pool(
        .averagePool, ImageShape(8, 7, 7, 2048), PoolWindow(size: ImageSize(7, 7)), .channelsLast, name: $0,
        operands: $1)
    },
    BenchmarkCases.Entry(.resize, "SD 1.5 nearest: 1x32x32x640 to 64x64", kernels: ["f32_resize_nearest"]) {
      try .resize(.nearest, ImageShape(1, 32, 32, 640), to: ImageSize(64, 64), .channelsLast, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.resize, "bilinear: 1x64x64x256 to 128x128", kernels: ["f32_resize_bilinear"]) {
      try .resize(.bilinear, ImageShape(1, 64, 64, 256), to: ImageSize(128, 128), .channelsLast, name: $0, operands: $1)
    },
    BenchmarkCases.Entry(.pad, "VAE downsampling: 1x256x256x128", kernels: ["f32_pad"]) {
      try .pad(
        ImageShape(1, 256, 256, 128), ImageMargins(bottom: 1, right: 1), .constant(0), .channelsLast, name: $0,
        operands: $1)
    },
  ]
}

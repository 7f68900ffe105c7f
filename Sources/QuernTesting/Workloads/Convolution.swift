import Quern

/// `conv2d`: one image size, one kernel.
public struct ConvolutionShape: Sendable, CustomStringConvertible {
  public var batch = 1
  public var channels, outputs, height, width: Int
  public var kernel: Convolution.Pair
  public var convolution: Convolution
  public var layout = ImageLayout.channelsLast
  public var activation = Activation.identity
  public var scale: Float = 1
  public var hasBias = false
  public var hasAdd = false
  public var hasResidual = false

  public init(
    _ channels: Int, _ outputs: Int, _ height: Int, _ width: Int, kernel: Convolution.Pair,
    _ convolution: Convolution = Convolution()
  ) {
    (self.channels, self.outputs, self.height, self.width) = (channels, outputs, height, width)
    (self.kernel, self.convolution) = (kernel, convolution)
  }

  /// The same shape with some fields changed.
  public func with(_ change: (inout ConvolutionShape) -> Void) -> ConvolutionShape {
    var copy = self
    change(&copy)
    return copy
  }

  public var description: String {
    let c = convolution
    return (batch == 1 ? "" : "batch=\(batch) ") + "\(height)x\(width)x\(channels) to \(outputs) k=\(kernel)"
      + (c.stride == 1 ? "" : " stride=\(c.stride)") + (c.padding == 0 ? "" : " padded")
      + (c.dilation == 1 ? "" : " dilation=\(c.dilation)") + (c.groups == 1 ? "" : " groups=\(c.groups)")
      + (c.isTransposed ? " transposed" : "") + (layout == .channelsLast ? "" : " nchw")
      + (activation == .identity ? "" : " \(activation.rawValue)") + (hasBias ? " bias" : "") + (hasAdd ? " add" : "")
      + (hasResidual ? " residual" : "")
  }

  /// Products in one sum.
  var depth: Int { kernel.height * kernel.width * channels / convolution.groups }

  /// The axis of the result, as ``PackedConvolution/outputShape(of:layout:)`` has it.
  fileprivate func extent(
    _ input: Int, _ kernel: Int, _ stride: Int, _ dilation: Int, _ padding: Int, _ more: Int
  ) -> Int {
    let reach = dilation * (kernel - 1) + 1
    return convolution.isTransposed
      ? (input - 1) * stride + reach - padding + more : (input + padding - reach) / stride + 1
  }

  var output: (height: Int, width: Int) {
    let (c, p) = (convolution, convolution.padding)
    return (
      extent(height, kernel.height, c.stride.height, c.dilation.height, p.top + p.bottom, c.outputPadding.height),
      extent(width, kernel.width, c.stride.width, c.dilation.width, p.left + p.right, c.outputPadding.width)
    )
  }
}

extension Workload {
  public static func conv2d(_ shape: ConvolutionShape, name: String? = nil, operands: Operands) throws -> Workload {
    let (layout, c, output) = (shape.layout, shape.convolution, shape.output)
    let x = try operands.make(
      layout.shape(batch: shape.batch, height: shape.height, width: shape.width, channels: shape.channels))
    let (first, second) = c.isTransposed ? (shape.channels, shape.outputs) : (shape.outputs, shape.channels)
    let weights = try operands.make(Shape(first, second / c.groups, shape.kernel.height, shape.kernel.width))
    if operands.fill == .special {  // a product with padding may be formed or left out, so weights are finite
      for position in 0..<weights.shape.count {
        let offset = weights.offset(of: position)
        if !weights.view.load(offset).isFinite { weights.store(0.5, at: offset) }
      }
    }
    let bias = shape.hasBias ? try operands.vector(shape.outputs) : nil
    let add = shape.hasAdd ? try operands.make(Shape(shape.batch, shape.outputs)) : nil
    let y = layout.shape(batch: shape.batch, height: output.height, width: output.width, channels: shape.outputs)
    let residual = shape.hasResidual ? try operands.make(y) : nil
    return conv2d(
      shape, name, operands, x: x.view, weights: weights.view, bias: bias, add: add?.view, residual: residual?.view,
      output: try operands.make(y))
  }

  private static func conv2d(
    _ shape: ConvolutionShape, _ name: String?, _ operands: Operands, x: TensorView, weights: TensorView, bias: Tensor?,
    add: TensorView?, residual: TensorView?, output: MutableTensor
  ) -> Workload {
    let epilogue = Epilogue(scale: shape.scale, bias: bias, activation: shape.activation)
    // A transposed convolution spreads every pixel of x; any other gathers every pixel of y.
    let spread = shape.batch * shape.height * shape.width, gathered = output.shape.count / max(shape.outputs, 1)
    let positions = shape.convolution.isTransposed ? spread : gathered
    let workload = Workload(
      .conv2d, name ?? "\(shape)",
      kernels: ["f32_gemm_block", "f32_conv_strips", "f32_transpose", "f32_depthwise"],
      flops: 2 * Double(positions) * Double(shape.outputs) * Double(shape.depth),
      bytes: Double(x.dataType.size)
        * Double(x.shape.count + weights.shape.count + output.shape.count * (shape.hasResidual ? 2 : 1)),
      isExactOnIntegers: shape.activation == .identity || shape.activation == .relu,
      operands: operands, output: output,
      prepare: { context in
        let packed = try context.packConvolution(weights, shape.convolution)
        return { y in
          try context.conv2d(
            x, weights: packed, layout: shape.layout, epilogue: epilogue, add: add, residual: residual, into: y)
        }
      },
      bound: { rounding, expected in
        // T = |scale| Σ|x w| + |bias| + |add|, by the reference on absolute values; then as for linear: the roundings of the
        // scale, of bias + add and of their sum with the product are the three that `product` counts.
        let reference = Context(backend: ReferenceBackend())
        let totals = try MutableTensor(zeros: output.shape)
        let packed = try reference.packConvolution(try absolute(weights), shape.convolution)
        let magnitudes = Epilogue(scale: abs(shape.scale), bias: try bias.map { try Tensor($0.elements.map(abs)) })
        try reference.conv2d(
          try absolute(x), weights: packed, layout: shape.layout, epilogue: magnitudes, add: try add.map(absolute),
          into: totals)
        let (factor, activation) = (rounding.product(shape.depth), shape.activation)
        let added = residual?.values
        return totals.view.values.enumerated().map { position, rounded in
          let total = Double(rounded) * (1 + 2 * Rounding.unit)
          let value = Double(expected[position]) - Double(added?[position] ?? 0)
          let through = activation.slope * factor * total + Double(shape.depth) * Rounding.smallest
          return through + activation.error(at: total, value: abs(value) + through) + Rounding.unit
            * abs(Double(expected[position]))
        }
      })
    if shape.layout == .channelsLast, !shape.convolution.isTransposed {
      let pixels = output.shape.count / max(shape.outputs, 1)
      workload.sampling = Sampling(rows: pixels, work: 4 * Double(shape.outputs) * Double(shape.depth)) { rows in
        try sampled(
          shape, name, operands, rows, x: x, weights: weights, bias: bias, add: add, residual: residual)
      }
    }
    return workload
  }

  /// Each of these pixels as an image of its own: what the kernel reaches of x, zeros where that is padding.
  private static func sampled(
    _ shape: ConvolutionShape, _ name: String?, _ operands: Operands, _ rows: [Int], x: TensorView, weights: TensorView,
    bias: Tensor?, add: TensorView?, residual: TensorView?
  ) throws -> Workload {
    let (c, output) = (shape.convolution, shape.output)
    let height = c.dilation.height * (shape.kernel.height - 1) + 1
    let width = c.dilation.width * (shape.kernel.width - 1) + 1
    let part = shape.with {
      ($0.batch, $0.height, $0.width) = (rows.count, height, width)
      ($0.convolution.stride, $0.convolution.padding) = (1, 0)
    }
    func place(_ row: Int) -> (image: Int, y: Int, x: Int) {
      (row / output.width / output.height, row / output.width % output.height, row % output.width)
    }
    let patches = try MutableTensor(zeros: Shape(rows.count, height, width, shape.channels), dataType: x.dataType)
    for (patch, row) in rows.enumerated() {
      let at = place(row)
      for i in 0..<height {
        for j in 0..<width {
          let (u, v) = (at.y * c.stride.height + i - c.padding.top, at.x * c.stride.width + j - c.padding.left)
          guard u >= 0, u < shape.height, v >= 0, v < shape.width else { continue }
          for channel in 0..<shape.channels { patches[patch, i, j, channel] = x[at.image, u, v, channel] }
        }
      }
    }
    let pixel = Shape(rows.count, 1, 1, shape.outputs)
    func taken(_ view: TensorView, _ shape: Shape, _ value: (Int, Int) -> Double) throws -> TensorView {
      let result = try MutableTensor(zeros: shape, dataType: view.dataType)
      for (index, row) in rows.enumerated() {
        for channel in 0..<shape.last { result.store(Float(value(row, channel)), at: index * shape.last + channel) }
      }
      return result.view
    }
    return conv2d(
      part, name, operands, x: patches.view, weights: weights, bias: bias,
      add: try add.map { add in try taken(add, Shape(rows.count, shape.outputs)) { add[place($0).image, $1] } },
      residual: try residual.map { residual in
        try taken(residual, pixel) { residual[place($0).image, place($0).y, place($0).x, $1] }
      },
      output: try MutableTensor(zeros: pixel))
  }
}

extension Suite {
  static let convolution = Suite(
    tests: convolutionShapes.map { shape in TestCases.Entry(.conv2d) { try .conv2d(shape, operands: $0) } },
    benchmarks: convolutionBenchmarks, mutants: convolutionMutants)

  private static let convolutionShapes: [ConvolutionShape] = {
    let dense: [ConvolutionShape] = [
      ConvolutionShape(1, 1, 1, 1, kernel: 1), ConvolutionShape(3, 5, 7, 9, kernel: 3, Convolution(padding: 1)),
      ConvolutionShape(16, 16, 6, 5, kernel: 3, Convolution(stride: 2, padding: 1)),
      ConvolutionShape(17, 33, 5, 7, kernel: 1), ConvolutionShape(31, 15, 6, 6, kernel: 1, Convolution(stride: 2)),
      ConvolutionShape(5, 17, 9, 8, kernel: 3, Convolution(padding: 2, dilation: 2)),
      ConvolutionShape(4, 6, 8, 11, kernel: 3, Convolution(stride: 2, padding: 1, groups: 2)),
      ConvolutionShape(6, 9, 1, 13, kernel: Convolution.Pair(height: 1, width: 5), Convolution(groups: 3)),
      ConvolutionShape(
        2, 3, 5, 6, kernel: Convolution.Pair(height: 2, width: 4),
        Convolution(padding: Convolution.Padding(top: 0, left: 3, bottom: 2, right: 1))),
      ConvolutionShape(50, 20, 6, 7, kernel: 3, Convolution(padding: 1)),
      ConvolutionShape(24, 40, 19, 13, kernel: 3, Convolution(padding: 1)),
      ConvolutionShape(3, 0, 4, 4, kernel: 1).with { ($0.outputs, $0.batch) = (2, 0) },
    ]
    let depthwise: [ConvolutionShape] = [
      ConvolutionShape(16, 16, 9, 7, kernel: 3, Convolution(padding: 1, groups: 16)),
      ConvolutionShape(7, 7, 5, 12, kernel: 3, Convolution(stride: 2, padding: 1, groups: 7)),
      ConvolutionShape(5, 15, 6, 6, kernel: 3, Convolution(padding: 2, dilation: 2, groups: 5)),
      ConvolutionShape(70, 70, 3, 4, kernel: 5, Convolution(padding: 4, groups: 70)),
      ConvolutionShape(33, 66, 1, 9, kernel: Convolution.Pair(height: 1, width: 4), Convolution(groups: 33)),
    ]
    let transposed: [ConvolutionShape] = [
      ConvolutionShape(5, 7, 4, 6, kernel: 4, Convolution(stride: 2, padding: 1, isTransposed: true)),
      ConvolutionShape(8, 16, 3, 3, kernel: 2, Convolution(stride: 3, isTransposed: true)),
      ConvolutionShape(
        4, 6, 5, 4, kernel: 3, Convolution(stride: 2, padding: 1, groups: 2, isTransposed: true, outputPadding: 1)),
      ConvolutionShape(3, 5, 6, 7, kernel: 3, Convolution(padding: 1, dilation: 2, isTransposed: true)),
      ConvolutionShape(
        9, 4, 4, 5, kernel: 3,
        Convolution(stride: Convolution.Pair(height: 3, width: 2), dilation: 2, groups: 1, isTransposed: true)),
      ConvolutionShape(6, 6, 4, 4, kernel: 3, Convolution(stride: 2, groups: 6, isTransposed: true)),
    ]
    return (dense + depthwise + transposed).enumerated().flatMap { index, shape in
      ImageLayout.allCases.map { layout in
        shape.with {
          $0.layout = layout
          if $0.batch == 1, index % 3 == 1 { $0.batch = 2 }
          ($0.hasBias, $0.hasAdd, $0.hasResidual) = (index % 2 == 0, index % 3 == 1, index % 4 == 1)
          $0.scale = index % 5 == 4 ? 0.5 : 1
          $0.activation = index % 6 == 2 ? .silu : index % 6 == 5 ? .relu : .identity
        }
      }
    }
  }()

  private static let convolutionBenchmarks: [BenchmarkCases.Entry] = [
    ("SD-1.5 down", ConvolutionShape(320, 320, 64, 64, kernel: 3, Convolution(stride: 2, padding: 1))),
    (
      "SD-1.5 res+time",
      ConvolutionShape(320, 640, 32, 32, kernel: 3, Convolution(padding: 1)).with { $0.hasAdd = true }
    ),
    ("SD-1.5 vae", ConvolutionShape(128, 128, 96, 96, kernel: 3, Convolution(padding: 1))),
    ("SD-1.5 proj", ConvolutionShape(640, 640, 32, 32, kernel: 1).with { $0.hasResidual = true }),
    (
      "SD-1.5 in",
      ConvolutionShape(4, 320, 64, 64, kernel: 3, Convolution(padding: 1)).with { $0.layout = .channelsFirst }
    ),
    ("MobileNet", ConvolutionShape(32, 32, 112, 112, kernel: 3, Convolution(padding: 1, groups: 32))),
  ].map { model, shape in
    let biased = shape.with { $0.hasBias = true }
    let depthwise = shape.convolution.groups > 1
    let kernels =
      depthwise
      ? ["f32_depthwise"]
      : shape.layout == .channelsLast ? ["f32_gemm_block"] : ["f32_gemm_block", "f32_conv_strips", "f32_transpose"]
    return BenchmarkCases.Entry(.conv2d, "\(model): \(biased)", kernels: kernels) {
      try .conv2d(biased, name: $0, operands: $1)
    }
  }

  private static let convolutionMutants: [Mutant] = {
    let base = ConvolutionShape(5, 5, 5, 5, kernel: 3, Convolution(padding: 1))
    func fault(
      _ name: String, _ right: ConvolutionShape, _ change: @escaping @Sendable (inout ConvolutionShape) -> Void
    ) -> Mutant {
      Mutant(
        .conv2d, name, right: { try .conv2d(right, operands: $0) },
        wrong: { try .conv2d(right.with(change), operands: $0) })
    }
    let shifted = Convolution.Padding(top: 2, left: 1, bottom: 0, right: 1)
    let transposed = Convolution(stride: 2, padding: 1, isTransposed: true, outputPadding: 1)
    let strided = ConvolutionShape(4, 4, 6, 6, kernel: 3, transposed)
    return [
      fault("shifts the image", base) { $0.convolution.padding = shifted },
      fault("takes one layout for the other", base) { $0.layout = .channelsFirst },
      fault("scales wrongly", base) { $0.scale = 1 + 0x1p-12 },
      fault("ignores the dilation", base.with { $0.convolution = Convolution(padding: 2, dilation: 2) }) {
        $0.convolution = Convolution(padding: 1)
      },
      fault("crops a transposed convolution wrongly", strided) { $0.convolution.padding = shifted },
      fault(
        "ignores the dilation of a depthwise convolution",
        base.with { $0.convolution = Convolution(padding: 2, dilation: 2, groups: 5) }
      ) { $0.convolution = Convolution(padding: 1, groups: 5) },
    ]
  }()
}

import Quern

/// `conv2d`: an image, a kernel, and what follows the product.
public struct ConvolutionShape: Sendable, CustomStringConvertible {
  public var batch, height, width, channels, outputs: Int
  public var kernel: Convolution.Pair
  public var convolution: Convolution
  /// Rows and columns that the result of an enlarged image lacks.
  public var cut: Convolution.Pair = 0
  public var layout = ImageLayout.channelsLast
  public var activation = Activation.identity
  public var hasBias = false
  public var hasAdd = false
  public var hasResidual = false

  public init(
    _ height: Int, _ width: Int, _ channels: Int, to outputs: Int, kernel: Convolution.Pair = 3,
    _ convolution: Convolution = Convolution(), batch: Int = 1
  ) {
    (self.batch, self.height, self.width, self.channels, self.outputs) = (batch, height, width, channels, outputs)
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
    return "\(batch)x\(height)x\(width)x\(channels) to \(outputs) kernel \(kernel)"
      + (c.stride == 1 ? "" : " stride \(c.stride)") + (c.dilation == 1 ? "" : " dilation \(c.dilation)")
      + (c.upsampling == 1 ? "" : " upsampling \(c.upsampling)") + (cut == 0 ? "" : " less \(cut)")
      + (c.groups == 1 ? "" : " groups \(c.groups)") + (c.isTransposed ? " transposed" : "")
      + (layout == .channelsLast ? "" : " NCHW") + (activation == .identity ? "" : " \(activation.rawValue)")
      + (c.allowsWinograd ? " Winograd" : "") + (hasBias ? " bias" : "") + (hasAdd ? " add" : "")
      + (hasResidual ? " residual" : "")
  }

  /// Products in the sum of one output, at most.
  fileprivate var depth: Int { channels / convolution.groups * kernel.height * kernel.width }
  fileprivate var weightShape: Shape {
    let (first, second) = convolution.isTransposed ? (channels, outputs) : (outputs, channels)
    return Shape(first, second / convolution.groups, kernel.height, kernel.width)
  }
  fileprivate var kernels: [String] {
    if convolution.allowsWinograd {
      let form = convolution.upsampling == 2 ? "f32_doubled" : "f32_winograd"
      return ["f32_gemm_block", "\(form)_input", "\(form)_weights", "\(form)_output"]
    }
    return isDepthwise ? ["f32_depthwise"] : ["f32_gemm_block"] + (layout == .channelsLast ? [] : ["f32_conv_strips"])
  }
  fileprivate var isDepthwise: Bool {
    convolution.groups > 1 && convolution.groups == channels && !convolution.isTransposed
  }
}

extension Workload {
  public static func conv2d(_ shape: ConvolutionShape, name: String? = nil, operands: Operands) throws -> Workload {
    let layout = shape.layout
    let x = try operands.make(
      layout.shape(batch: shape.batch, height: shape.height, width: shape.width, channels: shape.channels))
    let weights = try operands.make(shape.weightShape)
    let packed = try Context(backend: ReferenceBackend()).packConvolution(weights.view, shape.convolution)
    let whole = try packed.outputShape(of: x.shape, layout: layout)
    let extents = layout.shape(
      batch: shape.batch, height: whole[layout == .channelsLast ? 1 : 2] - shape.cut.height,
      width: whole[layout == .channelsLast ? 2 : 3] - shape.cut.width, channels: shape.outputs)
    // Made even where they are not used, so that a mutant without one has the same operands otherwise.
    let bias = try operands.vector(shape.outputs)
    let add = try operands.make(Shape(shape.batch, shape.outputs))
    let residual = shape.hasResidual ? try operands.make(extents) : nil
    let output = try operands.make(extents)
    return conv2d(
      shape, name, operands, x: x.view, weights: weights.view, bias: shape.hasBias ? bias : nil,
      add: shape.hasAdd ? add.view : nil, residual: residual?.view, output: output)
  }

  private static func conv2d(
    _ shape: ConvolutionShape, _ name: String?, _ operands: Operands, x: TensorView, weights: TensorView, bias: Tensor?,
    add: TensorView?, residual: TensorView?, output: MutableTensor, magnitudes: TensorView? = nil
  ) -> Workload {
    let epilogue = Epilogue(bias: bias, activation: shape.activation)
    let positions = shape.convolution.isTransposed ? x.shape.count / shape.channels : output.shape.count / shape.outputs
    let through = shape.convolution.isTransposed ? shape.outputs : shape.channels
    let products =
      Double(positions) * Double(shape.convolution.isTransposed ? shape.channels : shape.outputs)
      * Double(through / shape.convolution.groups * shape.kernel.height * shape.kernel.width)
    let touched = x.shape.count + weights.shape.count + output.shape.count * (residual == nil ? 1 : 2)
    let workload = Workload(
      .conv2d, name ?? "\(shape)",
      kernels: shape.kernels,
      flops: 2 * products, bytes: 4 * Double(touched),
      isExactOnIntegers: (!shape.convolution.allowsWinograd || shape.convolution.upsampling == 2)
        && [.identity, .relu].contains(shape.activation),
      operands: operands, output: output,
      prepare: { context in
        let packed = try context.packConvolution(weights, shape.convolution)
        return { y in
          try context.conv2d(
            x, weights: packed, layout: shape.layout, epilogue: epilogue, add: add, residual: residual, into: y)
        }
      },
      bound: { bounds, expected in
        try bounds.conv2d(
          x, weights: try Context(backend: ReferenceBackend()).packConvolution(weights, shape.convolution),
          layout: shape.layout, epilogue: epilogue, add: add, residual: residual, output: output.shape,
          patches: magnitudes, expected: expected)
      })
    if shape.layout == .channelsLast, !shape.convolution.isTransposed, output.shape.count > 0 {
      workload.sampling = Sampling(rows: positions, work: Double(shape.outputs) * Double(shape.depth)) { rows in
        try patches(rows, shape, operands, x, weights, bias, add, residual, output)
      }
    }
    return workload
  }

  /// Each of these pixels as the one output of an image of its own: the part of x under the kernel, zeros outside.
  private static func patches(
    _ rows: [Int], _ shape: ConvolutionShape, _ operands: Operands, _ x: TensorView, _ weights: TensorView,
    _ bias: Tensor?, _ add: TensorView?, _ residual: TensorView?, _ output: MutableTensor
  ) throws -> Workload {
    let c = shape.convolution
    let (height, width) = (output.shape[1], output.shape[2])
    let reach = (
      (shape.kernel.height - 1) * c.dilation.height + 1, (shape.kernel.width - 1) * c.dilation.width + 1
    )
    let patches = try MutableTensor(zeros: Shape(rows.count, reach.0, reach.1, shape.channels))
    let adds = try MutableTensor(zeros: Shape(rows.count, shape.outputs))
    let residuals = try MutableTensor(zeros: Shape(rows.count, 1, 1, shape.outputs))
    for (index, row) in rows.enumerated() {
      let (image, i, j) = (row / width / height, row / width % height, row % width)
      for p in 0..<reach.0 {
        for q in 0..<reach.1 {
          let (r, s) = (i * c.stride.height + p - c.padding.top, j * c.stride.width + q - c.padding.left)
          guard (0..<c.imageExtent(shape.height, height)).contains(r),
            (0..<c.imageExtent(shape.width, width)).contains(s)
          else { continue }
          for channel in 0..<shape.channels {
            patches[index, p, q, channel] = x[image, r / c.upsampling, s / c.upsampling, channel]
          }
        }
      }
      for o in 0..<shape.outputs {
        if let add { adds[index, o] = add[image, o] }
        if let residual { residuals[index, 0, 0, o] = residual[image, i, j, o] }
      }
    }
    let part = shape.with {
      ($0.batch, $0.height, $0.width, $0.cut) = (rows.count, reach.0, reach.1, 0)
      $0.convolution = Convolution(dilation: c.dilation, groups: c.groups, allowsWinograd: c.allowsWinograd)
    }
    return conv2d(
      part, nil, operands, x: patches.view, weights: weights, bias: bias, add: add.map { _ in adds.view },
      residual: residual.map { _ in residuals.view },
      output: try MutableTensor(zeros: Shape(rows.count, 1, 1, shape.outputs)),
      magnitudes: try ErrorBounds.winogradMagnitudes(
        x, weights: try Context(backend: ReferenceBackend()).packConvolution(weights, c), layout: shape.layout,
        output: output.shape, pixels: rows))
  }
}

extension Suite {
  static let convolution = Suite(
    tests: convolutionTests, benchmarks: convolutionBenchmarks,
    mutants: [
      mutant("shifts the padding") { $0.convolution.padding = .init(top: 0, left: 2, bottom: 2, right: 0) },
      mutant("leaves out the dilation, padding as before") {
        ($0.convolution.dilation, $0.convolution.padding) = (1, 1)
      },
      mutant("forgets the bias") { $0.hasBias = false },
      mutant("forgets the sum for each channel") { $0.hasAdd = false },
      mutant("forgets the residual") { $0.hasResidual = false },
      mutant("activates otherwise") { $0.activation = .geluTanh },
    ])

  private static func mutant(
    _ fault: String, _ change: @escaping @Sendable (inout ConvolutionShape) -> Void
  ) -> Mutant {
    let right = ConvolutionShape(
      7, 6, 5, to: 9, Convolution(padding: .init(top: 2, left: 2, bottom: 2, right: 2), dilation: 2)
    ).with { ($0.activation, $0.hasBias, $0.hasAdd, $0.hasResidual) = (.silu, true, true, true) }
    return Mutant(.conv2d, fault) {
      try .conv2d(right, operands: $0)
    } wrong: {
      try .conv2d(right.with(change), operands: $0)
    }
  }

  private static let convolutionTests: [TestCases.Entry] = {
    let same = Convolution(padding: 1)
    var shapes: [ConvolutionShape] = [
      ConvolutionShape(0, 0, 1, to: 1).with { ($0.batch, $0.height, $0.width) = (0, 3, 3) },
      ConvolutionShape(1, 1, 1, to: 1, kernel: 1), ConvolutionShape(3, 3, 1, to: 1),
      ConvolutionShape(5, 4, 3, to: 2, same),
      ConvolutionShape(9, 11, 17, to: 19, same, batch: 2), ConvolutionShape(13, 7, 8, to: 33, same),
      ConvolutionShape(6, 7, 16, to: 31, kernel: 1),
      ConvolutionShape(6, 7, 16, to: 15, kernel: 1, Convolution(stride: 2)),
      ConvolutionShape(8, 9, 5, to: 7, kernel: .init(height: 1, width: 5), Convolution(padding: 2)),
      ConvolutionShape(12, 11, 6, to: 10, Convolution(stride: .init(height: 2, width: 3), padding: 1)),
      ConvolutionShape(
        10, 12, 4, to: 6,
        Convolution(padding: .init(top: 0, left: 1, bottom: 2, right: 3), dilation: .init(height: 2, width: 1))),
      ConvolutionShape(7, 7, 12, to: 18, Convolution(padding: 1, groups: 3)),
      ConvolutionShape(7, 6, 17, to: 17, Convolution(padding: 1, groups: 17)),
      ConvolutionShape(9, 8, 8, to: 24, Convolution(stride: 2, padding: 1, groups: 8)),
      ConvolutionShape(11, 9, 33, to: 33, kernel: 5, Convolution(padding: 4, dilation: 2, groups: 33)),
      ConvolutionShape(17, 19, 40, to: 48, same),
      ConvolutionShape(4, 5, 6, to: 8, Convolution(isTransposed: true)),
      ConvolutionShape(5, 4, 6, to: 17, kernel: 4, Convolution(stride: 2, padding: 1, isTransposed: true)),
      ConvolutionShape(
        4, 3, 8, to: 6,
        Convolution(stride: .init(height: 3, width: 2), padding: 1, groups: 2, isTransposed: true, outputPadding: 1)),
      ConvolutionShape(5, 5, 3, to: 4, Convolution(stride: 2, dilation: 2, isTransposed: true)),
    ]
    for layout in ImageLayout.allCases {
      shapes += [
        ConvolutionShape(8, 7, 9, to: 21, same, batch: 2).with {
          ($0.layout, $0.activation, $0.hasBias, $0.hasAdd, $0.hasResidual) = (layout, .silu, true, true, true)
        },
        ConvolutionShape(7, 5, 10, to: 10, Convolution(padding: 1, groups: 10)).with {
          ($0.layout, $0.activation, $0.hasBias, $0.hasAdd, $0.hasResidual) = (layout, .relu, true, true, true)
        },
        ConvolutionShape(6, 5, 7, to: 12, kernel: 1, batch: 2).with {
          ($0.layout, $0.activation, $0.hasBias, $0.hasResidual) = (layout, .gelu, true, true)
        },
      ]
    }
    let winograd = Convolution(padding: 1, allowsWinograd: true)
    let wide = Convolution(padding: .init(top: 2, left: 0, bottom: 1, right: 2), allowsWinograd: true)
    let others = [
      ConvolutionShape(17, 18, 16, to: 33, winograd), ConvolutionShape(19, 16, 18, to: 16, wide),
      ConvolutionShape(12, 13, 20, to: 19, winograd, batch: 3).with {
        ($0.activation, $0.hasBias, $0.hasAdd, $0.hasResidual) = (.silu, true, true, true)
      },
    ]
    shapes += shapes.prefix(20).dropFirst(2).map { $0.with { $0.layout = .channelsFirst } }
    let twice = Convolution(padding: 1, upsampling: 2)
    let differences = Convolution(padding: 1, upsampling: 2, allowsWinograd: true)
    let odd = Convolution.Pair(1, 1)
    let enlarged = [
      ConvolutionShape(1, 2, 3, to: 5, twice), ConvolutionShape(5, 4, 33, to: 34, twice).with { $0.cut = odd },
      ConvolutionShape(3, 4, 16, to: 33, differences),
      ConvolutionShape(6, 7, 40, to: 48, differences).with { $0.cut = odd },
      ConvolutionShape(1, 1, 5, to: 4, differences).with { $0.cut = odd },
      ConvolutionShape(5, 4, 20, to: 19, differences, batch: 3).with {
        ($0.cut.width, $0.activation, $0.hasBias, $0.hasAdd, $0.hasResidual) = (1, .silu, true, true, true)
      },
    ]
    shapes += ImageLayout.allCases.flatMap { layout in enlarged.map { $0.with { $0.layout = layout } } }
    return (shapes + others).map { shape in TestCases.Entry(.conv2d) { try .conv2d(shape, operands: $0) } }
  }()

  private static let convolutionBenchmarks: [BenchmarkCases.Entry] = [
    ("SD-1.5 res", ConvolutionShape(64, 64, 320, to: 320, Convolution(padding: 1)).with { $0.hasBias = true }),
    (
      "SD-1.5 res+add",
      ConvolutionShape(32, 32, 640, to: 640, Convolution(padding: 1)).with { ($0.hasBias, $0.hasAdd) = (true, true) }
    ),
    (
      "SD-1.5 res",
      ConvolutionShape(16, 16, 1280, to: 1280, Convolution(padding: 1)).with {
        ($0.hasBias, $0.hasResidual) = (true, true)
      }
    ),
    (
      "SD-1.5 down",
      ConvolutionShape(64, 64, 320, to: 320, Convolution(stride: 2, padding: 1)).with { $0.hasBias = true }
    ),
    (
      "SD-1.5 in",
      ConvolutionShape(64, 64, 4, to: 320, Convolution(padding: 1)).with {
        ($0.hasBias, $0.layout) = (true, .channelsFirst)
      }
    ),
    (
      "SD-1.5 res",
      ConvolutionShape(16, 16, 320, to: 320, Convolution(padding: 1)).with {
        ($0.hasBias, $0.layout) = (true, .channelsFirst)
      }
    ),
    (
      "SD-1.5 projection",
      ConvolutionShape(32, 32, 640, to: 640, kernel: 1).with { ($0.hasBias, $0.hasResidual) = (true, true) }
    ),
    (
      "SD-1.5 res",
      ConvolutionShape(64, 64, 320, to: 320, Convolution(padding: 1, allowsWinograd: true)).with { $0.hasBias = true }
    ),
    (
      "SD-1.5 res",
      ConvolutionShape(16, 16, 1280, to: 1280, Convolution(padding: 1, allowsWinograd: true)).with { $0.hasBias = true }
    ),
    (
      "SD-1.5 up",
      ConvolutionShape(16, 16, 1280, to: 1280, Convolution(padding: 1, upsampling: 2, allowsWinograd: true)).with {
        $0.hasBias = true
      }
    ),
    ("SD-1.5 VAE", ConvolutionShape(128, 128, 128, to: 128, Convolution(padding: 1)).with { $0.hasBias = true }),
    (
      "MobileNetV2 depthwise",
      ConvolutionShape(56, 56, 144, to: 144, Convolution(padding: 1, groups: 144)).with {
        ($0.hasBias, $0.activation) = (true, .relu)
      }
    ),
  ].map { model, shape in
    BenchmarkCases.Entry(.conv2d, "\(model): \(shape)", kernels: shape.kernels) {
      try .conv2d(shape, name: $0, operands: $1)
    }
  }
}

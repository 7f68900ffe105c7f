import Quern
import Testing

/// Convolutions that do not fit: typed errors that say why, and a destination that nobody has touched.
@Suite struct ConvolutionErrorTests {
  private let context = Context(backend: ReferenceBackend())

  private func zeros(_ a: Int, _ b: Int, _ c: Int, _ d: Int) throws -> MutableTensor {
    try MutableTensor(zeros: Shape(a, b, c, d))
  }

  @Test func packingChecksTheConvolution() throws {
    let weights = try zeros(6, 3, 3, 3).view
    refuses(.pack, "4 groups do not divide") { _ = try context.packConvolution(weights, Convolution(groups: 4)) }
    refuses(.pack, "at least 1") { _ = try context.packConvolution(weights, Convolution(stride: 0)) }
    refuses(.pack, "at least 1") { _ = try context.packConvolution(weights, Convolution(dilation: -1)) }
    refuses(.pack, "at least 1") { _ = try context.packConvolution(weights, Convolution(groups: 0)) }
    refuses(.pack, "negative") { _ = try context.packConvolution(weights, Convolution(padding: -1)) }
    refuses(.pack, "output padding") { _ = try context.packConvolution(weights, Convolution(outputPadding: 1)) }
    refuses(.pack, "output padding") {
      _ = try context.packConvolution(weights, Convolution(stride: 2, isTransposed: true, outputPadding: 2))
    }
    refuses(.pack, "no extent of 0") { _ = try context.packConvolution(try zeros(6, 0, 3, 3).view) }
    refuses(.pack, "rank 4") { _ = try context.packConvolution(try MutableTensor(zeros: Shape(6, 3)).view) }
  }

  @Test func anUpsamplingFitsTheRest() throws {
    let weights = try zeros(6, 6, 3, 3).view
    for other in [
      Convolution(padding: 1, upsampling: 0), Convolution(padding: 1, upsampling: 3), Convolution(upsampling: 2),
      Convolution(stride: 2, padding: 1, upsampling: 2), Convolution(padding: 1, dilation: 2, upsampling: 2),
      Convolution(padding: 1, groups: 2, upsampling: 2), Convolution(padding: 1, isTransposed: true, upsampling: 2),
    ] {
      refuses(.pack, "an upsampling of") { _ = try context.packConvolution(weights, other) }
    }
    let twice = Convolution(padding: 1, upsampling: 2)
    refuses(.pack, "3x3 taps") { _ = try context.packConvolution(try zeros(6, 6, 1, 1).view, twice) }
    refuses(.pack, "3x3 taps") { _ = try context.packConvolution(try MutableTensor(zeros: Shape(6, 6, 3)).view, twice) }

    let packed = try context.packConvolution(weights, twice)
    let x = try zeros(1, 3, 4, 6)
    #expect(try packed.outputShape(of: x.shape) == Shape(1, 6, 8, 6))
    for (height, width) in [(6, 8), (5, 8), (6, 7), (5, 7)] {
      try context.conv2d(x.view, weights: packed, into: try zeros(1, height, width, 6))
    }
    for (height, width) in [(7, 8), (4, 8), (6, 9), (6, 6), (3, 4)] {
      refuses(.conv2d, "they must agree") {
        try context.conv2d(x.view, weights: packed, into: try zeros(1, height, width, 6))
      }
    }
    refuses(.conv2d, "they must agree") { try context.conv2d(x.view, weights: packed, into: try zeros(1, 5, 7, 5)) }
    refuses(.conv2d, "they must agree") {
      try context.conv2d(x.view, weights: packed, into: try MutableTensor(zeros: Shape(5, 8, 6)))
    }
  }

  @Test func imagesFitTheWeights() throws {
    let packed = try context.packConvolution(try zeros(6, 3, 3, 3).view)
    let (x, y) = (try zeros(1, 5, 5, 3), try zeros(1, 3, 3, 6))
    refuses(.conv2d, "has 4 channels") {
      try context.conv2d(try zeros(1, 5, 5, 4).view, weights: packed, into: y)
    }
    refuses(.conv2d, "has 5 channels") { try context.conv2d(x.view, weights: packed, layout: .channelsFirst, into: y) }
    refuses(.conv2d, "the kernel spans 3 of the height, x with its padding has 2") {
      try context.conv2d(try zeros(1, 2, 5, 3).view, weights: packed, into: y)
    }
    refuses(.conv2d, "a width of 0") { try context.conv2d(try zeros(1, 5, 0, 3).view, weights: packed, into: y) }
    refuses(.conv2d, "they must agree") { try context.conv2d(x.view, weights: packed, into: try zeros(1, 3, 4, 6)) }
    refuses(.conv2d, "rank 4") {
      try context.conv2d(try MutableTensor(zeros: Shape(5, 5, 3)).view, weights: packed, into: y)
    }
    refuses(.conv2d, "rank 3") { try context.conv1d(x.view, weights: packed, into: y) }
  }

  @Test func epilogueFitsTheResult() throws {
    let packed = try context.packConvolution(try zeros(6, 3, 3, 3).view)
    let (x, y) = (try zeros(2, 5, 5, 3), try zeros(2, 3, 3, 6))
    refuses(.conv2d, "expected [6]") {
      try context.conv2d(x.view, weights: packed, epilogue: Epilogue(bias: try Tensor([1, 2])), into: y)
    }
    refuses(.conv2d, "add has shape [1, 6]") {
      try context.conv2d(x.view, weights: packed, add: try MutableTensor(zeros: Shape(1, 6)).view, into: y)
    }
    refuses(.conv2d, "residual has shape") {
      try context.conv2d(x.view, weights: packed, residual: try zeros(2, 3, 6, 3).view, into: y)
    }
  }

  @Test func outputsLieApart() throws {
    let packed = try context.packConvolution(try zeros(3, 3, 1, 1).view)
    let memory = try zeros(1, 4, 4, 6)
    let (x, y) = (memory.reinterpreted(offset: 0, shape: Shape(1, 4, 4, 3), strides: Shape(48, 12, 3, 1)), memory)
    func seen(_ offset: Int, _ strides: Shape) -> MutableTensor {
      y.reinterpreted(offset: offset, shape: Shape(1, 4, 4, 3), strides: strides)
    }
    refuses(.conv2d, "overlaps the destination") {
      try context.conv2d(x.view, weights: packed, into: seen(3, Shape(48, 12, 3, 1)))
    }
    let apart = try zeros(1, 4, 4, 3)
    refuses(.conv2d, "that overlap") {
      try context.conv2d(apart.view, weights: packed, into: seen(0, Shape(48, 6, 3, 1)))
    }
    refuses(.conv2d, "unit stride") {
      try context.conv2d(apart.view, weights: packed, into: seen(0, Shape(96, 24, 6, 2)))
    }
    refuses(.conv2d, "without being it") {
      let target = seen(0, Shape(48, 12, 3, 1))
      try context.conv2d(apart.view, weights: packed, residual: seen(1, Shape(48, 12, 3, 1)).view, into: target)
    }
  }

  @Test func transposedPaddingLeavesSomething() throws {
    let packed = try context.packConvolution(try zeros(3, 2, 2, 2).view, Convolution(padding: 2, isTransposed: true))
    refuses(.conv2d, "leaves nothing") {
      try context.conv2d(try zeros(1, 2, 2, 3).view, weights: packed, into: try zeros(1, 1, 1, 2))
    }
  }
}

/// What is built on conv2d.
@Suite struct ConvolutionTests {
  private let context = Context(backend: ReferenceBackend())

  /// [1, 2, 3, 4] with a kernel [1, 10, 100]: PyTorch's conv1d and conv_transpose1d.
  @Test(arguments: ["reference", "multithreaded", "blas"]) func oneAxis(_ backend: String) throws {
    guard let context = try? Context(backend) else { return }
    let x = try Tensor([1, 2, 3, 4], shape: Shape(1, 4, 1))
    let weights = try Tensor([1, 10, 100], shape: Shape(1, 1, 3))
    let plain = try context.packConvolution(
      weights.view, Convolution(padding: Convolution.Padding(top: 0, left: 1, bottom: 0, right: 1)))
    let y = try MutableTensor(zeros: Shape(1, 4, 1))
    try context.conv1d(x.view, weights: plain, into: y)
    #expect(y.elements == [210, 321, 432, 43])

    let spread = try context.packConvolution(
      weights.view, Convolution(stride: Convolution.Pair(height: 1, width: 2), isTransposed: true))
    let z = try MutableTensor(zeros: Shape(1, 1, 9))
    try context.conv1d(
      x.view.reshaped(Shape(1, 1, 4)), weights: spread, layout: .channelsFirst, into: z)
    #expect(z.elements == [1, 10, 102, 20, 203, 30, 304, 40, 400])
  }

  /// The residual may be the destination, also where a sum takes more than one slice of K.
  @Test func residualInPlace() throws {
    for layout in ImageLayout.allCases {
      let x = try Tensor(shape: layout.shape(batch: 1, height: 5, width: 4, channels: 60)) { values in
        for i in 0..<values.count { values[i] = Float(i % 7) - 3 }
      }
      let w = try Tensor(shape: Shape(4, 60, 3, 3)) { values in
        for i in 0..<values.count { values[i] = Float(i % 5) - 2 }
      }
      var results: [[Float]] = []
      for backend: any Backend in [ReferenceBackend(), try MultithreadedBackend()] {
        let context = Context(backend: backend)
        let y = try MutableTensor(zeros: layout.shape(batch: 1, height: 5, width: 4, channels: 4))
        for i in 0..<y.shape.count { y.base[i] = Float(i) }
        let packed = try context.packConvolution(w.view, Convolution(padding: 1))
        try context.conv2d(x.view, weights: packed, layout: layout, residual: y.view, into: y)
        results.append(y.elements)
      }
      #expect(results[0] == results[1])
    }
  }

  @Test func batchNormFolds() throws {
    func ramp(_ shape: Shape, _ step: Float) throws -> Tensor {
      try Tensor((0..<shape.count).map { Float($0 % 9) * step - 0.4 }, shape: shape)
    }
    let x = try ramp(Shape(1, 4, 4, 4), 0.1)
    let norm = BatchNormalization(
      weight: try Tensor([1, 2, 3, 4]), bias: try Tensor([0.5, -1, 0, 2]), mean: try Tensor([0.1, 0.2, -0.3, 0.4]),
      variance: try Tensor([1, 4, 0.25, 2]))
    for (shape, convolution) in [
      (Shape(4, 2, 3, 3), Convolution(padding: 1, groups: 2)),
      (Shape(4, 2, 3, 3), Convolution(padding: 1, groups: 2, isTransposed: true)),
    ] {
      let (weights, bias) = (try ramp(shape, 0.2), try Tensor([0.3, 0, -0.2, 1]))
      func run(_ weights: Tensor, _ bias: Tensor) throws -> [Float] {
        let y = try MutableTensor(zeros: Shape(1, 4, 4, 4))
        let packed = try context.packConvolution(weights.view, convolution)
        try context.conv2d(x.view, weights: packed, epilogue: Epilogue(bias: bias), into: y)
        return y.elements
      }
      let plain = try run(weights, bias)
      let folded = try norm.folded(into: weights, bias: bias, convolution)
      for (position, value) in try run(folded.weights, folded.bias).enumerated() {
        let c = position % 4
        let deviation = (norm.variance.elements[c] + norm.epsilon).squareRoot()
        let expected =
          (plain[position] - norm.mean.elements[c]) / deviation * norm.weight.elements[c] + norm.bias.elements[c]
        #expect(abs(value - expected) <= 1e-5 * (1 + abs(expected)))
      }
    }
  }
}

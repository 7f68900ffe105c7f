/// Convolution. See ``Backend`` for what every requirement may rely on.
public protocol ConvolutionOperations {
  /// Lays out the weights of a convolution for this backend's ``conv2d(_:weights:layout:epilogue:add:residual:into:)``.
  func packConvolution(_ weights: TensorView, _ convolution: Convolution) throws -> PackedConvolution

  /// `y = activation(scale conv(x) + bias + add) + residual`, for images of rank 4 in `layout` with unit stride along the last
  /// axis; add `[batch, outputs]`. The residual may be y.
  func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, into y: MutableTensor)
}

extension Backend {
  public func packConvolution(_ weights: TensorView, _ convolution: Convolution) throws -> PackedConvolution {
    try handOn(.pack).packConvolution(weights, convolution)
  }

  public func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout, epilogue: Epilogue, add: TensorView?,
    residual: TensorView?, into y: MutableTensor
  ) {
    handOn(.conv2d).conv2d(
      x, weights: weights, layout: layout, epilogue: epilogue, add: add, residual: residual, into: y)
  }
}

extension Context {
  /// Lays out the weights of a convolution for this context's backend, once.
  ///
  /// - Parameters:
  ///   - weights: `[outputs, channels / groups, height, width]`; transposed `[channels, outputs / groups, height, width]`, as
  ///     PyTorch stores them; any strides. Rank 3, without the height, for ``conv1d(_:weights:layout:epilogue:add:residual:into:)``.
  ///   - convolution: strides, padding and the rest.
  /// - Throws: ``QuernError``, also for memory that cannot be had.
  public func packConvolution(
    _ weights: TensorView, _ convolution: Convolution = Convolution()
  ) throws -> PackedConvolution {
    let check = Check(operation: .pack)
    let w = weights.shape.rank == 3 ? Self.inserting(weights, at: 2) : weights
    try check.require(
      w.shape.rank == 4 && w.shape.count > 0,
      "weights \(weights.shape) need rank 4, or 3 for one spatial axis, and no extent of 0")
    let c = convolution
    func within(_ range: ClosedRange<Int>, _ values: Int...) -> Bool { values.allSatisfy(range.contains) }
    try check.require(
      within(1...Convolution.limit, c.stride.height, c.stride.width, c.dilation.height, c.dilation.width, c.groups),
      "stride \(c.stride), dilation \(c.dilation) and groups \(c.groups) need to be at least 1")
    try check.require(
      within(0...Convolution.limit, c.padding.top, c.padding.left, c.padding.bottom, c.padding.right),
      "padding \(c.padding) is negative or too large")
    try check.require(
      w.shape[0] % c.groups == 0, "\(c.groups) groups do not divide the first axis of weights \(weights.shape)")
    try check.require(
      max(w.shape[2], w.shape[3]) <= Convolution.limit, "the kernel of weights \(weights.shape) is too large")
    let extra = c.outputPadding
    try check.require(
      extra == 0
        || (c.isTransposed && within(0...c.stride.height - 1, extra.height)
          && within(0...c.stride.width - 1, extra.width)),
      "an output padding of \(extra) takes a transposed convolution and a stride above it, not \(c.stride)")
    try check.require(
      c.upsampling == 1 || (c.upsampling == 2 && c.canUpsample(.init(height: w.shape[2], width: w.shape[3]))),
      "an upsampling of \(c.upsampling) of weights \(weights.shape); 2 takes 3x3 taps with a padding of 1, and nothing else"
    )
    return try packer(weights.types).packConvolution(w, convolution)
  }

  /// `y = activation(scale conv(x) + bias + add) + residual`: convolution with padding, strides, dilation and groups, depthwise
  /// or transposed, as the weights say.
  ///
  /// `conv(x)[b, o, i, j] = Σ w[o, c, p, q] x[b, c, i stride + p dilation - top, j stride + q dilation - left]`, over the
  /// channels c of o's group, where x is 0 outside the image (Dumoulin and Visin, arXiv 1603.07285). A transposed convolution
  /// exchanges the positions of x and y. Weights are finite: a product with padding may or may not be formed. With an
  /// ``Convolution/upsampling`` of 2, `x[b, c, i, j]` stands for `x[b, c, i / 2, j / 2]`, rounded down.
  ///
  /// Each sum of K products is as exact as one of ``linear(_:weights:epilogue:residual:into:)``. On `multithreaded`, thread counts
  /// do not change its bits.
  ///
  /// - Parameters:
  ///   - x: rank 4 in `layout`, unit stride along the last axis.
  ///   - weights: from ``packConvolution(_:_:)``.
  ///   - layout: that of x, the residual and y.
  ///   - epilogue: scale, a bias for each output channel, activation.
  ///   - add: `[batch, outputs]`, added with the bias: a U-Net's time embedding.
  ///   - residual: the shape of y, added last; may be `y` itself.
  ///   - y: ``PackedConvolution/outputShape(of:layout:)``, with an upsampling of 2 also one row or column less; overlaps no other
  ///     operand.
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for shapes that do not fit, a kernel larger than the padded
  ///   image, memory that overlaps; ``QuernError/foreignPacking(operation:layout:backend:)``.
  public func conv2d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout = .channelsLast, epilogue: Epilogue = .none,
    add: TensorView? = nil, residual: TensorView? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .conv2d)
    let expected = try weights.outputShape(of: x.shape, layout: layout)
    if !weights.convolution.reaches(y.shape, within: expected, layout) {
      try check.same(y.shape, "y", expected, "conv(x)")
    }
    try check.require(x.shape.last <= 1 || x.strides[3] == 1, "x \(x.shape) needs unit stride along its last axis")
    try check.require(y.shape.last <= 1 || y.strides[3] == 1, "y \(y.shape) needs unit stride along its last axis")
    try check.vector(epilogue.bias, "bias", count: weights.outputs)
    try check.destination(y, "y")
    try check.disjoint(x, "x", from: y)
    if let add {
      try check.same(add.shape, "add", Shape(y.shape[0], weights.outputs), "[batch, outputs]")
      try check.require(add.shape.last <= 1 || add.strides[1] == 1, "add needs unit stride along its last axis")
      try check.disjoint(add, "add", from: y)
    }
    if let residual {
      try check.same(residual.shape, "residual", y.shape, "y")
      try check.require(
        residual.shape.last <= 1 || residual.strides[3] == 1, "residual needs unit stride along its last axis")
      try check.disjoint(residual, "residual", from: y, mayBeSame: true)
    }
    let types = x.types.union(residual.types)
    let runner = runner(.conv2d, types, DataTypes(weights.dataType), y.types, add.types)
    for matrix in weights.matrices {
      if case .opaque(let owner) = matrix.layout, owner != type(of: runner).name {
        throw .foreignPacking(operation: .conv2d, layout: "\(matrix.layout)", backend: type(of: runner).name)
      }
    }
    try run(runner) {
      $0.conv2d(x, weights: weights, layout: layout, epilogue: epilogue, add: add, residual: residual, into: y)
    }
  }

  /// ``conv2d(_:weights:layout:epilogue:add:residual:into:)`` of one spatial axis: x, residual and y are `[batch, length,
  /// channels]`, or `[batch, channels, length]` for `channelsFirst`; the fields of the convolution are those of the width.
  public func conv1d(
    _ x: TensorView, weights: PackedConvolution, layout: ImageLayout = .channelsLast, epilogue: Epilogue = .none,
    add: TensorView? = nil, residual: TensorView? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .conv2d)
    let axis = layout.height
    try check.require(
      x.shape.rank == 3 && y.shape.rank == 3 && (residual?.shape.rank ?? 3) == 3,
      "x \(x.shape) and y \(y.shape) of one spatial axis need rank 3, and so does a residual")
    try conv2d(
      Self.inserting(x, at: axis), weights: weights, layout: layout, epilogue: epilogue, add: add,
      residual: residual.map { Self.inserting($0, at: axis) }, into: Self.inserting(y, at: axis))
  }

  /// The same elements with an axis of extent 1, one image's or channel's length apart.
  private static func inserting<T: Strided>(_ tensor: T, at axis: Int) -> T {
    let stride = max(tensor.strides[axis] * tensor.shape[axis], 1)
    return tensor.reinterpreted(
      offset: 0, shape: tensor.shape.inserting(1, at: axis), strides: tensor.strides.inserting(stride, at: axis))
  }
}

/// Batch normalisation with fixed statistics: `y = (x - mean) / sqrt(variance + epsilon) weight + bias` for each channel.
public struct BatchNormalization: Sendable {
  public var weight, bias, mean, variance: Tensor
  public var epsilon: Float

  /// - Parameters: as PyTorch's state dictionary names them, each `[channels]`.
  public init(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: Float = 1e-5) {
    (self.weight, self.bias, self.mean, self.variance, self.epsilon) = (weight, bias, mean, variance, epsilon)
  }

  /// Weights and bias of the convolution that is `weights` followed by this normalisation (Jacob et al., arXiv 1712.05877, 3.2).
  ///
  /// - Parameters:
  ///   - weights: as ``Context/packConvolution(_:_:)`` takes them, f32.
  ///   - bias: that of the convolution.
  ///   - convolution: its groups, and whether it is transposed.
  public func folded(
    into weights: Tensor, bias convolutionBias: Tensor? = nil, _ convolution: Convolution = Convolution()
  ) throws -> (weights: Tensor, bias: Tensor) {
    let check = Check(operation: .pack)
    let shape = weights.shape
    try check.require(
      (shape.rank == 3 || shape.rank == 4) && shape.count > 0 && convolution.groups > 0,
      "weights \(shape) need rank 4, or 3 for one spatial axis, and no extent of 0")
    try check.require(shape[0] % convolution.groups == 0, "\(convolution.groups) groups do not divide weights \(shape)")
    let outputs = convolution.isTransposed ? shape[1] * convolution.groups : shape[0]
    for (vector, name) in [(weight, "weight"), (bias, "bias"), (mean, "mean"), (variance, "variance")] {
      try check.vector(vector, name, count: outputs)
    }
    try check.vector(convolutionBias, "the convolution's bias", count: outputs)
    let factors = (0..<outputs).map { weight.view[$0] / (variance.view[$0] + Double(epsilon)).squareRoot() }
    let taps = shape.count / shape[0] / shape[1]
    let folded = try Tensor(shape: shape, dataType: weights.dataType) { bytes in
      guard let target = bytes.baseAddress else { return }
      for position in 0..<shape.count {
        let (first, second) = (position / taps / shape[1], position / taps % shape[1])
        let group = first / (shape[0] / convolution.groups)
        let output = convolution.isTransposed ? group * shape[1] + second : first
        let value = Double(weights.view.load(weights.offset(of: position))) * factors[output]
        weights.dataType.store(Float(value), to: target, position)
      }
    }
    let shifts = (0..<outputs).map {
      Float(((convolutionBias?.view[$0] ?? 0) - mean.view[$0]) * factors[$0] + bias.view[$0])
    }
    return (folded, try Tensor(shifts))
  }
}

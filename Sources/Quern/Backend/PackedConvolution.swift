/// What a convolution does to positions; its channels and kernel are those of its weights.
public struct Convolution: Sendable, Hashable {
  /// One number for each spatial axis.
  public typealias Pair = ImageSize

  /// Zeros around an image; of a transposed convolution, what is cut off its result.
  public struct Padding: Sendable, Hashable, ExpressibleByIntegerLiteral {
    public var top, left, bottom, right: Int
    public init(top: Int, left: Int, bottom: Int, right: Int) {
      (self.top, self.left, self.bottom, self.right) = (top, left, bottom, right)
    }
    public init(integerLiteral value: Int) { self.init(top: value, left: value, bottom: value, right: value) }
  }

  public var stride: Pair
  public var padding: Padding
  public var dilation: Pair
  public var groups: Int
  public var isTransposed: Bool
  /// Rows and columns added to the end of a transposed convolution's result, less than the stride.
  public var outputPadding: Pair
  /// 2 for a convolution of x enlarged by nearest neighbours, each pixel four times, which is never stored: 3 x 3 taps with a stride,
  /// dilation and groups of 1 and a padding of 1. The result has twice the height and width of x, or one less of either. Else 1.
  public var upsampling: Int
  /// Whether a backend may form the sums by Winograd's minimal filtering F(4, 3) (Lavin and Gray, arXiv:1509.09308) where that pays:
  /// a quarter of the products of 3 x 3 taps at stride 1. Of f32 images the error was at most 4e-6 of the largest result, 4e-7 with
  /// direct sums. The bound is γ(channels + 33) (|Aᵀ| Σ (|G w Gᵀ| ⊙ |Bᵀ x B|) |A|), absolute values taken element by element.
  /// With an ``upsampling`` of 2 it is by as few products of differences of pixels, and the bound γ(9 channels + 14) Σ|Q w Qᵀ||x|, where
  /// Q adds twice the outer taps to the middle one.
  public var allowsWinograd: Bool

  public init(
    stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1, groups: Int = 1, isTransposed: Bool = false,
    outputPadding: Pair = 0, upsampling: Int = 1, allowsWinograd: Bool = false
  ) {
    (self.stride, self.padding, self.dilation, self.groups) = (stride, padding, dilation, groups)
    (self.isTransposed, self.outputPadding) = (isTransposed, outputPadding)
    (self.upsampling, self.allowsWinograd) = (upsampling, allowsWinograd)
  }

  /// Whether an ``upsampling`` of 2 goes with the rest, and with the weights' height and width.
  func canUpsample(_ kernel: Pair) -> Bool {
    kernel == 3 && self == Convolution(padding: 1, upsampling: upsampling, allowsWinograd: allowsWinograd)
  }

  /// An extent of the image that is read: that of x, or of x enlarged, which a result has as well.
  package func imageExtent(_ input: Int, _ output: Int) -> Int { upsampling == 1 ? input : output }

  /// Whether `y` is a result without its last row or column, as an ``upsampling`` of 2 may have it.
  func reaches(_ y: Shape, within whole: Shape, _ layout: ImageLayout) -> Bool {
    guard upsampling == 2, y.rank == 4 else { return false }
    return (0..<4).allSatisfy { axis in
      let missing = whole[axis] - y[axis]
      return missing == 0 || (missing == 1 && (axis == layout.height || axis == layout.width))
    }
  }

  /// The largest value of a field, and the largest extent of an image, that ``Context`` accepts.
  static let limit = 1 << 24
}

/// How an image lies in a tensor of rank 4.
public enum ImageLayout: String, Sendable, CaseIterable {
  /// `[batch, height, width, channels]`, channels together; also called NHWC.
  case channelsLast
  /// `[batch, channels, height, width]`, pixels of a row together; also called NCHW.
  case channelsFirst

  var height: Int { self == .channelsLast ? 1 : 2 }
  var width: Int { self == .channelsLast ? 2 : 3 }
  var channels: Int { self == .channelsLast ? 3 : 1 }

  /// The shape of an image.
  public func shape(batch: Int, height: Int, width: Int, channels: Int) -> Shape {
    self == .channelsLast ? Shape(batch, height, width, channels) : Shape(batch, channels, height, width)
  }
}

/// The weights of a convolution, laid out once for the backend that will read them; any backend can, unless it is opaque.
///
/// A group's weights are a ``PackedMatrix`` `[outputs, taps * channels]` of that group. The input `tap * channels + channel`
/// counts taps by row and column; transposed, by the classes (row * dilation mod stride, column * dilation mod stride) first,
/// so that an output position reads one run. A depthwise convolution is one matrix `[outputs, taps]`, tap by tap.
public final class PackedConvolution: Sendable {
  public let convolution: Convolution
  /// Channels of the input and of the output, all groups together.
  public let channels, outputs: Int
  public let kernel: Convolution.Pair
  /// One for each group, or one alone where the convolution ``isDepthwise``.
  public let matrices: [PackedMatrix]
  /// The data type of the elements.
  public let dataType: DataType

  /// Whether every group has one input channel, of a convolution that is not transposed.
  public var isDepthwise: Bool { Self.isDepthwise(convolution, channels: channels) }

  private static func isDepthwise(_ convolution: Convolution, channels: Int) -> Bool {
    convolution.groups > 1 && convolution.groups == channels && !convolution.isTransposed
  }

  /// Lays out weights that ``Context`` has checked, each group's matrix by `pack`.
  public init(
    _ weights: TensorView, _ convolution: Convolution, pack: (TensorView) throws -> PackedMatrix
  ) throws {
    let (groups, shape) = (convolution.groups, weights.shape)
    let kernel = Convolution.Pair(height: shape[2], width: shape[3])
    channels = convolution.isTransposed ? shape[0] : shape[1] * groups
    outputs = convolution.isTransposed ? shape[1] * groups : shape[0]
    (self.convolution, self.kernel, dataType) = (convolution, kernel, weights.dataType)
    let (each, through, taps) = (outputs / groups, channels / groups, kernel.height * kernel.width)
    let positions = Self.positions(kernel, convolution)
    func matrix(_ group: Int, outputs: Int) throws -> Tensor {
      try Tensor(uninitialized: Shape(outputs, taps * through), dataType: weights.dataType) { target in
        guard let first = target.baseAddress else { return }
        let strides = weights.strides
        let (outputStep, step) = convolution.isTransposed ? (strides[1], strides[0]) : (strides[0], strides[1])
        let corner = group * (convolution.isTransposed ? through * step : each * outputStep)
        func copy<Word: BitwiseCopyable>(_: Word.Type) {
          let (to, from) = (
            first.assumingMemoryBound(to: Word.self), weights.address.assumingMemoryBound(to: Word.self)
          )
          for output in 0..<outputs {
            for tap in 0..<taps {
              let source =
                from + corner + output * outputStep + tap / kernel.width * strides[2] + tap % kernel.width * strides[3]
              let run = to + (output * taps + positions[tap]) * through
              for channel in 0..<through { run[channel] = source[channel &* step] }
            }
          }
        }
        weights.dataType.size == 4 ? copy(UInt32.self) : copy(UInt16.self)
      }
    }
    if Self.isDepthwise(convolution, channels: channels) {
      matrices = [try PackedMatrix.panels(of: try matrix(0, outputs: outputs).view, width: max(outputs, 1))]
    } else {
      matrices = try (0..<groups).map { try pack(try matrix($0, outputs: each).view) }
    }
  }

  /// The absolute values of the weights, of a convolution that lays them out alike. Zeros for an opaque layout.
  func absolute(as convolution: Convolution) throws(QuernError) -> PackedConvolution {
    var magnitudes: [PackedMatrix] = []
    for matrix in matrices { magnitudes.append(try matrix.absolute()) }
    return PackedConvolution(self, convolution, magnitudes)
  }

  private init(_ other: PackedConvolution, _ convolution: Convolution, _ matrices: [PackedMatrix]) {
    (channels, outputs, kernel, dataType) = (other.channels, other.outputs, other.kernel, .f32)
    (self.convolution, self.matrices) = (convolution, matrices)
  }

  /// The place of each tap in the order of the inputs.
  private static func positions(_ kernel: Convolution.Pair, _ convolution: Convolution) -> [Int] {
    let stride = convolution.isTransposed ? convolution.stride : 1
    func classes(_ tap: Int) -> (Int, Int) {
      (
        tap / kernel.width * convolution.dilation.height % stride.height,
        tap % kernel.width * convolution.dilation.width % stride.width
      )
    }
    let order = (0..<kernel.height * kernel.width).sorted {
      let (a, b) = (classes($0), classes($1))
      return (a.0, a.1, $0) < (b.0, b.1, $1)
    }
    var positions = order
    for (place, tap) in order.enumerated() { positions[tap] = place }
    return positions
  }

  /// The weights of one output by channel of its group and tap. `nil` for an opaque layout.
  package func taps(of output: Int) -> [[Double]]? {
    let (each, through) = (outputs / convolution.groups, channels / convolution.groups)
    guard let row = isDepthwise ? matrices[0].row(output) : matrices[output / each].row(output % each) else {
      return nil
    }
    let positions = Self.positions(kernel, convolution)
    return (0..<through).map { channel in positions.map { row[$0 * through + channel] } }
  }

  /// The shape of the result for an image of this shape; with an ``Convolution/upsampling`` of 2, the larger one.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for other channels, and for an image that with its padding is
  ///   smaller than the kernel with its dilation.
  public func outputShape(of input: Shape, layout: ImageLayout = .channelsLast) throws(QuernError) -> Shape {
    let check = Check(operation: .conv2d)
    try check.require(input.rank == 4, "x has shape \(input); expected rank 4: \(layout.rawValue)")
    try check.require(
      input[layout.channels] == channels,
      "x \(input) has \(input[layout.channels]) channels (\(layout.rawValue)), the weights take \(channels)")
    let (c, padding) = (convolution, convolution.padding)
    let height = try extent(
      input[layout.height], kernel.height, c.stride.height, c.dilation.height, padding.top + padding.bottom,
      c.outputPadding.height, "height", check)
    let width = try extent(
      input[layout.width], kernel.width, c.stride.width, c.dilation.width, padding.left + padding.right,
      c.outputPadding.width, "width", check)
    return layout.shape(batch: input[0], height: height, width: width, channels: outputs)
  }

  private func extent(
    _ input: Int, _ kernel: Int, _ stride: Int, _ dilation: Int, _ padding: Int, _ outputPadding: Int, _ name: String,
    _ check: Check
  ) throws(QuernError) -> Int {
    try check.require(input > 0 && input <= Convolution.limit, "x has a \(name) of \(input)")
    let input = input * convolution.upsampling
    let reach = dilation * (kernel - 1) + 1
    if convolution.isTransposed {
      let output = (input - 1) * stride + reach - padding + outputPadding
      try check.require(output > 0, "a padding of \(padding) leaves nothing of the \(name)")
      return output
    }
    try check.require(
      input + padding >= reach, "the kernel spans \(reach) of the \(name), x with its padding has \(input + padding)")
    return (input + padding - reach) / stride + 1
  }
}

/// Pooling, resampling and padding of images. Views are rank 4 in `layout`, with unit stride along the last axis. See
/// ``Backend`` for what else every requirement may rely on.
public protocol ImageOperations {
  /// The mean of each window; the extents of y follow from the window.
  func averagePool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor)

  /// The largest element of each window, NaN where there is one.
  func maxPool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor)

  /// x at another height and width, those of y.
  func resize(_ x: TensorView, by resampling: Resampling, layout: ImageLayout, into y: MutableTensor)

  /// x with a border around it; x and y have one data type.
  func pad(_ x: TensorView, margins: ImageMargins, border: ImageBorder, layout: ImageLayout, into y: MutableTensor)
}

/// A pair of figures for the rows and the columns of an image.
public struct ImageSize: Sendable, Hashable, ExpressibleByIntegerLiteral, CustomStringConvertible {
  public var height, width: Int
  public init(_ height: Int, _ width: Int) { (self.height, self.width) = (height, width) }
  public init(height: Int, width: Int) { self.init(height, width) }
  public init(integerLiteral value: Int) { self.init(value, value) }
  public var description: String { "\(height)x\(width)" }
}

/// The windows of a pooling operation, as PyTorch's `MaxPool2d` and `AvgPool2d` place them with `ceil_mode` off:
/// `(extent + 2 padding - dilation (size - 1) - 1) / stride + 1` outputs, rounded down.
public struct PoolWindow: Sendable, Hashable {
  public var size, stride, padding, dilation: ImageSize
  /// Averages divide by the whole window; else by the elements of the image in it.
  public var countsPadding: Bool

  /// - Parameter stride: by default the window's size.
  public init(
    size: ImageSize, stride: ImageSize? = nil, padding: ImageSize = ImageSize(0, 0),
    dilation: ImageSize = ImageSize(1, 1), countsPadding: Bool = true
  ) {
    (self.size, self.stride, self.padding) = (size, stride ?? size, padding)
    (self.dilation, self.countsPadding) = (dilation, countsPadding)
  }

  /// What the window makes of an image of this size; 0 or less where it does not fit.
  public func output(of image: ImageSize) -> ImageSize {
    func extent(_ n: Int, _ size: Int, _ stride: Int, _ padding: Int, _ dilation: Int) -> Int {
      let room = n + 2 * padding - dilation * (size - 1) - 1
      return room < 0 ? 0 : room / stride + 1
    }
    return ImageSize(
      extent(image.height, size.height, stride.height, padding.height, dilation.height),
      extent(image.width, size.width, stride.width, padding.width, dilation.width))
  }
}

/// How an image is read between its pixels.
public enum Resampling: String, Sendable, CaseIterable {
  /// Output i is pixel `i from / to`, rounded down.
  case nearest
  /// Two pixels a side, weighted by distance; centres keep their place: `(i + 1/2) from / to - 1/2`, not below 0.
  case bilinear
  /// The same with corner pixels kept in the corners: `i (from - 1) / (to - 1)`, PyTorch's `align_corners`.
  case bilinearAlignedCorners
}

/// What fills a border.
public enum ImageBorder: Sendable, Hashable {
  case constant(Float)
  /// The image mirrored about its outermost pixels, which are not repeated.
  case reflect
  /// The outermost pixels.
  case replicate
}

/// Pixels added around an image.
public struct ImageMargins: Sendable, Hashable {
  public var top, bottom, left, right: Int
  public init(top: Int = 0, bottom: Int = 0, left: Int = 0, right: Int = 0) {
    (self.top, self.bottom, self.left, self.right) = (top, bottom, left, right)
  }
}

extension ImageLayout {
  func channels(_ shape: Shape) -> Int { shape[channels] }
  func size(_ shape: Shape) -> ImageSize { ImageSize(shape[height], shape[width]) }
  /// The shape of `batch` images.
  public func shape(batch: Int, channels: Int, _ size: ImageSize) -> Shape {
    shape(batch: batch, height: size.height, width: size.width, channels: channels)
  }
}

/// The extents of an image tensor, and its strides in elements.
struct ImageAxes {
  let batch, channels, height, width: Int
  let batchStride, channelStride, rowStride, columnStride: Int

  init(_ tensor: some Strided, _ layout: ImageLayout) {
    let (shape, strides) = (tensor.shape, tensor.strides)
    let last = shape[3] > 1 ? strides[3] : 1
    (batch, batchStride) = (shape[0], strides[0])
    switch layout {
    case .channelsLast:
      (height, width, channels) = (shape[1], shape[2], shape[3])
      (rowStride, columnStride, channelStride) = (strides[1], strides[2], last)
    case .channelsFirst:
      (channels, height, width) = (shape[1], shape[2], shape[3])
      (channelStride, rowStride, columnStride) = (strides[1], strides[2], last)
    }
  }
}

extension Backend {
  public func averagePool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    handOn(.averagePool).averagePool(x, window: window, layout: layout, into: y)
  }

  public func maxPool(_ x: TensorView, window: PoolWindow, layout: ImageLayout, into y: MutableTensor) {
    handOn(.maxPool).maxPool(x, window: window, layout: layout, into: y)
  }

  public func resize(_ x: TensorView, by resampling: Resampling, layout: ImageLayout, into y: MutableTensor) {
    handOn(.resize).resize(x, by: resampling, layout: layout, into: y)
  }

  public func pad(
    _ x: TensorView, margins: ImageMargins, border: ImageBorder, layout: ImageLayout, into y: MutableTensor
  ) {
    handOn(.pad).pad(x, margins: margins, border: border, layout: layout, into: y)
  }
}

extension Check {
  /// Rank 4 and unit stride along the last axis; a destination whose elements lie apart.
  func images(_ x: TensorView, _ y: MutableTensor) throws(QuernError) {
    try image(x, "x")
    try image(y, "y")
    try destination(y, "y")
  }

  private func image(_ tensor: some Strided, _ name: String) throws(QuernError) {
    try require(tensor.shape.rank == 4, "\(name) \(tensor.shape) has rank \(tensor.shape.rank); images have 4")
    try require(
      tensor.shape[3] <= 1 || tensor.strides[3] == 1, "\(name) \(tensor.shape) needs unit stride along its last axis")
  }

  /// x and y of one batch and one number of channels, x not empty, y of this size and apart from x.
  fileprivate func resampled(
    _ x: TensorView, _ y: MutableTensor, _ layout: ImageLayout, to size: ImageSize
  ) throws(QuernError) {
    try images(x, y)
    let source = layout.size(x.shape)
    try require(source.height > 0 && source.width > 0, "x \(x.shape) has no pixels")
    try require(size.height > 0 && size.width > 0, "x \(x.shape) is too small for the window")
    let shape = layout.shape(batch: x.shape[0], channels: layout.channels(x.shape), size)
    try require(y.shape == shape, "y has shape \(y.shape); expected \(shape)")
    try disjoint(x, "x", from: y)
  }

  fileprivate func pool(
    _ x: TensorView, _ window: PoolWindow, _ y: MutableTensor, _ layout: ImageLayout
  ) throws(QuernError) {
    try images(x, y)
    let least = [window.size, window.stride, window.dilation].flatMap { [$0.height, $0.width] }.min() ?? 0
    try require(least >= 1, "sizes, strides and dilations of a window are at least 1")
    let reach = ImageSize(
      (window.size.height - 1) * window.dilation.height + 1, (window.size.width - 1) * window.dilation.width + 1)
    try require(
      0...reach.height / 2 ~= window.padding.height && 0...reach.width / 2 ~= window.padding.width,
      "the padding of a window is at most half of it")
    try resampled(x, y, layout, to: window.output(of: layout.size(x.shape)))
  }
}

extension Context {
  /// The mean of each window of an image. Accuracy: `gamma(size + 2)` times the mean magnitude.
  ///
  /// - Parameter y: the extents that `window` makes of x; shares no memory with x.
  public func averagePool(
    _ x: TensorView, window: PoolWindow, layout: ImageLayout = .channelsLast, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .averagePool)
    try check.require(window.dilation == ImageSize(1, 1), "averages have no dilation")
    try check.pool(x, window, y, layout)
    try run(runner(.averagePool, x.types, y.types)) { $0.averagePool(x, window: window, layout: layout, into: y) }
  }

  /// The largest element of each window, NaN where the window holds one; padding is never the largest.
  ///
  /// - Parameter y: the extents that `window` makes of x; shares no memory with x.
  public func maxPool(
    _ x: TensorView, window: PoolWindow, layout: ImageLayout = .channelsLast, into y: MutableTensor
  ) throws(QuernError) {
    try Check(operation: .maxPool).pool(x, window, y, layout)
    try run(runner(.maxPool, x.types, y.types)) { $0.maxPool(x, window: window, layout: layout, into: y) }
  }

  /// The mean over all pixels: ``averagePool(_:window:layout:into:)`` with one window; y has height and width 1.
  public func globalAveragePool(
    _ x: TensorView, layout: ImageLayout = .channelsLast, into y: MutableTensor
  ) throws(QuernError) {
    try Check(operation: .averagePool).images(x, y)
    try averagePool(x, window: PoolWindow(size: layout.size(x.shape)), layout: layout, into: y)
  }

  /// The largest over all pixels: ``maxPool(_:window:layout:into:)`` with one window; y has height and width 1.
  public func globalMaxPool(
    _ x: TensorView, layout: ImageLayout = .channelsLast, into y: MutableTensor
  ) throws(QuernError) {
    try Check(operation: .maxPool).images(x, y)
    try maxPool(x, window: PoolWindow(size: layout.size(x.shape)), layout: layout, into: y)
  }

  /// x at the height and width of y, larger or smaller.
  ///
  /// Nearest copies elements, so x and y have one data type; its index is exact, where PyTorch's is rounded to a float.
  /// Bilinear accuracy: `gamma(8)` times the same mean of magnitudes.
  public func resize(
    _ x: TensorView, by resampling: Resampling, layout: ImageLayout = .channelsLast, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .resize)
    try check.images(x, y)
    try check.resampled(x, y, layout, to: layout.size(y.shape))
    try check.require(
      resampling != .nearest || x.dataType == y.dataType,
      "x is \(x.dataType.rawValue), y is \(y.dataType.rawValue); nearest copies elements")
    try run(runner(.resize, x.types, y.types)) { $0.resize(x, by: resampling, layout: layout, into: y) }
  }

  /// x with a border around it, exactly.
  ///
  /// - Parameters:
  ///   - margins: not negative; below the extents of x where the border reflects.
  ///   - y: the extents of x and the margins, and its data type; shares no memory with x.
  public func pad(
    _ x: TensorView, margins: ImageMargins, border: ImageBorder = .constant(0), layout: ImageLayout = .channelsLast,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .pad)
    try check.images(x, y)
    let size = layout.size(x.shape)
    let (across, along) = (max(margins.top, margins.bottom), max(margins.left, margins.right))
    try check.require(
      min(margins.top, margins.bottom) >= 0 && min(margins.left, margins.right) >= 0, "margins are not negative")
    try check.require(
      border != .reflect || (across < size.height && along < size.width),
      "a reflected border is smaller than the image, \(size.height) by \(size.width)")
    try check.resampled(
      x, y, layout,
      to: ImageSize(size.height + margins.top + margins.bottom, size.width + margins.left + margins.right))
    try check.require(
      x.dataType == y.dataType, "x is \(x.dataType.rawValue), y is \(y.dataType.rawValue); pad copies elements")
    try run(runner(.pad, x.types, y.types)) { $0.pad(x, margins: margins, border: border, layout: layout, into: y) }
  }
}

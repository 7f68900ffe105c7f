/// Normalisation along rows, softmax included. See ``Backend`` for what every requirement may rely on.
public protocol NormOperations {
  /// `y = softmax(scale x + mask)` along rows; row i sees columns up to `i + diagonal`. y may be x.
  func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor)

  /// `y = (z - mean z) / sqrt(var z + epsilon) weight + bias`, z = x + residual, which `sum` receives
  /// too. y may be x or the residual; so may `sum`, which is no longer the same memory as y.
  func layerNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
    into y: MutableTensor)

  /// `y = z / sqrt(mean z² + epsilon) weight`, z = x + residual, which `sum` receives
  /// too. y may be x or the residual; so may `sum`, which is no longer the same memory as y.
  func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  )

  /// `y = x / max(‖x‖₂, epsilon)` along rows. y may be x.
  func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor)

  /// `y = activation((x - mean) / sqrt(var + epsilon) weight + bias)` on images: mean and variance over the pixels of
  /// each of `groups` equal ranges of channels. Views are rank 4 in `layout`. y may be x.
  func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation, into y: MutableTensor)
}

extension Backend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    handOn(.softmax).softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
    into y: MutableTensor
  ) {
    handOn(.layerNorm).layerNorm(x, residual: residual, sum: sum, weight: weight, bias: bias, epsilon: epsilon, into: y)
  }

  public func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    handOn(.rmsNorm).rmsNorm(x, residual: residual, sum: sum, weight: weight, epsilon: epsilon, into: y)
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    handOn(.l2Normalize).l2Normalize(x, epsilon: epsilon, into: y)
  }
}

extension Backend {
  public func groupNorm(
    _ x: TensorView, layout: ImageLayout, groups: Int, weight: Tensor?, bias: Tensor?, epsilon: Float,
    activation: Activation, into y: MutableTensor
  ) {
    handOn(.groupNorm).groupNorm(
      x, layout: layout, groups: groups, weight: weight, bias: bias, epsilon: epsilon, activation: activation, into: y)
  }
}

extension Check {
  /// The second output of a norm, as rows.
  fileprivate func sum(
    _ sum: MutableTensor?, _ x: TensorView, _ residual: TensorView?, _ y: MutableTensor
  ) throws(QuernError) -> MutableTensor? {
    guard let sum else { return nil }
    let rows = try rows(sum, "sum")
    try require(residual != nil, "sum is asked for without a residual")
    try same(rows.shape, "sum", y.shape, "y")
    try destination(rows, "sum")
    try disjoint(x, "x", from: rows, mayBeSame: true)
    if let residual { try disjoint(residual, "residual", from: rows, mayBeSame: true) }
    try disjoint(rows.view, "sum", from: y)
    return rows
  }
}

extension Context {
  /// `y = activation((x - mean) / sqrt(var + epsilon) weight + bias)`: mean and variance over the pixels of each of
  /// `groups` equal ranges of channels (Wu and He, arXiv 1803.08494).
  ///
  /// - Parameters:
  ///   - x: rank 4 in `layout`, unit stride along its last axis.
  ///   - weight: `[channels]`, or ones.
  ///   - bias: `[channels]`, or zeros.
  ///   - y: the shape of x; may be x.
  public func groupNorm(
    _ x: TensorView, layout: ImageLayout = .channelsLast, groups: Int, weight: Tensor? = nil, bias: Tensor? = nil,
    epsilon: Float = 1e-5, activation: Activation = .identity, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .groupNorm)
    try check.images(x, y)
    try check.same(y.shape, "y", x.shape, "x")
    try check.disjoint(x, "x", from: y, mayBeSame: true)
    let channels = layout.channels(x.shape)
    try check.require(groups > 0 && channels % groups == 0, "\(channels) channels do not divide into \(groups) groups")
    try check.vector(weight, "weight", count: channels)
    try check.vector(bias, "bias", count: channels)
    try run(runner(.groupNorm, x.types, y.types)) {
      $0.groupNorm(
        x, layout: layout, groups: groups, weight: weight, bias: bias, epsilon: epsilon, activation: activation, into: y
      )
    }
  }

  /// `y = softmax(scale x + mask)` along the last axis. Temperature T is a scale of 1/T.
  ///
  /// - Parameters:
  ///   - mask: `[rows, n]`, or one row for all; `-infinity` hides a column. A row with every column hidden becomes zeros.
  ///   - diagonal: row i sees columns up to `i + diagonal`; `nil` hides none.
  ///   - y: the shape of x; may be x.
  public func softmax(
    _ x: TensorView, scale: Float = 1, mask: TensorView? = nil, diagonal: Int? = nil, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .softmax)
    let (x, y) = try check.pair(x, y)
    let mask = try check.second(mask, "mask", of: y, repeats: true, mayBeSame: false)
    try run(runner(.softmax, x.types, y.types, mask.types)) {
      $0.softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
    }
  }

  /// `y = (z - mean z) / sqrt(var z + epsilon) weight + bias` along the last axis, z = x + residual
  /// (Ba, Kiros and Hinton, arXiv 1607.06450).
  ///
  /// - Parameters:
  ///   - weight: `[n]`, or ones.
  ///   - sum: receives z, rounded to its own type, where there is a residual; may be x or the residual, not y.
  ///   - bias: `[n]`, or zeros.
  ///   - y: the shape of x; may be x or the residual.
  public func layerNorm(
    _ x: TensorView, residual: TensorView? = nil, sum: MutableTensor? = nil, weight: Tensor? = nil,
    bias: Tensor? = nil, epsilon: Float = 1e-5,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .layerNorm)
    let (x, y) = try check.pair(x, y)
    let residual = try check.second(residual, "residual", of: y, repeats: false, mayBeSame: true)
    let sum = try check.sum(sum, x, residual, y)
    try check.vector(weight, "weight", count: y.shape[1])
    try check.vector(bias, "bias", count: y.shape[1])
    try run(runner(.layerNorm, x.types, y.types, residual.types, sum.types)) {
      $0.layerNorm(
        x, residual: residual, sum: sum, weight: weight, bias: bias, epsilon: epsilon, into: y)
    }
  }

  /// `y = z / sqrt(mean z² + epsilon) weight` along the last axis, z = x + residual
  /// (Zhang and Sennrich, arXiv 1910.07467). y may be x or the residual. `sum` receives z, rounded to its own type, where
  /// there is a residual; it may be x or the residual, not y.
  public func rmsNorm(
    _ x: TensorView, residual: TensorView? = nil, sum: MutableTensor? = nil, weight: Tensor? = nil,
    epsilon: Float = 1e-6, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .rmsNorm)
    let (x, y) = try check.pair(x, y)
    let residual = try check.second(residual, "residual", of: y, repeats: false, mayBeSame: true)
    let sum = try check.sum(sum, x, residual, y)
    try check.vector(weight, "weight", count: y.shape[1])
    try run(runner(.rmsNorm, x.types, y.types, residual.types, sum.types)) {
      $0.rmsNorm(
        x, residual: residual, sum: sum, weight: weight, epsilon: epsilon, into: y)
    }
  }

  /// `y = x / max(‖x‖₂, epsilon)` along the last axis, as PyTorch's `normalize`. y may be x.
  public func l2Normalize(_ x: TensorView, epsilon: Float = 1e-12, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .l2Normalize).pair(x, y)
    try run(runner(.l2Normalize, x.types, y.types)) { $0.l2Normalize(x, epsilon: epsilon, into: y) }
  }
}

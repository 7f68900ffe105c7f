/// Normalisation along rows, softmax included. See ``Backend`` for what every requirement may rely on.
public protocol NormOperations {
  /// `y = softmax(scale x + mask)` along rows; row i sees columns up to `i + diagonal`. y may be x.
  func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor)

  /// `y = (z - mean z) / sqrt(var z + epsilon) weight + bias`, z = x + residual. y may be x or the residual.
  func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor)

  /// `y = z / sqrt(mean z² + epsilon) weight`, z = x + residual. y may be x or the residual.
  func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor)

  /// `y = x / max(‖x‖₂, epsilon)` along rows. y may be x.
  func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor)
}

extension Backend {
  public func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
    handOn(.softmax).softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
  }

  public func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    handOn(.layerNorm).layerNorm(x, residual: residual, weight: weight, bias: bias, epsilon: epsilon, into: y)
  }

  public func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor) {
    handOn(.rmsNorm).rmsNorm(x, residual: residual, weight: weight, epsilon: epsilon, into: y)
  }

  public func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor) {
    handOn(.l2Normalize).l2Normalize(x, epsilon: epsilon, into: y)
  }
}

extension Context {
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
    runner(.softmax, x.types, y.types, mask.types).softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
  }

  /// `y = (z - mean z) / sqrt(var z + epsilon) weight + bias` along the last axis, z = x + residual
  /// (Ba, Kiros and Hinton, arXiv 1607.06450).
  ///
  /// - Parameters:
  ///   - weight: `[n]`, or ones.
  ///   - bias: `[n]`, or zeros.
  ///   - y: the shape of x; may be x or the residual.
  public func layerNorm(
    _ x: TensorView, residual: TensorView? = nil, weight: Tensor? = nil, bias: Tensor? = nil, epsilon: Float = 1e-5,
    into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .layerNorm)
    let (x, y) = try check.pair(x, y)
    let residual = try check.second(residual, "residual", of: y, repeats: false, mayBeSame: true)
    try check.vector(weight, "weight", count: y.shape[1])
    try check.vector(bias, "bias", count: y.shape[1])
    runner(.layerNorm, x.types, y.types, residual.types).layerNorm(
      x, residual: residual, weight: weight, bias: bias, epsilon: epsilon, into: y)
  }

  /// `y = z / sqrt(mean z² + epsilon) weight` along the last axis, z = x + residual
  /// (Zhang and Sennrich, arXiv 1910.07467). y may be x or the residual.
  public func rmsNorm(
    _ x: TensorView, residual: TensorView? = nil, weight: Tensor? = nil, epsilon: Float = 1e-6, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .rmsNorm)
    let (x, y) = try check.pair(x, y)
    let residual = try check.second(residual, "residual", of: y, repeats: false, mayBeSame: true)
    try check.vector(weight, "weight", count: y.shape[1])
    runner(.rmsNorm, x.types, y.types, residual.types).rmsNorm(
      x, residual: residual, weight: weight, epsilon: epsilon, into: y)
  }

  /// `y = x / max(‖x‖₂, epsilon)` along the last axis, as PyTorch's `normalize`. y may be x.
  public func l2Normalize(_ x: TensorView, epsilon: Float = 1e-12, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .l2Normalize).pair(x, y)
    runner(.l2Normalize, x.types, y.types).l2Normalize(x, epsilon: epsilon, into: y)
  }
}

import Quern

/// A backend from another package: RMSNorm of its own, and Quern's kernels for the rest.
public struct PluggedBackend: Backend {
  public static let name = "plugged"

  /// What runs the operations that this one leaves out; `Trace` records each.
  public let fallback: any Backend

  public init(options: BackendOptions = BackendOptions()) throws {
    fallback = try MultithreadedBackend(options: options)
  }

  /// Makes `QUERN_BACKEND=plugged` and `Context("plugged")` mean this backend.
  public static func register() { Backends.register(name) { try PluggedBackend(options: $0) } }

  /// Rows lie `strides[0]` elements apart. `Context` has checked shapes and overlaps, so nothing is checked here; y may be
  /// x or the residual, and so may the sum, so each element is read before it is written. Operands are f32: a backend that
  /// names no other `dataTypes` is handed no others.
  public func rmsNorm(
    _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float, into y: MutableTensor
  ) {
    let n = y.shape[1]
    for row in 0..<y.shape[0] {
      let source = x.base + row * x.strides[0]
      let added = residual.map { $0.base + row * $0.strides[0] }
      let target = y.base + row * y.strides[0]
      var squares = 0.0
      for column in 0..<n {
        let z = source[column] + (added?[column] ?? 0)
        squares += Double(z) * Double(z)
        target[column] = z
        if let sum { sum.base[row * sum.strides[0] + column] = z }
      }
      let factor = Float(1 / (squares / Double(n) + Double(epsilon)).squareRoot())
      for column in 0..<n { target[column] *= factor * (weight?.view.base[column] ?? 1) }
    }
  }
}

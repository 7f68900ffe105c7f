/// What happens to a product before it is stored, in this order: `activation(scale * product + bias) + residual`.
///
/// The residual is an operand of the call, since it changes with each call; the rest belongs to the layer.
public struct Epilogue: Sendable {
  /// The multiplier of the product; 1 leaves it alone.
  public var scale: Float
  /// One value per output column, or none.
  public var bias: Tensor?
  public var activation: Activation

  public init(scale: Float = 1, bias: Tensor? = nil, activation: Activation = .identity) {
    (self.scale, self.bias, self.activation) = (scale, bias, activation)
  }

  /// Stores the product as it is.
  public static var none: Epilogue { Epilogue() }
}

/// Element-wise functions.
public enum Activation: String, Sendable, CaseIterable {
  case identity
  /// `max(x, 0)`.
  case relu
  /// `x/2 (1 + erf(x/√2))`, PyTorch's `gelu` (Hendrycks and Gimpel, arXiv 1606.08415).
  case gelu
  /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`, PyTorch's `gelu(approximate="tanh")`.
  case geluTanh
  /// `x / (1 + exp(-x))`, also called swish.
  case silu
  /// `x / (1 + exp(-1.702 x))`, the sigmoid approximation of `gelu` (arXiv 1606.08415, section 2).
  case quickGelu
  case tanh
  /// `1 / (1 + exp(-x))`.
  case sigmoid
}

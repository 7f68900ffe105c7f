/// The model behind every bound: u = 2⁻²⁴ and γ(n) = n u / (1 - n u) (Higham, Accuracy and Stability, chapter 3).
///
/// γ(n) bounds n roundings in any order, hence for any blocking, instruction set and library. A backend that states a
/// smaller depth (sums kept in blocks) is held to it.
public struct Rounding: Sendable, Hashable {
  /// The unit roundoff of f32.
  public static let unit = 0x1p-24
  /// Below the normal range an error is absolute; each operation can add one of these.
  package static let smallest = 0x1p-149

  /// Products summed one after the other before the sum joins the others; `nil` for any order.
  let block: Int?
  /// What rounding the operands of a product adds, as a share of Σ|a b|.
  private(set) var operands = 0.0
  /// The bits of what x is rounded to before products by quantised weights.
  private(set) var activationBits = ActivationBits.sixteen

  private init(block: Int?) { self.block = block }

  /// Any order of summation: k roundings for k products.
  public static let anyOrder = Rounding(block: nil)

  /// Sums of at most `block` products, added up one after the other.
  public static func blocked(_ block: Int) -> Rounding { Rounding(block: block) }

  /// Roundings that one sum of `k` products meets.
  private func depth(_ k: Int) -> Int {
    guard let block, k > block else { return k }
    return block + (k + block - 1) / block
  }

  /// The same sums of operands that are first rounded: to bf16 where ``F32Products/bf16`` says so, and to codes of so many bits.
  func rounded(bf16: Bool, activations: ActivationBits) -> Rounding {
    var rounding = self
    (rounding.operands, rounding.activationBits) = (bf16 ? 0x1p-7 * (1 + 0x1p-8) : 0, activations)
    return rounding
  }

  /// What a code may be off by, as a share of the largest of its 32: half a step, and 0.02 of it for its own roundings.
  var code: Double { activationBits == .eight ? 0.51 / 127 : 0x1.05p-16 }

  package static func gamma(_ n: Int) -> Double { Double(n) * unit / (1 - Double(n) * unit) }

  /// The factor of Σ|a b| for a sum of k products that is then scaled and added to: three more roundings.
  func sum(_ k: Int) -> Double { Self.gamma(depth(k) + 3) }

  /// The same for products whose operands a backend may round.
  func product(_ k: Int) -> Double { sum(k) + operands }
}

extension Activation {
  /// The largest slope of the function, by which it can magnify an error of its argument.
  var slope: Double {
    switch self {
    case .gelu, .geluTanh: 1.13
    case .silu, .quickGelu: 1.1
    case .sigmoid: 0.25
    default: 1
    }
  }

  /// Below the normal range errors are absolute: a few of the smallest numbers.
  private static let underflow = 0x1p-147

  /// The kernel's own error at x, from the table at the head of `CKernels/body/math.h`.
  func error(at x: Double, value: Double) -> Double {
    let unit = Rounding.unit
    switch self {
    case .identity, .relu: return 0
    case .tanh, .sigmoid: return 4 * unit * abs(value)
    case .silu: return 5 * unit * abs(value) + Self.underflow * abs(x)
    case .geluTanh:
      // The exponential turns its argument's rounding, five times u where nothing is fused, into a relative error.
      let argument = 2 * 0.7978845608028654 * (abs(x) + 0.044715 * abs(x * x * x))
      // Far out the kernel returns 0 for a result below 2^-122.
      return min((4 + 5 * argument) * unit * abs(value), 3 * unit * abs(x)) + 0x1p-122
    case .quickGelu:
      return min((4 + 5 * 1.702 * abs(x)) * unit * abs(value), 3 * unit * abs(x)) + 0x1p-118
    case .gelu: return 4.5 * unit * abs(x)
    }
  }
}

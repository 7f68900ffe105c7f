#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Plain loops with Double accumulation: what every other backend is measured against, and what an operation means.
///
/// It implements every operation and hands none on. It is written to be read, not to be fast.
public struct ReferenceBackend: Backend {
  public static let name = "reference"

  public init() {}

  public var dataTypes: DataTypes { .all }

  public func pack(_ weights: TensorView) throws -> PackedMatrix { try PackedMatrix.panels(of: weights, width: 1) }

  public func pack(_ weights: QuantizedMatrix) throws -> PackedMatrix {
    PackedMatrix(
      outputs: weights.outputs, inputs: weights.inputs, layout: .blocks, storage: weights.words,
      quantization: weights.format)
  }

  public func packInt8(_ weights: TensorView) throws -> PackedMatrix {
    let layout = Int8Layout(outputs: weights.shape[0], inputs: weights.shape[1])
    let storage = try Tensor(shape: Shape(layout.words), dataType: .f16) { packed in
      if let base = packed.baseAddress { layout.pack(weights, into: base) }
    }
    return PackedMatrix(outputs: layout.outputs, inputs: layout.inputs, layout: .int8, storage: storage)
  }
}

extension Activation {
  /// The function in Double.
  package func exact(_ x: Double) -> Double {
    switch self {
    case .identity: x
    case .relu: x.isNaN ? x : max(x, 0)
    case .gelu: x * 0.5 * erfc(-x * 0.5.squareRoot())
    case .geluTanh: x * Activation.sigmoid.exact(2 * (2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x))
    case .silu: x * Activation.sigmoid.exact(x)
    case .quickGelu: x * Activation.sigmoid.exact(1.702 * x)
    case .tanh: hyperbolicTangent(x)
    case .sigmoid: x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x))
    }
  }
}

/// libm's tanh, out of reach where a case of the same name shadows it.
private func hyperbolicTangent(_ x: Double) -> Double { tanh(x) }

/// The weights of a linear layer, laid out once for the backend that will read them.
///
/// A packed matrix is immutable and shared. Reading its elements works for every layout but an opaque one, so any
/// backend, the reference included, can run weights that another one packed.
public final class PackedMatrix: Sendable {
  /// How the elements lie in memory.
  public enum Layout: Sendable, Equatable, CustomStringConvertible {
    /// Panels of `width` outputs: `[outputs/width][inputs][width]`, the last padded with zeros. Width 1 is row-major.
    case panels(width: Int)
    /// Known only to the backend of this name.
    case opaque(backend: String)

    public var description: String {
      switch self {
      case .panels(1): "row-major"
      case .panels(let width): "panels of \(width)"
      case .opaque(let backend): "opaque to \(backend)"
      }
    }
  }

  /// Output features: rows of the weight as PyTorch stores it.
  public let outputs: Int
  /// Input features.
  public let inputs: Int
  public let layout: Layout
  /// The packed elements.
  public let storage: Tensor

  /// Wraps packed elements. A backend's `pack` calls this.
  public init(outputs: Int, inputs: Int, layout: Layout, storage: Tensor) {
    (self.outputs, self.inputs, self.layout, self.storage) = (outputs, inputs, layout, storage)
  }

  /// Packs `weights` (`[outputs, inputs]`, any strides) in panels, in plain Swift.
  public static func panels(of weights: TensorView, width: Int) throws -> PackedMatrix {
    let (outputs, inputs) = (weights.shape[0], weights.shape[1])
    let panels = (outputs + width - 1) / width
    let storage = try Tensor(shape: Shape(panels * width * inputs)) { packed in
      for output in 0..<outputs {
        for input in 0..<inputs {
          packed[output / width * width * inputs + input * width + output % width] =
            weights.base[output * weights.strides[0] + input * weights.strides[1]]
        }
      }
    }
    return PackedMatrix(outputs: outputs, inputs: inputs, layout: .panels(width: width), storage: storage)
  }

  /// The elements of one output: element `i` at `base[i * stride]`. `nil` for an opaque layout.
  public func row(_ output: Int) -> (base: UnsafePointer<Float>, stride: Int)? {
    guard case .panels(let width) = layout else { return nil }
    return (storage.view.base + output / width * width * inputs + output % width, width)
  }
}

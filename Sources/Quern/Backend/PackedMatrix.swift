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
  /// The packed elements; 16-bit words where they are quantised.
  public let storage: Tensor
  /// How panels are quantised: blocks of 32 inputs, each with its scales `[width]` in f16, then Q8_0's codes `[32][width]` in
  /// int8, or Q4_0's as `[4][width]` 32-bit words: input i at bits `4 (i / 4)` of word `i % 4`. `nil` for plain elements.
  public let quantization: QuantizedFormat?

  /// Wraps packed elements. A backend's `pack` calls this.
  public init(
    outputs: Int, inputs: Int, layout: Layout, storage: Tensor, quantization: QuantizedFormat? = nil
  ) {
    (self.outputs, self.inputs, self.layout, self.storage) = (outputs, inputs, layout, storage)
    self.quantization = quantization
  }

  /// Packs `weights` (`[outputs, inputs]`, any strides) in panels, in plain Swift; the elements keep their data type.
  public static func panels(of weights: TensorView, width: Int) throws -> PackedMatrix {
    let (outputs, inputs, size) = (weights.shape[0], weights.shape[1], weights.dataType.size)
    let panels = (outputs + width - 1) / width
    let storage = try Tensor(shape: Shape(panels * width * inputs), dataType: weights.dataType) { packed in
      guard let first = packed.baseAddress else { return }
      for output in 0..<outputs {
        let target = first + (output / width * width * inputs + output % width) * size
        let source = weights.address + output * weights.strides[0] * size
        for input in 0..<inputs {
          (target + input * width * size).copyMemory(from: source + input * weights.strides[1] * size, byteCount: size)
        }
      }
    }
    return PackedMatrix(outputs: outputs, inputs: inputs, layout: .panels(width: width), storage: storage)
  }

  /// Packs quantised weights in panels; columns that pad the last one are zeros.
  public static func panels(of weights: QuantizedMatrix, width: Int) throws -> PackedMatrix {
    let (format, size) = (weights.format, QuantizedFormat.blockSize)
    let (blocks, bytes) = (weights.inputs / size, weights.format.blockBytes)
    let panels = (weights.outputs + width - 1) / width
    let storage = try Tensor(shape: Shape(panels * width * blocks * bytes / 2), dataType: .f16) { packed in
      weights.withBlocks { source in
        for index in 0..<weights.outputs * blocks {
          let (output, block) = (index / blocks, index % blocks)
          let from = UnsafeRawBufferPointer(rebasing: source[(index * bytes)..<(index + 1) * bytes])
          let first = (output / width * blocks + block) * width * bytes
          let column = output % width
          packed[first + 2 * column] = from[0]
          packed[first + 2 * column + 1] = from[1]
          for i in 0..<size {
            let (byte, shift) = format.place(of: i, column: column, width: width)
            packed[first + byte] |= format.code(from, i) << shift
          }
        }
      }
    }
    return PackedMatrix(
      outputs: weights.outputs, inputs: weights.inputs, layout: .panels(width: width), storage: storage,
      quantization: format)
  }

  /// The weights of one output, by input, widened and dequantised. `nil` for an opaque layout.
  public func values(of output: Int) -> [Double]? {
    guard case .panels(let width) = layout else { return nil }
    guard let format = quantization else { return row(output).map { row in (0..<inputs).map { row[$0] } } }
    let (size, bytes) = (QuantizedFormat.blockSize, format.blockBytes)
    let (packed, column) = (storage.view.address, output % width)
    return (0..<inputs).map { input in
      let i = input % size
      let block = packed + (output / width * (inputs / size) + input / size) * width * bytes
      let (byte, shift) = format.place(of: i, column: column, width: width)
      let code = block.load(fromByteOffset: byte, as: UInt8.self) >> shift & format.codeMask
      return Double(DataType.f16.load(block, column)) * format.steps(code)
    }
  }

  /// The elements of one output, by input. `nil` for an opaque layout and for quantised weights.
  public func row(_ output: Int) -> Elements? {
    guard case .panels(let width) = layout, quantization == nil else { return nil }
    let (view, first) = (storage.view, output / width * width * inputs + output % width)
    return Elements(address: view.address + first * view.dataType.size, dataType: view.dataType, stride: width)
  }
}

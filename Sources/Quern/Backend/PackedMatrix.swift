/// The weights of a linear layer, laid out once for the backend that will read them.
///
/// A packed matrix is immutable and shared. Reading its elements works for every layout but an opaque one, so any
/// backend, the reference included, can run weights that another one packed.
public final class PackedMatrix: Sendable {
  /// How the elements lie in memory.
  public enum Layout: Sendable, Equatable, CustomStringConvertible {
    /// Panels of `width` outputs: `[outputs/width][inputs][width]`, the last padded with zeros. Width 1 is row-major.
    case panels(width: Int)
    /// The same with inputs in pairs: `[outputs/width][inputs/2][width][2]`, the last of an odd number as `[width]` after them.
    case pairs(width: Int)
    /// Quantised weights as ``QuantizedMatrix`` has them.
    case blocks
    /// int8 codes `[outputs/32][inputs/4][32][4]`, outputs and inputs padded with zeros to multiples of 32 and 64, then a scale an
    /// output in f32; see ``Context/packInt8(_:)``.
    case int8
    /// Known only to the backend of this name.
    case opaque(backend: String)

    public var description: String {
      switch self {
      case .panels(1): "row-major"
      case .panels(let width): "panels of \(width)"
      case .pairs(let width): "panels of \(width) in pairs"
      case .blocks: "blocks"
      case .int8: "int8 codes"
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
  /// How the elements are quantised, in blocks as ``QuantizedMatrix`` has them or in panels of the columns of such blocks, which
  /// `CKernels/include/ck_types.h` lays out. `nil` for plain elements.
  public let quantization: QuantizedFormat?

  /// The least magnitude that is not 0, and the largest, where the backend that packed the elements looked for them.
  let magnitudes: (least: Float, most: Float)?

  /// The format of the weights, as messages name it.
  var formatName: String { quantization?.rawValue ?? storage.dataType.rawValue }

  /// Wraps packed elements. A backend's `pack` calls this.
  public convenience init(
    outputs: Int, inputs: Int, layout: Layout, storage: Tensor, quantization: QuantizedFormat? = nil
  ) {
    self.init(
      outputs: outputs, inputs: inputs, layout: layout, storage: storage, quantization: quantization, magnitudes: nil)
  }

  init(
    outputs: Int, inputs: Int, layout: Layout, storage: Tensor, quantization: QuantizedFormat?,
    magnitudes: (least: Float, most: Float)?
  ) {
    (self.outputs, self.inputs, self.layout, self.storage) = (outputs, inputs, layout, storage)
    (self.quantization, self.magnitudes) = (quantization, magnitudes)
  }

  /// Packs `weights` (`[outputs, inputs]`, any strides) in panels, in plain Swift; the elements keep their data type.
  public static func panels(of weights: TensorView, width: Int) throws -> PackedMatrix {
    let (outputs, inputs, size) = (weights.shape[0], weights.shape[1], weights.dataType.size)
    let panels = (outputs + width - 1) / width
    let storage = try Tensor(shape: Shape(panels * width * inputs), dataType: weights.dataType) { packed in
      guard let first = packed.baseAddress else { return }
      func copy<Word: BitwiseCopyable>(_: Word.Type) {
        let (from, to) = (weights.address.assumingMemoryBound(to: Word.self), first.assumingMemoryBound(to: Word.self))
        let (row, step) = (weights.strides[0], weights.strides[1])
        for output in 0..<outputs {
          let (target, source) = (to + (output / width * width * inputs + output % width), from + output * row)
          for input in 0..<inputs { target[input &* width] = source[input &* step] }
        }
      }
      size == 4 ? copy(UInt32.self) : copy(UInt16.self)
    }
    return PackedMatrix(outputs: outputs, inputs: inputs, layout: .panels(width: width), storage: storage)
  }

  /// The weights of one output, by input, widened and dequantised. `nil` for an opaque layout.
  public func values(of output: Int) -> [Double]? {
    if layout == .int8 {
      return Int8Layout(outputs: outputs, inputs: inputs).values(of: output, at: storage.view.address)
    }
    guard let format = quantization else { return row(output).map { row in (0..<inputs).map { row[$0] } } }
    return weights(of: output, in: format)?.map(\.value)
  }

  /// The weights of one output, widened and dequantised; zeros for an opaque layout.
  func write(output: Int, into row: UnsafeMutablePointer<Float>) {
    if let elements = self.row(output) {
      for input in 0..<inputs { row[input] = Float(elements[input]) }
    } else {
      for (input, value) in (values(of: output) ?? []).enumerated() { row[input] = Float(value) }
    }
  }

  /// The sum of the magnitudes of each 32 quantised weights of an output; and, where each is the difference of two terms, of the
  /// larger one.
  func terms(of output: Int) -> [(magnitude: Double, reach: Double)] {
    guard let format = quantization, let weights = weights(of: output, in: format) else { return [] }
    return stride(from: 0, to: inputs, by: 32).map { first in
      weights[first..<first + 32].reduce((0, 0)) { sums, weight in
        (sums.0 + abs(weight.value), sums.1 + (format.isLowered ? weight.reach : 0))
      }
    }
  }

  /// The absolute values of the weights, row-major. Zeros for an opaque layout.
  func absolute() throws(QuernError) -> PackedMatrix {
    let copy = try MutableTensor(zeros: Shape(outputs * inputs))
    for output in 0..<outputs {
      for (input, value) in (values(of: output) ?? []).enumerated() {
        copy.store(Float(abs(value)), at: output * inputs + input)
      }
    }
    return PackedMatrix(outputs: outputs, inputs: inputs, layout: .panels(width: 1), storage: try copy.moved())
  }

  /// The quantised weights of one output, by input.
  private func weights(of output: Int, in format: QuantizedFormat) -> [QuantizedWeight]? {
    let (size, blocks, address) = (format.blockSize, inputs / format.blockSize, storage.view.address)
    switch layout {
    case .blocks:
      return (0..<inputs).map { input in
        format.weight(address + (output * blocks + input / size) * format.blockBytes, input % size)
      }
    case .panels(let width):
      let bytes = width * format.panelBytes
      return (0..<inputs).map { input in
        let block = address + (output / width * blocks + input / size) * bytes
        return format.weight(panel: block, width: width, column: output % width, input % size)
      }
    case .pairs, .opaque, .int8: return nil
    }
  }

  /// The elements of one output, by input. `nil` for an opaque layout and for quantised weights.
  public func row(_ output: Int) -> Elements? {
    guard quantization == nil else { return nil }
    let view = storage.view
    switch layout {
    case .panels(let width):
      let first = output / width * width * inputs + output % width
      return Elements(address: view.address + first * view.dataType.size, dataType: view.dataType, stride: width)
    case .pairs(let width):
      let first = output / width * width * inputs + 2 * (output % width)
      return Elements(
        address: view.address + first * view.dataType.size, dataType: view.dataType, stride: width,
        paired: inputs & ~1, before: output % width)
    case .blocks, .int8, .opaque: return nil
    }
  }
}

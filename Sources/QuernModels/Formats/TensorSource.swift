import Quern

/// The element types of the safetensors format, spelled as in its header.
public enum SafetensorsDType: String, Sendable, CaseIterable {
  case bool = "BOOL"
  case f4 = "F4"
  case f6E2M3 = "F6_E2M3"
  case f6E3M2 = "F6_E3M2"
  case u8 = "U8"
  case i8 = "I8"
  case f8E5M2 = "F8_E5M2"
  case f8E4M3 = "F8_E4M3"
  case f8E8M0 = "F8_E8M0"
  case i16 = "I16"
  case u16 = "U16"
  case f16 = "F16"
  case bf16 = "BF16"
  case i32 = "I32"
  case u32 = "U32"
  case f32 = "F32"
  case c64 = "C64"
  case f64 = "F64"
  case i64 = "I64"
  case u64 = "U64"

  public var bits: Int {
    switch self {
    case .f4: 4
    case .f6E2M3, .f6E3M2: 6
    case .bool, .u8, .i8, .f8E5M2, .f8E4M3, .f8E8M0: 8
    case .i16, .u16, .f16, .bf16: 16
    case .i32, .u32, .f32: 32
    case .c64, .f64, .i64, .u64: 64
    }
  }
}

/// What a file says about one of its tensors.
public struct TensorInfo: Sendable, Equatable {
  public var dtype: SafetensorsDType
  public var shape: [Int]
  /// Where the elements lie in the file, row-major and little-endian.
  public var byteRange: Range<Int>
  /// The product of `shape`.
  public var elementCount: Int
  /// What the bytes stand for where they are blocks of quantised weights; `dtype` and `shape` are then those of the bytes.
  public var quantization: Quantization?
  /// How many values `readFloat32` gives: the weights of a quantised tensor, the elements of others.
  public var valueCount: Int {
    guard let quantization else { return elementCount }
    let (count, overflow) = quantization.outputs.multipliedReportingOverflow(by: quantization.inputs)
    return overflow ? .max : count
  }

  /// How many bytes `readBytes` gives: those of the file, or, where it stores blocks in another way, those of their format.
  public var byteCount: Int {
    guard let stored = quantization?.stored else { return byteRange.count }
    return (byteRange.count / stored.bytes).saturatingMultiply(stored.formatBytes)
  }

  /// A matrix of quantised weights.
  public struct Quantization: Sendable, Equatable {
    public var format: QuantizedFormat
    public var outputs: Int
    public var inputs: Int
    /// The blocks of the file, where reading makes those of `format` from others.
    var stored: StoredBlocks?

    public init(format: QuantizedFormat, outputs: Int, inputs: Int) {
      self.init(format: format, outputs: outputs, inputs: inputs, stored: nil)
    }

    init(format: QuantizedFormat, outputs: Int, inputs: Int, stored: StoredBlocks?) {
      (self.format, self.outputs, self.inputs, self.stored) = (format, outputs, inputs, stored)
    }
  }

  /// What a source of another format says about its tensors.
  public init(
    dtype: SafetensorsDType, shape: [Int], byteRange: Range<Int>, elementCount: Int, quantization: Quantization? = nil
  ) {
    (self.dtype, self.shape, self.byteRange, self.elementCount) = (dtype, shape, byteRange, elementCount)
    self.quantization = quantization
  }
}

/// Named tensors that are read one at a time: a safetensors file, or a folder of them.
public protocol TensorSource: Sendable {
  /// The file or folder.
  var path: String { get }

  /// Every name, in the order of the data.
  var tensorNames: [String] { get }

  /// The tensor named `name`, or an error that names the file.
  func info(_ name: String) throws(ModelError) -> TensorInfo

  /// Whether there is a tensor of this name, of a type that is read or not.
  func contains(_ name: String) -> Bool

  /// Fills `destination` with a F32, F16, BF16 or F64 tensor, or with the weights that quantised blocks or FP8 with its scales stand
  /// for; F64 and the products with scales are rounded to nearest, the rest is exact.
  func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError)

  /// Calls `body` with the values of ``readFloat32(_:into:)`` in their order, perhaps a run at a time, and the place of its first: for
  /// who wants them in fewer bits and no copy of all of them in f32.
  func forEachFloat32(_ name: String, _ body: (UnsafeBufferPointer<Float>, Int) throws -> Void) throws

  /// The elements of an I64, I32, I16, I8, U64, U32, U16, U8 or BOOL tensor.
  func readInt64(_ name: String) throws(ModelError) -> [Int64]

  /// The bytes of a tensor of any type, as the file has them; of blocks, as their format has them.
  func readBytes(_ name: String) throws(ModelError) -> FileBytes

  /// The same into memory of their size.
  func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError)
}

extension TensorSource {
  public func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    let bytes = try readBytes(name)
    guard bytes.count == destination.count else {
      throw ModelError(
        file: path, field: "tensors.\(name)", offset: try info(name).byteRange.lowerBound,
        reason: "is \(bytes.count) bytes, but \(destination.count) are wanted")
    }
    bytes.withUnsafeBytes { destination.copyMemory(from: $0) }
  }

  /// All of them at once.
  public func forEachFloat32(_ name: String, _ body: (UnsafeBufferPointer<Float>, Int) throws -> Void) throws {
    let size = try info(name).valueCount.saturatingMultiply(MemoryLayout<Float>.size)
    let bytes = try FileBytes(count: size, file: path, field: "tensors.\(name)")
    let values = bytes.mutableBytes.bindMemory(to: Float.self)
    try readFloat32(name, into: values)
    try body(UnsafeBufferPointer(values), 0)
  }

  public func contains(_ name: String) -> Bool { (try? info(name)) != nil }

  /// As `readFloat32(_:into:)`, into a new array.
  public func readFloat32(_ name: String) throws(ModelError) -> [Float] {
    var failure: ModelError?
    let info = try self.info(name)
    let count = info.valueCount
    // An array cannot refuse its memory politely, and a file with holes can claim any size.
    guard count <= 1 << 30 else {
      throw ModelError(
        file: path, field: "tensors.\(name)", offset: info.byteRange.lowerBound,
        reason: "\(count) values are too many for an array; read them into memory of your own")
    }
    let values = [Float](unsafeUninitializedCapacity: count) { buffer, filled in
      do throws(ModelError) {
        try readFloat32(name, into: UnsafeMutableBufferPointer(rebasing: buffer[0..<count]))
        filled = count
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return values
  }
}

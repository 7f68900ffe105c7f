/// How weights are stored in blocks along a row: the block layouts of GGUF (ggml's `block_q8_0`, `block_q4_0`, `block_q4_K`,
/// `block_q6_K`, `block_q5_1` and `block_q5_K`), and one of the microscaling formats of the Open Compute Project.
public enum QuantizedFormat: String, Sendable, CaseIterable {
  /// `w = d q` with d in f16 and q in int8: 34 bytes for 32 weights.
  case q8 = "q8_0"
  /// `w = d (q - 8)` with d in f16 and q of 4 bits, weight i in the low and weight i + 16 in the high half of byte i: 18 bytes for
  /// 32 weights.
  case q4 = "q4_0"
  /// `w = d s q - m l` with d and m in f16 for 256 weights, s and l of 6 bits for each 32, and q of 4 bits: 144 bytes for 256.
  case q4K = "q4_K"
  /// `w = d s (q - 32)` with d in f16 for 256 weights, s in int8 for each 16, and q of 6 bits: 210 bytes for 256.
  case q6K = "q6_K"
  /// `w = d q + m` with d and m in f16 and q of 5 bits, the fifth ones in four bytes, the others as in ``q4``: 24 bytes for 32 weights.
  case q5One = "q5_1"
  /// As ``q4K``, with q of 5 bits, of which the fifth ones lie in 32 bytes before the others: 176 bytes for 256.
  case q5K = "q5_K"
  /// MXFP4 (OCP Microscaling Formats 1.0): `w = d e` with d a power of two and e a float of 4 bits (E2M1: 0, 1/2, 1, 3/2, 2, 3, 4, 6 and their
  /// negatives): 18 bytes for 32 weights, d/2 in bf16, and codes as in ``q4``. ggml's `block_mxfp4` has the exponent of d in one byte.
  case mxfp4 = "mxfp4"

  /// Weights of a block.
  public var blockSize: Int {
    switch self {
    case .q8, .q4, .mxfp4, .q5One: 32
    case .q4K, .q6K, .q5K: 256
    }
  }
  /// Bytes of a block.
  public var blockBytes: Int {
    switch self {
    case .q8: 34
    case .q4, .mxfp4: 18
    case .q4K: 144
    case .q6K: 210
    case .q5One: 24
    case .q5K: 176
    }
  }
  /// Whether a weight is the difference of two terms.
  var isLowered: Bool { self == .q4K || self == .q5K || self == .q5One }
  /// The largest error of a weight that ``QuantizedMatrix/init(quantizing:as:)`` rounds, as a share of the largest magnitude in its
  /// block: half a step for Q8_0; for Q4_0, whose codes reach from -8 to 7 steps, a whole one; for MXFP4 that of 5, between 4 and 6; for the others half a step of
  /// their scale and what the rounding of the scales adds. The rounding of d to f16 is part of it.
  public var largestError: Double {
    switch self {
    case .q8: 0.5 / 127 + 0x1p-11
    case .q4: 1.0 / 8 + 0x1p-10
    case .q4K: 1.0 / 15 + 1.0 / 63 + 1.0 / 126 + 0x1p-9
    case .q5K: 1.0 / 31 + 1.0 / 63 + 1.0 / 126 + 0x1p-9
    case .q5One: 1.0 / 31 + 0x1p-9
    case .mxfp4: 1.0 / 5
    case .q6K: 0.5 / 31 + 32.0 / 31 / 254 + 0x1p-9
    }
  }
}

/// Weights `[outputs, inputs]` in blocks of ``QuantizedFormat/blockSize`` along the inputs, rows one after the other, as GGUF
/// stores them. `Context.pack(_:)` lays them out for a backend.
public struct QuantizedMatrix: Sendable {
  public let outputs: Int
  public let inputs: Int
  public let format: QuantizedFormat
  /// The blocks as 16-bit words.
  let words: Tensor

  /// Takes blocks as a file holds them.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` where inputs are no multiple of the block or the bytes not those of
  ///   `outputs` rows, ``QuernError/outOfMemory(bytes:)``.
  public init(blocks: UnsafeRawBufferPointer, outputs: Int, inputs: Int, format: QuantizedFormat) throws {
    let bytes = try Self.byteCount(outputs: outputs, inputs: inputs, format: format)
    try Check(operation: .pack).require(
      blocks.count == bytes,
      "\(blocks.count) bytes of \(format.rawValue) for [\(outputs), \(inputs)], which has \(bytes)")
    try self.init(outputs: outputs, inputs: inputs, format: format) { $0.copyMemory(from: blocks) }
  }

  /// Rounds weights `[outputs, inputs]`, any strides, to the nearest codes. The scale of a block is its largest magnitude over
  /// 127 (Q8_0), or its element of largest magnitude over -8 (Q4_0), in f16, or the least power of two that makes it at most 6 (MXFP4); Q4_K takes each 32 weights from the least, or 0, to the
  /// largest, Q6_K each 16 to the largest magnitude. No weight is further off than ``QuantizedFormat/largestError`` of the
  /// block's largest, plus 2048 f16 denormals where a block is that small.
  ///
  /// - Throws: as ``init(blocks:outputs:inputs:format:)``, and for weights that are not finite or whose scale f16 cannot hold.
  public init(quantizing weights: TensorView, as format: QuantizedFormat) throws {
    let check = Check(operation: .pack)
    try check.require(weights.shape.rank == 2, "weights \(weights.shape) need rank 2: [outputs, inputs]")
    let (outputs, inputs) = (weights.shape[0], weights.shape[1])
    _ = try Self.byteCount(outputs: outputs, inputs: inputs, format: format)
    let threads = try Settings.environment().threads(for: BackendOptions())
    try self.init(outputs: outputs, inputs: inputs, format: format) { bytes in
      guard let target = bytes.baseAddress, let (row, first) = format.encode(weights, into: target, threads: threads)
      else { return }
      try check.require(
        false, "weights [\(row), \(first)...] are not finite, or too large for a \(format.rawValue) scale in f16")
    }
  }

  private init(
    outputs: Int, inputs: Int, format: QuantizedFormat, fill: (UnsafeMutableRawBufferPointer) throws -> Void
  ) throws {
    (self.outputs, self.inputs, self.format) = (outputs, inputs, format)
    let rowWords = inputs / format.blockSize * format.blockBytes / 2
    words = try Tensor(shape: Shape(outputs, rowWords), dataType: .f16, fill: fill)
  }

  /// Some of the outputs, in the same memory.
  ///
  /// - Precondition: the range lies within the outputs.
  public func rows(_ range: Range<Int>) -> QuantizedMatrix {
    QuantizedMatrix(outputs: range.count, inputs: inputs, format: format, words: words.rows(range))
  }

  private init(outputs: Int, inputs: Int, format: QuantizedFormat, words: Tensor) {
    (self.outputs, self.inputs, self.format, self.words) = (outputs, inputs, format, words)
  }

  /// Bytes of a matrix of this size, in rows of whole blocks.
  static func byteCount(outputs: Int, inputs: Int, format: QuantizedFormat) throws(QuernError) -> Int {
    let check = Check(operation: .pack)
    try check.require(
      outputs >= 0 && inputs >= 0 && inputs % format.blockSize == 0,
      "\(format.rawValue) weights [\(outputs), \(inputs)] need inputs that are a multiple of \(format.blockSize)"
    )
    let (bytes, overflows) = (inputs / format.blockSize).multipliedReportingOverflow(
      by: format.blockBytes)
    let (all, overflow) = bytes.multipliedReportingOverflow(by: outputs)
    try check.require(
      !overflows && !overflow, "\(format.rawValue) weights [\(outputs), \(inputs)] exceed the address space")
    return all
  }

  /// The blocks, row after row, as a file stores them.
  public func withBlocks<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    let view = words.view
    return try withExtendedLifetime(words) {
      try body(UnsafeRawBufferPointer(start: view.address, count: view.shape.count * 2))
    }
  }

  /// The weights that the blocks stand for.
  public func dequantized() throws -> Tensor {
    try Tensor(shape: Shape(outputs, inputs)) { values in
      withBlocks { blocks in
        for index in values.indices {
          guard let block = blocks.baseAddress.map({ $0 + index / format.blockSize * format.blockBytes }) else {
            return
          }
          values[index] = Float(format.weight(block, index % format.blockSize).value)
        }
      }
    }
  }
}

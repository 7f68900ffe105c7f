/// How weights are stored in blocks of 32 along a row, with one scale a block; the block layouts of GGUF (ggml's `block_q8_0`
/// and `block_q4_0`).
public enum QuantizedFormat: String, Sendable, CaseIterable {
  /// `w = d q` with d in f16 and q in int8: 34 bytes a block.
  case q8 = "q8_0"
  /// `w = d (q - 8)` with d in f16 and q of 4 bits, weight i in the low and weight i + 16 in the high half of byte i: 18 bytes.
  case q4 = "q4_0"

  /// Weights of a block.
  public static let blockSize = 32
  /// Bytes of a block.
  public var blockBytes: Int { self == .q8 ? 34 : 18 }
  /// The largest error of a weight, as a share of the largest magnitude in its block: half a step for Q8_0; for Q4_0, whose
  /// codes reach from -8 to 7 steps, a whole one. The rounding of d to f16 is part of it.
  public var largestError: Double { self == .q8 ? 0.5 / 127 + 0x1p-11 : 1.0 / 8 + 0x1p-10 }
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
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` where inputs are not a multiple of 32 or the bytes not those of
  ///   `outputs` rows, ``QuernError/outOfMemory(bytes:)``.
  public init(blocks: UnsafeRawBufferPointer, outputs: Int, inputs: Int, format: QuantizedFormat) throws {
    let bytes = try Self.byteCount(outputs: outputs, inputs: inputs, format: format)
    try Check(operation: .pack).require(
      blocks.count == bytes,
      "\(blocks.count) bytes of \(format.rawValue) for [\(outputs), \(inputs)], which has \(bytes)")
    try self.init(outputs: outputs, inputs: inputs, format: format) { $0.copyMemory(from: blocks) }
  }

  /// Rounds weights `[outputs, inputs]`, any strides, to the nearest codes. The scale of a block is its largest magnitude over
  /// 127 (Q8_0), or its element of largest magnitude over -8 (Q4_0), in f16; no weight is further off than
  /// ``QuantizedFormat/largestError`` of the block's largest, plus 128 f16 denormals where a block is that small.
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
    let rowWords = inputs / QuantizedFormat.blockSize * format.blockBytes / 2
    words = try Tensor(shape: Shape(outputs, rowWords), dataType: .f16, fill: fill)
  }

  /// Bytes of a matrix of this size, in rows of whole blocks.
  static func byteCount(outputs: Int, inputs: Int, format: QuantizedFormat) throws(QuernError) -> Int {
    let check = Check(operation: .pack)
    try check.require(
      outputs >= 0 && inputs >= 0 && inputs % QuantizedFormat.blockSize == 0,
      "\(format.rawValue) weights [\(outputs), \(inputs)] need inputs that are a multiple of \(QuantizedFormat.blockSize)"
    )
    let (bytes, overflows) = (inputs / QuantizedFormat.blockSize).multipliedReportingOverflow(
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
          let at = index / QuantizedFormat.blockSize * format.blockBytes
          let block = UnsafeRawBufferPointer(rebasing: blocks[at..<at + format.blockBytes])
          values[index] = format.decode(block, index % QuantizedFormat.blockSize)
        }
      }
    }
  }
}

extension QuantizedFormat {
  /// The code of weight i of a block: what d multiplies, offset by 8 for Q4_0.
  func code(_ block: UnsafeRawBufferPointer, _ i: Int) -> UInt8 {
    if self == .q8 { return block[2 + i] }
    return i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4
  }

  func decode(_ block: UnsafeRawBufferPointer, _ i: Int) -> Float {
    scale(of: block) * Float(steps(code(block, i)))
  }

  /// What d multiplies for a code.
  func steps(_ code: UInt8) -> Double { self == .q8 ? Double(Int8(bitPattern: code)) : Double(code) - 8 }

  /// The bits of a code.
  var codeMask: UInt8 { self == .q8 ? 0xFF : 15 }

  /// Where a block of a panel of `width` columns keeps the code of row i of a column: a byte, after the scales, and a shift in it.
  func place(of i: Int, column: Int, width: Int) -> (byte: Int, shift: Int) {
    switch self {
    case .q8: (2 * width + i * width + column, 0)
    case .q4: (2 * width + (i % 4 * width + column) * 4 + i / 8, i / 4 % 2 * 4)
    }
  }

  private func scale(of block: UnsafeRawBufferPointer) -> Float {
    guard let base = block.baseAddress else { return 0 }
    return DataType.f16.load(base, 0)
  }
}

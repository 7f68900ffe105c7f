import Quern

/// The tensors of a gpt-oss directory, and each expert of its stacked ones as a matrix of its own: `...mlp.experts.3.gate_up_proj.weight`
/// is the fourth, its gates first and then its values, which the stack has in turns.
///
/// A stack is `[experts, inputs, outputs]` in plain elements, or MXFP4: `NAME_blocks` `[experts, outputs, inputs / 32, 16]`, two codes a byte,
/// and `NAME_scales` `[experts, outputs, inputs / 32]`, exponents.
final class GptOssExperts: TensorSource {
  private let base: SafetensorsDirectory

  init(_ base: SafetensorsDirectory) { self.base = base }

  var path: String { base.path }
  var tensorNames: [String] { base.tensorNames }

  func contains(_ name: String) -> Bool {
    guard let place = Place(name) else { return base.contains(name) }
    return base.contains(place.stack) || base.contains(place.blocks)
  }

  func info(_ name: String) throws(ModelError) -> TensorInfo {
    guard let place = Place(name) else { return try base.info(name) }
    return try matrix(place).info
  }

  func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    if name.hasSuffix("gate_up_proj_bias") { return try readBias(name, into: destination) }
    guard let place = Place(name) else { return try base.readFloat32(name, into: destination) }
    let matrix = try matrix(place)
    guard destination.count == matrix.info.valueCount else { throw wrongSize(matrix, destination.count) }
    if matrix.info.quantization != nil {
      let blocks = try FileBytes(count: matrix.info.byteRange.count, file: path, field: "tensors.\(name)")
      try readBlocks(matrix, into: blocks.mutableBytes)
      return blocks.withUnsafeBytes { QuantizedFormat.mxfp4.dequantize($0, into: destination) }
    }
    let stacked = try floats(matrix)
    stacked.withUnsafeBytes { reorder($0, matrix, size: 4, into: UnsafeMutableRawBufferPointer(destination)) }
  }

  func readInt64(_ name: String) throws(ModelError) -> [Int64] { try base.readInt64(name) }

  func readBytes(_ name: String) throws(ModelError) -> FileBytes {
    guard Place(name) != nil else { return try base.readBytes(name) }
    let bytes = try FileBytes(count: try info(name).byteRange.count, file: path, field: "tensors.\(name)")
    try readBytes(name, into: bytes.mutableBytes)
    return bytes
  }

  func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    guard let place = Place(name) else { return try base.readBytes(name, into: destination) }
    let matrix = try matrix(place)
    guard destination.count == matrix.info.byteRange.count else { throw wrongSize(matrix, destination.count) }
    guard matrix.info.quantization == nil else { return try readBlocks(matrix, into: destination) }
    let stacked = try base.reader(place.stack).readBytes(place.stack, matrix.stored)
    stacked.withUnsafeBytes { reorder($0, matrix, size: matrix.info.dtype.bits / 8, into: destination) }
  }

  // MARK: Matrices

  /// What the name of an expert's matrix says.
  private struct Place {
    /// The stack in plain elements, and one in MXFP4.
    let stack: String
    var blocks: String { stack + "_blocks" }
    var scales: String { stack + "_scales" }
    let expert: Int
    /// Whether gates and values take turns in the stack.
    let takesTurns: Bool

    init?(_ name: String) {
      let parts = name.split(separator: ".", omittingEmptySubsequences: false)
      guard parts.count > 4, parts[parts.count - 1] == "weight", parts[parts.count - 4] == "experts",
        let expert = Int(parts[parts.count - 3]), expert >= 0
      else { return nil }
      let kind = parts[parts.count - 2]
      stack = parts[..<(parts.count - 3)].joined(separator: ".") + ".\(kind)"
      (self.expert, takesTurns) = (expert, kind == "gate_up_proj")
    }

    /// Where the stack has an output: the first half of them are gates.
    func column(of output: Int, _ outputs: Int) -> Int {
      guard takesTurns else { return output }
      return output < outputs / 2 ? 2 * output : 2 * (output - outputs / 2) + 1
    }
  }

  private struct Matrix {
    let place: Place
    /// As its readers see it: `[outputs, inputs]`.
    let info: TensorInfo
    /// Its elements, or the bytes of its codes, as the file has them.
    let stored: TensorInfo
    /// Its exponents.
    var scales: TensorInfo?
  }

  private func matrix(_ place: Place) throws(ModelError) -> Matrix {
    guard base.contains(place.blocks) else {
      let stored = try slice(place.stack, place.expert, rank: 3)
      let info = TensorInfo(
        dtype: stored.dtype, shape: [stored.shape[1], stored.shape[0]], byteRange: stored.byteRange,
        elementCount: stored.elementCount)
      return try Matrix(place: place, info: checked(info, place, place.stack), stored: stored)
    }
    let (codes, scales) = (
      try slice(place.blocks, place.expert, rank: 4), try slice(place.scales, place.expert, rank: 3)
    )
    let (outputs, blocks) = (codes.shape[0], codes.shape[1])
    guard codes.dtype == .u8, codes.shape[2] == 16, scales.dtype == .u8, scales.shape == [outputs, blocks] else {
      throw error(
        place.blocks, codes,
        "are \(codes.dtype.rawValue) \(codes.shape) with \(scales.dtype.rawValue) scales \(scales.shape) an expert; "
          + "MXFP4 is U8 [outputs, inputs / 32, 16] and [outputs, inputs / 32]")
    }
    let format = QuantizedFormat.mxfp4
    let bytes = try Checked.multiply(
      outputs * blocks, format.blockBytes, orThrow: error(place.blocks, codes, "are too large"))
    let start = codes.byteRange.lowerBound
    let info = TensorInfo(
      dtype: .u8, shape: [outputs, blocks * format.blockBytes], byteRange: start..<start + bytes, elementCount: bytes,
      quantization: TensorInfo.Quantization(format: format, outputs: outputs, inputs: blocks * format.blockSize))
    return try Matrix(place: place, info: checked(info, place, place.blocks), stored: codes, scales: scales)
  }

  private func checked(_ info: TensorInfo, _ place: Place, _ name: String) throws(ModelError) -> TensorInfo {
    guard place.takesTurns, info.shape[0] % 2 != 0 else { return info }
    throw error(name, info, "has \(info.shape[0]) outputs, which gates and values cannot share")
  }

  /// One expert of a stack of this rank.
  private func slice(_ name: String, _ expert: Int, rank: Int) throws(ModelError) -> TensorInfo {
    let whole = try base.info(name)
    guard whole.shape.count == rank, expert < whole.shape[0], whole.quantization == nil else {
      throw error(name, whole, "is \(whole.shape), where expert \(expert) of \(rank) dimensions is needed")
    }
    let size = whole.byteRange.count / whole.shape[0]
    let start = whole.byteRange.lowerBound + expert * size
    return TensorInfo(
      dtype: whole.dtype, shape: Array(whole.shape[1...]), byteRange: start..<start + size,
      elementCount: whole.elementCount / whole.shape[0])
  }

  /// Elements `[inputs, outputs]` as the file has them to `[outputs, inputs]`, gates first.
  private func reorder(
    _ stacked: UnsafeRawBufferPointer, _ matrix: Matrix, size: Int, into destination: UnsafeMutableRawBufferPointer
  ) {
    let (outputs, inputs) = (matrix.info.shape[0], matrix.info.shape[1])
    guard let from = stacked.baseAddress, let to = destination.baseAddress else { return }
    for output in 0..<outputs {
      let column = matrix.place.column(of: output, outputs)
      for input in 0..<inputs {
        (to + (output * inputs + input) * size)
          .copyMemory(from: from + (input * outputs + column) * size, byteCount: size)
      }
    }
  }

  private func floats(_ matrix: Matrix) throws(ModelError) -> FileBytes {
    let name = matrix.place.stack
    let size = try Checked.multiply(
      matrix.stored.elementCount, MemoryLayout<Float>.size, orThrow: error(name, matrix.stored, "is too large"))
    let values = try FileBytes(count: size, file: path, field: "tensors.\(name)")
    try base.reader(name).readFloat32(name, matrix.stored, into: values.mutableBytes.bindMemory(to: Float.self))
    return values
  }

  /// The blocks of ``QuantizedFormat/mxfp4``: a file's byte has codes 2i and 2i + 1, a block's codes i and i + 16.
  private func readBlocks(_ matrix: Matrix, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    guard let scaleInfo = matrix.scales, let quantization = matrix.info.quantization else { return }
    let place = matrix.place
    let codes = try base.reader(place.blocks).readBytes(place.blocks, matrix.stored)
    let scales = try base.reader(place.scales).readBytes(place.scales, scaleInfo)
    codes.withUnsafeBytes { codes in
      scales.withUnsafeBytes { scales in
        reorder(codes, scales, place, quantization, into: destination)
      }
    }
  }

  private func reorder(
    _ codes: UnsafeRawBufferPointer, _ scales: UnsafeRawBufferPointer, _ place: Place,
    _ quantization: TensorInfo.Quantization, into destination: UnsafeMutableRawBufferPointer
  ) {
    let perRow = quantization.inputs / quantization.format.blockSize
    for output in 0..<quantization.outputs {
      let row = place.column(of: output, quantization.outputs) * perRow
      for block in 0..<perRow {
        let (from, to) = ((row + block) * 16, (output * perRow + block) * quantization.format.blockBytes)
        let half = MXFP4Blocks.half(ofExponent: scales[row + block])
        (destination[to], destination[to + 1]) = (UInt8(truncatingIfNeeded: half), UInt8(half >> 8))
        for i in 0..<8 {
          let (low, high) = (codes[from + i], codes[from + 8 + i])
          destination[to + 2 + 2 * i] = low & 15 | high << 4
          destination[to + 3 + 2 * i] = low >> 4 | high & 0xF0
        }
      }
    }
  }

  /// `[experts, outputs]`, gates first.
  private func readBias(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    let info = try base.info(name)
    guard let outputs = info.shape.last, outputs % 2 == 0, destination.count == info.valueCount else {
      throw error(name, info, "is \(info.shape), where \(destination.count) values of gates and values are needed")
    }
    let values = try base.readFloat32(name)
    for (place, value) in values.enumerated() {
      let (row, column) = (place / outputs * outputs, place % outputs)
      destination[row + (column % 2 == 0 ? column / 2 : outputs / 2 + column / 2)] = value
    }
  }

  private func wrongSize(_ matrix: Matrix, _ count: Int) -> ModelError {
    error(matrix.place.stack, matrix.stored, "expert \(matrix.place.expert) does not fill \(count) values")
  }

  private func error(_ name: String, _ info: TensorInfo, _ reason: String) -> ModelError {
    ModelError(file: path, field: "tensors.\(name)", offset: info.byteRange.lowerBound, reason: reason)
  }
}

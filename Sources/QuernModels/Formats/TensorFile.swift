import Quern

/// Reads of tensors from one file, the same for every format that says where they lie.
struct TensorFile: Sendable {
  let file: ModelFile

  init(_ file: ModelFile) { self.file = file }

  func readFloat32(
    _ name: String, _ info: TensorInfo, into destination: UnsafeMutableBufferPointer<Float>
  ) throws(ModelError) {
    guard destination.count == info.valueCount else {
      let shape = info.quantization.map { [$0.outputs, $0.inputs] } ?? info.shape
      throw error(
        ".shape", name, info, "\(shape) is \(info.valueCount) values, but \(destination.count) are wanted")
    }
    if let quantization = info.quantization {
      return try readBlocks(name, info, quantization, into: destination)
    }
    if info.dtype == .f32 {
      try file.read(
        into: UnsafeMutableRawBufferPointer(destination), at: info.byteRange.lowerBound, field: "tensors.\(name)")
      return
    }
    guard let convert = FloatConversion.from(info.dtype) else {
      let hint = info.dtype == .f8E4M3 ? ", F8_E4M3 in a model whose config.json has a quantization_config" : ""
      throw error(
        ".dtype", name, info, "\(info.dtype.rawValue) cannot be read as Float32; F32, F16, BF16 and F64 can\(hint)")
    }
    let width = info.dtype.bits / 8
    try file.forEachPiece(of: info.byteRange, field: "tensors.\(name)") { bytes, position in
      let place = position / width
      convert(bytes, UnsafeMutableBufferPointer(rebasing: destination[place..<place + bytes.count / width]))
    }
  }

  private func readBlocks(
    _ name: String, _ info: TensorInfo, _ quantization: TensorInfo.Quantization,
    into destination: UnsafeMutableBufferPointer<Float>
  ) throws(ModelError) {
    let (format, stored) = (quantization.format, quantization.stored)
    let (unit, size) = (stored?.bytes ?? format.blockBytes, stored?.size ?? format.blockSize)
    try file.forEachPiece(of: info.byteRange, unit: unit, field: "tensors.\(name)") { bytes, position in
      let (first, count) = (position / unit * size, bytes.count / unit * size)
      let weights = UnsafeMutableBufferPointer(rebasing: destination[first..<first + count])
      guard let stored else { return format.dequantize(bytes, into: weights) }
      stored.dequantize(bytes, into: weights)
    }
  }

  func readInt64(_ name: String, _ info: TensorInfo) throws(ModelError) -> [Int64] {
    guard info.quantization == nil, let convert = IntegerConversion.from(info.dtype) else {
      throw error(
        ".dtype", name, info, "\(info.quantization?.format.rawValue ?? info.dtype.rawValue) cannot be read as integers")
    }
    var values: [Int64] = []
    values.reserveCapacity(min(info.elementCount, 1 << 20))
    try file.forEachPiece(of: info.byteRange, field: "tensors.\(name)") { (bytes, _) throws(ModelError) in
      guard convert(bytes, &values) else {
        throw ModelError(
          file: file.path, field: "tensors.\(name)",
          offset: info.byteRange.lowerBound + values.count * info.dtype.bits / 8,
          reason: "element \(values.count) is not a value of \(info.dtype.rawValue) that fits a signed 64-bit integer")
      }
    }
    return values
  }

  func readBytes(_ name: String, _ info: TensorInfo) throws(ModelError) -> FileBytes {
    guard info.quantization?.stored != nil else { return try file.read(info.byteRange, field: "tensors.\(name)") }
    let bytes = try FileBytes(count: info.byteCount, file: file.path, field: "tensors.\(name)")
    try readBytes(name, info, into: bytes.mutableBytes)
    return bytes
  }

  func readBytes(
    _ name: String, _ info: TensorInfo, into destination: UnsafeMutableRawBufferPointer
  ) throws(ModelError) {
    guard destination.count == info.byteCount else {
      throw error("", name, info, "is \(info.byteCount) bytes, but \(destination.count) are wanted")
    }
    if let stored = info.quantization?.stored {
      return try file.forEachPiece(of: info.byteRange, unit: stored.bytes, field: "tensors.\(name)") {
        (bytes, position) throws(ModelError) in
        let (first, count) = (
          position / stored.bytes * stored.formatBytes, bytes.count / stored.bytes * stored.formatBytes
        )
        let blocks = UnsafeMutableRawBufferPointer(rebasing: destination[first..<first + count])
        guard let block = stored.rewrite(bytes, into: blocks) else { return }
        throw ModelError(
          file: file.path, field: "tensors.\(name)",
          offset: info.byteRange.lowerBound + position + block * stored.bytes,
          reason: "is a block without a finite scale, which \(stored.format.rawValue) has no weights for")
      }
    }
    try file.read(into: destination, at: info.byteRange.lowerBound, field: "tensors.\(name)")
  }

  private func error(_ field: String, _ name: String, _ info: TensorInfo, _ reason: String) -> ModelError {
    ModelError(file: file.path, field: "tensors.\(name)\(field)", offset: info.byteRange.lowerBound, reason: reason)
  }
}

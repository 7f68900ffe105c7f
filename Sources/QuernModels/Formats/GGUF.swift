import Quern

/// A GGUF file, version 2 or 3, little-endian: metadata, and tensors that may be blocks of quantised weights.
///
/// Everything is checked when the file is opened: each count and length against the file's size; no key and no name twice; each
/// tensor inside the file, aligned, and apart from the others. At most 100,000,000 bytes of header, 65,536 keys and 262,144
/// tensors are read. A tensor of a type that Quern does not read is refused, by name, when it is asked for.
/// Source: https://github.com/ggml-org/ggml, `docs/gguf.md`.
public final class GGUF: TensorSource {
  public let path: String
  public let metadata: GGUFMetadata
  public let tensorNames: [String]
  /// The version of the format.
  public let version: Int

  private let file: ModelFile
  private let tensors: [GGUFHeader.Tensor]
  private let places: [UTF8Key: Int]

  public convenience init(path: String) throws(ModelError) {
    try self.init(file: ModelFile(path: path))
  }

  init(file: ModelFile) throws(ModelError) {
    self.file = file
    path = file.path
    let header = try GGUFHeader.read(file)
    (version, metadata, tensors) = (header.version, header.metadata, header.tensors)
    tensorNames = tensors.map(\.name)
    var places: [UTF8Key: Int] = [:]
    for (place, name) in tensorNames.enumerated() { places[UTF8Key(name)] = place }
    self.places = places
  }

  public func contains(_ name: String) -> Bool { places[UTF8Key(name)] != nil }

  /// The type of a tensor as ggml spells it, such as `Q5_K`, whether Quern reads it or not.
  public func typeName(_ name: String) throws(ModelError) -> String { try tensor(name).type.name }

  /// The tensor named `name`, its shape the reverse of the file's. A quantised one is the bytes of its rows, of which
  /// `quantization` says what they stand for; further dimensions count as rows.
  public func info(_ name: String) throws(ModelError) -> TensorInfo {
    let tensor = try tensor(name)
    switch tensor.type.content {
    case .elements(let dtype):
      return TensorInfo(
        dtype: dtype, shape: tensor.shape, byteRange: tensor.range, elementCount: tensor.elementCount)
    case .blocks(let format):
      let inputs = tensor.shape.last ?? 1
      let rowBytes = inputs / format.blockSize * format.blockBytes
      // The extents were multiplied when the file was opened; without inputs, nothing bounds the product of the others.
      let outputs = inputs == 0 ? 0 : tensor.elementCount / inputs
      return TensorInfo(
        dtype: .u8, shape: tensor.shape.dropLast() + [rowBytes], byteRange: tensor.range,
        elementCount: tensor.range.count,
        quantization: TensorInfo.Quantization(format: format, outputs: outputs, inputs: inputs))
    case .other:
      throw ModelError(
        file: path, field: "tensors.\(name).type", offset: tensor.typeOffset,
        reason: "is \(tensor.type.name), which is not read; the types that are: \(GGUFType.read)")
    }
  }

  private func tensor(_ name: String) throws(ModelError) -> GGUFHeader.Tensor {
    guard let place = places[UTF8Key(name)] else {
      throw ModelError(
        file: path, field: "tensors.\(name)", reason: "there is no such tensor among the \(tensors.count) in this file")
    }
    return tensors[place]
  }

  public func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    try TensorFile(file).readFloat32(name, try info(name), into: destination)
  }

  public func readInt64(_ name: String) throws(ModelError) -> [Int64] {
    try TensorFile(file).readInt64(name, try info(name))
  }

  public func readBytes(_ name: String) throws(ModelError) -> FileBytes {
    try TensorFile(file).readBytes(name, try info(name))
  }

  public func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    try TensorFile(file).readBytes(name, try info(name), into: destination)
  }
}

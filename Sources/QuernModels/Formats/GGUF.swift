import Quern

/// A GGUF file, version 2 or 3, little-endian: metadata, and tensors that may be blocks of quantised weights.
///
/// A model in several files is opened by the first, `NAME-00001-of-00003.gguf`; the others lie beside it, and their counts, numbers and
/// tensors must fit together. Metadata are those of the first.
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

  private let tensors: [Place]
  private let places: [UTF8Key: Int]

  /// A tensor and the file that it lies in.
  private struct Place {
    let file: ModelFile
    let tensor: GGUFHeader.Tensor
  }

  public init(path: String) throws(ModelError) {
    let file = try ModelFile(path: path)
    self.path = path
    let header = try GGUFHeader.read(file)
    (version, metadata) = (header.version, header.metadata)
    var tensors = header.tensors.map { Place(file: file, tensor: $0) }
    var places: [UTF8Key: Int] = [:]
    for (place, tensor) in header.tensors.enumerated() { places[UTF8Key(tensor.name)] = place }
    if let split = try GGUFSplit(metadata) {
      for (index, path) in try split.others(path, metadata).enumerated() {
        let file = try ModelFile(path: path)
        let part = try GGUFHeader.read(file)
        try split.check(part.metadata, isPart: index + 1)
        for tensor in part.tensors {
          guard places.updateValue(tensors.count, forKey: UTF8Key(tensor.name)) == nil else {
            throw ModelError(
              file: path, field: "tensors.\(tensor.name)", offset: tensor.typeOffset,
              reason: "is in an earlier part of this model too")
          }
          guard tensors.count < GGUFHeader.tensorLimit else {
            throw ModelError(
              file: path, field: "tensors.\(tensor.name)", offset: tensor.typeOffset,
              reason: "is beyond the \(GGUFHeader.tensorLimit) tensors that are read")
          }
          tensors.append(Place(file: file, tensor: tensor))
        }
      }
      guard split.tensorCount == nil || split.tensorCount == tensors.count else {
        throw try metadata.error(
          "split.tensors.count", "is \(split.tensorCount ?? 0), but the \(split.count) parts have \(tensors.count)")
      }
    }
    (self.tensors, self.places) = (tensors, places)
    tensorNames = tensors.map(\.tensor.name)
  }

  public func contains(_ name: String) -> Bool { places[UTF8Key(name)] != nil }

  /// The type of a tensor as ggml spells it, such as `Q5_K`, whether Quern reads it or not.
  public func typeName(_ name: String) throws(ModelError) -> String { try place(name).tensor.type.name }

  /// The tensor named `name`, its shape the reverse of the file's. A quantised one is the bytes of its rows, of which
  /// `quantization` says what they stand for; further dimensions count as rows. Blocks that no product reads are read as others: see
  /// docs/quantized-models.md.
  public func info(_ name: String) throws(ModelError) -> TensorInfo {
    let place = try place(name)
    let tensor = place.tensor
    switch tensor.type.content {
    case .elements(let dtype):
      return TensorInfo(
        dtype: dtype, shape: tensor.shape, byteRange: tensor.range, elementCount: tensor.elementCount)
    case .blocks(let format, let stored):
      let inputs = tensor.shape.last ?? 1
      let rowBytes = inputs / (stored?.size ?? format.blockSize) * (stored?.bytes ?? format.blockBytes)
      // The extents were multiplied when the file was opened; without inputs, nothing bounds the product of the others.
      let outputs = inputs == 0 ? 0 : tensor.elementCount / inputs
      return TensorInfo(
        dtype: .u8, shape: tensor.shape.dropLast() + [rowBytes], byteRange: tensor.range,
        elementCount: tensor.range.count,
        quantization: TensorInfo.Quantization(
          format: format, outputs: outputs, inputs: inputs, stored: stored))
    case .other:
      throw ModelError(
        file: place.file.path, field: "tensors.\(name).type", offset: tensor.typeOffset,
        reason: "is \(tensor.type.name), which is not read; the types that are: \(GGUFType.read)")
    }
  }

  private func place(_ name: String) throws(ModelError) -> Place {
    guard let place = places[UTF8Key(name)] else {
      throw ModelError(
        file: path, field: "tensors.\(name)", reason: "there is no such tensor among the \(tensors.count) of this model"
      )
    }
    return tensors[place]
  }

  /// What reads the tensor `name`.
  func reader(_ name: String) throws(ModelError) -> TensorFile { TensorFile(try place(name).file) }

  public func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    try reader(name).readFloat32(name, try info(name), into: destination)
  }

  public func readInt64(_ name: String) throws(ModelError) -> [Int64] {
    try reader(name).readInt64(name, try info(name))
  }

  public func readBytes(_ name: String) throws(ModelError) -> FileBytes {
    try reader(name).readBytes(name, try info(name))
  }

  public func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    try reader(name).readBytes(name, try info(name), into: destination)
  }
}

import Quern

/// A safetensors file: a little-endian `UInt64` header length, a JSON header, then the data of the tensors.
///
/// Every rule of the format is checked when the file is opened: header at most 100,000,000 bytes and inside the
/// file, starting with `{` and padded with spaces only; no key twice; each range as long as its shape says; ranges
/// that follow one another from 0 to the end of the file with no hole and no overlap.
/// Source: https://github.com/huggingface/safetensors, `README.md` (format) and `safetensors/src/tensor.rs`.
public final class Safetensors: TensorSource {
  public static let headerLimit = 100_000_000

  public let path: String
  /// The free text of `__metadata__`.
  public let metadata: [String: String]
  public let tensorNames: [String]

  private let file: ModelFile
  private let header: JSONDocument
  private let dataStart: Int
  private let records: [Record]
  private let places: [UTF8Key: Int]

  /// One tensor: what the validation needs, and where the header speaks of it.
  private struct Record {
    var begin: Int
    var end: Int
    var entry: UInt32
    var dtype: SafetensorsDType
    var format: QuantizedFormat?
  }

  public convenience init(path: String) throws(ModelError) {
    try self.init(file: ModelFile(path: path))
  }

  init(file: ModelFile) throws(ModelError) {
    self.file = file
    path = file.path
    (header, dataStart) = try Self.readHeader(file)
    var records: [Record] = []
    var metadata: [String: String] = [:]
    var metadataValue: JSONValue?
    let root = header.root
    records.reserveCapacity(root.count)
    try root.forEachRawMember { (quote, value) throws(ModelError) in
      if JSONEscape.decodedString(value.document.bytes, quote: quote, limit: 64) == "__metadata__" {
        metadata = try Self.readMetadata(value)
        metadataValue = value
      } else {
        records.append(try Self.readRecord(value))
      }
    }
    records.sort { ($0.begin, $0.end) < ($1.begin, $1.end) }
    try Self.checkCoverage(records, header: header, dataSize: file.size - dataStart)

    var names: [String] = []
    var places: [UTF8Key: Int] = [:]
    var nameOf: [UInt32: String] = [:]
    try root.forEachMember { (key, value) throws(ModelError) in nameOf[UInt32(value.index)] = key }
    for (place, record) in records.enumerated() {
      let name = nameOf[record.entry] ?? ""
      names.append(name)
      places[UTF8Key(name)] = place
    }
    if let metadataValue {
      try QuantizationMetadata.forEachTensor(metadataValue) { (tensor) throws(ModelError) in
        guard let place = places[UTF8Key(tensor.name)] else {
          throw tensor.error("there is no such tensor in this file")
        }
        let entry = JSONValue(document: metadataValue.document, index: Int(records[place].entry))
        try tensor.check(dtype: records[place].dtype, shape: entry.required("shape"))
        records[place].format = tensor.format
      }
    }
    self.metadata = metadata
    self.records = records
    self.places = places
    tensorNames = names
  }

  // MARK: Reading the header

  private static func readHeader(_ file: ModelFile) throws(ModelError) -> (JSONDocument, dataStart: Int) {
    let prefixSize = MemoryLayout<UInt64>.size
    guard file.size >= prefixSize else {
      throw ModelError(
        file: file.path, field: "header length", offset: 0,
        reason: "the file is \(file.size) bytes long; a safetensors file begins with 8 bytes of header length")
    }
    let prefix = try file.read(0..<prefixSize, field: "header length")
    var cursor = ByteCursor(file: file.path, bytes: prefix.bytes)
    let length = try cursor.integer(UInt64.self, field: "header length")
    func lengthError(_ reason: String) -> ModelError {
      ModelError(file: file.path, field: "header length", offset: 0, reason: "is \(length), \(reason)")
    }
    guard length <= UInt64(headerLimit) else {
      throw lengthError("more than the \(headerLimit) bytes the format allows; is this a safetensors file?")
    }
    let headerSize = Int(length)
    guard headerSize <= file.size - prefixSize else {
      throw lengthError("but only \(file.size - prefixSize) bytes follow; the file is cut short")
    }
    let dataStart = prefixSize + headerSize
    let storage = try file.read(prefixSize..<dataStart, field: "header")
    guard storage.bytes.first == UInt8(ascii: "{") else {
      throw ModelError(file: file.path, field: "header", offset: prefixSize, reason: "does not begin with {")
    }
    let header = try JSONDocument(storage: storage, file: file.path, rootField: "tensors", baseOffset: prefixSize)
    if let last = storage.bytes.lastIndex(where: { $0 != 0x20 }), storage.bytes[last] != UInt8(ascii: "}") {
      throw ModelError(
        file: file.path, field: "header", offset: prefixSize + last,
        reason: "is padded with something other than spaces")
    }
    return (header, dataStart)
  }

  private static func readMetadata(_ value: JSONValue) throws(ModelError) -> [String: String] {
    var metadata: [String: String] = [:]
    try value.forEachMember { (key, text) throws(ModelError) in metadata[key] = try text.string() }
    return metadata
  }

  private static func readRecord(_ entry: JSONValue) throws(ModelError) -> Record {
    try entry.expectOnly(["dtype", "shape", "data_offsets"])
    let dtypeValue = try entry.required("dtype")
    let dtypeName = try dtypeValue.string()
    guard let dtype = SafetensorsDType(rawValue: dtypeName) else {
      let known = SafetensorsDType.allCases.map(\.rawValue).joined(separator: ", ")
      throw dtypeValue.error("\(dtypeName) is not a known type; known are \(known)")
    }
    let shape = try entry.required("shape")
    let offsets = try entry.required("data_offsets")
    guard offsets.kind == .array, offsets.count == 2 else { throw offsets.error("is not [begin, end]") }
    var ends: [Int] = []
    try offsets.forEachElement { (value) throws(ModelError) in ends.append(try value.int(in: 0...Int.max)) }
    let (begin, end) = (ends[0], ends[1])
    guard begin <= end else { throw offsets.error("begins at \(begin), after its end at \(end)") }
    let size = try byteCount(shape, dtype)
    guard end - begin == size else {
      throw offsets.error("spans \(end - begin) bytes, but shape and dtype \(dtypeName) need \(size)")
    }
    return Record(begin: begin, end: end, entry: UInt32(entry.index), dtype: dtype)
  }

  private static func byteCount(_ shape: JSONValue, _ dtype: SafetensorsDType) throws(ModelError) -> Int {
    let elements = try elementCount(shape)
    let tooLarge = "the size in bits does not fit 64 bits"
    let bits = try Checked.multiply(elements, dtype.bits, orThrow: shape.error(tooLarge))
    guard bits % 8 == 0 else { throw shape.error("\(elements) elements of \(dtype.rawValue) are not whole bytes") }
    return bits / 8
  }

  private static func elementCount(_ shape: JSONValue) throws(ModelError) -> Int {
    var product = 1
    try shape.forEachElement { (dimension) throws(ModelError) in
      let extent = try dimension.int(in: 0...Int.max)
      product = try Checked.multiply(
        product, extent, orThrow: dimension.error("the product of the shape does not fit 64 bits"))
    }
    return product
  }

  /// `records`, sorted by where they begin, must cover the data from its first byte to its last.
  private static func checkCoverage(
    _ records: [Record], header: JSONDocument, dataSize: Int
  ) throws(ModelError) {
    var covered = 0
    for record in records {
      guard record.begin == covered && record.end <= dataSize else {
        let entry = JSONValue(document: header, index: Int(record.entry))
        let offsets = try entry.required("data_offsets")
        if record.begin < covered {
          throw offsets.error("begins at \(record.begin), inside the tensor before it, which ends at \(covered)")
        }
        if record.begin > covered {
          throw offsets.error("begins at \(record.begin) and leaves a hole after byte \(covered) of the data")
        }
        throw offsets.error("ends at \(record.end), but the file has only \(dataSize) bytes of data")
      }
      covered = record.end
    }
    guard covered == dataSize else {
      throw ModelError(
        file: header.file, field: "tensors", offset: header.baseOffset + header.storage.count + covered,
        reason: "\(dataSize - covered) bytes at the end of the file belong to no tensor")
    }
  }

  // MARK: Reading tensors

  public func info(_ name: String) throws(ModelError) -> TensorInfo {
    let record = try self.record(name)
    let shape = try JSONValue(document: header, index: Int(record.entry)).required("shape")
    var extents: [Int] = []
    try shape.forEachElement { (dimension) throws(ModelError) in extents.append(try dimension.int()) }
    return TensorInfo(
      dtype: record.dtype, shape: extents, byteRange: dataStart + record.begin..<dataStart + record.end,
      elementCount: try Self.elementCount(shape),
      quantization: record.format.map { QuantizationMetadata.quantization($0, stored: extents) })
  }

  private func record(_ name: String) throws(ModelError) -> Record {
    guard let place = places[UTF8Key(name)] else {
      throw ModelError(
        file: path, field: "tensors.\(name)", reason: "there is no such tensor among the \(records.count) in this file")
    }
    return records[place]
  }

  /// What reads parts of tensors.
  var reader: TensorFile { TensorFile(file) }

  public func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    try reader.readFloat32(name, try info(name), into: destination)
  }

  public func readInt64(_ name: String) throws(ModelError) -> [Int64] {
    try reader.readInt64(name, try info(name))
  }

  public func readBytes(_ name: String) throws(ModelError) -> FileBytes {
    try reader.readBytes(name, try info(name))
  }

  public func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    try reader.readBytes(name, try info(name), into: destination)
  }

  /// Reads a tensor of any type in pieces of at most 1 MiB.
  func forEachPiece(
    _ name: String, _ body: (UnsafeRawBufferPointer) throws(ModelError) -> Void
  ) throws(ModelError) {
    try file.forEachPiece(of: try info(name).byteRange, field: "tensors.\(name)") { (bytes, _) throws(ModelError) in
      try body(bytes)
    }
  }
}

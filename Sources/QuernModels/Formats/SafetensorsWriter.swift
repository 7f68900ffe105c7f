extension Safetensors {
  /// A tensor to be written.
  public struct NewTensor: Sendable {
    public enum Values: Sendable {
      case float32([Float])
      case int64([Int64])
    }

    public var name: String
    public var shape: [Int]
    public var values: Values

    public init(name: String, shape: [Int], values: Values) {
      self.name = name
      self.shape = shape
      self.values = values
    }

    var dtype: SafetensorsDType {
      switch values {
      case .float32: .f32
      case .int64: .i64
      }
    }

    var count: Int {
      switch values {
      case .float32(let values): values.count
      case .int64(let values): values.count
      }
    }
  }

  /// Writes a file that is complete or not there at all: a temporary file in the same folder, `fsync`, `rename`,
  /// and `fsync` of the folder. A file already at `path` is kept until the new one replaces it.
  public static func write(
    path: String, tensors: [NewTensor], metadata: [String: String] = [:]
  ) throws(ModelError) {
    for tensor in tensors {
      let product = try SafetensorsWriter.elementCount(tensor.name, tensor.shape, path: path)
      guard product == tensor.count else {
        throw ModelError(
          file: path, field: "tensors.\(tensor.name)",
          reason: "shape \(tensor.shape) needs \(product) values, but there are \(tensor.count)")
      }
    }
    let writer = try SafetensorsWriter(
      path: path, entries: tensors.map { ($0.name, $0.dtype, $0.shape) }, metadata: metadata)
    for tensor in tensors.sorted(by: { SafetensorsWriter.precedes(($0.name, $0.dtype), ($1.name, $1.dtype)) }) {
      switch tensor.values {
      case .float32(let values):
        try values.withUnsafeBufferPointer { (bytes) throws(ModelError) in
          try writer.write(UnsafeRawBufferPointer(bytes))
        }
      case .int64(let values):
        try values.withUnsafeBufferPointer { (bytes) throws(ModelError) in
          try writer.write(UnsafeRawBufferPointer(bytes))
        }
      }
    }
    try writer.commit()
  }
}

/// Writes a safetensors file tensor by tensor, so that no more than one need be in memory.
///
/// The header comes first: every name, type and shape is known before any data. The file appears under its name with `commit`.
final class SafetensorsWriter {
  typealias Entry = (name: String, dtype: SafetensorsDType, shape: [Int])

  /// The tensors in the order that their bytes are to be written in.
  let entries: [Entry]
  /// Bytes of the whole file, and of its tensors alone.
  let size: Int
  let dataSize: Int
  private let path: String
  private let file: AtomicFile
  private var written = 0

  init(path: String, entries: [Entry], metadata: [String: String]) throws(ModelError) {
    self.path = path
    self.entries = entries.sorted { Self.precedes(($0.name, $0.dtype), ($1.name, $1.dtype)) }
    let header: [UInt8]
    (header, dataSize) = try Self.encodeHeader(path: path, self.entries, metadata)
    let prefix = MemoryLayout<UInt64>.size + header.count
    size = try Checked.add(
      prefix, dataSize, orThrow: ModelError(file: path, field: "tensors", reason: "are too large together"))
    file = try AtomicFile(path: path)
    var length = UInt64(header.count).littleEndian
    try withUnsafeBytes(of: &length) { (bytes) throws(ModelError) in try write(bytes) }
    try header.withUnsafeBufferPointer { (bytes) throws(ModelError) in try write(UnsafeRawBufferPointer(bytes)) }
  }

  /// Wider elements first keep every tensor aligned to its own size.
  fileprivate static func precedes(
    _ a: (name: String, dtype: SafetensorsDType), _ b: (name: String, dtype: SafetensorsDType)
  ) -> Bool {
    a.dtype.bits != b.dtype.bits ? a.dtype.bits > b.dtype.bits : UTF8Key(a.name) < UTF8Key(b.name)
  }

  /// The next bytes of the data.
  func write(_ bytes: UnsafeRawBufferPointer) throws(ModelError) {
    try file.write(bytes)
    written += bytes.count
  }

  /// Puts the file in its place. All bytes that the header promises must have been written.
  func commit() throws(ModelError) {
    guard written == size else {
      throw ModelError(file: path, field: "", reason: "\(written) bytes were written where the header needs \(size)")
    }
    try file.commit()
  }

  fileprivate static func elementCount(_ name: String, _ shape: [Int], path: String) throws(ModelError) -> Int {
    func error(_ reason: String) -> ModelError { ModelError(file: path, field: "tensors.\(name)", reason: reason) }
    var product = 1
    for extent in shape {
      guard extent >= 0 else { throw error("shape \(shape) has a negative extent") }
      product = try Checked.multiply(product, extent, orThrow: error("shape \(shape) is too large"))
    }
    return product
  }

  private static func encodeHeader(
    path: String, _ tensors: [Entry], _ metadata: [String: String]
  ) throws(ModelError) -> (header: [UInt8], dataSize: Int) {
    var members: [String] = []
    if !metadata.isEmpty {
      let pairs = metadata.sorted { UTF8Key($0.key) < UTF8Key($1.key) }.map { "\(quoted($0.key)):\(quoted($0.value))" }
      members.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
    }
    var names: Set<UTF8Key> = []
    var end = 0
    for tensor in tensors {
      func error(_ reason: String) -> ModelError {
        ModelError(file: path, field: "tensors.\(tensor.name)", reason: reason)
      }
      guard tensor.name != "__metadata__" else { throw error("the name is reserved by the format") }
      guard names.insert(UTF8Key(tensor.name)).inserted else { throw error("the name is used twice") }
      let product = try elementCount(tensor.name, tensor.shape, path: path)
      let begin = end
      let bits = try Checked.multiply(product, tensor.dtype.bits, orThrow: error("is too large"))
      guard bits % 8 == 0 else { throw error("\(product) elements of \(tensor.dtype.rawValue) are not whole bytes") }
      end = try Checked.add(begin, bits / 8, orThrow: error("is too large"))
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      members.append(
        "\(quoted(tensor.name)):{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":[\(shape)],"
          + "\"data_offsets\":[\(begin),\(end)]}")
    }
    var header = Array("{\(members.joined(separator: ","))}".utf8)
    while header.count % 8 != 0 { header.append(0x20) }
    guard header.count <= Safetensors.headerLimit else {
      throw ModelError(file: path, field: "header", reason: "would be \(header.count) bytes, over the format's limit")
    }
    return (header, end)
  }

  /// `text` as a JSON string.
  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\u{0}"..<"\u{20}":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

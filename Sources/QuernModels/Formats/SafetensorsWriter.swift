#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

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
    // Wider elements first keep every tensor aligned to its own size.
    let ordered = tensors.sorted {
      $0.dtype.bits != $1.dtype.bits ? $0.dtype.bits > $1.dtype.bits : UTF8Key($0.name) < UTF8Key($1.name)
    }
    let header = try encodeHeader(path: path, ordered, metadata)
    let file = try AtomicFile(path: path)
    var length = UInt64(header.count).littleEndian
    try withUnsafeBytes(of: &length) { (bytes) throws(ModelError) in try file.write(bytes) }
    try header.withUnsafeBufferPointer { (bytes) throws(ModelError) in
      try file.write(UnsafeRawBufferPointer(bytes))
    }
    for tensor in ordered {
      switch tensor.values {
      case .float32(let values):
        try values.withUnsafeBufferPointer { (bytes) throws(ModelError) in
          try file.write(UnsafeRawBufferPointer(bytes))
        }
      case .int64(let values):
        try values.withUnsafeBufferPointer { (bytes) throws(ModelError) in
          try file.write(UnsafeRawBufferPointer(bytes))
        }
      }
    }
    try file.commit()
  }

  private static func encodeHeader(
    path: String, _ tensors: [NewTensor], _ metadata: [String: String]
  ) throws(ModelError) -> [UInt8] {
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
      var product = 1
      for extent in tensor.shape {
        guard extent >= 0 else { throw error("shape \(tensor.shape) has a negative extent") }
        product = try Checked.multiply(product, extent, orThrow: error("shape \(tensor.shape) is too large"))
      }
      guard product == tensor.count else {
        throw error("shape \(tensor.shape) needs \(product) values, but there are \(tensor.count)")
      }
      let begin = end
      let size = try Checked.multiply(product, tensor.dtype.bits / 8, orThrow: error("is too large"))
      end = try Checked.add(begin, size, orThrow: error("is too large"))
      let shape = tensor.shape.map(String.init).joined(separator: ",")
      members.append(
        "\(quoted(tensor.name)):{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":[\(shape)],"
          + "\"data_offsets\":[\(begin),\(end)]}")
    }
    var header = Array("{\(members.joined(separator: ","))}".utf8)
    while header.count % 8 != 0 { header.append(0x20) }
    guard header.count <= headerLimit else {
      throw ModelError(file: path, field: "header", reason: "would be \(header.count) bytes, over the format's limit")
    }
    return header
  }

  /// `text` as a JSON string.
  private static func quoted(_ text: String) -> String {
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

/// A file that appears under its name only when `commit` has put all of it on the disk.
private final class AtomicFile {
  private let path: String
  private let temporaryPath: String
  private var descriptor: Int32
  private var isCommitted = false

  init(path: String) throws(ModelError) {
    self.path = path
    temporaryPath = "\(path).tmp-\(getpid())-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
    descriptor = open(temporaryPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    if descriptor < 0 { throw failure("cannot be created") }
  }

  deinit {
    if descriptor >= 0 { close(descriptor) }
    if !isCommitted { unlink(temporaryPath) }
  }

  func write(_ bytes: UnsafeRawBufferPointer) throws(ModelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      #if canImport(Darwin)
        let written = Darwin.write(descriptor, base + done, min(bytes.count - done, 1 << 30))
      #elseif canImport(Musl)
        let written = Musl.write(descriptor, base + done, min(bytes.count - done, 1 << 30))
      #else
        let written = Glibc.write(descriptor, base + done, min(bytes.count - done, 1 << 30))
      #endif
      if written > 0 {
        done += written
      } else if errno != EINTR {
        throw failure("cannot be written")
      }
    }
  }

  func commit() throws(ModelError) {
    guard fsync(descriptor) == 0 else { throw failure("cannot be put on the disk") }
    let open = descriptor
    descriptor = -1
    guard close(open) == 0 else { throw failure("cannot be put on the disk") }
    guard rename(temporaryPath, path) == 0 else { throw failure("cannot replace the file of that name") }
    isCommitted = true
    try syncFolder()
  }

  /// Without this the new name may be lost in a power cut although the data is safe.
  private func syncFolder() throws(ModelError) {
    let folder = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[..<$0]) + "/" } ?? "."
    let directory = open(folder, O_RDONLY | O_CLOEXEC)
    guard directory >= 0 else { throw failure("its folder cannot be opened") }
    defer { close(directory) }
    // Some file systems do not sync folders and say EINVAL.
    guard fsync(directory) == 0 || errno == EINVAL else { throw failure("its folder cannot be put on the disk") }
  }

  private func failure(_ what: String) -> ModelError {
    ModelError(file: path, field: "", reason: "\(what): \(ModelFile.message(errno))")
  }
}

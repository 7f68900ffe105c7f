import Quern

/// What stands before the data of a GGUF file: counts, metadata and the tensors, read and checked.
struct GGUFHeader {
  /// Magic, version and the two counts.
  static let fixedSize = 24
  static let sizeLimit = 100_000_000
  static let tensorLimit = 1 << 18
  static let keyLimit = 1 << 16
  /// Bytes of a key or of a tensor's name; the format's own limit for keys.
  static let nameLimit = 65535
  static let alignmentLimit = 1 << 20

  var version: Int
  var metadata: GGUFMetadata
  /// In the order of the data.
  var tensors: [Tensor]

  struct Tensor {
    var name: String
    var type: GGUFType
    /// Row-major: the reverse of the file's.
    var shape: [Int]
    var elementCount: Int
    /// The bytes of the file; empty for a type whose size is not known.
    var range: Range<Int>
    /// Where the header has the type and the offset.
    var typeOffset: Int
    var offsetOffset: Int
  }

  /// Reads as much of the file as the header turns out to need. The format does not say how long it is, so that a longer piece is
  /// parsed from the start when one was too short.
  static func read(_ file: ModelFile) throws(ModelError) -> GGUFHeader {
    let limit = min(file.size, sizeLimit)
    var size = min(limit, 1 << 20)
    while true {
      let storage = try file.read(0..<size, field: "header")
      var parser = GGUFParser(file: file, storage: storage, limit: limit)
      do throws(ModelError) {
        return try parser.parse()
      } catch {
        guard let needed = parser.neededCount else { throw error }
        guard needed <= limit else {
          var error = error
          error.reason =
            needed > file.size
            ? "needs the file to have \(needed) bytes, but it has \(file.size); it is cut short"
            : "needs a header of \(needed) bytes; more than \(sizeLimit) are not read"
          throw error
        }
        size = min(limit, max(needed, size * 4))
      }
    }
  }
}

/// One pass over the bytes of a header.
struct GGUFParser {
  private let file: ModelFile
  private let storage: FileBytes
  /// The most bytes that a header of this file may have.
  private let limit: Int
  private var cursor: ByteCursor

  init(file: ModelFile, storage: FileBytes, limit: Int) {
    (self.file, self.storage, self.limit) = (file, storage, limit)
    cursor = ByteCursor(file: file.path, bytes: storage.bytes)
  }

  /// Where the bytes would have to end for the step that failed, where that was why.
  var neededCount: Int? { cursor.neededCount }

  mutating func parse() throws(ModelError) -> GGUFHeader {
    let (version, tensorCount, keyCount) = try fixedPart()
    var entries: [(key: String, entry: GGUFMetadata.Entry)] = []
    var places: [UTF8Key: Int] = [:]
    for index in 0..<keyCount {
      let start = cursor.offset
      let key = try name("metadata[\(index)].key")
      guard places.updateValue(index, forKey: UTF8Key(key)) == nil else {
        throw error("metadata.\(key)", start, "the key is in this file twice")
      }
      entries.append((key, try value(key)))
    }
    var tensors: [GGUFHeader.Tensor] = []
    var names: Set<UTF8Key> = []
    for index in 0..<tensorCount {
      let start = cursor.offset
      let tensor = try tensor(index)
      guard names.insert(UTF8Key(tensor.name)).inserted else {
        throw error("tensors.\(tensor.name)", start, "the name is in this file twice")
      }
      tensors.append(tensor)
    }
    let end = cursor.position
    let exact =
      storage.count == end
      ? storage
      : try FileBytes(
        copying: UnsafeRawBufferPointer(rebasing: storage.bytes[0..<end]), file: file.path, field: "header")
    let metadata = GGUFMetadata(file: file.path, storage: exact, entries: entries, places: places)
    try place(&tensors, after: end, alignment(metadata))
    return GGUFHeader(version: version, metadata: metadata, tensors: tensors)
  }

  private func error(_ field: String, _ offset: Int, _ reason: String) -> ModelError {
    ModelError(file: file.path, field: field, offset: offset, reason: reason)
  }

  // MARK: Counts

  private mutating func fixedPart() throws(ModelError) -> (version: Int, tensors: Int, keys: Int) {
    let magic = try cursor.integer(UInt32.self, field: "magic")
    guard magic == 0x4655_4747 else { throw error("magic", 0, "the file does not begin with GGUF") }
    let version = try cursor.integer(UInt32.self, field: "version")
    guard version & 0xFFFF != 0 else { throw error("version", 4, "is that of a big-endian file, which is not read") }
    guard version == 2 || version == 3 else { throw error("version", 4, "is \(version); 2 and 3 are read") }
    // The fewest bytes that an entry takes: a length, a name and a type, and a value or what places a tensor.
    let tensors = try count("tensor count", limit: GGUFHeader.tensorLimit, bytes: 8 + 1 + 4 + 4 + 8)
    let keys = try count("metadata count", limit: GGUFHeader.keyLimit, bytes: 8 + 1 + 4 + 1)
    return (Int(version), tensors, keys)
  }

  private mutating func count(_ field: String, limit: Int, bytes: Int) throws(ModelError) -> Int {
    let start = cursor.offset
    let number = try cursor.integer(UInt64.self, field: field)
    guard number <= UInt64(limit) else { throw error(field, start, "is \(number); more than \(limit) are not read") }
    guard Int(number) <= file.size / bytes else {
      throw error(field, start, "is \(number), too many for a file of \(file.size) bytes")
    }
    return Int(number)
  }

  // MARK: Strings

  /// The bytes of a string, behind the 64 bits of their number.
  private mutating func string(_ field: @autoclosure () -> String) throws(ModelError) -> UnsafeRawBufferPointer {
    let start = cursor.offset
    let length = try cursor.integer(UInt64.self, field: field())
    guard length <= UInt64(limit - cursor.position) else {
      throw error(field(), start, "is a string of \(length) bytes, more than the header of this file can have")
    }
    return try cursor.slice(count: Int(length), field: field())
  }

  private mutating func name(_ field: @autoclosure () -> String) throws(ModelError) -> String {
    let start = cursor.offset
    let bytes = try string(field())
    guard !bytes.isEmpty, bytes.count <= GGUFHeader.nameLimit else {
      throw error(field(), start, "is \(bytes.count) bytes long; a name has 1 to \(GGUFHeader.nameLimit)")
    }
    guard UTF8Rules.isValid(bytes) else { throw error(field(), start, "is not UTF-8") }
    return String(decoding: bytes, as: UTF8.self)
  }

  // MARK: Metadata

  private mutating func valueType(_ field: @autoclosure () -> String) throws(ModelError) -> GGUFMetadata.ValueType {
    let start = cursor.offset
    let number = try cursor.integer(UInt32.self, field: field())
    guard let type = GGUFMetadata.ValueType(rawValue: number) else {
      throw error(field(), start, "\(number) is not a type of values; they are 0 to 12")
    }
    return type
  }

  private mutating func value(_ key: String) throws(ModelError) -> GGUFMetadata.Entry {
    let type = try valueType("metadata.\(key).type")
    guard type == .array else {
      let position = cursor.position
      if type == .string { _ = try string("metadata.\(key)") } else { try skip(1, type, "metadata.\(key)") }
      return GGUFMetadata.Entry(type: type, position: position)
    }
    let start = cursor.offset
    let element = try valueType("metadata.\(key).element type")
    guard let size = element.size else {
      throw error("metadata.\(key).element type", start, "is array; arrays of arrays are not read")
    }
    let countStart = cursor.offset
    let number = try cursor.integer(UInt64.self, field: "metadata.\(key).count")
    guard number <= UInt64(max(limit - cursor.position, 0) / size) else {
      throw error(
        "metadata.\(key).count", countStart, "is \(number) elements, more than the header of this file can have")
    }
    var entry = GGUFMetadata.Entry(type: element, count: Int(number), position: cursor.position)
    guard element == .string else {
      try skip(Int(number), element, "metadata.\(key)")
      return entry
    }
    // All that is kept of a string is where it lies: headers are shorter than 2^32 bytes.
    for index in 0..<Int(number) {
      entry.strings.append(UInt32(cursor.position))
      _ = try string("metadata.\(key)[\(index)]")
    }
    return entry
  }

  private mutating func skip(
    _ count: Int, _ type: GGUFMetadata.ValueType, _ field: String
  ) throws(ModelError) {
    let bytes = try Checked.multiply(
      count, type.size ?? 0, orThrow: error(field, cursor.offset, "does not fit 64 bits"))
    _ = try cursor.slice(count: bytes, field: field)
  }

  /// `general.alignment`, 32 where there is none.
  private func alignment(_ metadata: GGUFMetadata) throws(ModelError) -> Int {
    let key = "general.alignment"
    let alignment = try metadata.int(key, default: 32)
    guard alignment > 0, alignment <= GGUFHeader.alignmentLimit, alignment & (alignment - 1) == 0 else {
      throw try metadata.error(
        key, "is \(alignment), where a power of two up to \(GGUFHeader.alignmentLimit) is needed")
    }
    return alignment
  }

  // MARK: Tensors

  private mutating func tensor(_ index: Int) throws(ModelError) -> GGUFHeader.Tensor {
    let name = try name("tensors[\(index)].name")
    func field(_ part: String) -> String { "tensors.\(name).\(part)" }
    let start = cursor.offset
    let rank = try cursor.integer(UInt32.self, field: field("dimensions"))
    guard rank <= 4 else { throw error(field("dimensions"), start, "are \(rank); at most 4 are read") }
    var shape: [Int] = []
    var elements = 1
    for axis in 0..<Int(rank) {
      let start = cursor.offset
      let number = try cursor.integer(UInt64.self, field: field("shape[\(axis)]"))
      guard let extent = Int(exactly: number) else {
        throw error(field("shape[\(axis)]"), start, "is \(number), which does not fit a signed 64-bit integer")
      }
      elements = try Checked.multiply(
        elements, extent, orThrow: error(field("shape"), start, "the product of the shape does not fit 64 bits"))
      shape.insert(extent, at: 0)
    }
    let typeOffset = cursor.offset
    let type = GGUFType(number: try cursor.integer(UInt32.self, field: field("type")))
    let size = try byteCount(elements, shape.last ?? 1, type, orThrow: { self.error(field("shape"), start, $0) })
    let offsetOffset = cursor.offset
    let offset = try cursor.integer(UInt64.self, field: field("offset"))
    // From here on a range in the data; `place` makes it one of the file.
    guard let begin = Int(exactly: offset), !begin.addingReportingOverflow(size).overflow else {
      throw error(field("offset"), offsetOffset, "is \(offset), so that the tensor's end does not fit 64 bits")
    }
    return GGUFHeader.Tensor(
      name: name, type: type, shape: shape, elementCount: elements, range: begin..<begin + size,
      typeOffset: typeOffset, offsetOffset: offsetOffset)
  }

  /// The bytes of the elements; 0 for a type whose blocks are not known.
  private func byteCount(
    _ elements: Int, _ rowLength: Int, _ type: GGUFType, orThrow error: (String) -> ModelError
  ) throws(ModelError) -> Int {
    guard let block = type.block else { return 0 }
    guard rowLength % block.size == 0 else {
      throw error("rows of \(rowLength) elements are no multiple of the \(block.size) of a block of \(type.name)")
    }
    return try Checked.multiply(
      elements / block.size, block.bytes, orThrow: error("the size in bytes does not fit 64 bits"))
  }

  /// Puts the tensors in the order of their data: each must be inside the file, aligned and apart from the others.
  private func place(
    _ tensors: inout [GGUFHeader.Tensor], after end: Int, _ alignment: Int
  ) throws(ModelError) {
    let dataStart = (end + alignment - 1) & -alignment
    tensors.sort { ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound) }
    var before: (end: Int, name: String) = (0, "")
    for index in tensors.indices {
      let tensor = tensors[index]
      let range = tensor.range
      func failure(_ reason: String) -> ModelError {
        error("tensors.\(tensor.name).offset", tensor.offsetOffset, "is \(range.lowerBound), \(reason)")
      }
      guard range.lowerBound % alignment == 0 else { throw failure("no multiple of the alignment, \(alignment)") }
      let end = try Checked.add(dataStart, range.upperBound, orThrow: failure("which is too large"))
      if range.isEmpty && tensor.type.block != nil {
        // No bytes, and so no place that could be wrong: a writer may leave out the padding before it.
        tensors[index].range = min(end, file.size)..<min(end, file.size)
        continue
      }
      guard range.isEmpty || range.lowerBound >= before.end else {
        throw failure("inside \(before.name), which ends at \(before.end)")
      }
      guard end <= file.size else {
        throw failure(
          "so that the tensor ends at byte \(end), but the file has only \(file.size); it may be cut short")
      }
      if !range.isEmpty { before = (range.upperBound, tensor.name) }
      tensors[index].range = dataStart + range.lowerBound..<end
    }
  }
}

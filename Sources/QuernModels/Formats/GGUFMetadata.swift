/// The metadata of a GGUF file: typed values by key. A wrong type, range or missing key is an error that names the key
/// and its byte. Values are decoded from the file's header when they are asked for.
public struct GGUFMetadata: Sendable {
  /// Every key, in the order of the file.
  public let keys: [String]

  let file: String
  /// The header, from the first byte of the file.
  private let storage: FileBytes
  private let entries: [Entry]
  private let places: [UTF8Key: Int]

  /// The types of values, numbered as in a file.
  enum ValueType: UInt32 {
    case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes of a value; of a string, its length alone; nil for an array.
    var size: Int? {
      switch self {
      case .uint8, .int8, .bool: 1
      case .uint16, .int16: 2
      case .uint32, .int32, .float32: 4
      case .string, .uint64, .int64, .float64: 8
      case .array: nil
      }
    }
  }

  struct Entry {
    var type: ValueType
    /// The number of elements; nil for a single value.
    var count: Int?
    /// The byte of the first value.
    var position: Int
    /// The bytes of the length of each string of an array.
    var strings: [UInt32] = []
  }

  init(file: String, storage: FileBytes, entries: [(key: String, entry: Entry)], places: [UTF8Key: Int]) {
    (self.file, self.storage, self.places) = (file, storage, places)
    keys = entries.map(\.key)
    self.entries = entries.map(\.entry)
  }

  public func contains(_ key: String) -> Bool { places[UTF8Key(key)] != nil }

  /// Whether the value of `key` is an array; false where there is none.
  public func isArray(_ key: String) -> Bool { places[UTF8Key(key)].map { entries[$0].count != nil } ?? false }

  // MARK: Single values

  /// The integer at `key`, of any width, which must be in `range`.
  public func int(_ key: String, in range: ClosedRange<Int> = 0...Int.max) throws(ModelError) -> Int {
    let (entry, cursor) = try single(key)
    let value = try integer(cursor, entry.type, key, nil)
    guard range.contains(value) else {
      throw error(key, entry, "is \(value), outside \(range.lowerBound)...\(range.upperBound)")
    }
    return value
  }

  public func int(
    _ key: String, in range: ClosedRange<Int> = 0...Int.max, default value: Int
  ) throws(ModelError) -> Int {
    try contains(key) ? int(key, in: range) : value
  }

  /// The finite number at `key`, a float or an integer.
  public func double(_ key: String) throws(ModelError) -> Double {
    let (entry, cursor) = try single(key)
    let value = try number(cursor, entry.type, key, nil)
    guard value.isFinite else { throw error(key, entry, "is \(value), where a finite number is needed") }
    return value
  }

  public func double(_ key: String, default value: Double) throws(ModelError) -> Double {
    try contains(key) ? double(key) : value
  }

  public func bool(_ key: String) throws(ModelError) -> Bool {
    let (entry, cursor) = try single(key)
    guard entry.type == .bool else { throw wrongType(key, entry, "a bool") }
    return try boolean(cursor, key, nil)
  }

  public func bool(_ key: String, default value: Bool) throws(ModelError) -> Bool {
    try contains(key) ? bool(key) : value
  }

  public func string(_ key: String) throws(ModelError) -> String {
    let (entry, cursor) = try single(key)
    guard entry.type == .string else { throw wrongType(key, entry, "a string") }
    return try text(cursor, key, nil)
  }

  public func string(_ key: String, default value: String) throws(ModelError) -> String {
    try contains(key) ? string(key) : value
  }

  /// The string at `key`, which must be one of `allowed`.
  public func string(_ key: String, oneOf allowed: [String]) throws(ModelError) -> String {
    let text = try string(key)
    guard allowed.contains(text) else {
      throw try self.error(key, "\(text) is not supported; supported: \(allowed.joined(separator: ", "))")
    }
    return text
  }

  // MARK: Arrays

  /// The number of elements of an array.
  public func count(_ key: String) throws(ModelError) -> Int { try array(key).count ?? 0 }

  /// The strings of an array, left in the bytes of the header; refused where one is not UTF-8.
  public func strings(_ key: String) throws(ModelError) -> GGUFStrings {
    let entry = try array(key)
    guard entry.type == .string else { throw wrongType(key, entry, "an array of strings") }
    let strings = GGUFStrings(storage: storage, lengths: entry.strings)
    for index in strings.indices where !strings.withUTF8(index, UTF8Rules.isValid) {
      throw error(key, entry, "is not UTF-8", index)
    }
    return strings
  }

  /// The integers of an array, of any width.
  public func ints(_ key: String) throws(ModelError) -> [Int] {
    let entry = try array(key)
    var values: [Int] = []
    try forEach(entry) { (cursor, index) throws(ModelError) in
      values.append(try integer(cursor, entry.type, key, index))
    }
    return values
  }

  /// The numbers of an array, finite or not, rounded to f32.
  public func floats(_ key: String) throws(ModelError) -> [Float] {
    let entry = try array(key)
    var values: [Float] = []
    try forEach(entry) { (cursor, index) throws(ModelError) in
      values.append(Float(try number(cursor, entry.type, key, index)))
    }
    return values
  }

  public func bools(_ key: String) throws(ModelError) -> [Bool] {
    let entry = try array(key)
    guard entry.type == .bool else { throw wrongType(key, entry, "an array of bools") }
    var values: [Bool] = []
    try forEach(entry) { (cursor, index) throws(ModelError) in values.append(try boolean(cursor, key, index)) }
    return values
  }

  // MARK: Errors

  /// An error about the value of `key`, for what a caller refuses; throws where there is none.
  public func error(_ key: String, _ reason: String) throws(ModelError) -> ModelError {
    error(key, try entry(key), reason)
  }

  /// The same about an element of an array.
  func error(_ key: String, _ reason: String, at index: Int) throws(ModelError) -> ModelError {
    error(key, try entry(key), reason, index)
  }

  private func error(_ key: String, _ entry: Entry, _ reason: String, _ index: Int? = nil) -> ModelError {
    let element = index.map { "[\($0)]" } ?? ""
    let isText = index.map(entry.strings.indices.contains) ?? false
    let offset = isText ? Int(entry.strings[index ?? 0]) : entry.position + (index ?? 0) * (entry.type.size ?? 0)
    return ModelError(file: file, field: "metadata.\(key)\(element)", offset: offset, reason: reason)
  }

  private func wrongType(_ key: String, _ entry: Entry, _ wanted: String) -> ModelError {
    error(key, entry, "is \(entry.count == nil ? "one" : "an array of") \(entry.type), where \(wanted) is needed")
  }

  // MARK: Decoding

  private func entry(_ key: String) throws(ModelError) -> Entry {
    guard let place = places[UTF8Key(key)] else {
      throw ModelError(
        file: file, field: "metadata.\(key)", offset: GGUFHeader.fixedSize, reason: "is missing")
    }
    return entries[place]
  }

  private func single(_ key: String) throws(ModelError) -> (Entry, ByteCursor) {
    let entry = try entry(key)
    guard entry.count == nil else { throw wrongType(key, entry, "a single value") }
    return (entry, cursor(at: entry.position))
  }

  private func array(_ key: String) throws(ModelError) -> Entry {
    let entry = try entry(key)
    guard entry.count != nil else { throw wrongType(key, entry, "an array") }
    return entry
  }

  private func cursor(at position: Int) -> ByteCursor {
    var cursor = ByteCursor(file: file, bytes: storage.bytes)
    cursor.move(to: position)
    return cursor
  }

  private func forEach(
    _ entry: Entry, _ body: (ByteCursor, Int) throws(ModelError) -> Void
  ) throws(ModelError) {
    for index in 0..<(entry.count ?? 0) {
      try body(cursor(at: entry.position + index * (entry.type.size ?? 0)), index)
    }
  }

  private func integer(
    _ start: ByteCursor, _ type: ValueType, _ key: String, _ index: Int?
  ) throws(ModelError) -> Int {
    var cursor = start
    func field() -> String { "metadata.\(key)" }
    switch type {
    case .uint8: return Int(try cursor.integer(UInt8.self, field: field()))
    case .int8: return Int(try cursor.integer(Int8.self, field: field()))
    case .uint16: return Int(try cursor.integer(UInt16.self, field: field()))
    case .int16: return Int(try cursor.integer(Int16.self, field: field()))
    case .uint32: return Int(try cursor.integer(UInt32.self, field: field()))
    case .int32: return Int(try cursor.integer(Int32.self, field: field()))
    case .int64: return Int(try cursor.integer(Int64.self, field: field()))
    case .uint64:
      let value = try cursor.integer(UInt64.self, field: field())
      guard let narrow = Int(exactly: value) else {
        throw error(key, try entry(key), "is \(value), which does not fit a signed 64-bit integer", index)
      }
      return narrow
    case .float32, .float64, .bool, .string, .array:
      throw wrongType(key, try entry(key), index == nil ? "an integer" : "an array of integers")
    }
  }

  private func number(
    _ start: ByteCursor, _ type: ValueType, _ key: String, _ index: Int?
  ) throws(ModelError) -> Double {
    var cursor = start
    switch type {
    case .float32: return Double(Float(bitPattern: try cursor.integer(UInt32.self, field: "metadata.\(key)")))
    case .float64: return Double(bitPattern: try cursor.integer(UInt64.self, field: "metadata.\(key)"))
    case .bool, .string, .array:
      throw wrongType(key, try entry(key), index == nil ? "a number" : "an array of numbers")
    default: return Double(try integer(start, type, key, index))
    }
  }

  private func boolean(_ start: ByteCursor, _ key: String, _ index: Int?) throws(ModelError) -> Bool {
    var cursor = start
    let byte = try cursor.integer(UInt8.self, field: "metadata.\(key)")
    guard byte < 2 else { throw error(key, try entry(key), "is \(byte), where a bool is 0 or 1", index) }
    return byte == 1
  }

  private func text(_ start: ByteCursor, _ key: String, _ index: Int?) throws(ModelError) -> String {
    var cursor = start
    let length = try cursor.integer(UInt64.self, field: "metadata.\(key)")
    let bytes = try cursor.slice(count: Int(clamping: length), field: "metadata.\(key)")
    guard UTF8Rules.isValid(bytes) else { throw error(key, try entry(key), "is not UTF-8", index) }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// The strings of an array of a GGUF file, such as the tokens of a vocabulary: the bytes stay in one block of memory, and a
/// `String` is made for one that is asked for.
public struct GGUFStrings: RandomAccessCollection, Sendable {
  private let storage: FileBytes
  /// Where the length of each string lies in `storage`; checked when the file was opened.
  private let lengths: [UInt32]

  init(storage: FileBytes, lengths: [UInt32]) { (self.storage, self.lengths) = (storage, lengths) }

  public var startIndex: Int { 0 }
  public var endIndex: Int { lengths.count }

  public subscript(index: Int) -> String { withUTF8(index) { String(decoding: $0, as: UTF8.self) } }

  /// The bytes of a string, without a copy.
  public func withUTF8<R, E: Error>(_ index: Int, _ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
    let start = Int(lengths[index])
    let count = Int(UInt64(littleEndian: storage.bytes.loadUnaligned(fromByteOffset: start, as: UInt64.self)))
    return try body(UnsafeRawBufferPointer(rebasing: storage.bytes[start + 8..<start + 8 + count]))
  }
}

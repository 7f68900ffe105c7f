/// A JSON text (RFC 8259), read strictly: UTF-8 without a byte order mark, no key twice in one object, no half
/// surrogate pairs, nothing after the value, at most 64 levels deep. Values are decoded when they are asked for.
public final class JSONDocument: Sendable {
  /// Texts larger than this are refused; offsets are kept in 32 bits.
  public static let sizeLimit = 1 << 30

  let file: String
  /// What field paths begin with; empty for a file that is JSON as a whole.
  let rootField: String
  /// The byte of the file where the text begins.
  let baseOffset: Int
  let storage: FileBytes
  let tape: JSONTape

  var bytes: UnsafeRawBufferPointer { storage.bytes }

  /// Reads the file at `path`, which may be at most `limit` bytes long.
  ///
  /// - Parameter allowsInfinity: takes `-Infinity` for a number, as Python writes it; ``JSONValue/double()`` still refuses it.
  public convenience init(path: String, limit: Int = 1 << 28, allowsInfinity: Bool = false) throws(ModelError) {
    try self.init(path: path, limit: limit, allowsInfinity: allowsInfinity, leaving: [])
  }

  /// - Parameter leaving: the way to an object whose reader finds keys that are there twice.
  convenience init(
    path: String, limit: Int, allowsInfinity: Bool = false, leaving: [String]
  ) throws(ModelError) {
    try self.init(
      storage: ModelFile(path: path).readAll(limit: min(limit, Self.sizeLimit)), file: path,
      allowsInfinity: allowsInfinity, leaving: leaving)
  }

  /// Reads `text`; `file` is the name that errors carry.
  public convenience init(text: some Sequence<UInt8>, file: String) throws(ModelError) {
    try self.init(text: text, file: file, leaving: [])
  }

  convenience init(text: some Sequence<UInt8>, file: String, leaving: [String]) throws(ModelError) {
    let copy = Array(text)
    let storage = try copy.withUnsafeBufferPointer { (bytes) throws(ModelError) in
      try FileBytes(copying: UnsafeRawBufferPointer(bytes), file: file, field: "")
    }
    try self.init(storage: storage, file: file, leaving: leaving)
  }

  init(
    storage: FileBytes, file: String, rootField: String = "", baseOffset: Int = 0, allowsInfinity: Bool = false,
    leaving: [String] = []
  ) throws(ModelError) {
    guard storage.count <= Self.sizeLimit else {
      throw ModelError(file: file, field: rootField, reason: "is more than \(Self.sizeLimit) bytes of JSON")
    }
    self.file = file
    self.rootField = rootField
    self.baseOffset = baseOffset
    self.storage = storage
    let cursor = ByteCursor(file: file, bytes: storage.bytes, baseOffset: baseOffset)
    tape = try JSONScanner.scan(cursor, rootField: rootField, allowsInfinity: allowsInfinity)
    var left = leaving.isEmpty ? nil : root as JSONValue?
    for key in leaving where left?.kind == .object { left = try left?.member(key) }
    try rejectDuplicateKeys(but: left?.index)
  }

  public var root: JSONValue { JSONValue(document: self, index: 0) }

  /// The tape index after the value at `index`.
  @inline(__always)
  func end(_ index: Int) -> Int {
    let byte = bytes[Int(tape.words[index])]
    guard byte == UInt8(ascii: "{") || byte == UInt8(ascii: "[") else { return index &+ 1 }
    return Int(tape.words[index &+ 1])
  }

  func path(to index: Int) -> [JSONPathPart] {
    var parts: [JSONPathPart] = []
    var node = 0
    while node != index {
      let isObject = bytes[Int(tape.words[node])] == UInt8(ascii: "{")
      let limit = end(node)
      var child = node + 2
      var place = 0
      while child < limit {
        let value = isObject ? child + 1 : child
        let next = end(value)
        if index < next {
          parts.append(isObject ? .key(Int(tape.words[child])) : .index(place))
          node = value
          break
        }
        child = next
        place += 1
      }
      // A key is not a value; its path is its object's.
      if child >= limit || node > index { break }
    }
    return parts
  }

  // MARK: Duplicate keys

  /// Objects are on the tape in order, so one pass meets each; every key is looked at once.
  private func rejectDuplicateKeys(but left: Int?) throws(ModelError) {
    var index = 0
    while index < tape.words.count {
      let byte = bytes[Int(tape.words[index])]
      if byte == UInt8(ascii: "{") {
        if index != left { try rejectDuplicateKeys(inObjectAt: index) }
        index += 2
      } else {
        index += byte == UInt8(ascii: "[") ? 2 : 1
      }
    }
  }

  private func rejectDuplicateKeys(inObjectAt object: Int) throws(ModelError) {
    let limit = end(object)
    var keyCount = 0
    var key = object + 2
    while key < limit {
      keyCount += 1
      key = end(key + 1)
    }
    guard keyCount > 1 else { return }
    var capacity = 4
    while capacity < keyCount * 2 { capacity *= 2 }
    // Open addressing on a hash that is seeded per process, so that a file cannot aim at it.
    var slots = [UInt32](repeating: 0, count: capacity)
    key = object + 2
    while key < limit {
      let quote = tape.words[key]
      var slot = hash(quote: Int(quote)) & (capacity - 1)
      while slots[slot] != 0 {
        if sameString(Int(slots[slot]), Int(quote)) { throw duplicate(quote: Int(quote), object: object) }
        slot = (slot + 1) & (capacity - 1)
      }
      slots[slot] = quote
      key = end(key + 1)
    }
  }

  func duplicate(quote: Int, object: Int) -> ModelError {
    let parts = path(to: object) + [.key(quote)]
    return ModelError(
      file: file, field: JSONPathPart.join(parts, root: rootField, bytes: bytes), offset: baseOffset + quote,
      reason: "the key is in this object twice")
  }

  private func hash(quote: Int) -> Int {
    var hasher = Hasher()
    let (range, escaped) = JSONEscape.content(bytes, quote: quote)
    if escaped {
      JSONEscape.decoded(bytes, range).withUnsafeBytes { hasher.combine(bytes: $0) }
    } else {
      hasher.combine(bytes: UnsafeRawBufferPointer(rebasing: bytes[range]))
    }
    return hasher.finalize()
  }

  /// Whether the strings that begin at two quotes are the same once their escapes are replaced.
  private func sameString(_ a: Int, _ b: Int) -> Bool {
    let bytes = self.bytes
    var step = 1
    while a &+ step < bytes.count, b &+ step < bytes.count {
      let (first, second) = (bytes[a &+ step], bytes[b &+ step])
      if first == UInt8(ascii: "\\") || second == UInt8(ascii: "\\") { break }
      if first != second { return false }
      if first == UInt8(ascii: "\"") { return true }
      step &+= 1
    }
    return JSONEscape.decoded(bytes, JSONEscape.content(bytes, quote: a).range)
      == JSONEscape.decoded(bytes, JSONEscape.content(bytes, quote: b).range)
  }
}

/// Where each value of a document begins; see `JSONScanner`.
final class JSONTape: @unchecked Sendable {
  let words: UnsafeMutableBufferPointer<UInt32>
  private let memory: FileBytes

  init(memory: FileBytes, count: Int) {
    self.memory = memory
    words = UnsafeMutableBufferPointer(rebasing: memory.mutableBytes.bindMemory(to: UInt32.self).prefix(count))
  }
}

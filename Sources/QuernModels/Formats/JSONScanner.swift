/// One pass over a JSON text by the grammar of RFC 8259, without recursion on the heap and without building strings.
///
/// It checks everything, and records on a tape where each value begins.
///
/// The tape is one `UInt32` per value and per key, its offset; an array or object has a second word, the tape
/// index just past its last member.
package struct JSONScanner {
  /// Deeper nesting is refused: no file read here needs more, and it bounds the stack.
  package static let depthLimit = 64

  private var cursor: ByteCursor
  private let rootField: String
  /// `-Infinity` counts as a number.
  private let allowsInfinity: Bool
  private let tape: UnsafeMutableBufferPointer<UInt32>
  /// Tape words so far.
  private var count = 0
  /// For each open array or object, the member being read: the offset of its key, or its place in the array.
  private var path: [JSONPathPart] = []

  private init(
    cursor: ByteCursor, rootField: String, allowsInfinity: Bool, tape: UnsafeMutableBufferPointer<UInt32>
  ) {
    self.cursor = cursor
    self.allowsInfinity = allowsInfinity
    self.rootField = rootField
    self.tape = tape
    path.reserveCapacity(Self.depthLimit)
  }

  /// The tape of one value and the white space round it, to the end of the buffer.
  static func scan(_ cursor: ByteCursor, rootField: String, allowsInfinity: Bool) throws(ModelError) -> JSONTape {
    let memory = try FileBytes(
      count: mostWords(cursor.bytes) * MemoryLayout<UInt32>.size, file: cursor.file, field: rootField)
    var scanner = JSONScanner(
      cursor: cursor, rootField: rootField, allowsInfinity: allowsInfinity,
      tape: memory.mutableBytes.bindMemory(to: UInt32.self))
    try withExtendedLifetime(memory) { () throws(ModelError) in try scanner.scanDocument() }
    return JSONTape(memory: memory, count: scanner.count)
  }

  /// Words of the tape at most: a value or key but the first comes behind a comma, a colon or a bracket that opens something, which
  /// has a word more itself. Punctuation of strings counts too, but no text has more words than bytes and levels.
  private static func mostWords(_ bytes: UnsafeRawBufferPointer) -> Int {
    var count = 1
    for byte in bytes {
      count &+= byte == UInt8(ascii: ",") || byte == UInt8(ascii: ":") ? 1 : 0
      count &+= byte | 0x20 == UInt8(ascii: "{") ? 2 : 0
    }
    return min(count, bytes.count + depthLimit + 2)
  }

  private mutating func scanDocument() throws(ModelError) {
    let bytes = cursor.bytes
    if bytes.count >= 3, bytes[0] == 0xEF, bytes[1] == 0xBB, bytes[2] == 0xBF {
      throw error("begins with a byte order mark; JSON text must not")
    }
    try scanValue()
    skipWhitespace()
    guard cursor.isAtEnd else { throw error("unexpected \(Self.name(cursor.peek())) after the end of the value") }
  }

  private mutating func scanValue() throws(ModelError) {
    skipWhitespace()
    guard let byte = cursor.peek() else { throw error("expected a value, found the end") }
    switch byte {
    case UInt8(ascii: "{"): try scanObject()
    case UInt8(ascii: "["): try scanArray()
    case UInt8(ascii: "\""):
      emit(cursor.position)
      try scanString()
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
      emit(cursor.position)
      try scanNumber()
    case UInt8(ascii: "t"): try scanLiteral("true")
    case UInt8(ascii: "f"): try scanLiteral("false")
    case UInt8(ascii: "n"): try scanLiteral("null")
    default: throw error("expected a value, found \(Self.name(byte))")
    }
  }

  private mutating func scanObject() throws(ModelError) {
    let open = try enter()
    skipWhitespace()
    if cursor.peek() == UInt8(ascii: "}") { return leave(open) }
    path.append(.key(cursor.position))
    while true {
      skipWhitespace()
      guard cursor.peek() == UInt8(ascii: "\"") else {
        path.removeLast()
        throw error("expected a key in double quotes, found \(Self.name(cursor.peek()))")
      }
      path[path.count - 1] = .key(cursor.position)
      emit(cursor.position)
      try scanString()
      skipWhitespace()
      guard cursor.peek() == UInt8(ascii: ":") else {
        throw error("expected : after the key, found \(Self.name(cursor.peek()))")
      }
      cursor.skipByte()
      try scanValue()
      skipWhitespace()
      let next = cursor.peek()
      if next == UInt8(ascii: ",") {
        cursor.skipByte()
      } else if next == UInt8(ascii: "}") {
        path.removeLast()
        return leave(open)
      } else {
        path.removeLast()
        throw error("expected , or } in an object, found \(Self.name(next))")
      }
    }
  }

  private mutating func scanArray() throws(ModelError) {
    let open = try enter()
    skipWhitespace()
    if cursor.peek() == UInt8(ascii: "]") { return leave(open) }
    path.append(.index(0))
    var index = 0
    while true {
      try scanValue()
      skipWhitespace()
      let next = cursor.peek()
      if next == UInt8(ascii: ",") {
        cursor.skipByte()
        index += 1
        path[path.count - 1] = .index(index)
      } else if next == UInt8(ascii: "]") {
        path.removeLast()
        return leave(open)
      } else {
        path.removeLast()
        throw error("expected , or ] in an array, found \(Self.name(next))")
      }
    }
  }

  /// Opens an array or object and gives the tape index of its second word.
  private mutating func enter() throws(ModelError) -> Int {
    guard path.count < Self.depthLimit else { throw error("is nested more than \(Self.depthLimit) levels deep") }
    emit(cursor.position)
    emit(0)
    cursor.skipByte()
    return count - 1
  }

  private mutating func leave(_ open: Int) {
    cursor.skipByte()
    if open < tape.count { tape[open] = UInt32(truncatingIfNeeded: count) }
  }

  @inline(__always)
  private mutating func emit(_ word: Int) {
    if count < tape.count { tape[count] = UInt32(truncatingIfNeeded: word) }
    count &+= 1
  }

  @inline(__always)
  private mutating func skipWhitespace() {
    while let byte = cursor.peek(), byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { cursor.skipByte() }
  }

  private mutating func scanLiteral(_ literal: StaticString) throws(ModelError) {
    emit(cursor.position)
    try skip(literal)
  }

  private mutating func skip(_ literal: StaticString) throws(ModelError) {
    let start = cursor.position
    for index in 0..<literal.utf8CodeUnitCount {
      guard cursor.peek() == literal.utf8Start[index] else {
        cursor.move(to: start)
        throw error("expected \(literal)")
      }
      cursor.skipByte()
    }
  }

  private mutating func scanNumber() throws(ModelError) {
    let start = cursor.position
    if cursor.peek() == UInt8(ascii: "-") {
      cursor.skipByte()
      if allowsInfinity, cursor.peek() == UInt8(ascii: "I") { return try skip("Infinity") }
    }
    let leadingZero = cursor.peek() == UInt8(ascii: "0")
    let digits = skipDigits()
    var valid = digits > 0 && !(leadingZero && digits > 1)
    if cursor.peek() == UInt8(ascii: ".") {
      cursor.skipByte()
      valid = skipDigits() > 0 && valid
    }
    if let byte = cursor.peek(), byte | 0x20 == UInt8(ascii: "e") {
      cursor.skipByte()
      if let sign = cursor.peek(), sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { cursor.skipByte() }
      valid = skipDigits() > 0 && valid
    }
    guard valid else {
      cursor.move(to: start)
      throw error("is not a JSON number")
    }
  }

  private mutating func skipDigits() -> Int {
    let start = cursor.position
    while let byte = cursor.peek(), byte &- UInt8(ascii: "0") < 10 { cursor.skipByte() }
    return cursor.position - start
  }

  // MARK: Strings

  private mutating func scanString() throws(ModelError) {
    let bytes = cursor.bytes
    var position = cursor.position &+ 1
    while position < bytes.count {
      let byte = bytes[position]
      if byte == UInt8(ascii: "\"") {
        cursor.move(to: position &+ 1)
        return
      } else if byte == UInt8(ascii: "\\") {
        position = try escapeEnd(position)
      } else if byte < 0x20 {
        cursor.move(to: position)
        throw error("control character \(Self.name(byte)) in a string; it must be escaped")
      } else if byte < 0x80 {
        position &+= 1
      } else {
        guard let length = UTF8Rules.length(bytes, position) else {
          cursor.move(to: position)
          throw error("a string is not valid UTF-8 at \(Self.name(byte))")
        }
        position &+= length
      }
    }
    throw error("the string that begins here has no closing quote")
  }

  /// The position after the escape at `position`.
  private mutating func escapeEnd(_ position: Int) throws(ModelError) -> Int {
    let bytes = cursor.bytes
    guard let (_, length) = JSONEscape.decode(bytes, position) else {
      cursor.move(to: position)
      throw error("a string has an escape that JSON does not define, or half of a surrogate pair")
    }
    return position + length
  }

  // MARK: Errors

  private func error(_ reason: String) -> ModelError {
    cursor.error(field: JSONPathPart.join(path, root: rootField, bytes: cursor.bytes), reason)
  }

  private static func name(_ byte: UInt8?) -> String {
    guard let byte else { return "the end" }
    return byte > 0x20 && byte < 0x7F ? "'\(Character(Unicode.Scalar(byte)))'" : "byte 0x" + String(byte, radix: 16)
  }
}

/// One step of the way from the root of a document to a value.
enum JSONPathPart {
  /// A member of an object, by the offset of its key's opening quote.
  case key(Int)
  /// An element of an array.
  case index(Int)

  /// `vocab.hello`, `shape[1]`: the way spelled as a field path.
  static func join(_ parts: [JSONPathPart], root: String, bytes: UnsafeRawBufferPointer) -> String {
    var text = root
    for part in parts {
      switch part {
      case .key(let offset):
        // A key longer than this would not be printed whole, and may be a whole file.
        let key = JSONEscape.decodedString(bytes, quote: offset, limit: 1024)
        text += text.isEmpty ? key : "." + key
      case .index(let index): text += "[\(index)]"
      }
    }
    return text
  }
}

/// The length of well-formed UTF-8 sequences (Unicode 17, table 3-7).
enum UTF8Rules {
  static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var position = 0
    while position < bytes.count {
      if bytes[position] < 0x80 {
        position += 1
      } else {
        guard let length = length(bytes, position) else { return false }
        position += length
      }
    }
    return true
  }

  /// The length of the sequence of two or more bytes at `position`, or nil when it is not well formed.
  static func length(_ bytes: UnsafeRawBufferPointer, _ position: Int) -> Int? {
    let lead = bytes[position]
    let left = bytes.count - position
    func continues(_ index: Int) -> Bool { bytes[position + index] & 0xC0 == 0x80 }
    switch lead {
    case 0xC2...0xDF:
      return left >= 2 && continues(1) ? 2 : nil
    case 0xE0...0xEF:
      guard left >= 3, continues(1), continues(2) else { return nil }
      let second = bytes[position + 1]
      if lead == 0xE0 && second < 0xA0 || lead == 0xED && second > 0x9F { return nil }
      return 3
    case 0xF0...0xF4:
      guard left >= 4, continues(1), continues(2), continues(3) else { return nil }
      let second = bytes[position + 1]
      if lead == 0xF0 && second < 0x90 || lead == 0xF4 && second > 0x8F { return nil }
      return 4
    default:
      return nil
    }
  }

  /// How many bytes at the end are the beginning of a sequence that more bytes may complete.
  static func unfinished(_ bytes: UnsafeRawBufferPointer) -> Int {
    for count in 1...3 where count <= bytes.count {
      let start = bytes.count - count
      let lead = bytes[start]
      if lead & 0xC0 == 0x80 { continue }
      let needed =
        switch lead {
        case 0xC2...0xDF: 2
        case 0xE0...0xEF: 3
        case 0xF0...0xF4: 4
        default: 0
        }
      guard count < needed else { return 0 }
      guard count > 1 else { return count }
      switch (lead, bytes[start + 1]) {
      case (0xE0, ..<0xA0), (0xED, 0xA0...), (0xF0, ..<0x90), (0xF4, 0x90...): return 0
      default: return count
      }
    }
    return 0
  }
}

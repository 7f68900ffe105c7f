/// The pieces of a chat template, cut as Jinja cuts them with `trim_blocks` and `lstrip_blocks`, as transformers sets them.
struct TemplateToken: Sendable, Equatable {
  enum Kind: Sendable, Equatable {
    /// Text between the tags.
    case text(String)
    case openOutput, closeOutput, openBlock, closeBlock
    case name(String)
    case string(String)
    case int(Int)
    case double(Double)
    /// An operator or a bracket.
    case symbol(String)
    case end
  }

  var kind: Kind
  /// The byte of the template where it begins.
  var offset: Int

  /// For messages.
  var description: String {
    switch kind {
    case .text: "text"
    case .openOutput: "{{"
    case .closeOutput: "}}"
    case .openBlock: "{%"
    case .closeBlock: "%}"
    case .name(let name): name
    case .string: "a string"
    case .int, .double: "a number"
    case .symbol(let symbol): symbol
    case .end: "the end of the template"
    }
  }
}

/// What is wrong at a byte of a template.
struct TemplateError: Error {
  var offset: Int
  var reason: String
}

struct TemplateLexer {
  private let bytes: [UInt8]
  private var position = 0
  private var tokens: [TemplateToken] = []
  /// Whether what was read last ended a line.
  private var isAtLineStart = true

  private init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The template with line ends as Jinja leaves them: `\n` alone, and none at the very end.
  static func normalized(_ source: String) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(source.utf8.count)
    var last: UInt8 = 0
    for byte in source.utf8 {
      if byte == UInt8(ascii: "\r") {
        bytes.append(UInt8(ascii: "\n"))
      } else if byte != UInt8(ascii: "\n") || last != UInt8(ascii: "\r") {
        bytes.append(byte)
      }
      last = byte
    }
    if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
    return bytes
  }

  static func tokens(_ bytes: [UInt8]) throws(TemplateError) -> [TemplateToken] {
    var lexer = TemplateLexer(bytes)
    try lexer.run()
    return lexer.tokens
  }

  private mutating func run() throws(TemplateError) {
    while position < bytes.count {
      guard let tag = nextTag() else {
        emit(position..<bytes.count)
        position = bytes.count
        break
      }
      try text(before: tag)
      switch bytes[tag + 1] {
      case UInt8(ascii: "#"): try comment(tag)
      case UInt8(ascii: "{"): try inside(tag, .openOutput, .closeOutput)
      default:
        if let rawEnd = try raw(tag) { position = rawEnd } else { try inside(tag, .openBlock, .closeBlock) }
      }
    }
    tokens.append(TemplateToken(kind: .end, offset: bytes.count))
  }

  private func byte(_ index: Int) -> UInt8? { index < bytes.count ? bytes[index] : nil }

  private func matches(_ text: StaticString, at index: Int) -> Bool {
    guard index + text.utf8CodeUnitCount <= bytes.count else { return false }
    return (0..<text.utf8CodeUnitCount).allSatisfy { bytes[index + $0] == text.utf8Start[$0] }
  }

  // MARK: Text

  private func nextTag() -> Int? {
    var index = position
    while index + 1 < bytes.count {
      if bytes[index] == UInt8(ascii: "{") {
        let next = bytes[index + 1]
        if next == UInt8(ascii: "{") || next == UInt8(ascii: "%") || next == UInt8(ascii: "#") { return index }
      }
      index += 1
    }
    return nil
  }

  /// The text from here to a tag, less the white space that the tag takes off.
  private mutating func text(before tag: Int) throws(TemplateError) {
    var end = tag
    if byte(tag + 2) == UInt8(ascii: "-") {
      while end > position, let length = whitespaceBefore(end) { end -= length }
      end = max(end, position)
    } else if byte(tag + 2) != UInt8(ascii: "+"), bytes[tag + 1] != UInt8(ascii: "{") {
      var start = tag
      while start > position, bytes[start - 1] != UInt8(ascii: "\n") { start -= 1 }
      if start > position || isAtLineStart {
        var blank = tag
        while blank > start, let length = whitespaceBefore(blank) { blank -= length }
        if blank <= start { end = start }
      }
    }
    emit(position..<end)
    isAtLineStart = false
  }

  private mutating func emit(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    tokens.append(
      TemplateToken(kind: .text(String(decoding: bytes[range], as: UTF8.self)), offset: range.lowerBound))
  }

  /// The bytes of the white space that ends before `index`, by Python's idea of it.
  private func whitespaceBefore(_ index: Int) -> Int? {
    var start = index - 1
    while start > position, bytes[start] & 0xC0 == 0x80 { start -= 1 }
    guard let scalar = String(decoding: bytes[start..<index], as: UTF8.self).unicodeScalars.first else { return nil }
    return PythonText.isSpace(scalar) ? index - start : nil
  }

  private func whitespaceAfter(_ index: Int) -> Int {
    var index = index
    while let lead = byte(index) {
      // ASCII without white space, which most tokens are.
      if lead > 0x20 && lead < 0x80 { break }
      let length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
      let end = min(index + length, bytes.count)
      let text = String(decoding: bytes[index..<end], as: UTF8.self)
      guard let scalar = text.unicodeScalars.first, PythonText.isSpace(scalar) else { break }
      index = end
    }
    return index
  }

  /// Past a closing delimiter that begins at `index`, which may be `-` or `+`, and past the white space it takes; nil where
  /// none stands there.
  private mutating func closing(_ delimiter: StaticString, at index: Int, trims: Bool) -> Int? {
    let sign = byte(index)
    let end: Int
    if sign == UInt8(ascii: "-"), matches(delimiter, at: index + 1) {
      end = whitespaceAfter(index + 3)
    } else if trims, sign == UInt8(ascii: "+"), matches(delimiter, at: index + 1) {
      end = index + 3
    } else if matches(delimiter, at: index) {
      end = trims && byte(index + 2) == UInt8(ascii: "\n") ? index + 3 : index + 2
    } else {
      return nil
    }
    isAtLineStart = bytes[end - 1] == UInt8(ascii: "\n")
    return end
  }

  private mutating func comment(_ tag: Int) throws(TemplateError) {
    var index = tag + 2
    while index < bytes.count {
      if let end = closing("#}", at: index, trims: true) {
        position = end
        return
      }
      index += 1
    }
    throw TemplateError(offset: tag, reason: "the comment has no end")
  }

  /// `{% raw %}`, which keeps the line end behind it: emits what is in it, and gives where it ends.
  private mutating func raw(_ tag: Int) throws(TemplateError) -> Int? {
    guard let start = tagEnd(tag, "raw", trims: false) else { return nil }
    position = start
    var index = start
    while index + 1 < bytes.count {
      if matches("{%", at: index), tagEnd(index, "endraw") != nil {
        try text(before: index)
        return tagEnd(index, "endraw")
      }
      index += 1
    }
    throw TemplateError(offset: tag, reason: "raw has no endraw")
  }

  /// The end of a tag that holds `word` alone, such as `{%- raw %}`.
  private mutating func tagEnd(_ tag: Int, _ word: StaticString, trims: Bool = true) -> Int? {
    var index = tag + 2
    if let sign = byte(index), sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") { index += 1 }
    index = whitespaceAfter(index)
    guard matches(word, at: index) else { return nil }
    return closing("%}", at: whitespaceAfter(index + word.utf8CodeUnitCount), trims: trims)
  }

  // MARK: Tags

  private mutating func inside(
    _ tag: Int, _ open: TemplateToken.Kind, _ close: TemplateToken.Kind
  ) throws(TemplateError) {
    tokens.append(TemplateToken(kind: open, offset: tag))
    position = tag + 2
    if let sign = byte(position), sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") { position += 1 }
    var brackets = 0
    while true {
      position = whitespaceAfter(position)
      guard let next = byte(position) else {
        throw TemplateError(offset: tag, reason: "the tag has no end")
      }
      let start = position
      if brackets == 0 {
        let end = close == .closeBlock ? closing("%}", at: start, trims: true) : closing("}}", at: start, trims: false)
        if let end {
          tokens.append(TemplateToken(kind: close, offset: start))
          position = end
          return
        }
      }
      let kind: TemplateToken.Kind
      switch next {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): kind = try number()
      case UInt8(ascii: "\""), UInt8(ascii: "'"): kind = .string(try string(next))
      case _ where Self.isNameByte(next): kind = .name(name())
      default:
        let symbol = try symbol()
        if "([{".contains(symbol) { brackets += 1 }
        if ")]}".contains(symbol) { brackets -= 1 }
        guard brackets >= 0 else { throw TemplateError(offset: start, reason: "\(symbol) closes nothing") }
        kind = .symbol(symbol)
      }
      tokens.append(TemplateToken(kind: kind, offset: start))
    }
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "_") || byte | 0x20 >= UInt8(ascii: "a") && byte | 0x20 <= UInt8(ascii: "z")
  }

  private static func isDigit(_ byte: UInt8?) -> Bool { byte.map { $0 &- UInt8(ascii: "0") < 10 } ?? false }

  private mutating func name() -> String {
    let start = position
    while let next = byte(position), Self.isNameByte(next) || Self.isDigit(next) { position += 1 }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  private mutating func number() throws(TemplateError) -> TemplateToken.Kind {
    let start = position
    var isDouble = false
    while Self.isDigit(byte(position)) { position += 1 }
    if byte(position) == UInt8(ascii: "."), Self.isDigit(byte(position + 1)) {
      isDouble = true
      position += 1
      while Self.isDigit(byte(position)) { position += 1 }
    }
    if let mark = byte(position), mark | 0x20 == UInt8(ascii: "e") {
      let signed = byte(position + 1) == UInt8(ascii: "-") || byte(position + 1) == UInt8(ascii: "+")
      if Self.isDigit(byte(position + (signed ? 2 : 1))) {
        isDouble = true
        position += signed ? 2 : 1
        while Self.isDigit(byte(position)) { position += 1 }
      }
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    if let next = byte(position), Self.isNameByte(next) {
      throw TemplateError(offset: start, reason: "\(text)\(UnicodeScalar(next)) is not a number that is read")
    }
    if isDouble, let value = Double(text) { return .double(value) }
    guard let value = Int(text) else { throw TemplateError(offset: start, reason: "\(text) does not fit 64 bits") }
    return .int(value)
  }

  private mutating func symbol() throws(TemplateError) -> String {
    for length in [2, 1] where position + length <= bytes.count {
      let text = String(decoding: bytes[position..<position + length], as: UTF8.self)
      if Self.symbols.contains(text) {
        position += length
        return text
      }
    }
    let text = String(decoding: bytes[position..<min(position + 4, bytes.count)], as: UTF8.self)
    throw TemplateError(offset: position, reason: "\(text.prefix(1)) has no meaning in a template")
  }

  private static let symbols: Set<String> = [
    "+", "-", "/", "//", "*", "%", "**", "~", "[", "]", "(", ")", "{", "}", "==", "!=", ">", ">=", "<", "<=", "=", ".",
    ":", "|", ",",
  ]

  /// A string in quotes, with the escapes of Python.
  private mutating func string(_ quote: UInt8) throws(TemplateError) -> String {
    let start = position
    var content: [UInt8] = []
    position += 1
    while let next = byte(position) {
      position += 1
      if next == quote { return String(decoding: content, as: UTF8.self) }
      if next == UInt8(ascii: "\\") { try escape(into: &content, start) } else { content.append(next) }
    }
    throw TemplateError(offset: start, reason: "the string has no end")
  }

  private mutating func escape(into content: inout [UInt8], _ start: Int) throws(TemplateError) {
    guard let letter = byte(position) else { throw TemplateError(offset: start, reason: "the string has no end") }
    position += 1
    switch letter {
    case UInt8(ascii: "n"): content.append(0x0A)
    case UInt8(ascii: "r"): content.append(0x0D)
    case UInt8(ascii: "t"): content.append(0x09)
    case UInt8(ascii: "a"): content.append(0x07)
    case UInt8(ascii: "b"): content.append(0x08)
    case UInt8(ascii: "f"): content.append(0x0C)
    case UInt8(ascii: "v"): content.append(0x0B)
    case UInt8(ascii: "\n"): break
    case UInt8(ascii: "\\"), UInt8(ascii: "'"), UInt8(ascii: "\""): content.append(letter)
    case UInt8(ascii: "x"): try append(digits: 2, radix: 16, to: &content)
    case UInt8(ascii: "u"): try append(digits: 4, radix: 16, to: &content)
    case UInt8(ascii: "U"): try append(digits: 8, radix: 16, to: &content)
    case UInt8(ascii: "0")...UInt8(ascii: "7"):
      position -= 1
      var count = 1
      while count < 3, let next = byte(position + count), next & 0xF8 == UInt8(ascii: "0") { count += 1 }
      try append(digits: count, radix: 8, to: &content)
    case UInt8(ascii: "N"):
      throw TemplateError(offset: position - 2, reason: "characters by name are not read")
    default: content += [UInt8(ascii: "\\"), letter]
    }
  }

  private mutating func append(digits: Int, radix: Int, to content: inout [UInt8]) throws(TemplateError) {
    let end = min(position + digits, bytes.count)
    let text = String(decoding: bytes[position..<end], as: UTF8.self)
    guard text.utf8.count == digits, text.utf8.first != UInt8(ascii: "+"), text.utf8.first != UInt8(ascii: "-"),
      let value = UInt32(text, radix: radix), let scalar = UnicodeScalar(value)
    else { throw TemplateError(offset: position, reason: "\\\(text) is not an escape of a character") }
    content += Array(String(Character(scalar)).utf8)
    position = end
  }
}

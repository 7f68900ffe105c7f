/// One value of a `JSONDocument`. The typed accessors throw a `ModelError` that names the field and its byte.
public struct JSONValue: Sendable {
  public enum Kind: String, Sendable { case object, array, string, number, bool, null }

  let document: JSONDocument
  let index: Int

  public var kind: Kind {
    switch document.bytes[start] {
    case UInt8(ascii: "{"): .object
    case UInt8(ascii: "["): .array
    case UInt8(ascii: "\""): .string
    case UInt8(ascii: "t"), UInt8(ascii: "f"): .bool
    case UInt8(ascii: "n"): .null
    default: .number
    }
  }

  public var isNull: Bool { kind == .null }

  /// The field path, such as `vocab.hello` or `shape[1]`. It is worked out anew each time: it is meant for errors.
  public var field: String {
    JSONPathPart.join(document.path(to: index), root: document.rootField, bytes: document.bytes)
  }

  /// The byte of the file where the value begins.
  public var offset: Int { document.baseOffset + start }

  public func error(_ reason: String) -> ModelError {
    ModelError(file: document.file, field: field, offset: offset, reason: reason)
  }

  @inline(__always)
  private var start: Int { Int(document.tape.words[index]) }

  private func expect(_ kind: Kind) throws(ModelError) {
    guard self.kind == kind else { throw error("is \(Self.article(self.kind)), where \(Self.article(kind)) is needed") }
  }

  private static func article(_ kind: Kind) -> String {
    switch kind {
    case .object, .array: "an \(kind.rawValue)"
    case .null: "null"
    default: "a \(kind.rawValue)"
    }
  }

  // MARK: Scalars

  public func string() throws(ModelError) -> String {
    try expect(.string)
    return JSONEscape.decodedString(document.bytes, quote: start)
  }

  /// The string's UTF-8, without a copy where it has no escapes.
  func withUTF8<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
    try Self.withContent(document.bytes, quote: start, body)
  }

  static func withContent<R, E: Error>(
    _ bytes: UnsafeRawBufferPointer, quote: Int, _ body: (UnsafeRawBufferPointer) throws(E) -> R
  ) throws(E) -> R {
    let (range, escaped) = JSONEscape.content(bytes, quote: quote)
    guard escaped else { return try body(UnsafeRawBufferPointer(rebasing: bytes[range])) }
    return try JSONEscape.decoded(bytes, range).withUnsafeBufferPointer { (decoded) throws(E) in
      try body(UnsafeRawBufferPointer(decoded))
    }
  }

  public func bool() throws(ModelError) -> Bool {
    try expect(.bool)
    return document.bytes[start] == UInt8(ascii: "t")
  }

  /// The number, when it is written as an integer and fits an `Int`; `1.0` and `1e3` are not integers here.
  public func int() throws(ModelError) -> Int {
    try expect(.number)
    let bytes = document.bytes
    let negative = bytes[start] == UInt8(ascii: "-")
    var position = negative ? start + 1 : start
    var value = 0
    while position < bytes.count, bytes[position] &- UInt8(ascii: "0") < 10 {
      let digit = Int(bytes[position] - UInt8(ascii: "0"))
      let (product, overflow) = value.multipliedReportingOverflow(by: 10)
      // Towards the sign, so that Int.min is read too.
      let (sum, overflow2) =
        negative ? product.subtractingReportingOverflow(digit) : product.addingReportingOverflow(digit)
      if overflow || overflow2 { throw error("is an integer that does not fit 64 bits") }
      value = sum
      position += 1
    }
    if isNegativeInfinity { throw error("is not an integer") }
    if position < bytes.count, bytes[position] == UInt8(ascii: ".") || bytes[position] | 0x20 == UInt8(ascii: "e") {
      throw error("is not an integer")
    }
    return value
  }

  /// Whether the value is `-Infinity`, in a document that allows it.
  package var isNegativeInfinity: Bool {
    kind == .number && start + 1 < document.bytes.count && document.bytes[start + 1] == UInt8(ascii: "I")
  }

  /// The integer, when it is in `range`.
  public func int(in range: ClosedRange<Int>) throws(ModelError) -> Int {
    let value = try int()
    guard range.contains(value) else {
      throw error("is \(value), outside \(range.lowerBound)...\(range.upperBound)")
    }
    return value
  }

  /// The number, rounded to the nearest `Double`; one too large for a `Double` is refused.
  public func double() throws(ModelError) -> Double {
    try expect(.number)
    var end = start
    while end < document.bytes.count, Self.isNumberByte(document.bytes[end]) { end += 1 }
    let text = String(decoding: UnsafeRawBufferPointer(rebasing: document.bytes[start..<end]), as: UTF8.self)
    guard let value = Double(text), value.isFinite else { throw error("is a number that does not fit 64 bits") }
    return value
  }

  private static func isNumberByte(_ byte: UInt8) -> Bool {
    byte &- UInt8(ascii: "0") < 10 || byte | 0x20 == UInt8(ascii: "e") || byte == UInt8(ascii: "-")
      || byte == UInt8(ascii: "+") || byte == UInt8(ascii: ".")
  }

  // MARK: Arrays and objects

  /// The number of elements or members; 0 for other kinds.
  public var count: Int {
    let isObject = kind == .object
    guard isObject || kind == .array else { return 0 }
    let end = document.end(index)
    var child = index + 2
    var count = 0
    while child < end {
      child = document.end(isObject ? child + 1 : child)
      count += 1
    }
    return count
  }

  /// Calls `body` with each element of an array, in order.
  public func forEachElement(_ body: (JSONValue) throws(ModelError) -> Void) throws(ModelError) {
    try expect(.array)
    let end = document.end(index)
    var child = index + 2
    while child < end {
      try body(JSONValue(document: document, index: child))
      child = document.end(child)
    }
  }

  /// Calls `body` with each key and value of an object, in the order of the file.
  public func forEachMember(_ body: (String, JSONValue) throws(ModelError) -> Void) throws(ModelError) {
    try forEachRawMember { (quote, value) throws(ModelError) in
      try body(JSONEscape.decodedString(document.bytes, quote: quote), value)
    }
  }

  /// As `forEachMember`, with the offset of the key's opening quote in place of the key.
  func forEachRawMember(_ body: (Int, JSONValue) throws(ModelError) -> Void) throws(ModelError) {
    try expect(.object)
    let end = document.end(index)
    var child = index + 2
    while child < end {
      try body(Int(document.tape.words[child]), JSONValue(document: document, index: child + 1))
      child = document.end(child + 1)
    }
  }

  /// The member named `key`, or nil when there is none or it is null. Takes time linear in the object.
  public func optional(_ key: String) throws(ModelError) -> JSONValue? {
    guard let value = try member(key), !value.isNull else { return nil }
    return value
  }

  /// The member named `key`, which must be there.
  public func required(_ key: String) throws(ModelError) -> JSONValue {
    guard let value = try member(key) else {
      let own = field
      throw ModelError(
        file: document.file, field: own.isEmpty ? key : own + "." + key, offset: offset, reason: "is missing")
    }
    return value
  }

  /// The member named `key`, null or not.
  func member(_ key: String) throws(ModelError) -> JSONValue? {
    try expect(.object)
    let end = document.end(index)
    var child = index + 2
    while child < end {
      let matches = Self.withContent(document.bytes, quote: Int(document.tape.words[child])) { content in
        content.elementsEqual(key.utf8)
      }
      if matches { return JSONValue(document: document, index: child + 1) }
      child = document.end(child + 1)
    }
    return nil
  }

  /// Refuses, by name, a member that is not one of `known`.
  func expectOnly(_ known: [String]) throws(ModelError) {
    try forEachMember { (key, value) throws(ModelError) in
      guard known.contains(where: { UTF8Key($0) == UTF8Key(key) }) else {
        throw value.error(
          "is not a field that Quern knows here; the fields it reads are \(known.joined(separator: ", "))")
      }
    }
  }
}

extension JSONValue {
  /// The string's UTF-8; a value of another kind is refused.
  @inline(__always)
  func withBytes<R>(_ body: (UnsafeBufferPointer<UInt8>) throws(ModelError) -> R) throws(ModelError) -> R {
    guard kind == .string else {
      _ = try string()
      throw error("is not a string")
    }
    return try withUTF8 { (raw) throws(ModelError) in
      // Memory of a file is bound to no other type.
      try body(UnsafeBufferPointer(start: raw.baseAddress?.assumingMemoryBound(to: UInt8.self), count: raw.count))
    }
  }

  /// The two elements of an array of two.
  var pair: (JSONValue, JSONValue)? {
    guard kind == .array else { return nil }
    let end = document.end(index)
    let first = index + 2
    guard first < end else { return nil }
    let second = document.end(first)
    guard second < end, document.end(second) == end else { return nil }
    return (JSONValue(document: document, index: first), JSONValue(document: document, index: second))
  }
}

/// The one reader of bytes that every parser here shares: each step is checked against the end of the buffer,
/// and each error carries the byte of the file it is about.
///
/// The buffer must outlive the cursor; the cursor never leaves the module.
struct ByteCursor {
  let file: String
  let bytes: UnsafeRawBufferPointer
  /// The byte of the file that `bytes[0]` is.
  let baseOffset: Int
  private(set) var position = 0
  /// Where the buffer would have to end for the last step that found it too short.
  private(set) var neededCount: Int?

  init(file: String, bytes: UnsafeRawBufferPointer, baseOffset: Int = 0) {
    self.file = file
    self.bytes = bytes
    self.baseOffset = baseOffset
  }

  /// The byte of the file that is read next.
  var offset: Int { baseOffset &+ position }

  var isAtEnd: Bool { position == bytes.count }

  @inline(__always)
  func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

  /// Moves one byte on; stays where it is at the end.
  @inline(__always)
  mutating func skipByte() { if position < bytes.count { position &+= 1 } }

  /// Goes to `position`, kept inside the buffer.
  @inline(__always)
  mutating func move(to position: Int) { self.position = min(max(position, 0), bytes.count) }

  /// The next little-endian integer.
  mutating func integer<T: FixedWidthInteger>(_: T.Type, field: @autoclosure () -> String) throws(ModelError) -> T {
    let slice = try self.slice(count: MemoryLayout<T>.size, field: field())
    return T(littleEndian: slice.loadUnaligned(as: T.self))
  }

  /// The next `count` bytes.
  mutating func slice(count: Int, field: @autoclosure () -> String) throws(ModelError) -> UnsafeRawBufferPointer {
    guard count >= 0, count <= bytes.count - position else {
      if count >= 0 { neededCount = position.addingReportingOverflow(count).overflow ? .max : position + count }
      throw error(
        field: field(), "needs \(count) bytes but only \(bytes.count - position) are left; the file is cut short")
    }
    let slice = UnsafeRawBufferPointer(rebasing: bytes[position..<position + count])
    position += count
    return slice
  }

  func error(field: String, _ reason: String) -> ModelError {
    ModelError(file: file, field: field, offset: offset, reason: reason)
  }
}

/// Arithmetic on values that came from a file: the sum or product, or the given error when it does not fit.
enum Checked {
  @inline(__always)
  static func add(_ a: Int, _ b: Int, orThrow error: @autoclosure () -> ModelError) throws(ModelError) -> Int {
    let (sum, overflow) = a.addingReportingOverflow(b)
    if overflow { throw error() }
    return sum
  }

  @inline(__always)
  static func multiply(_ a: Int, _ b: Int, orThrow error: @autoclosure () -> ModelError) throws(ModelError) -> Int {
    let (product, overflow) = a.multipliedReportingOverflow(by: b)
    if overflow { throw error() }
    return product
  }
}

/// A name compared byte for byte. `String` equality is canonical equivalence, under which two different
/// names of a file can be one key.
struct UTF8Key: Hashable, Sendable, Comparable {
  let name: String

  init(_ name: String) { self.name = name }

  static func == (a: UTF8Key, b: UTF8Key) -> Bool { a.name.utf8.elementsEqual(b.name.utf8) }

  static func < (a: UTF8Key, b: UTF8Key) -> Bool { a.name.utf8.lexicographicallyPrecedes(b.name.utf8) }

  func hash(into hasher: inout Hasher) {
    var copy = name
    copy.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    hasher.combine(name.utf8.count)
  }
}

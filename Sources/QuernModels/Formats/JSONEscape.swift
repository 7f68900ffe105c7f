/// The escapes of JSON strings (RFC 8259, section 7).
enum JSONEscape {
  /// The scalar that the escape at `position` (a backslash) stands for and the bytes it takes, or nil when it is
  /// not one: an unknown letter, fewer than four digits, or a surrogate that is not half of a pair.
  static func decode(_ bytes: UnsafeRawBufferPointer, _ position: Int) -> (scalar: Unicode.Scalar, length: Int)? {
    guard position + 1 < bytes.count else { return nil }
    switch bytes[position + 1] {
    case UInt8(ascii: "\""): return ("\"", 2)
    case UInt8(ascii: "\\"): return ("\\", 2)
    case UInt8(ascii: "/"): return ("/", 2)
    case UInt8(ascii: "b"): return ("\u{8}", 2)
    case UInt8(ascii: "f"): return ("\u{C}", 2)
    case UInt8(ascii: "n"): return ("\n", 2)
    case UInt8(ascii: "r"): return ("\r", 2)
    case UInt8(ascii: "t"): return ("\t", 2)
    case UInt8(ascii: "u"): break
    default: return nil
    }
    guard let first = hex4(bytes, position + 2) else { return nil }
    if let scalar = Unicode.Scalar(first) { return (scalar, 6) }
    guard first < 0xDC00, position + 7 < bytes.count,
      bytes[position + 6] == UInt8(ascii: "\\"), bytes[position + 7] == UInt8(ascii: "u"),
      let second = hex4(bytes, position + 8), second >= 0xDC00, second < 0xE000,
      let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
    else { return nil }
    return (scalar, 12)
  }

  private static func hex4(_ bytes: UnsafeRawBufferPointer, _ position: Int) -> UInt32? {
    guard bytes.count - position >= 4 else { return nil }
    var value: UInt32 = 0
    for index in position..<position + 4 {
      let byte = bytes[index]
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
      default: return nil
      }
      value = value << 4 | UInt32(digit)
    }
    return value
  }

  /// The bytes between the quotes of the string that begins at `quote`, and whether any of them is a backslash.
  @inline(__always)
  static func content(_ bytes: UnsafeRawBufferPointer, quote: Int) -> (range: Range<Int>, escaped: Bool) {
    var position = quote &+ 1
    var escaped = false
    while position < bytes.count {
      let byte = bytes[position]
      if byte == UInt8(ascii: "\"") { break }
      if byte == UInt8(ascii: "\\") {
        escaped = true
        position &+= 1
      }
      position &+= 1
    }
    return (quote &+ 1..<max(quote &+ 1, min(position, bytes.count)), escaped)
  }

  /// The UTF-8 of the content `range` with its escapes replaced.
  static func decoded(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> [UInt8] {
    var result: [UInt8] = []
    var position = range.lowerBound
    while position < range.upperBound {
      if bytes[position] == UInt8(ascii: "\\"), let (scalar, length) = decode(bytes, position) {
        result.append(contentsOf: UTF8.encode(scalar)!)
        position += length
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return result
  }

  /// The string that begins at `quote`, cut to about `limit` bytes.
  static func decodedString(_ bytes: UnsafeRawBufferPointer, quote: Int, limit: Int = .max) -> String {
    let (range, escaped) = content(bytes, quote: quote)
    let cut = limit < range.count ? range.lowerBound..<range.lowerBound + limit : range
    return escaped
      ? String(decoding: decoded(bytes, cut), as: UTF8.self)
      : String(decoding: UnsafeRawBufferPointer(rebasing: bytes[cut]), as: UTF8.self)
  }
}

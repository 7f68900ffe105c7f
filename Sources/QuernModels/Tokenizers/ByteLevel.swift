/// GPT-2's alphabet: each byte is a printable character, so that a vocabulary is text. Printable Latin-1 characters
/// stand for themselves, the other 68 bytes for U+0100 and those after it.
enum ByteLevel {
  private static func isItself(_ byte: UInt8) -> Bool {
    (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
  }

  /// The scalar of each byte.
  static let scalars: [UInt32] = {
    var next: UInt32 = 0x100
    return (0...255).map { (value: Int) -> UInt32 in
      if isItself(UInt8(value)) { return UInt32(value) }
      defer { next += 1 }
      return next
    }
  }()

  /// The byte of each scalar below U+0144, or -1.
  static let bytes: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x144)
    for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
    return table
  }()

  /// The UTF-8 of each byte's scalar, in the low bytes, and its length in the highest.
  private static let encoded: [UInt32] = scalars.map { scalar in
    scalar < 0x80 ? 1 << 24 | scalar : 2 << 24 | (0x80 | scalar & 0x3F) << 8 | 0xC0 | scalar >> 6
  }

  static func append(_ input: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) {
    encoded.withUnsafeBufferPointer { encoded in
      for byte in input {
        let entry = encoded[Int(byte)]
        output.append(UInt8(truncatingIfNeeded: entry))
        if entry >> 24 == 2 { output.append(UInt8(truncatingIfNeeded: entry >> 8)) }
      }
    }
  }

  /// Appends the bytes that a token stands for, or the token itself where a character of it is none of the alphabet.
  static func appendBytes(of token: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) {
    let start = output.count
    bytes.withUnsafeBufferPointer { table in
      var position = 0
      while position < token.count {
        let (scalar, length) = ScalarReader.next(token, position)
        let byte = scalar < 0x144 ? table[Int(scalar)] : -1
        if byte < 0 {
          output.removeLast(output.count - start)
          output.append(contentsOf: token)
          return
        }
        output.append(UInt8(truncatingIfNeeded: byte))
        position &+= length
      }
    }
  }
}

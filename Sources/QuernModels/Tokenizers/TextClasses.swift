/// The classes of Unicode scalars that the regular expressions of tokenizer files tell apart.
final class TextClasses: Sendable {
  static let shared = TextClasses()

  /// `Lu`, `Lt`; with `lower`, a letter without case: `Lm`, `Lo`.
  static let upper: UInt8 = 1
  /// `Ll`; with `upper`, a letter without case.
  static let lower: UInt8 = 2
  static let mark: UInt8 = 4
  /// `\p{N}`.
  static let number: UInt8 = 8
  /// What the `Digits` pre-tokenizer takes for a digit: `\p{N}` of a newer Unicode version.
  static let digit: UInt8 = 16
  static let punctuation: UInt8 = 32
  static let symbol: UInt8 = 64
  /// `\s`.
  static let space: UInt8 = 128
  static let letter = upper | lower

  private let classes: [UInt8]

  private init() {
    var classes = [UInt8](repeating: 0, count: 0x110000)
    let text = UnsafeBufferPointer(
      start: TextTables.classes.utf8Start, count: TextTables.classes.utf8CodeUnitCount)
    var scalar = 0
    var value: UInt8 = 0
    var length = 0
    func endRun() {
      let end = min(classes.count, scalar &+ max(length, 1))
      if value != 0 { for index in scalar..<end { classes[index] = value } }
      scalar = end
      length = 0
    }
    var isFirst = true
    for byte in text where byte > 0x20 {
      if let digit = Self.hexadecimal(byte) {
        length = length &* 16 &+ digit
        continue
      }
      if !isFirst { endRun() }
      isFirst = false
      value =
        switch byte {
        case UInt8(ascii: "u"): Self.upper
        case UInt8(ascii: "l"): Self.lower
        case UInt8(ascii: "x"): Self.letter
        case UInt8(ascii: "m"): Self.mark
        case UInt8(ascii: "n"): Self.number | Self.digit
        case UInt8(ascii: "r"): Self.digit
        case UInt8(ascii: "p"): Self.punctuation
        case UInt8(ascii: "s"): Self.symbol
        case UInt8(ascii: "w"): Self.space
        default: 0
        }
    }
    endRun()
    self.classes = classes
  }

  private static func hexadecimal(_ byte: UInt8) -> Int? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): Int(byte &- UInt8(ascii: "0"))
    case UInt8(ascii: "A")...UInt8(ascii: "F"): Int(byte &- UInt8(ascii: "A")) &+ 10
    default: nil
    }
  }

  @inline(__always)
  subscript(_ scalar: UInt32) -> UInt8 { classes[Int(scalar)] }
}

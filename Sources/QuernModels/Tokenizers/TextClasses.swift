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
  /// Where `\w` is not just letters, marks and numbers, and where `StripAccents` is not just marks.
  private let exceptions: [UInt32: UInt8]
  private static let wordException: UInt8 = 1
  private static let accentException: UInt8 = 2

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
    var exceptions: [UInt32: UInt8] = [:]
    for (table, bit) in [
      (TextTables.words, Self.wordException), (TextTables.accents, Self.accentException),
    ] {
      let bytes = UnsafeBufferPointer(start: table.utf8Start, count: table.utf8CodeUnitCount)
      for word in bytes.split(whereSeparator: { $0 <= 0x20 }) {
        let ends = word.split(separator: UInt8(ascii: "-")).map { digits in
          digits.reduce(UInt32(0)) { $0 &* 16 &+ UInt32(Self.hexadecimal($1) ?? 0) }
        }
        for scalar in ends[0]...ends[ends.count - 1] { exceptions[scalar, default: 0] |= bit }
      }
    }
    self.exceptions = exceptions
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

  /// `\w`.
  func isWord(_ scalar: UInt32) -> Bool {
    let holds = self[scalar] & (Self.letter | Self.mark | Self.number) != 0
    if scalar < 0x80 { return holds || scalar == 0x5F }
    return holds != (exceptions[scalar, default: 0] & Self.wordException != 0)
  }

  /// What the `StripAccents` normalizer drops.
  func isAccent(_ scalar: UInt32) -> Bool {
    if scalar < 0x300 { return false }
    return (self[scalar] & Self.mark != 0) != (exceptions[scalar, default: 0] & Self.accentException != 0)
  }
}

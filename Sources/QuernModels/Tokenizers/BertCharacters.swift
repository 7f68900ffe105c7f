/// `BertCharacterTables` in a form that is quick to look things up in.
final class BertCharacters: Sendable {
  static let shared = BertCharacters()

  struct Class: OptionSet {
    let rawValue: UInt8
    static let removed = Class(rawValue: 1)
    static let whitespace = Class(rawValue: 2)
    static let punctuation = Class(rawValue: 4)
    static let chinese = Class(rawValue: 8)
    static let mark = Class(rawValue: 16)
    /// A mark that canonical ordering does not cross, or a scalar that is no mark here but is moved by it.
    static let ordering = Class(rawValue: 32)
    static let decomposes = Class(rawValue: 64)
    static let lowercases = Class(rawValue: 128)
  }

  /// Above this no scalar has a lower case.
  private static let lowercaseEnd: UInt32 = 0x1EA00
  private static let decompositionEnd = 0x30000

  private let classes: [UInt8]
  private let lowercase: [UInt32]
  private let combiningClasses: [UInt32: UInt8]
  /// For each scalar that decomposes, where in `targets` its count and then its parts are.
  private let decompositions: [UInt16]
  private let targets: [UInt32]

  private init() {
    var classes = [UInt8](repeating: 0, count: 0x110000)
    func set(_ bit: Class, _ first: UInt32, _ last: UInt32) {
      for scalar in first...last { classes[Int(scalar)] |= bit.rawValue }
    }
    let ranges: [(StaticString, Class)] = [
      (BertCharacterTables.removed, .removed), (BertCharacterTables.whitespace, .whitespace),
      (BertCharacterTables.punctuation, .punctuation), (BertCharacterTables.chinese, .chinese),
      (BertCharacterTables.marks, .mark), (BertCharacterTables.startingMarks, .ordering),
    ]
    for (text, bit) in ranges {
      Self.forEachWord(text) { numbers in set(bit, numbers[0], numbers[numbers.count - 1]) }
    }
    var combiningClasses: [UInt32: UInt8] = [:]
    Self.forEachWord(BertCharacterTables.combining, secondIsDecimal: true) { numbers in
      combiningClasses[numbers[0]] = UInt8(numbers[1])
      set(.ordering, numbers[0], numbers[0])
    }
    var decompositions = [UInt16](repeating: 0, count: Self.decompositionEnd)
    var targets: [UInt32] = []
    Self.forEachWord(BertCharacterTables.decompositions) { numbers in
      decompositions[Int(numbers[0])] = UInt16(targets.count)
      targets.append(UInt32(numbers.count - 1))
      targets.append(contentsOf: numbers.dropFirst())
      set(.decomposes, numbers[0], numbers[0])
    }
    set(.decomposes, 0xAC00, 0xD7A3)
    var lowercase = [UInt32](repeating: 0, count: Int(Self.lowercaseEnd))
    for value in 0..<Self.lowercaseEnd {
      guard let scalar = Unicode.Scalar(value), scalar.properties.changesWhenLowercased else { continue }
      let mapping = scalar.properties.lowercaseMapping.unicodeScalars
      guard let first = mapping.first, mapping.count > 1 || first != scalar else { continue }
      lowercase[Int(value)] = first.value
      set(.lowercases, value, value)
    }
    self.classes = classes
    self.lowercase = lowercase
    self.combiningClasses = combiningClasses
    self.decompositions = decompositions
    self.targets = targets
  }

  /// Calls `body` with the numbers of each word of a table: hexadecimal, split at `-`, `:`, `=` and `+`.
  private static func forEachWord(_ text: StaticString, secondIsDecimal: Bool = false, _ body: ([UInt32]) -> Void) {
    var numbers: [UInt32] = [0]
    let bytes = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    for byte in bytes {
      let radix: UInt32 = secondIsDecimal && numbers.count > 1 ? 10 : 16
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"):
        numbers[numbers.count - 1] = numbers[numbers.count - 1] &* radix &+ UInt32(byte &- UInt8(ascii: "0"))
      case UInt8(ascii: "A")...UInt8(ascii: "F"):
        numbers[numbers.count - 1] = numbers[numbers.count - 1] &* radix &+ UInt32(byte &- UInt8(ascii: "A") &+ 10)
      case UInt8(ascii: " "), UInt8(ascii: "\n"):
        body(numbers)
        numbers = [0]
      default: numbers.append(0)
      }
    }
    body(numbers)
  }

  @inline(__always)
  func classes(_ scalar: UInt32) -> Class { Class(rawValue: classes[Int(scalar)]) }

  /// The first scalar of the lower case of a scalar that has one. Only U+0130 has a second, U+0307.
  @inline(__always)
  func lowercase(_ scalar: UInt32) -> UInt32 { lowercase[Int(scalar)] }

  func combiningClass(_ scalar: UInt32) -> UInt8 { combiningClasses[scalar] ?? 0 }

  /// What accent stripping leaves of a scalar that decomposes.
  @inline(__always)
  func forEachPart(_ scalar: UInt32, _ body: (UInt32) -> Void) {
    if scalar >= 0xAC00 && scalar <= 0xD7A3 {
      // The Unicode Standard, section 3.12: leading, vowel and trailing jamo of a Hangul syllable.
      let index = scalar - 0xAC00
      body(0x1100 + index / 588)
      body(0x1161 + index % 588 / 28)
      if index % 28 != 0 { body(0x11A7 + index % 28) }
      return
    }
    let start = Int(decompositions[Int(scalar)])
    let count = Int(targets[start])
    for index in start &+ 1...start &+ count { body(targets[index]) }
  }
}

/// Walking UTF-8 that is known to be well formed.
package enum ScalarReader {
  /// The scalar at `position` and its length in bytes.
  @inline(__always)
  static func next(_ bytes: UnsafeBufferPointer<UInt8>, _ position: Int) -> (scalar: UInt32, length: Int) {
    let lead = UInt32(bytes[position])
    func tail(_ index: Int) -> UInt32 { UInt32(bytes[position &+ index]) & 0x3F }
    if lead < 0x80 { return (lead, 1) }
    if lead < 0xE0 { return ((lead & 0x1F) << 6 | tail(1), 2) }
    if lead < 0xF0 { return ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3) }
    return ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4)
  }

  /// The scalar that ends just before `position`, which is not 0.
  static func previous(_ bytes: UnsafeBufferPointer<UInt8>, _ position: Int) -> (scalar: UInt32, length: Int) {
    var start = position - 1
    while start > 0, bytes[start] & 0xC0 == 0x80 { start -= 1 }
    return next(bytes, start)
  }

  @inline(__always)
  package static func append(_ scalar: UInt32, to output: inout [UInt8]) {
    if scalar < 0x80 {
      output.append(UInt8(truncatingIfNeeded: scalar))
    } else if scalar < 0x800 {
      output.append(UInt8(truncatingIfNeeded: 0xC0 | scalar >> 6))
      output.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    } else if scalar < 0x10000 {
      output.append(UInt8(truncatingIfNeeded: 0xE0 | scalar >> 12))
      output.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3F))
      output.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    } else {
      output.append(UInt8(truncatingIfNeeded: 0xF0 | scalar >> 18))
      output.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 12 & 0x3F))
      output.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3F))
      output.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    }
  }
}

/// The `BertNormalizer` and `Lowercase` normalisers of `tokenizer.json`, in one pass over the text.
///
/// Its four steps, in the order of Hugging Face tokenizers: clean, set off Chinese characters, strip accents
/// (canonical decomposition, then nonspacing marks dropped), lower-case.
package struct BertNormalizer: Sendable {
  let cleanText: Bool
  let handleChineseChars: Bool
  let stripAccents: Bool
  let lowercase: Bool
  /// For each ASCII byte what it becomes; 0xFF drops it.
  private let ascii: [UInt8]
  private let characters = BertCharacters.shared

  package init(cleanText: Bool, handleChineseChars: Bool, stripAccents: Bool, lowercase: Bool) {
    self.cleanText = cleanText
    self.handleChineseChars = handleChineseChars
    self.stripAccents = stripAccents
    self.lowercase = lowercase
    ascii = (0..<128).map { (byte: UInt8) -> UInt8 in
      let classes = BertCharacters.shared.classes(UInt32(byte))
      if cleanText && classes.contains(.removed) { return 0xFF }
      if cleanText && classes.contains(.whitespace) { return UInt8(ascii: " ") }
      return lowercase && byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte
    }
  }

  /// Appends the normalised `input`, which is well-formed UTF-8, to `output`.
  package func normalize(_ input: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
    var moving = MovingScalars()
    output.reserveCapacity(output.count + input.count)
    ascii.withUnsafeBufferPointer { ascii in
      var position = 0
      while position < input.count {
        let byte = input[position]
        if byte < 0x80 {
          position &+= 1
          let mapped = ascii[Int(byte)]
          if mapped != 0xFF {
            if !moving.isEmpty { flush(&moving, &output) }
            output.append(mapped)
          }
          continue
        }
        let (scalar, length) = ScalarReader.next(input, position)
        position &+= length
        normalize(scalar, &moving, &output)
      }
    }
    if !moving.isEmpty { flush(&moving, &output) }
  }

  private func normalize(_ scalar: UInt32, _ moving: inout MovingScalars, _ output: inout [UInt8]) {
    let classes = characters.classes(scalar)
    if cleanText {
      if classes.contains(.removed) { return }
      if classes.contains(.whitespace) {
        flush(&moving, &output)
        output.append(UInt8(ascii: " "))
        return
      }
    }
    let isSetOff = handleChineseChars && classes.contains(.chinese)
    if isSetOff {
      flush(&moving, &output)
      output.append(UInt8(ascii: " "))
    }
    if !stripAccents {
      append(scalar, classes, &output)
    } else if classes.contains(.mark) {
      if classes.contains(.ordering) { flush(&moving, &output) }
    } else if classes.contains(.decomposes) {
      characters.forEachPart(scalar) { part in place(part, characters.classes(part), &moving, &output) }
    } else {
      place(scalar, classes, &moving, &output)
    }
    if isSetOff {
      flush(&moving, &output)
      output.append(UInt8(ascii: " "))
    }
  }

  /// Puts a decomposed scalar that is kept where canonical ordering wants it.
  @inline(__always)
  private func place(
    _ scalar: UInt32, _ classes: BertCharacters.Class, _ moving: inout MovingScalars, _ output: inout [UInt8]
  ) {
    if classes.contains(.ordering) {
      moving.append(scalar, characters.combiningClass(scalar))
    } else {
      if !moving.isEmpty { flush(&moving, &output) }
      append(scalar, classes, &output)
    }
  }

  private func flush(_ moving: inout MovingScalars, _ output: inout [UInt8]) {
    moving.drain { scalar in append(scalar, characters.classes(scalar), &output) }
  }

  @inline(__always)
  private func append(_ scalar: UInt32, _ classes: BertCharacters.Class, _ output: inout [UInt8]) {
    guard lowercase && classes.contains(.lowercases) else { return ScalarReader.append(scalar, to: &output) }
    ScalarReader.append(characters.lowercase(scalar), to: &output)
    if scalar == 0x130 { ScalarReader.append(0x307, to: &output) }
  }
}

/// Scalars between two starters, which canonical ordering sorts by combining class, equals in order.
private struct MovingScalars {
  private var scalars: [(combiningClass: UInt8, place: Int, scalar: UInt32)] = []

  @inline(__always)
  var isEmpty: Bool { scalars.isEmpty }

  mutating func append(_ scalar: UInt32, _ combiningClass: UInt8) {
    scalars.append((combiningClass, scalars.count, scalar))
  }

  mutating func drain(_ body: (UInt32) -> Void) {
    if scalars.isEmpty { return }
    // Not by insertion: a hostile text has a million of these in a row.
    scalars.sort { ($0.combiningClass, $0.place) < ($1.combiningClass, $1.place) }
    for entry in scalars { body(entry.scalar) }
    scalars.removeAll(keepingCapacity: true)
  }
}

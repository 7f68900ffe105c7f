/// Unicode normal forms (Standard Annex 15), of the Unicode version that Hugging Face tokenizers knows.
enum NormalForm: Sendable {
  case nfc, nfd, nfkc, nfkd

  private var isCompatible: Bool { self == .nfkc || self == .nfkd }
  private var composes: Bool { self == .nfc || self == .nfkc }

  /// Appends the normal form of `input`, which is well-formed UTF-8, to `output`.
  func normalize(_ input: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
    let data = NormalFormData.shared
    let changing = self.changing
    var start = 0
    while start < input.count {
      // Up to the first scalar that may change, and back to the starter before it.
      var position = start
      var starter = start
      while position < input.count {
        let (scalar, length) = ScalarReader.next(input, position)
        if data.flags[Int(scalar)] & changing != 0 { break }
        starter = position
        position &+= length
      }
      guard position < input.count else { break }
      output.append(contentsOf: input[start..<starter])
      // A segment ends before a scalar that nothing can change, as that is a starter.
      var end = position
      while end < input.count {
        let (scalar, length) = ScalarReader.next(input, end)
        if data.flags[Int(scalar)] & changing == 0 { break }
        end &+= length
      }
      normalizeSegment(UnsafeBufferPointer(rebasing: input[starter..<end]), data, &output)
      start = end
    }
    if start < input.count { output.append(contentsOf: input[start...]) }
  }

  private var changing: UInt8 {
    let moves = NormalFormData.moves
    return switch self {
    case .nfc: moves | NormalFormData.composesBack | NormalFormData.changesCanonically
    case .nfd: moves | NormalFormData.decomposes
    case .nfkc:
      moves | NormalFormData.composesBack | NormalFormData.changesCanonically | NormalFormData.decomposesCompatibly
    case .nfkd: moves | NormalFormData.decomposes | NormalFormData.decomposesCompatibly
    }
  }

  private func normalizeSegment(
    _ input: UnsafeBufferPointer<UInt8>, _ data: NormalFormData, _ output: inout [UInt8]
  ) {
    var scalars: [(scalar: UInt32, combining: UInt8)] = []
    scalars.reserveCapacity(input.count)
    var position = 0
    while position < input.count {
      let (scalar, length) = ScalarReader.next(input, position)
      position &+= length
      data.decompose(scalar, compatible: isCompatible) { scalars.append(($0, data.combining[$0] ?? 0)) }
    }
    Self.order(&scalars)
    if composes { Self.compose(&scalars, data) }
    for entry in scalars { ScalarReader.append(entry.scalar, to: &output) }
  }

  /// Sorts each run of scalars that are no starters by combining class, equals in order.
  private static func order(_ scalars: inout [(scalar: UInt32, combining: UInt8)]) {
    var start = 0
    while start < scalars.count {
      guard scalars[start].combining != 0 else {
        start += 1
        continue
      }
      var end = start
      var isSorted = true
      while end < scalars.count, scalars[end].combining != 0 {
        if end > start && scalars[end].combining < scalars[end - 1].combining { isSorted = false }
        end += 1
      }
      if !isSorted {
        // By counting: a hostile text has a million of these in a row.
        var places = [Int](repeating: 0, count: 257)
        for index in start..<end { places[Int(scalars[index].combining) + 1] += 1 }
        for value in 1...256 { places[value] += places[value - 1] }
        let run = Array(scalars[start..<end])
        for entry in run {
          scalars[start + places[Int(entry.combining)]] = entry
          places[Int(entry.combining)] += 1
        }
      }
      start = end
    }
  }

  private static func compose(_ scalars: inout [(scalar: UInt32, combining: UInt8)], _ data: NormalFormData) {
    var count = 0
    var starter = -1
    var previous: UInt8 = 0
    for entry in scalars {
      // Blocked where something between has the same class or is a starter too.
      let isNext = starter >= 0 && starter == count - 1
      if starter >= 0, isNext || previous < entry.combining,
        let composite = data.composite(scalars[starter].scalar, entry.scalar)
      {
        scalars[starter].scalar = composite
        continue
      }
      if entry.combining == 0 { starter = count }
      previous = entry.combining
      scalars[count] = entry
      count += 1
    }
    scalars.removeLast(scalars.count - count)
  }
}

/// `TextTables` in a form that is quick to look things up in.
final class NormalFormData: Sendable {
  static let shared = NormalFormData()

  /// Has a combining class.
  static let moves: UInt8 = 1
  /// Joins the starter before it.
  static let composesBack: UInt8 = 2
  static let decomposes: UInt8 = 4
  /// Decomposes and does not compose to itself again.
  static let changesCanonically: UInt8 = 8
  static let decomposesCompatibly: UInt8 = 16

  let flags: [UInt8]
  let combining: [UInt32: UInt8]
  private let canonical: [UInt32: [UInt32]]
  private let compatible: [UInt32: [UInt32]]
  private let composites: [UInt64: UInt32]

  private init() {
    var flags = [UInt8](repeating: 0, count: 0x110000)
    var combining: [UInt32: UInt8] = [:]
    Self.forEachWord(TextTables.combining) { word in
      let parts = word.split(separator: UInt8(ascii: ":"))
      let ends = parts[0].split(separator: UInt8(ascii: "-")).map(Self.hexadecimal)
      let value = parts[1].reduce(UInt8(0)) { $0 &* 10 &+ ($1 &- UInt8(ascii: "0")) }
      for scalar in ends[0]...ends[ends.count - 1] {
        combining[scalar] = value
        flags[Int(scalar)] |= Self.moves
      }
    }
    var steps: [UInt32: (sign: UInt8, parts: [UInt32])] = [:]
    var composites: [UInt64: UInt32] = [:]
    var scalar: UInt32 = 0
    let signs = [UInt8(ascii: "="), UInt8(ascii: "!"), UInt8(ascii: "~")]
    Self.forEachWord(TextTables.decompositions) { word in
      let place = word.firstIndex { signs.contains($0) } ?? word.startIndex
      scalar = place == word.startIndex ? scalar + 1 : Self.hexadecimal(word[..<place])
      let parts = word[(place + 1)...].split(separator: UInt8(ascii: "+")).map(Self.hexadecimal)
      steps[scalar] = (word[place], parts)
      if word[place] == UInt8(ascii: "=") {
        composites[Self.key(parts[0], parts[1])] = scalar
        flags[Int(parts[1])] |= Self.composesBack
      }
    }
    // The trailing parts of Hangul syllables.
    for jamo in 0x1161...0x1175 { flags[jamo] |= Self.composesBack }
    for jamo in 0x11A8...0x11C2 { flags[jamo] |= Self.composesBack }
    for syllable in 0xAC00...0xD7A3 { flags[syllable] |= Self.decomposes }
    var canonical: [UInt32: [UInt32]] = [:]
    var compatible: [UInt32: [UInt32]] = [:]
    func expand(_ scalar: UInt32, compatibly: Bool) -> [UInt32] {
      guard let (sign, parts) = steps[scalar], compatibly || sign != UInt8(ascii: "~") else { return [scalar] }
      return parts.flatMap { expand($0, compatibly: compatibly) }
    }
    for (scalar, step) in steps {
      let full = expand(scalar, compatibly: false)
      let all = expand(scalar, compatibly: true)
      if step.sign != UInt8(ascii: "~") {
        canonical[scalar] = full
        flags[Int(scalar)] |= Self.decomposes
        if step.sign == UInt8(ascii: "!") { flags[Int(scalar)] |= Self.changesCanonically }
      }
      if all != full {
        compatible[scalar] = all
        flags[Int(scalar)] |= Self.decomposesCompatibly
      }
    }
    self.flags = flags
    self.combining = combining
    self.canonical = canonical
    self.compatible = compatible
    self.composites = composites
  }

  private static func key(_ first: UInt32, _ second: UInt32) -> UInt64 { UInt64(first) << 32 | UInt64(second) }

  private static func hexadecimal(_ digits: some Sequence<UInt8>) -> UInt32 {
    digits.reduce(0) { $0 &* 16 &+ UInt32($1 <= UInt8(ascii: "9") ? $1 &- UInt8(ascii: "0") : $1 &- 55) }
  }

  private static func forEachWord(_ text: StaticString, _ body: (UnsafeBufferPointer<UInt8>.SubSequence) -> Void) {
    let bytes = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
    for word in bytes.split(whereSeparator: { $0 <= 0x20 }) { body(word) }
  }

  func decompose(_ scalar: UInt32, compatible isCompatible: Bool, _ body: (UInt32) -> Void) {
    if scalar >= 0xAC00 && scalar <= 0xD7A3 {
      // The Unicode Standard, section 3.12: leading, vowel and trailing jamo of a Hangul syllable.
      let index = scalar - 0xAC00
      body(0x1100 + index / 588)
      body(0x1161 + index % 588 / 28)
      if index % 28 != 0 { body(0x11A7 + index % 28) }
    } else if isCompatible, let parts = compatible[scalar] {
      parts.forEach(body)
    } else if let parts = canonical[scalar] {
      parts.forEach(body)
    } else {
      body(scalar)
    }
  }

  func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if first >= 0x1100, first <= 0x1112, second >= 0x1161, second <= 0x1175 {
      return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28
    }
    if first >= 0xAC00, first <= 0xD7A3, (first - 0xAC00) % 28 == 0, second >= 0x11A8, second <= 0x11C2 {
      return first + second - 0x11A7
    }
    return composites[Self.key(first, second)]
  }
}

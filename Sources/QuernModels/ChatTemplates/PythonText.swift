/// Methods of strings as Python has them, over code points.
enum PythonText {
  static func isSpace(_ scalar: UnicodeScalar) -> Bool {
    scalar.properties.isWhitespace || scalar.value >= 0x1C && scalar.value <= 0x1F
  }

  enum Side { case left, right, both }

  /// `strip`, `lstrip` and `rstrip`; `characters` are those taken off, white space where it is nil.
  static func strip(_ text: String, _ side: Side = .both, characters: String? = nil) -> String {
    let set = characters.map { Set($0.unicodeScalars) }
    func goes(_ scalar: UnicodeScalar) -> Bool { set?.contains(scalar) ?? isSpace(scalar) }
    var rest = text.unicodeScalars[...]
    if side != .right { rest = rest.drop(while: goes) }
    if side != .left { while let last = rest.last, goes(last) { rest.removeLast() } }
    return String(rest)
  }

  /// Where `part` begins in `text`, from the byte `start` on.
  static func find(_ part: [UInt8], in text: [UInt8], from start: Int = 0) -> Int? {
    guard let first = part.first else { return start }
    if part.count > 32 { return findLong(part, in: text, from: start) }
    var index = start
    while index + part.count <= text.count {
      if text[index] == first, text[index..<index + part.count].elementsEqual(part) { return index }
      index += 1
    }
    return nil
  }

  /// The same by Knuth, Morris and Pratt: linear in the lengths, where false starts could make the plain way quadratic.
  private static func findLong(_ part: [UInt8], in text: [UInt8], from start: Int) -> Int? {
    var borders = [Int32](repeating: 0, count: part.count)
    var matched = 0
    for index in 1..<part.count {
      while matched > 0, part[index] != part[matched] { matched = Int(borders[matched - 1]) }
      if part[index] == part[matched] { matched += 1 }
      borders[index] = Int32(truncatingIfNeeded: matched)
    }
    matched = 0
    for index in text.indices.dropFirst(start) {
      while matched > 0, text[index] != part[matched] { matched = Int(borders[matched - 1]) }
      if text[index] == part[matched] { matched += 1 }
      if matched == part.count { return index + 1 - part.count }
    }
    return nil
  }

  static func contains(_ text: String, _ part: String) -> Bool { find(Array(part.utf8), in: Array(text.utf8)) != nil }

  /// `split`, at white space where `separator` is nil, and `rsplit`; at most `limit` times, where there is a limit.
  static func split(_ text: String, _ separator: String?, limit: Int?, fromEnd: Bool = false) -> [String] {
    guard let separator else { return words(text, limit: limit, fromEnd: fromEnd) }
    let (bytes, part) = (Array(text.utf8), Array(separator.utf8))
    var cuts: [Int] = []
    var index = 0
    while let cut = find(part, in: bytes, from: index) {
      cuts.append(cut)
      index = cut + part.count
    }
    if let limit, cuts.count > limit { cuts = Array(fromEnd ? cuts.suffix(limit) : cuts.prefix(limit)) }
    var parts: [String] = []
    var start = 0
    for cut in cuts {
      parts.append(String(decoding: bytes[start..<cut], as: UTF8.self))
      start = cut + part.count
    }
    return parts + [String(decoding: bytes[start...], as: UTF8.self)]
  }

  private static func words(_ text: String, limit: Int?, fromEnd: Bool) -> [String] {
    let scalars = Array(text.unicodeScalars)
    var words: [Range<Int>] = []
    var start: Int?
    for (index, scalar) in scalars.enumerated() {
      if isSpace(scalar) {
        if let begin = start { words.append(begin..<index) }
        start = nil
      } else if start == nil {
        start = index
      }
    }
    if let begin = start { words.append(begin..<scalars.count) }
    func part(_ range: Range<Int>) -> String { string(of: scalars[range]) }
    guard let limit, words.count > limit else { return words.map(part) }
    // What is not cut keeps the white space at its outer end.
    if fromEnd {
      return [part(0..<words[words.count - limit - 1].upperBound)] + words.suffix(limit).map(part)
    }
    return words.prefix(limit).map(part) + [part(words[limit].lowerBound..<scalars.count)]
  }

  static func string(of scalars: some Sequence<UnicodeScalar>) -> String {
    var view = String.UnicodeScalarView()
    view.append(contentsOf: scalars)
    return String(view)
  }

  /// `replace`; at most `limit` times, where there is a limit.
  static func replace(_ text: String, _ old: String, with new: String, limit: Int?) -> String {
    guard !old.isEmpty else {
      // Before each character, and at the end.
      var result = String.UnicodeScalarView()
      var left = limit ?? .max
      for scalar in text.unicodeScalars {
        if left > 0 { result.append(contentsOf: new.unicodeScalars) }
        left -= left > 0 ? 1 : 0
        result.append(scalar)
      }
      if left > 0 { result.append(contentsOf: new.unicodeScalars) }
      return String(result)
    }
    return split(text, old, limit: limit).joined(separator: new)
  }

  static func hasPrefix(_ text: String, _ prefix: String) -> Bool { text.utf8.starts(with: prefix.utf8) }

  static func hasSuffix(_ text: String, _ suffix: String) -> Bool {
    text.utf8.reversed().starts(with: suffix.utf8.reversed())
  }

  static func capitalized(_ text: String) -> String {
    guard let first = text.unicodeScalars.first else { return "" }
    return first.properties.titlecaseMapping + String(text.unicodeScalars.dropFirst()).lowercased()
  }

  /// The method `title`: a capital after anything that has no case.
  static func title(_ text: String) -> String {
    var result = ""
    var isInside = false
    for scalar in text.unicodeScalars {
      result += isInside ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
      isInside = scalar.properties.isCased
    }
    return result
  }

  /// The filter `title`: a capital at the start and after white space, hyphens and opening brackets.
  static func titleOfWords(_ text: String) -> String {
    var result = ""
    var word = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if isSpace(scalar) || "-({[<".unicodeScalars.contains(scalar) {
        result += capitalized(String(word))
        result.unicodeScalars.append(scalar)
        word = String.UnicodeScalarView()
      } else {
        word.append(scalar)
      }
    }
    return result + capitalized(String(word))
  }

  /// The places that a slice of Python takes of `count`.
  static func slice(_ count: Int, from: Int?, to: Int?, step: Int) -> [Int] {
    func clamped(_ place: Int?, _ missing: Int, _ range: ClosedRange<Int>) -> Int {
      guard let place else { return missing }
      let fromStart = place < 0 ? place.addingReportingOverflow(count).partialValue : place
      return min(max(fromStart, range.lowerBound), range.upperBound)
    }
    let start = step > 0 ? clamped(from, 0, 0...count) : clamped(from, count - 1, -1...count - 1)
    let end = step > 0 ? clamped(to, count, 0...count) : clamped(to, -1, -1...count - 1)
    // A step longer than the whole takes one element, and cannot overflow so.
    let stride = min(max(step, -count - 1), count + 1)
    return Array(Swift.stride(from: start, to: end, by: stride))
  }
}

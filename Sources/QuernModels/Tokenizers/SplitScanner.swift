/// The scanners behind `SplitPattern`. Each gives the end of the match that begins at a place, or -1.
///
/// They follow the alternatives of the regular expressions in order; where one backtracks, the comment says how.
struct SplitScanner {
  private let bytes: UnsafeBufferPointer<UInt8>
  private let classes = TextClasses.shared

  private static let letter = TextClasses.letter
  private static let number = TextClasses.number
  private static let space = TextClasses.space

  private static let ggmlSymbols = Array("$+<=>^~|".utf8)

  init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

  func match(_ pattern: SplitPattern, _ start: Int) -> Int {
    switch pattern {
    case .literal(let text): literal(text, start)
    case .gpt2: gpt2(start)
    case .words(let digits, let marksAreLetters): words(start, digits, marksAreLetters)
    case .cased(let digits, let contractions): cased(start, digits, contractions)
    case .clip(let special): clip(start, special)
    case .deepSeek: deepSeek(start)
    case .numbers(let limit): run(start, Self.number, limit: limit)
    case .threeDigits: threeDigits(start)
    case .ideographs: ideographs(start)
    case .wideIdeographs: wideIdeographs(start)
    case .newline: isNewline(bytes[start]) ? start &+ 1 : -1
    case .spaced(let run): spaced(start, run)
    case .whitespace: run(start, Self.space)
    case .trailingWhitespace: trailingWhitespace(start)
    case .spaces: spaces(start)
    case .wordsAndRest: wordsAndRest(start)
    case .digits(let individual): run(start, TextClasses.digit, limit: individual ? 1 : .max)
    case .space: run(start, Self.space, limit: 1)
    case .punctuation:
      BertCharacters.shared.classes(at(start).scalar).contains(.punctuation) ? at(start).end : -1
    case .ggmlPunctuation:
      at(start).class & TextClasses.punctuation != 0 || Self.ggmlSymbols.contains(bytes[start]) ? at(start).end : -1
    }
  }

  // MARK: Steps

  @inline(__always)
  private func at(_ position: Int) -> (scalar: UInt32, class: UInt8, end: Int) {
    let (scalar, length) = ScalarReader.next(bytes, position)
    return (scalar, classes[scalar], position &+ length)
  }

  @inline(__always)
  private func isNewline(_ byte: UInt8) -> Bool { byte == 0x0A || byte == 0x0D }

  /// The end of the scalars from `start` on that have a class of `mask`, at most `limit` of them, or -1.
  @inline(__always)
  private func run(_ start: Int, _ mask: UInt8, limit: Int = .max) -> Int {
    var position = start
    var count = 0
    while position < bytes.count, count < limit {
      let next = at(position)
      if next.class & mask == 0 { break }
      position = next.end
      count &+= 1
    }
    return count > 0 ? position : -1
  }

  /// The same of the scalars that `isPart` takes, without a limit.
  @inline(__always)
  private func run(_ start: Int, _ isPart: ((scalar: UInt32, class: UInt8, end: Int)) -> Bool) -> Int {
    var position = start
    while position < bytes.count {
      let next = at(position)
      if !isPart(next) { break }
      position = next.end
    }
    return position > start ? position : -1
  }

  /// As `run`, of the scalars that have no class of `mask`.
  @inline(__always)
  private func runWithout(_ start: Int, _ mask: UInt8) -> Int {
    run(start) { $0.class & mask == 0 }
  }

  /// `[\r\n]*`, with `/` too where `slash` says so.
  private func newlines(_ start: Int, slash: Bool = false) -> Int {
    var position = start
    while position < bytes.count, isNewline(bytes[position]) || slash && bytes[position] == UInt8(ascii: "/") {
      position &+= 1
    }
    return position
  }

  private func literal(_ text: [UInt8], _ start: Int) -> Int {
    guard bytes.count &- start >= text.count else { return -1 }
    for index in 0..<text.count where bytes[start &+ index] != text[index] { return -1 }
    return start &+ text.count
  }

  /// `'s|'t|'re|'ve|'m|'ll|'d`. Without regard to case, the long s is an s too.
  private func contraction(_ start: Int, ignoringCase: Bool) -> Int {
    guard start &+ 1 < bytes.count, bytes[start] == UInt8(ascii: "'") else { return -1 }
    let fold: UInt8 = ignoringCase ? 0x20 : 0
    let first = bytes[start &+ 1] | (bytes[start &+ 1] < 0x80 ? fold : 0)
    switch first {
    case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start &+ 2
    case UInt8(ascii: "r"), UInt8(ascii: "v"), UInt8(ascii: "l"):
      guard start &+ 2 < bytes.count else { return -1 }
      let second = bytes[start &+ 2] | fold
      return second == (first == UInt8(ascii: "l") ? UInt8(ascii: "l") : UInt8(ascii: "e")) ? start &+ 3 : -1
    case 0xC5 where ignoringCase && bytes[start &+ 2] == 0xBF: return start &+ 3
    default: return -1
    }
  }

  /// `\s*[\r\n]+|\s+(?!\S)|\s+`, the first only with `newlines`: to the last new line of a run of white space, else
  /// all of it but the last before a word.
  private func whitespace(_ start: Int, newlines: Bool) -> Int {
    var position = start
    var last = start
    var afterNewline = -1
    while position < bytes.count {
      let next = at(position)
      if next.class & Self.space == 0 { break }
      last = position
      position = next.end
      if next.scalar == 0x0A || next.scalar == 0x0D { afterNewline = position }
    }
    if newlines && afterNewline >= 0 { return afterNewline }
    return position == bytes.count || last == start ? position : last
  }

  // MARK: Patterns

  private func gpt2(_ start: Int) -> Int {
    let contracted = contraction(start, ignoringCase: false)
    if contracted >= 0 { return contracted }
    let first = at(start)
    // ` ?` before letters, before numbers and before the rest.
    if first.scalar != 0x20 || first.end == bytes.count {
      return first.class & Self.space != 0 ? whitespace(start, newlines: false) : ofOneKind(start, first.class)
    }
    let second = at(first.end)
    return second.class & Self.space != 0 ? whitespace(start, newlines: false) : ofOneKind(first.end, second.class)
  }

  private func ofOneKind(_ start: Int, _ kind: UInt8) -> Int {
    if kind & Self.letter != 0 { return run(start, Self.letter) }
    if kind & Self.number != 0 { return run(start, Self.number) }
    return runWithout(start, Self.letter | Self.number | Self.space)
  }

  private func words(_ start: Int, _ digits: Int, _ marksAreLetters: Bool) -> Int {
    let contracted = contraction(start, ignoringCase: true)
    if contracted >= 0 { return contracted }
    let letters = marksAreLetters ? Self.letter | TextClasses.mark : Self.letter
    let first = at(start)
    let isPrefix = first.class & (Self.letter | Self.number) == 0 && first.scalar != 0x0A && first.scalar != 0x0D
    if isPrefix {
      let end = run(first.end, letters)
      if end >= 0 { return end }
    }
    if first.class & letters != 0 { return run(start, letters) }
    if first.class & Self.number != 0 { return run(start, Self.number, limit: digits) }
    let end = spacedSymbols(start, first.scalar, first.end, letters | Self.number | Self.space)
    if end >= 0 { return newlines(end) }
    return whitespace(start, newlines: true)
  }

  /// ` ?` and then at least one scalar that has no class of `mask`.
  private func spacedSymbols(_ start: Int, _ scalar: UInt32, _ next: Int, _ mask: UInt8) -> Int {
    runWithout(scalar == 0x20 ? next : start, mask)
  }

  private func cased(_ start: Int, _ digits: Int, _ contractions: Bool) -> Int {
    let first = at(start)
    let isPrefix = first.class & (Self.letter | Self.number) == 0 && first.scalar != 0x0A && first.scalar != 0x0D
    var end = isPrefix ? endingLower(first.end) : -1
    if end < 0 { end = endingLower(start) }
    if end < 0 && isPrefix { end = run(first.end, TextClasses.upper | TextClasses.mark) }
    if end < 0 { end = run(start, TextClasses.upper | TextClasses.mark) }
    if end >= 0 {
      let contracted = contractions ? contraction(end, ignoringCase: true) : -1
      return contracted >= 0 ? contracted : end
    }
    if first.class & Self.number != 0 { return run(start, Self.number, limit: digits) }
    end = spacedSymbols(start, first.scalar, first.end, Self.letter | Self.number | Self.space)
    if end >= 0 { return newlines(end, slash: true) }
    return whitespace(start, newlines: true)
  }

  /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`. The first part takes all it can and gives back only
  /// until the second has one scalar: up to the last that both may have.
  private func endingLower(_ start: Int) -> Int {
    var position = start
    var afterShared = -1
    while position < bytes.count {
      let next = at(position)
      if next.class & (TextClasses.upper | TextClasses.mark) == 0 {
        return next.class & TextClasses.lower != 0 ? run(position, TextClasses.lower | TextClasses.mark) : afterShared
      }
      position = next.end
      if next.class & (TextClasses.lower | TextClasses.mark) != 0 { afterShared = position }
    }
    return afterShared
  }

  private static let startOfText = Array("<|startoftext|>".utf8)
  private static let endOfText = Array("<|endoftext|>".utf8)

  private func clip(_ start: Int, _ special: Bool) -> Int {
    if special {
      let end = max(literal(Self.startOfText, start), literal(Self.endOfText, start))
      if end >= 0 { return end }
    }
    let contracted = contraction(start, ignoringCase: false)
    if contracted >= 0 { return contracted }
    let first = at(start)
    if first.class & Self.letter != 0 { return run(start, Self.letter) }
    if first.class & Self.number != 0 { return first.end }
    return runWithout(start, Self.letter | Self.number | Self.space)
  }

  private func deepSeek(_ start: Int) -> Int {
    let first = at(start)
    if first.scalar > 0x20, first.scalar < 0x7F, first.class & (TextClasses.punctuation | TextClasses.symbol) != 0 {
      var end = first.end
      while end < bytes.count, bytes[end] < 0x80, classes[UInt32(bytes[end])] & Self.letter != 0 { end &+= 1 }
      if end > first.end { return end }
    }
    let word = Self.letter | TextClasses.mark
    let symbols = TextClasses.punctuation | TextClasses.symbol
    if first.class & (Self.letter | symbols) == 0, first.scalar != 0x0A, first.scalar != 0x0D {
      let end = run(first.end, word)
      if end >= 0 { return end }
    }
    if first.class & word != 0 { return run(start, word) }
    let end = run(first.scalar == 0x20 ? first.end : start, symbols)
    if end >= 0 { return newlines(end) }
    return first.class & Self.space != 0 ? whitespace(start, newlines: true) : -1
  }

  private func threeDigits(_ start: Int) -> Int {
    guard bytes.count &- start >= 3 else { return -1 }
    for index in start..<start &+ 3 where bytes[index] &- UInt8(ascii: "0") > 9 { return -1 }
    return start &+ 3
  }

  private func ideographs(_ start: Int) -> Int {
    run(start) { (0x4E00...0x9FA5).contains($0.scalar) || (0x3040...0x30FF).contains($0.scalar) }
  }

  private func wideIdeographs(_ start: Int) -> Int {
    run(start) { (0x800...0x9FA5).contains($0.scalar) || (0xAC00...0xD7FF).contains($0.scalar) }
  }

  /// Where the run lacks its first scalar behind a space, the space may be one of the run.
  private func spaced(_ start: Int, _ kind: SplitPattern.SpacedRun) -> Int {
    func end(_ start: Int) -> Int {
      switch kind {
      case .letters: run(start, Self.letter)
      case .punctuation: run(start, TextClasses.punctuation)
      case .casedLetters: run(start) { DeepSeekCharacters.isCasedLetter($0.scalar) }
      case .signs: run(start) { DeepSeekCharacters.isSign($0.scalar) }
      }
    }
    let first = at(start)
    let behind = first.class & Self.space != 0 ? end(first.end) : -1
    return behind >= 0 ? behind : end(start)
  }

  private func trailingWhitespace(_ start: Int) -> Int {
    // What begins behind white space ends as that did, which was no match.
    var before = start &- 1
    while before > 0, bytes[before] & 0xC0 == 0x80 { before &-= 1 }
    if before >= 0, at(before).class & Self.space != 0 { return -1 }
    return run(start, Self.space) == bytes.count ? bytes.count : -1
  }

  private func spaces(_ start: Int) -> Int {
    var position = start
    while position < bytes.count, bytes[position] == 0x20 { position &+= 1 }
    return position &- start >= 2 ? position : -1
  }

  private func wordsAndRest(_ start: Int) -> Int {
    var position = start
    var isWord: Bool?
    while position < bytes.count {
      let next = at(position)
      if next.class & Self.space != 0 { break }
      let word = classes.isWord(next.scalar)
      if let isWord, isWord != word { break }
      isWord = word
      position = next.end
    }
    return position > start ? position : -1
  }
}

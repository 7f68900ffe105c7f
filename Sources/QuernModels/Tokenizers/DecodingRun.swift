/// Tokens on their way through the steps of a `TokenDecoder`.
struct DecodingRun: Sendable {
  /// What one step keeps between tokens.
  private struct State {
    /// Tokens so far; for `strip` on the whole, how many characters at the start may still go, once below 0 none.
    var count = 0
    /// Bytes that are not certain yet.
    var held: [UInt8] = []
    var matched = 0
    /// Memory for what the step hands on.
    var output: [UInt8] = []
  }

  private let steps: [TokenDecoder.Step]
  private var states: [State]
  private var text: [UInt8] = []

  private static let broken: [UInt8] = [0xEF, 0xBF, 0xBD]

  init(_ decoder: TokenDecoder) {
    steps = decoder.steps
    states = [State](repeating: State(), count: steps.count)
  }

  /// Takes the text that is certain so far and not taken yet.
  mutating func takeText() -> String {
    defer { text.removeAll(keepingCapacity: true) }
    return String(decoding: text, as: UTF8.self)
  }

  mutating func push(_ token: UnsafeBufferPointer<UInt8>) { push(token, 0) }

  /// Says that no token follows.
  mutating func finish() {
    for index in steps.indices { finish(index) }
  }

  private mutating func push(_ token: UnsafeBufferPointer<UInt8>, _ index: Int) {
    guard index < steps.count else { return text.append(contentsOf: token) }
    let isFirst = states[index].count == 0
    switch steps[index] {
    case .fuse: push(token, index + 1)
    case .spaced:
      states[index].count = 1
      if !isFirst { pass(index) { $0.append(0x20) } }
      push(token, index + 1)
    case .wordPiece(let decoder):
      states[index].count = 1
      pass(index) { decoder.decode(token, isFirst: isFirst, into: &$0) }
    case .metaspace(let search, let dropsFirst):
      states[index].count = 1
      let space: [UInt8] = isFirst && dropsFirst ? [] : [0x20]
      pass(index) { output in
        var matched = 0
        search.replace(token, by: space, &matched, &output)
        search.finish(&matched, &output)
      }
    case .bpe(let suffix):
      if !isFirst { passHeld(index, suffix: suffix, by: [0x20]) }
      states[index].count = 1
      states[index].held.removeAll(keepingCapacity: true)
      states[index].held.append(contentsOf: token)
    case .byteLevel:
      ByteLevel.appendBytes(of: token, to: &states[index].held)
      passWhole(index, isLast: false)
    case .byteFallback:
      if let byte = Self.byte(token) { return states[index].held.append(byte) }
      passBytes(index)
      push(token, index + 1)
    case .replace(let search, let content, let whole):
      var matched = states[index].matched
      pass(index) { output in
        search.replace(token, by: content, &matched, &output)
        if !whole { search.finish(&matched, &output) }
      }
      states[index].matched = matched
    case .strip(let character, let start, let stop, let whole):
      if whole {
        stripWhole(token, character, start, stop, index)
      } else {
        pass(index) { Self.strip(token, character, start, stop, &$0) }
      }
    }
  }

  private mutating func finish(_ index: Int) {
    switch steps[index] {
    case .bpe(let suffix): if states[index].count > 0 { passHeld(index, suffix: suffix, by: []) }
    case .byteLevel: passWhole(index, isLast: true)
    case .byteFallback: passBytes(index)
    case .replace(let search, _, _):
      var matched = states[index].matched
      pass(index) { search.finish(&matched, &$0) }
      states[index].matched = 0
    // What is held is the end of the text, where as much as may be is dropped.
    case .strip(let character, _, let stop, true):
      let kept = max(0, states[index].held.count - stop * character.count)
      let rest = Array(states[index].held[..<kept])
      rest.withUnsafeBufferPointer { push($0, index + 1) }
    default: break
    }
  }

  /// Hands on, as one token, what `body` makes; nothing when that is nothing.
  @inline(__always)
  private mutating func pass(_ index: Int, _ body: (inout [UInt8]) -> Void) {
    var output = states[index].output
    states[index].output = []
    output.removeAll(keepingCapacity: true)
    body(&output)
    if !output.isEmpty { output.withUnsafeBufferPointer { push($0, index + 1) } }
    states[index].output = output
  }

  // MARK: Steps

  private mutating func passHeld(_ index: Int, suffix: [UInt8], by content: [UInt8]) {
    let held = states[index].held
    guard !suffix.isEmpty else { return held.withUnsafeBufferPointer { push($0, index + 1) } }
    let search = TextSearch(suffix)
    pass(index) { output in
      var matched = 0
      held.withUnsafeBufferPointer { search.replace($0, by: content, &matched, &output) }
      search.finish(&matched, &output)
    }
  }

  /// Hands on the bytes held but those at the end that may be the start of a character.
  private mutating func passWhole(_ index: Int, isLast: Bool) {
    var held = states[index].held
    states[index].held = []
    let keep = isLast ? 0 : held.withUnsafeBytes { UTF8Rules.unfinished($0) }
    let certain = held.count - keep
    if certain > 0 {
      var repaired = String(decoding: held[..<certain], as: UTF8.self)
      repaired.withUTF8 { push($0, index + 1) }
      held.removeFirst(certain)
    }
    states[index].held = held
  }

  /// Hands on the bytes of a run of byte tokens: their text, or a replacement character for each where they are none.
  private mutating func passBytes(_ index: Int) {
    let held = states[index].held
    if held.isEmpty { return }
    states[index].held.removeAll(keepingCapacity: true)
    if held.withUnsafeBytes({ UTF8Rules.isValid($0) }) {
      held.withUnsafeBufferPointer { push($0, index + 1) }
    } else {
      for _ in held { Self.broken.withUnsafeBufferPointer { push($0, index + 1) } }
    }
  }

  /// The byte that a token such as `<0x0A>` stands for. As in Rust, whose parser reads the sign.
  private static func byte(_ token: UnsafeBufferPointer<UInt8>) -> UInt8? {
    guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">") else { return nil }
    func digit(_ byte: UInt8) -> UInt8? {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): byte &- UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): byte &- UInt8(ascii: "a") &+ 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): byte &- UInt8(ascii: "A") &+ 10
      default: nil
      }
    }
    guard let low = digit(token[4]) else { return nil }
    if token[3] == UInt8(ascii: "+") { return low }
    guard let high = digit(token[3]) else { return nil }
    return high << 4 | low
  }

  private static func strip(
    _ token: UnsafeBufferPointer<UInt8>, _ character: [UInt8], _ start: Int, _ stop: Int, _ output: inout [UInt8]
  ) {
    var (first, last) = (0, token.count)
    var (startLeft, stopLeft) = (start, stop)
    while startLeft > 0, token[first...].starts(with: character) {
      first += character.count
      startLeft -= 1
    }
    while stopLeft > 0, last - first >= character.count,
      token[..<last].suffix(character.count).elementsEqual(character)
    {
      last -= character.count
      stopLeft -= 1
    }
    output.append(contentsOf: token[first..<last])
  }

  private mutating func stripWhole(
    _ token: UnsafeBufferPointer<UInt8>, _ character: [UInt8], _ start: Int, _ stop: Int, _ index: Int
  ) {
    var first = 0
    while states[index].count >= 0, states[index].count < start, token[first...].starts(with: character) {
      first += character.count
      states[index].count += 1
    }
    if first < token.count { states[index].count = -1 }
    let rest = UnsafeBufferPointer(rebasing: token[first...])
    guard stop > 0 else { return push(rest, index + 1) }
    // All of what is held are such characters; only the last `stop` of them may still go.
    var end = rest.count
    while end >= character.count, rest[..<end].suffix(character.count).elementsEqual(character) {
      end -= character.count
    }
    if end > 0 {
      let held = states[index].held
      states[index].held.removeAll(keepingCapacity: true)
      held.withUnsafeBufferPointer { push($0, index + 1) }
      push(UnsafeBufferPointer(rebasing: rest[..<end]), index + 1)
    }
    states[index].held.append(contentsOf: rest[end...])
    let surplus = states[index].held.count - stop * character.count
    if surplus > 0 {
      let certain = Array(states[index].held[..<surplus])
      states[index].held.removeFirst(surplus)
      certain.withUnsafeBufferPointer { push($0, index + 1) }
    }
  }
}

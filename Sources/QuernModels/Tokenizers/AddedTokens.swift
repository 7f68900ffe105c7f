/// One entry of `added_tokens`: a token that is looked for in the text before the model sees it.
struct AddedToken: Sendable {
  var id: Int32
  var content: String
  var singleWord: Bool
  var lstrip: Bool
  var rstrip: Bool
  /// Looked for in the normalised text, with its own content normalised, instead of in the text as given.
  var normalized: Bool
  var special: Bool
  /// What is looked for and what decoding gives: `content`, normalised where `normalized` says so.
  var decodedBytes: [UInt8]

  /// Longer contents would make matching slow, and no tokenizer has them.
  static let contentLimit = 1024
  static let countLimit = 100_000

  static func readAll(_ array: JSONValue) throws(ModelError) -> [AddedToken] {
    guard array.count <= countLimit else { throw array.error("has more than \(countLimit) entries") }
    var tokens: [AddedToken] = []
    try array.forEachElement { (value) throws(ModelError) in tokens.append(try AddedToken(value)) }
    return tokens
  }

  /// A token that is looked for in the text as given, inside of words too.
  init(id: Int32, content: String, rstrip: Bool, special: Bool) {
    (self.id, self.content, self.rstrip, self.special) = (id, content, rstrip, special)
    (singleWord, lstrip, normalized, decodedBytes) = (false, false, false, Array(content.utf8))
  }

  private init(_ value: JSONValue) throws(ModelError) {
    try value.expectOnly(["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"])
    id = Int32(try value.required("id").int(in: 0...Int(Int32.max)))
    let contentValue = try value.required("content")
    content = try contentValue.string()
    guard (1...Self.contentLimit).contains(content.utf8.count) else {
      throw contentValue.error("is \(content.utf8.count) bytes long; it may be 1 to \(Self.contentLimit)")
    }
    singleWord = try value.required("single_word").bool()
    lstrip = try value.required("lstrip").bool()
    rstrip = try value.required("rstrip").bool()
    normalized = try value.required("normalized").bool()
    special = try value.required("special").bool()
    decodedBytes = Array(content.utf8)
  }
}

/// Finds added tokens in a text: leftmost first, and of those that begin at one place the longest.
struct AddedTokenMatcher: Sendable {
  enum Piece {
    case text(Range<Int>)
    case token(Int32)
  }

  private var tokens: [AddedToken] = []
  /// A trie: node and byte to node. The root is node 0.
  private var children: [UInt64: UInt32] = [:]
  private var tokenAtNode: [Int32] = [-1]
  private var startsToken = [Bool](repeating: false, count: 256)

  var isEmpty: Bool { tokens.isEmpty }

  /// Looks for `token` from now on. Of two tokens with one pattern the first is found.
  mutating func insert(_ token: AddedToken) {
    let pattern = token.decodedBytes
    guard let first = pattern.first else { return }
    startsToken[Int(first)] = true
    var node: UInt32 = 0
    for byte in pattern {
      let key = Self.key(node, byte)
      if let child = children[key] {
        node = child
      } else {
        let child = UInt32(tokenAtNode.count)
        children[key] = child
        tokenAtNode.append(-1)
        node = child
      }
    }
    if tokenAtNode[Int(node)] < 0 {
      tokenAtNode[Int(node)] = Int32(tokens.count)
      tokens.append(token)
    }
  }

  private static func key(_ node: UInt32, _ byte: UInt8) -> UInt64 { UInt64(node) << 8 | UInt64(byte) }

  /// The next token at or after `position`.
  private func nextMatch(
    _ bytes: UnsafeBufferPointer<UInt8>, _ position: Int
  ) -> (token: AddedToken, range: Range<Int>)? {
    var start = position
    while start < bytes.count {
      if startsToken[Int(bytes[start])], let (token, end) = longestToken(bytes, at: start) {
        return (token, start..<end)
      }
      start &+= 1
    }
    return nil
  }

  private func longestToken(_ bytes: UnsafeBufferPointer<UInt8>, at start: Int) -> (AddedToken, end: Int)? {
    var best: (AddedToken, Int)?
    var node: UInt32 = 0
    var position = start
    while position < bytes.count, let child = children[Self.key(node, bytes[position])] {
      node = child
      position += 1
      let token = tokenAtNode[Int(node)]
      if token >= 0 { best = (tokens[Int(token)], position) }
    }
    return best
  }

  /// Cuts `bytes` into tokens and the text between them.
  func split(_ bytes: UnsafeBufferPointer<UInt8>, _ body: (Piece) -> Void) {
    if tokens.isEmpty { return body(.text(0..<bytes.count)) }
    var textStart = 0
    var position = 0
    while let (token, match) = nextMatch(bytes, position) {
      position = match.upperBound
      var start = match.lowerBound
      var end = match.upperBound
      if token.singleWord && (endsWithWord(bytes, start) || startsWithWord(bytes, end)) { continue }
      if token.lstrip {
        // Not before the end of the token before this one.
        while start > textStart, isSpace(ScalarReader.previous(bytes, start).scalar) {
          start -= ScalarReader.previous(bytes, start).length
        }
      }
      if token.rstrip {
        while end < bytes.count, isSpace(ScalarReader.next(bytes, end).scalar) {
          end += ScalarReader.next(bytes, end).length
        }
      }
      if textStart < start { body(.text(textStart..<start)) }
      body(.token(token.id))
      textStart = end
    }
    if textStart < bytes.count { body(.text(textStart..<bytes.count)) }
  }

  private func isSpace(_ scalar: UInt32) -> Bool { BertCharacters.shared.classes(scalar).contains(.whitespace) }

  private func endsWithWord(_ bytes: UnsafeBufferPointer<UInt8>, _ position: Int) -> Bool {
    position > 0 && TextClasses.shared.isWord(ScalarReader.previous(bytes, position).scalar)
  }

  private func startsWithWord(_ bytes: UnsafeBufferPointer<UInt8>, _ position: Int) -> Bool {
    position < bytes.count && TextClasses.shared.isWord(ScalarReader.next(bytes, position).scalar)
  }
}

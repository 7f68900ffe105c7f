/// The `WordPiece` decoder of `tokenizer.json`: joins tokens, and undoes some of what the pre-tokenizer split.
struct WordPieceDecoder: Sendable {
  private let prefix: [UInt8]
  private let cleanup: Bool

  /// In this order, each on its own over a token with the space before it.
  private static let cleanups: [(from: [UInt8], to: [UInt8])] = [
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
  ].map { (Array($0.utf8), Array($1.utf8)) }

  init(_ value: JSONValue) throws(ModelError) {
    let type = try value.required("type")
    let name = try type.string()
    guard name == "WordPiece" else { throw type.error("\(name) is not a decoder that Quern reads; it reads WordPiece") }
    try value.expectOnly(["type", "prefix", "cleanup"])
    prefix = Array(try value.required("prefix").string().utf8)
    cleanup = try value.required("cleanup").bool()
  }

  func decode(_ tokens: [String]) -> String {
    var text: [UInt8] = []
    for (index, token) in tokens.enumerated() {
      var piece = Array(token.utf8)
      if index > 0 {
        if piece.starts(with: prefix) { piece.removeFirst(prefix.count) } else { piece.insert(0x20, at: 0) }
      }
      if cleanup && piece.contains(0x20) {
        for (from, to) in Self.cleanups { piece = Self.replace(from, by: to, in: piece) }
      }
      text.append(contentsOf: piece)
    }
    return String(decoding: text, as: UTF8.self)
  }

  private static func replace(_ from: [UInt8], by to: [UInt8], in bytes: [UInt8]) -> [UInt8] {
    guard bytes.count >= from.count else { return bytes }
    var result: [UInt8] = []
    var position = 0
    while position < bytes.count {
      if bytes[position...].starts(with: from) {
        result.append(contentsOf: to)
        position += from.count
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return result
  }
}

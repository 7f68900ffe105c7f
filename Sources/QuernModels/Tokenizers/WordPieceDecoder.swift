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
    try value.expectOnly(["type", "prefix", "cleanup"])
    prefix = Array(try value.required("prefix").string().utf8)
    cleanup = try value.required("cleanup").bool()
  }

  /// Appends what becomes of `token`.
  func decode(_ token: UnsafeBufferPointer<UInt8>, isFirst: Bool, into text: inout [UInt8]) {
    var piece = Array(token)
    if !isFirst {
      if piece.starts(with: prefix) { piece.removeFirst(prefix.count) } else { piece.insert(0x20, at: 0) }
    }
    if cleanup && piece.contains(0x20) {
      for (from, to) in Self.cleanups { piece = Self.replace(from, by: to, in: piece) }
    }
    text.append(contentsOf: piece)
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

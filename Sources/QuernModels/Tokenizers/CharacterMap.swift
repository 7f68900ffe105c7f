/// The `Precompiled` normalizer: sentencepiece's map of characters to their replacements, a double-array trie (Darts) and
/// the replacements behind it, in base64.
struct CharacterMap: Sendable {
  private let units: [UInt32]
  /// Replacements, each up to a zero.
  private let replacements: [UInt8]

  /// Clusters of this many bytes or more are looked up scalar by scalar.
  private static let clusterLimit = 6
  private static let sizeLimit = 1 << 26
  /// The longest of Unicode's own has 33 bytes.
  private static let replacementLimit = 256

  init(_ value: JSONValue) throws(ModelError) {
    let blob = try value.withBytes { (text) throws(ModelError) in
      guard text.count <= Self.sizeLimit else { throw value.error("is more than \(Self.sizeLimit) bytes long") }
      guard let blob = Self.decodeBase64(text) else { throw value.error("is not base64") }
      return blob
    }
    guard blob.count >= 4 else { throw value.error("is shorter than the size it begins with") }
    let size = (0..<4).reversed().reduce(0) { $0 << 8 | Int(blob[$1]) }
    guard size % 4 == 0, size > 0, size <= blob.count - 4 else {
      throw value.error("says that its trie has \(size) bytes, and has \(blob.count - 4) after that")
    }
    units = stride(from: 4, to: 4 + size, by: 4).map { start in
      (0..<4).reversed().reduce(UInt32(0)) { unit, index in unit << 8 | UInt32(blob[start + index]) }
    }
    replacements = Array(blob[(4 + size)...])
    guard replacements.withUnsafeBytes({ UTF8Rules.isValid($0) }) else {
      throw value.error("has replacements that are not valid UTF-8")
    }
    guard replacements.split(separator: 0).allSatisfy({ $0.count <= Self.replacementLimit }) else {
      throw value.error("has a replacement of more than \(Self.replacementLimit) bytes")
    }
  }

  private static func decodeBase64(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
    guard text.count % 4 == 0 else { return nil }
    var result: [UInt8] = []
    result.reserveCapacity(text.count / 4 * 3)
    var bits: UInt32 = 0
    var padding = 0
    for (index, byte) in text.enumerated() {
      let value: UInt8
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = byte - UInt8(ascii: "A")
      case UInt8(ascii: "a")...UInt8(ascii: "z"): value = byte - UInt8(ascii: "a") + 26
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = byte - UInt8(ascii: "0") + 52
      case UInt8(ascii: "+"): value = 62
      case UInt8(ascii: "/"): value = 63
      case UInt8(ascii: "=") where index >= text.count - 2:
        value = 0
        padding += 1
      default: return nil
      }
      if padding > 0 && byte != UInt8(ascii: "=") { return nil }
      bits = bits << 6 | UInt32(value)
      if index % 4 == 3 {
        result.append(UInt8(truncatingIfNeeded: bits >> 16))
        result.append(UInt8(truncatingIfNeeded: bits >> 8))
        result.append(UInt8(truncatingIfNeeded: bits))
        bits = 0
      }
    }
    result.removeLast(padding)
    return result
  }

  /// The replacement of the shortest key that `text` begins with. A trie that leads astray has no such key.
  private func replacement(_ text: UnsafeBufferPointer<UInt8>) -> Range<Int>? {
    guard let root = units.first else { return nil }
    var node = Self.offset(root)
    for byte in text {
      if byte == 0 { return nil }
      node ^= Int(byte)
      guard node < units.count else { return nil }
      let unit = units[node]
      if unit & 0x8000_00FF != UInt32(byte) { return nil }
      node ^= Self.offset(unit)
      guard unit >> 8 & 1 == 1 else { continue }
      guard node < units.count else { return nil }
      let start = Int(units[node] & 0x7FFF_FFFF)
      guard start < replacements.count, replacements[start] & 0xC0 != 0x80 else { return nil }
      var end = start
      while end < replacements.count, replacements[end] != 0 { end &+= 1 }
      return start..<end
    }
    return nil
  }

  private static func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 1 << 9) >> 6) }

  /// Appends what becomes of `input`. As in Hugging Face tokenizers a short cluster of scalars is looked up first, and
  /// all of it gives way to what a beginning of it is replaced by.
  func normalize(_ input: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
    var position = 0
    while position < input.count {
      // Between two ASCII characters a cluster ends, but for CR LF.
      var end = position &+ 1
      while end < input.count, !Self.separates(input[end &- 1], input[end]) { end &+= 1 }
      if end &- position == 1 {
        appendCluster(UnsafeBufferPointer(rebasing: input[position..<end]), &output)
      } else {
        let text = String(decoding: input[position..<end], as: UTF8.self)
        var start = position
        for character in text {
          let next = start &+ character.utf8.count
          appendCluster(UnsafeBufferPointer(rebasing: input[start..<next]), &output)
          start = next
        }
      }
      position = end
    }
  }

  private static func separates(_ first: UInt8, _ second: UInt8) -> Bool {
    first < 0x80 && second < 0x80 && !(first == 0x0D && second == 0x0A)
  }

  private func appendCluster(_ cluster: UnsafeBufferPointer<UInt8>, _ output: inout [UInt8]) {
    if cluster.count < Self.clusterLimit, let range = replacement(cluster) {
      return output.append(contentsOf: replacements[range])
    }
    var position = 0
    while position < cluster.count {
      let next = position &+ ScalarReader.next(cluster, position).length
      let text = UnsafeBufferPointer(rebasing: cluster[position..<next])
      if let range = replacement(text) {
        output.append(contentsOf: replacements[range])
      } else {
        output.append(contentsOf: text)
      }
      position = next
    }
  }
}

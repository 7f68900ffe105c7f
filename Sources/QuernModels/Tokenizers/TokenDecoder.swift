/// The `decoder` section of `tokenizer.json`: the steps that tokens go through on the way back to text.
///
/// Each step takes one token at a time and keeps what is not certain yet, so that decoding a list of ids and decoding
/// a stream of them are the same code.
struct TokenDecoder: Sendable {
  enum Step: Sendable {
    /// No decoder: tokens with spaces between them.
    case spaced
    case wordPiece(WordPieceDecoder)
    case byteLevel
    case byteFallback
    case metaspace(TextSearch, dropsFirst: Bool)
    case fuse
    case bpe(suffix: [UInt8])
    /// On each token, or after `fuse` or `byteLevel` on the text as a whole.
    case replace(TextSearch, by: [UInt8], whole: Bool)
    case strip([UInt8], start: Int, stop: Int, whole: Bool)
  }

  let steps: [Step]

  private static let countLimit = 16
  private static let stripLimit = 1024
  private static let replacementLimit = 64

  init(_ steps: [Step]) { self.steps = steps }

  init(_ value: JSONValue?) throws(ModelError) {
    guard let value else {
      steps = [.spaced]
      return
    }
    var steps: [Step] = []
    var isWhole = false
    try Self.read(value, &steps, &isWhole)
    var growth = 1
    for case .replace(let search, let content, _) in steps {
      growth = min(growth * SplitPattern.literal(search.pattern).growth(replacedBy: content), GrowthLimit.value + 1)
    }
    guard growth <= GrowthLimit.value else { throw value.error(GrowthLimit.reason) }
    self.steps = steps
  }

  private static func read(
    _ value: JSONValue, _ steps: inout [Step], _ isWhole: inout Bool
  ) throws(ModelError) {
    let type = try value.required("type")
    let name = try type.string()
    if name == "Sequence" {
      try value.expectOnly(["type", "decoders"])
      let members = try value.required("decoders")
      try members.forEachElement { (member) throws(ModelError) in try read(member, &steps, &isWhole) }
      guard steps.count <= countLimit else { throw members.error("has more than \(countLimit) decoders") }
      return
    }
    let step = try step(value, name, type, isWhole: isWhole)
    switch step {
    case .replace, .strip: break
    case .fuse, .byteLevel:
      if isWhole { throw type.error("\(name) is read only where tokens are not one text already") }
      isWhole = true
    default: if isWhole { throw type.error("\(name) is read only where tokens are not one text already") }
    }
    steps.append(step)
  }

  private static func step(
    _ value: JSONValue, _ name: String, _ type: JSONValue, isWhole: Bool
  ) throws(ModelError) -> Step {
    switch name {
    case "WordPiece": return .wordPiece(try WordPieceDecoder(value))
    case "ByteLevel":
      try value.expectOnly(["type", "add_prefix_space", "trim_offsets", "use_regex"])
      return .byteLevel
    case "ByteFallback":
      try value.expectOnly(["type"])
      return .byteFallback
    case "Fuse":
      try value.expectOnly(["type"])
      return .fuse
    case "Metaspace":
      let fields = try Metaspace(value)
      return .metaspace(TextSearch(fields.replacement), dropsFirst: fields.scheme != .never)
    case "BPEDecoder":
      try value.expectOnly(["type", "suffix"])
      return .bpe(suffix: Array(try value.required("suffix").string().utf8))
    case "Replace":
      try value.expectOnly(["type", "pattern", "content"])
      let pattern = try value.required("pattern")
      guard case .literal(let text) = try SplitPattern(pattern) else {
        throw pattern.error("is not a String, which is all that Quern reads in a decoder")
      }
      let content = try value.required("content")
      let bytes = Array(try content.string().utf8)
      guard bytes.count <= replacementLimit else {
        throw content.error("is \(bytes.count) bytes long; it may be at most \(replacementLimit)")
      }
      return .replace(TextSearch(text), by: bytes, whole: isWhole)
    case "Strip":
      try value.expectOnly(["type", "content", "start", "stop"])
      let content = try value.required("content")
      let text = try content.string()
      guard text.unicodeScalars.count == 1 else { throw content.error("is not one character") }
      return .strip(
        Array(text.utf8), start: try value.required("start").int(in: 0...stripLimit),
        stop: try value.required("stop").int(in: 0...stripLimit), whole: isWhole)
    default:
      throw type.error(
        "\(name) is not a decoder that Quern reads; it reads BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, "
          + "Replace, Sequence, Strip, WordPiece")
    }
  }
}

/// Finds a literal in bytes that come in pieces: Knuth, Morris and Pratt's search.
struct TextSearch: Sendable {
  let pattern: [UInt8]
  /// For each length of a match so far, the longest shorter one that it ends with.
  private let fallback: [Int]

  init(_ pattern: [UInt8]) {
    self.pattern = pattern
    var fallback = [Int](repeating: 0, count: pattern.count + 1)
    var matched = 0
    for index in 1..<max(1, pattern.count) {
      while matched > 0, pattern[index] != pattern[matched] { matched = fallback[matched] }
      if pattern[index] == pattern[matched] { matched += 1 }
      fallback[index + 1] = matched
    }
    self.fallback = fallback
  }

  /// Appends `text` with each match replaced; what may still become a match is kept in `matched`, as its length.
  func replace(
    _ text: UnsafeBufferPointer<UInt8>, by content: [UInt8], _ matched: inout Int, _ output: inout [UInt8]
  ) {
    for byte in text {
      while matched > 0, pattern[matched] != byte {
        let shorter = fallback[matched]
        output.append(contentsOf: pattern[..<(matched &- shorter)])
        matched = shorter
      }
      if pattern[matched] == byte { matched &+= 1 } else { output.append(byte) }
      if matched == pattern.count {
        output.append(contentsOf: content)
        matched = 0
      }
    }
  }

  /// Appends what was kept, as nothing more comes.
  func finish(_ matched: inout Int, _ output: inout [UInt8]) {
    output.append(contentsOf: pattern[..<matched])
    matched = 0
  }
}

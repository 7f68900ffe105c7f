/// One normalizer of `tokenizer.json`: what changes a text before it is cut into words.
enum Normalizer: Sendable {
  case bert(BertNormalizer)
  case form(NormalForm)
  case prepend([UInt8])
  case replace(SplitPattern, by: [UInt8])
  /// White space at the start, at the end.
  case strip(left: Bool, right: Bool)
  case stripAccents
  case characters(CharacterMap)
  case byteLevel

  /// More than any file has.
  private static let countLimit = 16
  /// A replacement multiplies the text by its length.
  private static let replacementLimit = 64

  /// Normalizers in the order they run; a `Sequence` is its members.
  static func read(_ value: JSONValue) throws(ModelError) -> [Normalizer] {
    let type = try value.required("type")
    guard try type.string() == "Sequence" else { return [try Normalizer(value)] }
    try value.expectOnly(["type", "normalizers"])
    let members = try value.required("normalizers")
    guard members.count <= countLimit else { throw members.error("has more than \(countLimit) normalizers") }
    var all: [Normalizer] = []
    try members.forEachElement { (member) throws(ModelError) in all += try read(member) }
    guard all.count <= countLimit else { throw members.error("has more than \(countLimit) normalizers") }
    var growth = 1
    for normalizer in all { growth = min(growth * normalizer.growth, GrowthLimit.value + 1) }
    guard growth <= GrowthLimit.value else { throw members.error(GrowthLimit.reason) }
    return all
  }

  /// How many times as long the text may become; the normal forms do not add up.
  private var growth: Int {
    switch self {
    case .replace(let pattern, let content): pattern.growth(replacedBy: content)
    case .byteLevel: 2
    default: 1
    }
  }

  private init(_ value: JSONValue) throws(ModelError) {
    let type = try value.required("type")
    switch try type.string() {
    case "BertNormalizer":
      try value.expectOnly(["type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"])
      let lowercase = try value.required("lowercase").bool()
      self = .bert(
        BertNormalizer(
          cleanText: try value.required("clean_text").bool(),
          handleChineseChars: try value.required("handle_chinese_chars").bool(),
          // Null follows lowercase.
          stripAccents: try value.optional("strip_accents")?.bool() ?? lowercase, lowercase: lowercase))
    case "Lowercase":
      try value.expectOnly(["type"])
      self = .bert(
        BertNormalizer(cleanText: false, handleChineseChars: false, stripAccents: false, lowercase: true))
    case "NFC": self = .form(try Self.plain(value, .nfc))
    case "NFD": self = .form(try Self.plain(value, .nfd))
    case "NFKC": self = .form(try Self.plain(value, .nfkc))
    case "NFKD": self = .form(try Self.plain(value, .nfkd))
    case "StripAccents": self = try Self.plain(value, .stripAccents)
    case "ByteLevel": self = try Self.plain(value, .byteLevel)
    case "Strip":
      try value.expectOnly(["type", "strip_left", "strip_right"])
      self = .strip(left: try value.required("strip_left").bool(), right: try value.required("strip_right").bool())
    case "Precompiled":
      try value.expectOnly(["type", "precompiled_charsmap"])
      self = .characters(try CharacterMap(value.required("precompiled_charsmap")))
    case "Prepend":
      try value.expectOnly(["type", "prepend"])
      self = .prepend(try Self.replacement(value.required("prepend")))
    case "Replace":
      try value.expectOnly(["type", "pattern", "content"])
      let pattern = try SplitPattern(value.required("pattern"))
      self = .replace(pattern, by: try Self.replacement(value.required("content")))
    case let other:
      throw type.error(
        "\(other) is not a normalizer that Quern reads; it reads BertNormalizer, ByteLevel, Lowercase, NFC, NFD, "
          + "NFKC, NFKD, Precompiled, Prepend, Replace, Sequence, Strip, StripAccents")
    }
  }

  private static func plain<T>(_ value: JSONValue, _ result: T) throws(ModelError) -> T {
    try value.expectOnly(["type"])
    return result
  }

  private static func replacement(_ value: JSONValue) throws(ModelError) -> [UInt8] {
    let bytes = Array(try value.string().utf8)
    guard bytes.count <= replacementLimit else {
      throw value.error("is \(bytes.count) bytes long; it may be at most \(replacementLimit)")
    }
    return bytes
  }

  /// Appends what becomes of `input`, which is well-formed UTF-8, to `output`.
  func apply(_ input: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
    switch self {
    case .bert(let normalizer): normalizer.normalize(input, into: &output)
    case .form(let form): form.normalize(input, into: &output)
    case .prepend(let prefix):
      if !input.isEmpty { output.append(contentsOf: prefix) }
      output.append(contentsOf: input)
    case .replace(let pattern, let content):
      pattern.forEachPart(input) { range, isMatch in
        if isMatch { output.append(contentsOf: content) } else { output.append(contentsOf: input[range]) }
      }
    case .strip(let left, let right): output.append(contentsOf: input[Self.stripped(input, left, right)])
    case .stripAccents:
      let classes = TextClasses.shared
      var position = 0
      while position < input.count {
        let (scalar, length) = ScalarReader.next(input, position)
        if !classes.isAccent(scalar) { output.append(contentsOf: input[position..<position &+ length]) }
        position &+= length
      }
    case .characters(let map): map.normalize(input, into: &output)
    case .byteLevel: ByteLevel.append(input, to: &output)
    }
  }

  private static func stripped(_ input: UnsafeBufferPointer<UInt8>, _ left: Bool, _ right: Bool) -> Range<Int> {
    let classes = TextClasses.shared
    var (start, end) = (0, input.count)
    while left, start < end {
      let (scalar, length) = ScalarReader.next(input, start)
      guard classes[scalar] & TextClasses.space != 0 else { break }
      start += length
    }
    while right, end > start {
      let (scalar, length) = ScalarReader.previous(input, end)
      guard classes[scalar] & TextClasses.space != 0 else { break }
      end -= length
    }
    return start..<end
  }

  /// What becomes of `input` after all of `normalizers`.
  static func apply(_ normalizers: [Normalizer], _ input: UnsafeBufferPointer<UInt8>) -> [UInt8] {
    var text: [UInt8] = []
    guard let first = normalizers.first else { return Array(input) }
    first.apply(input, into: &text)
    for normalizer in normalizers.dropFirst() {
      var next: [UInt8] = []
      next.reserveCapacity(text.count)
      text.withUnsafeBufferPointer { normalizer.apply($0, into: &next) }
      text = next
    }
    return text
  }
}

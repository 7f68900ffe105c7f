/// The text of an encoding on its way through the pre-tokenizers: bytes, and the words they have been cut into.
struct Pieces {
  var bytes: [UInt8] = []
  var ranges: [Range<Int>] = []
  /// Whether the first word is at the start of the text as it was given.
  var startsText = false
  fileprivate var nextBytes: [UInt8] = []
  fileprivate var nextRanges: [Range<Int>] = []

  /// Begins anew with `text` as one word.
  mutating func reset(_ text: UnsafeBufferPointer<UInt8>, startsText: Bool) {
    bytes.removeAll(keepingCapacity: true)
    bytes.append(contentsOf: text)
    ranges.removeAll(keepingCapacity: true)
    if !text.isEmpty { ranges.append(0..<text.count) }
    self.startsText = startsText
  }

  /// Cuts each word into the words that `body` gives to its second argument.
  fileprivate mutating func split(_ body: (UnsafeBufferPointer<UInt8>, (Range<Int>) -> Void) -> Void) {
    var next = nextRanges
    nextRanges = []
    next.removeAll(keepingCapacity: true)
    bytes.withUnsafeBufferPointer { bytes in
      for range in ranges {
        let word = UnsafeBufferPointer(rebasing: bytes[range])
        body(word) { part in
          if !part.isEmpty { next.append(range.lowerBound &+ part.lowerBound..<range.lowerBound &+ part.upperBound) }
        }
      }
    }
    nextRanges = ranges
    ranges = next
  }

  /// Replaces each word by what `body` appends for it, given whether the word is at the start of the text.
  fileprivate mutating func rewrite(_ body: (UnsafeBufferPointer<UInt8>, Bool, inout [UInt8]) -> Void) {
    var next = nextBytes
    nextBytes = []
    next.removeAll(keepingCapacity: true)
    next.reserveCapacity(bytes.count &+ bytes.count / 2)
    bytes.withUnsafeBufferPointer { bytes in
      for index in ranges.indices {
        let start = next.count
        let range = ranges[index]
        body(UnsafeBufferPointer(rebasing: bytes[range]), startsText && range.lowerBound == 0, &next)
        ranges[index] = start..<next.count
      }
    }
    nextBytes = bytes
    bytes = next
  }
}

/// One pre-tokenizer of `tokenizer.json`: what cuts text into words that the model sees one at a time.
enum PreTokenizer: Sendable {
  /// What becomes of a delimiter.
  enum Behavior: String, Sendable {
    case removed = "Removed"
    case isolated = "Isolated"
    case mergedWithPrevious = "MergedWithPrevious"
    case mergedWithNext = "MergedWithNext"
    case contiguous = "Contiguous"
  }

  enum PrependScheme: String, Sendable {
    case first, never, always
  }

  case bert
  case split(SplitPattern, Behavior, invert: Bool)
  case byteLevel(addPrefixSpace: Bool, useRegex: Bool)
  case metaspace(replacement: [UInt8], PrependScheme, split: Bool)

  /// More than any file has.
  private static let countLimit = 16

  /// Pre-tokenizers in the order they run; a `Sequence` is its members.
  static func read(_ value: JSONValue) throws(ModelError) -> [PreTokenizer] {
    let type = try value.required("type")
    guard try type.string() == "Sequence" else { return [try PreTokenizer(value)] }
    try value.expectOnly(["type", "pretokenizers"])
    let members = try value.required("pretokenizers")
    guard members.count <= countLimit else { throw members.error("has more than \(countLimit) pre-tokenizers") }
    var all: [PreTokenizer] = []
    try members.forEachElement { (member) throws(ModelError) in all += try read(member) }
    guard all.count <= countLimit else { throw members.error("has more than \(countLimit) pre-tokenizers") }
    var growth = 1
    for step in all { growth = min(growth * step.growth, GrowthLimit.value + 1) }
    guard growth <= GrowthLimit.value else { throw members.error(GrowthLimit.reason) }
    return all
  }

  /// How many times as long the text may become, a character before each word included.
  private var growth: Int {
    switch self {
    case .bert, .split: 1
    case .byteLevel: 4
    case .metaspace(let replacement, _, _): replacement.count * 2
    }
  }

  private init(_ value: JSONValue) throws(ModelError) {
    let type = try value.required("type")
    switch try type.string() {
    case "BertPreTokenizer":
      try value.expectOnly(["type"])
      self = .bert
    case "ByteLevel":
      try value.expectOnly(["type", "add_prefix_space", "trim_offsets", "use_regex"])
      // Offsets are not kept here.
      _ = try value.optional("trim_offsets")?.bool()
      self = .byteLevel(
        addPrefixSpace: try value.required("add_prefix_space").bool(),
        useRegex: try value.optional("use_regex")?.bool() ?? true)
    case "Split":
      try value.expectOnly(["type", "pattern", "behavior", "invert"])
      let behavior = try value.required("behavior").choice(Behavior.self)
      let pattern = try SplitPattern(value.required("pattern"))
      self = .split(pattern, behavior, invert: try value.required("invert").bool())
    case "Metaspace":
      let fields = try Metaspace(value)
      self = .metaspace(replacement: fields.replacement, fields.scheme, split: fields.split)
    case "Digits":
      try value.expectOnly(["type", "individual_digits"])
      let individual = try value.required("individual_digits").bool()
      self = .split(.digits(individual: individual), .isolated, invert: false)
    case "Punctuation":
      try value.expectOnly(["type", "behavior"])
      let behavior = try value.optional("behavior").map { (value) throws(ModelError) in
        try value.choice(Behavior.self)
      }
      self = .split(.punctuation, behavior ?? .isolated, invert: false)
    case "Whitespace":
      try value.expectOnly(["type"])
      self = .split(.wordsAndRest, .removed, invert: true)
    case "WhitespaceSplit":
      try value.expectOnly(["type"])
      self = .split(.space, .removed, invert: false)
    case let other:
      throw type.error(
        "\(other) is not a pre-tokenizer that Quern reads; it reads BertPreTokenizer, ByteLevel, Digits, Metaspace, "
          + "Punctuation, Sequence, Split, Whitespace, WhitespaceSplit")
    }
  }

  func apply(_ pieces: inout Pieces) {
    switch self {
    case .bert:
      pieces.split { word, emit in WordSplitter.forEachWord(word, emit) }
    case .split(let pattern, let behavior, let invert):
      pieces.split { word, emit in Self.split(word, pattern, behavior, invert, emit) }
    case .byteLevel(let addPrefixSpace, let useRegex):
      if addPrefixSpace {
        pieces.rewrite { word, _, output in
          if word.first != 0x20 { output.append(0x20) }
          output.append(contentsOf: word)
        }
      }
      if useRegex {
        pieces.split { word, emit in SplitPattern.gpt2.forEachPart(word) { range, _ in emit(range) } }
      }
      pieces.rewrite { word, _, output in ByteLevel.append(word, to: &output) }
    case .metaspace(let replacement, let scheme, let split):
      pieces.rewrite { word, startsText, output in
        let prepends = scheme == .always || scheme == .first && startsText
        if prepends && word.first != 0x20 && !word.starts(with: replacement) {
          output.append(contentsOf: replacement)
        }
        Metaspace.replaceSpaces(word, replacement, &output)
      }
      if split {
        pieces.split { word, emit in
          Self.split(word, .literal(replacement), .mergedWithNext, false, emit)
        }
      }
    }
  }

  /// Cuts `word` at what matches `pattern`, or at what does not with `invert`.
  private static func split(
    _ word: UnsafeBufferPointer<UInt8>, _ pattern: SplitPattern, _ behavior: Behavior, _ invert: Bool,
    _ emit: (Range<Int>) -> Void
  ) {
    // The word that is being put together, which `emit` has not had yet.
    var open: Range<Int>?
    var previousMatched = false
    func close() {
      if let range = open { emit(range) }
      open = nil
    }
    pattern.forEachPart(word) { range, matched in
      let isMatch = matched != invert
      switch behavior {
      case .isolated: emit(range)
      case .removed: if !isMatch { emit(range) }
      case .contiguous:
        if isMatch == previousMatched, let start = open?.lowerBound {
          open = start..<range.upperBound
        } else {
          close()
          open = range
        }
      case .mergedWithPrevious:
        if isMatch && !previousMatched, let start = open?.lowerBound {
          open = start..<range.upperBound
        } else {
          close()
          open = range
        }
      case .mergedWithNext:
        // Of delimiters in a row only the last is joined to what follows.
        if previousMatched && !isMatch, let start = open?.lowerBound {
          emit(start..<range.upperBound)
          open = nil
        } else {
          close()
          open = range
        }
      }
      previousMatched = isMatch
    }
    close()
  }
}

/// The fields of `Metaspace`, which is a pre-tokenizer and a decoder.
struct Metaspace: Sendable {
  let replacement: [UInt8]
  let scheme: PreTokenizer.PrependScheme
  let split: Bool

  init(_ value: JSONValue) throws(ModelError) {
    try value.expectOnly(["type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"])
    let text = try value.required("replacement")
    let string = try text.string()
    guard string.unicodeScalars.count == 1 else { throw text.error("is not one character") }
    replacement = Array(string.utf8)
    // Files from before tokenizers 0.15 have add_prefix_space in place of prepend_scheme.
    let scheme = try value.optional("prepend_scheme").map { (value) throws(ModelError) in
      try value.choice(PreTokenizer.PrependScheme.self)
    }
    let prefix = try value.optional("add_prefix_space")
    if let prefix, let scheme, try prefix.bool() == (scheme == .never) {
      throw prefix.error("does not agree with prepend_scheme, which is \(scheme.rawValue)")
    }
    let isPrefixed = try prefix?.bool() ?? true
    self.scheme = scheme ?? (isPrefixed ? .always : .never)
    split = try value.optional("split")?.bool() ?? true
  }

  static func replaceSpaces(_ word: UnsafeBufferPointer<UInt8>, _ replacement: [UInt8], _ output: inout [UInt8]) {
    for byte in word {
      if byte == 0x20 { output.append(contentsOf: replacement) } else { output.append(byte) }
    }
  }
}

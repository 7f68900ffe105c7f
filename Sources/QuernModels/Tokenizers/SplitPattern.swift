/// What a `Split` pre-tokenizer or `Replace` normalizer looks for: a literal, or one of the regular expressions that
/// models use, each hand-written as a scanner that looks at a scalar a bounded number of times.
///
/// A regular expression is known by its exact text; another one is refused, since running what a file brings could
/// take any time.
enum SplitPattern: Sendable, Equatable {
  case literal([UInt8])
  case gpt2
  /// Words with one character before them, digits in groups: Llama 3, GPT-4 and Qwen.
  case words(digits: Int, marksAreLetters: Bool)
  /// Words cut where lower case turns to upper: GPT-4o, gpt-oss and Mistral.
  case cased(digits: Int, contractions: Bool)
  case clip(special: Bool)
  case deepSeek
  /// `\p{N}{1,3}`.
  case numbers(limit: Int)
  /// Three ASCII digits: Falcon.
  case threeDigits
  /// Chinese characters and kana: DeepSeek.
  case ideographs
  /// Chinese characters, kana and all between them in Unicode, and Hangul: DeepSeek before V3.
  case wideIdeographs
  /// `[\r\n]`.
  case newline
  /// `\s?` and a run of these: DeepSeek before V3.
  case spaced(SpacedRun)
  /// `\s+`.
  case whitespace
  /// `\s+$`.
  case trailingWhitespace
  /// Two spaces or more.
  case spaces
  /// `\w+|[^\w\s]+`: the `Whitespace` pre-tokenizer.
  case wordsAndRest
  /// Runs of digits, or each digit: the `Digits` pre-tokenizer.
  case digits(individual: Bool)
  /// White space, one by one: the `WhitespaceSplit` pre-tokenizer.
  case space
  /// BERT's punctuation, one by one: the `Punctuation` pre-tokenizer.
  case punctuation
  /// `\p{P}` and some ASCII symbols, one by one: what llama.cpp does where a file says `default`.
  case ggmlPunctuation

  /// What a run behind a space is of.
  enum SpacedRun: Sendable, Equatable {
    /// `\p{L}`.
    case letters
    /// `\p{P}`.
    case punctuation
    /// See ``DeepSeekCharacters``.
    case casedLetters, signs
  }

  /// A longer literal would make a search slow.
  static let literalLimit = 64

  private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
  private static let optionalPrefix = #"[^\r\n\p{L}\p{N}]?"#
  private static let whitespaceTail = #"\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let startsUpper = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
  private static let endsLower = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#

  private static func cased(_ ending: String, _ digits: String) -> String {
    optionalPrefix + startsUpper + "*" + endsLower + "+" + ending + "|" + optionalPrefix + startsUpper + "+" + endsLower
      + "*" + ending + "|" + digits + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*|"# + whitespaceTail
  }

  private static func words(_ digits: String) -> String {
    contractions + "|" + optionalPrefix + #"\p{L}+|"# + digits + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|"# + whitespaceTail
  }

  /// The regular expressions that are known, by text.
  private static let known: [UTF8Key: SplitPattern] = {
    let list: [(String, SplitPattern)] = [
      (#"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#, .gpt2),
      (#"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#, .gpt2),
      (words(#"\p{N}{1,3}"#), .words(digits: 3, marksAreLetters: false)),
      (words(#"\p{N}"#), .words(digits: 1, marksAreLetters: false)),
      // As tiktoken writes it: possessive, and one new line where \s* has taken the others.
      (
        #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"#,
        .words(digits: 3, marksAreLetters: false)
      ),
      (
        contractions + "|" + optionalPrefix
          + #"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"# + whitespaceTail,
        .words(digits: 1, marksAreLetters: true)
      ),
      (cased(contractions + "?", #"\p{N}{1,3}"#), .cased(digits: 3, contractions: true)),
      (cased("", #"\p{N}"#), .cased(digits: 1, contractions: false)),
      (cased("", #"\p{N}{1,3}"#), .cased(digits: 3, contractions: false)),
      (#"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"#, .clip(special: false)),
      (
        #"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"#,
        .clip(special: true)
      ),
      (
        ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"##
          + whitespaceTail,
        .deepSeek
      ),
      (#"\p{N}{1,3}"#, .numbers(limit: 3)), (#"\p{N}"#, .numbers(limit: 1)),
      ("[0-9][0-9][0-9]", .threeDigits),
      ("[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+", .ideographs),
      (#"\s+"#, .whitespace), (" {2,}", .spaces), (#"\w+|[^\w\s]+"#, .wordsAndRest),
    ]
    return Dictionary(list.map { (UTF8Key($0), $1) }) { first, _ in first }
  }()

  /// Reads `{"String": …}` or `{"Regex": …}`.
  init(_ value: JSONValue) throws(ModelError) {
    try value.expectOnly(["String", "Regex"])
    guard value.count == 1 else { throw value.error("is not one String or one Regex") }
    if let literal = try value.optional("String") {
      let bytes = Array(try literal.string().utf8)
      guard (1...Self.literalLimit).contains(bytes.count) else {
        throw literal.error("is \(bytes.count) bytes long; it may be 1 to \(Self.literalLimit)")
      }
      self = .literal(bytes)
    } else {
      let regex = try value.required("Regex")
      // Some files hold the two new-line characters themselves where others hold their escapes.
      let text = try regex.string().unicodeScalars.map { $0 == "\r" ? "\\r" : $0 == "\n" ? "\\n" : String($0) }.joined()
      guard let pattern = Self.known[UTF8Key(text)] else {
        throw regex.error(
          "is not one of the regular expressions that Quern knows; it knows those of GPT-2, GPT-4, GPT-4o, Llama 3, "
            + "Qwen, Mistral, DeepSeek V3, Falcon, CLIP and T5, and runs no others")
      }
      self = pattern
    }
  }

  /// Calls `body` with the matches and what lies between them, in order; together they are the text.
  @inline(__always)
  func forEachPart(_ bytes: UnsafeBufferPointer<UInt8>, _ body: (Range<Int>, _ isMatch: Bool) -> Void) {
    let scanner = SplitScanner(bytes)
    var position = 0
    var gap = 0
    while position < bytes.count {
      let end = scanner.match(self, position)
      if end > position {
        if gap < position { body(gap..<position, false) }
        body(position..<end, true)
        position = end
        gap = end
      } else {
        position &+= ScalarReader.next(bytes, position).length
      }
    }
    if gap < position { body(gap..<position, false) }
  }

  /// How many times as long a text may become when each match is replaced by `content`.
  func growth(replacedBy content: [UInt8]) -> Int {
    let shortest: Int =
      switch self {
      case .literal(let text): text.count
      case .spaces: 2
      case .threeDigits, .ideographs: 3
      default: 1
      }
    return max(1, (content.count + shortest - 1) / shortest)
  }
}

/// Steps that each lengthen the text a little could together make it fill the memory.
enum GrowthLimit {
  static let value = 256
  static let reason = "may make a text more than \(value) times as long"
}

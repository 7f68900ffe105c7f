/// `added_tokens`: the tokens that are looked for before the model sees the text.
struct AddedVocabulary: Sendable {
  private(set) var byID: [Int32: AddedToken] = [:]
  private(set) var byContent: [UTF8Key: Int32] = [:]
  /// How many of them the model's vocabulary lacks.
  private(set) var newTokens = 0
  /// Those looked for in the text as it is given, and in the normalised text.
  private(set) var givenMatcher = AddedTokenMatcher()
  private(set) var normalizedMatcher = AddedTokenMatcher()

  /// The ids of the model's tokens that have the string of a special token of another id.
  private(set) var specialTwins: Set<Int32> = []

  var ids: Set<Int32> { Set(byID.keys) }

  /// `section` is `added_tokens`, or the whole file where it has none.
  init(_ section: JSONValue, _ vocabulary: Vocabulary, _ normalizers: [Normalizer]) throws(ModelError) {
    guard section.kind == .array else { return }
    var tokens = try AddedToken.readAll(section)
    for index in tokens.indices where tokens[index].normalized {
      let content = Array(tokens[index].content.utf8)
      let normalized = content.withUnsafeBufferPointer { Normalizer.apply(normalizers, $0) }
      guard !normalized.isEmpty else {
        throw section.error("nothing is left of \(tokens[index].content) when it is normalized")
      }
      tokens[index].decodedBytes = normalized
    }
    for token in tokens { try insert(token, vocabulary, section) }
    for id in vocabulary.shadowed {
      guard let twin = vocabulary.token(of: id).flatMap({ byContent[UTF8Key($0)] }) else { continue }
      if byID[twin]?.special == true { specialTwins.insert(id) }
    }
    // Special tokens come before others, as in Hugging Face tokenizers: of two with one pattern the first is found.
    for token in tokens.filter(\.special) + tokens.filter({ !$0.special }) {
      if token.normalized { normalizedMatcher.insert(token) } else { givenMatcher.insert(token) }
    }
  }

  /// Tokens of `vocabulary`, each looked for as it is; no two have one content.
  init(_ tokens: [AddedToken]) {
    for token in tokens {
      byID[token.id] = token
      byContent[UTF8Key(token.content)] = token.id
      givenMatcher.insert(token)
    }
  }

  private mutating func insert(
    _ token: AddedToken, _ vocabulary: Vocabulary, _ section: JSONValue
  ) throws(ModelError) {
    if let id = vocabulary.id(of: token.content) {
      guard id == token.id else {
        throw section.error("\(token.content) has id \(token.id) here and \(id) in model.vocab")
      }
    } else {
      if let other = vocabulary.token(of: token.id) {
        throw section.error("\(token.content) has id \(token.id), which is \(other) in model.vocab")
      }
      newTokens += 1
    }
    guard byID.updateValue(token, forKey: token.id) == nil,
      byContent.updateValue(token.id, forKey: UTF8Key(token.content)) == nil
    else { throw section.error("\(token.content) or its id \(token.id) is there twice") }
  }
}

/// What is put round the tokens of a text: the `TemplateProcessing` and `BertProcessing` sections.
struct PostProcessor: Sendable {
  enum Piece: Sendable {
    case first(typeID: Int32)
    case second(typeID: Int32)
    case special(ids: [Int32], typeID: Int32)
  }

  private(set) var single: [Piece] = [.first(typeID: 0)]
  private(set) var pair: [Piece] = [.first(typeID: 0), .second(typeID: 1)]

  /// No post-processor: nothing is added. Hugging Face tokenizers then gives the second text type 1.
  init() {}

  /// These ids before and after each text.
  init(before: [Int32], after: [Int32]) {
    let (before, after) = (Piece.special(ids: before, typeID: 0), Piece.special(ids: after, typeID: 0))
    single = [before, .first(typeID: 0), after]
    pair = single + [before, .second(typeID: 1), after]
  }

  init(_ value: JSONValue, vocabulary: Vocabulary, addedIDs: Set<Int32>) throws(ModelError) {
    func checkedID(_ value: JSONValue) throws(ModelError) -> Int32 {
      let id = Int32(try value.int(in: 0...Int(Int32.max)))
      guard addedIDs.contains(id) || vocabulary.token(of: id) != nil else {
        throw value.error("\(id) is not the id of a token")
      }
      return id
    }
    func token(_ key: String) throws(ModelError) -> Int32 {
      let pair = try value.required(key)
      guard let (name, id) = pair.pair else { throw pair.error("is not [token, id]") }
      _ = try name.string()
      return try checkedID(id)
    }
    let type = try value.required("type")
    switch try type.string() {
    case "Sequence":
      try value.expectOnly(["type", "processors"])
      self = try Self.readSequence(value.required("processors"), vocabulary, addedIDs)
    case "ByteLevel":
      // It changes offsets only, and they are not kept here.
      try value.expectOnly(["type", "add_prefix_space", "trim_offsets", "use_regex"])
    case "RobertaProcessing":
      try value.expectOnly(["type", "sep", "cls", "trim_offsets", "add_prefix_space"])
      let (cls, sep) = (try token("cls"), try token("sep"))
      single = [.special(ids: [cls], typeID: 0), .first(typeID: 0), .special(ids: [sep], typeID: 0)]
      pair = single + [.special(ids: [sep], typeID: 0), .second(typeID: 0), .special(ids: [sep], typeID: 0)]
    case "TemplateProcessing":
      try value.expectOnly(["type", "single", "pair", "special_tokens"])
      let specials = try Self.readSpecialTokens(value.required("special_tokens"), checkedID)
      single = try Self.readTemplate(value.required("single"), specials, allowsSecond: false)
      pair = try Self.readTemplate(value.required("pair"), specials, allowsSecond: true)
    case "BertProcessing":
      try value.expectOnly(["type", "sep", "cls"])
      let (cls, sep) = (try token("cls"), try token("sep"))
      single = [.special(ids: [cls], typeID: 0), .first(typeID: 0), .special(ids: [sep], typeID: 0)]
      pair = single + [.second(typeID: 1), .special(ids: [sep], typeID: 1)]
    case let other:
      throw type.error(
        "\(other) is not a post-processor that Quern reads; it reads BertProcessing, ByteLevel, RobertaProcessing, "
          + "Sequence, TemplateProcessing")
    }
  }

  /// A `Sequence`, of which one member at most may add tokens.
  private static func readSequence(
    _ members: JSONValue, _ vocabulary: Vocabulary, _ addedIDs: Set<Int32>
  ) throws(ModelError) -> PostProcessor {
    var result = PostProcessor()
    var hasTemplate = false
    try members.forEachElement { (member) throws(ModelError) in
      let processor = try PostProcessor(member, vocabulary: vocabulary, addedIDs: addedIDs)
      if try member.required("type").string() == "ByteLevel" { return }
      if hasTemplate { throw member.error("is the second member that adds tokens; Quern reads one") }
      hasTemplate = true
      result = processor
    }
    return result
  }

  private static func readSpecialTokens(
    _ object: JSONValue, _ checkedID: (JSONValue) throws(ModelError) -> Int32
  ) throws(ModelError) -> [UTF8Key: [Int32]] {
    var specials: [UTF8Key: [Int32]] = [:]
    try object.forEachMember { (name, value) throws(ModelError) in
      try value.expectOnly(["id", "ids", "tokens"])
      var ids: [Int32] = []
      try value.required("ids").forEachElement { (element) throws(ModelError) in ids.append(try checkedID(element)) }
      specials[UTF8Key(name)] = ids
    }
    return specials
  }

  private static func readTemplate(
    _ array: JSONValue, _ specials: [UTF8Key: [Int32]], allowsSecond: Bool
  ) throws(ModelError) -> [Piece] {
    guard array.count <= 64 else { throw array.error("has more than 64 pieces") }
    var pieces: [Piece] = []
    try array.forEachElement { (element) throws(ModelError) in
      try element.expectOnly(["SpecialToken", "Sequence"])
      guard element.count == 1 else { throw element.error("is not one SpecialToken or Sequence") }
      let isSpecial = try element.optional("SpecialToken") != nil
      let piece = try element.required(isSpecial ? "SpecialToken" : "Sequence")
      try piece.expectOnly(["id", "type_id"])
      let typeID = Int32(try piece.required("type_id").int(in: 0...Int(Int32.max)))
      let idValue = try piece.required("id")
      let id = try idValue.string()
      if isSpecial {
        guard let ids = specials[UTF8Key(id)] else { throw idValue.error("\(id) is not in special_tokens") }
        pieces.append(.special(ids: ids, typeID: typeID))
      } else if id == "A" {
        pieces.append(.first(typeID: typeID))
      } else if id == "B" && allowsSecond {
        pieces.append(.second(typeID: typeID))
      } else {
        throw idValue.error("\(id) is not a sequence of this template")
      }
    }
    return pieces
  }

  private func template(isPair: Bool, addSpecialTokens: Bool) -> [Piece] {
    let pieces = isPair ? pair : single
    guard !addSpecialTokens else { return pieces }
    return pieces.filter { if case .special = $0 { false } else { true } }
  }

  /// Puts the tokens of one or two texts together, cut so that the whole is at most `limit` long.
  func assemble(
    _ first: [Int32], _ second: [Int32]?, addSpecialTokens: Bool, limit: Int?, _ truncation: Truncation?
  ) throws(TokenizerError) -> Encoding {
    let template = template(isPair: second != nil, addSpecialTokens: addSpecialTokens)
    let added = template.reduce(0) { if case .special(let ids, _) = $1 { $0 + ids.count } else { $0 } }
    var (firstRange, secondRange) = (0..<first.count, 0..<(second?.count ?? 0))
    if let limit {
      let total = first.count + (second?.count ?? 0)
      guard limit >= added else {
        throw .tooLong(tokens: total + added, maximumLength: limit, reason: "\(added) special tokens are added")
      }
      if total > limit - added {
        let rule = truncation ?? Truncation(maximumLength: limit)
        let keep = try rule.lengths(first.count, second.map(\.count), room: limit - added)
        firstRange = rule.kept(first.count, keep.first)
        secondRange = rule.kept(second?.count ?? 0, keep.second)
      }
    }
    var encoding = Encoding(ids: [], typeIDs: [])
    encoding.ids.reserveCapacity(firstRange.count + secondRange.count + added)
    for piece in template {
      let typeID: Int32
      switch piece {
      case .first(let type):
        encoding.ids.append(contentsOf: first[firstRange])
        typeID = type
      case .second(let type):
        encoding.ids.append(contentsOf: (second ?? [])[secondRange])
        typeID = type
      case .special(let ids, let type):
        encoding.ids.append(contentsOf: ids)
        typeID = type
      }
      let missing = encoding.ids.count - encoding.typeIDs.count
      encoding.typeIDs.append(contentsOf: repeatElement(typeID, count: missing))
    }
    return encoding
  }
}

extension Truncation {
  /// How many tokens of each text to keep when together they are more than `room`.
  fileprivate func lengths(
    _ first: Int, _ second: Int?, room: Int
  ) throws(TokenizerError) -> (first: Int, second: Int) {
    guard room > 0 else { return (0, 0) }
    let excess = first + (second ?? 0) - room
    func cut(_ length: Int, _ which: String) throws(TokenizerError) -> Int {
      guard length > excess else {
        throw .tooLong(
          tokens: first + (second ?? 0), maximumLength: room, reason: "only the \(which) text may be cut (\(strategy))")
      }
      return length - excess
    }
    switch strategy {
    case .onlyFirst: return (try cut(first, "first"), second ?? 0)
    case .onlySecond:
      guard let second else {
        throw .tooLong(tokens: first, maximumLength: room, reason: "only the second text may be cut and there is none")
      }
      return (first, try cut(second, "second"))
    case .longestFirst:
      guard let second else { return (room, 0) }
      let shorter = min(first, second)
      var (less, more) = (shorter, max(shorter, room - shorter))
      if less > room || less + more > room { (less, more) = (room / 2, room / 2 + room % 2) }
      return first > second ? (more, less) : (less, more)
    }
  }

  fileprivate func kept(_ count: Int, _ length: Int) -> Range<Int> {
    direction == .right ? 0..<min(length, count) : max(0, count - length)..<count
  }
}

extension Truncation {
  init(_ value: JSONValue) throws(ModelError) {
    try value.expectOnly(["max_length", "strategy", "stride", "direction"])
    self.init(maximumLength: try value.required("max_length").int(in: 1...Int(Int32.max)))
    // The stride is about the pieces cut off, which are not kept here.
    _ = try value.optional("stride")?.int(in: 0...Int(Int32.max))
    if let strategy = try value.optional("strategy") { self.strategy = try strategy.choice(Strategy.self) }
    if let direction = try value.optional("direction") { self.direction = try direction.choice(Direction.self) }
  }
}

extension Padding {
  /// A batch row is allocated at this length whatever the text, so a file must not ask for much.
  private static let fixedLimit = 1 << 20

  init(_ value: JSONValue) throws(ModelError) {
    try value.expectOnly(["strategy", "direction", "pad_to_multiple_of", "pad_id", "pad_type_id", "pad_token"])
    self.init()
    let strategy = try value.required("strategy")
    if strategy.kind == .object {
      try strategy.expectOnly(["Fixed"])
      length = .fixed(try strategy.required("Fixed").int(in: 0...Self.fixedLimit))
    } else if try strategy.string() != "BatchLongest" {
      throw strategy.error("is neither BatchLongest nor Fixed")
    }
    if let direction = try value.optional("direction") { self.direction = try direction.choice(Direction.self) }
    multipleOf = try value.optional("pad_to_multiple_of")?.int(in: 0...Self.fixedLimit)
    id = Int32(try value.required("pad_id").int(in: 0...Int(Int32.max)))
    typeID = Int32(try value.required("pad_type_id").int(in: 0...Int(Int32.max)))
    token = try value.required("pad_token").string()
  }
}

extension JSONValue {
  /// The case of `T` that the string spells.
  func choice<T: RawRepresentable>(_: T.Type) throws(ModelError) -> T where T.RawValue == String {
    let text = try string()
    guard let value = T(rawValue: text) else { throw error("\(text) is not a choice that Quern knows") }
    return value
  }
}

/// `BPE`: a word begins as its characters, and pairs of neighbours are merged in the order of the file's list.
struct BPEModel: Sendable {
  let vocabulary: Vocabulary
  let unknownID: Int32?
  private let merges: MergeTable
  /// Whether a word that is a token is that token, whatever the merges.
  private let ignoresMerges: Bool
  private let fusesUnknown: Bool
  private let prefix: [UInt8]
  private let suffix: [UInt8]
  /// The tokens `<0x00>` to `<0xFF>`, -1 where there is none; empty without `byte_fallback`.
  private let byteTokens: [Int32]
  /// The ids of the first scalars on their own, -1 where there is none.
  private let scalarTokens: [Int32]

  private static let mergeLimit = 1 << 24

  /// Byte-level BPE over a vocabulary that is there already.
  init(
    _ vocabulary: Vocabulary, merges: MergeTable, ignoresMerges: Bool, suffix: String = "", unknownID: Int32? = nil
  ) {
    (self.vocabulary, self.merges, self.ignoresMerges) = (vocabulary, merges, ignoresMerges)
    (self.unknownID, self.suffix) = (unknownID, Array(suffix.utf8))
    (fusesUnknown, prefix, byteTokens) = (false, [], [])
    scalarTokens = Self.scalarTokens(vocabulary)
  }

  init(_ model: JSONValue) throws(ModelError) {
    try model.expectOnly([
      "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
      "ignore_merges", "vocab", "merges",
    ])
    if let dropout = try model.optional("dropout"), try dropout.double() != 0 {
      throw dropout.error("is not 0; ids that are left to chance are not given here")
    }
    prefix = Array(try model.optional("continuing_subword_prefix")?.string().utf8 ?? "".utf8)
    suffix = Array(try model.optional("end_of_word_suffix")?.string().utf8 ?? "".utf8)
    fusesUnknown = try model.optional("fuse_unk")?.bool() ?? false
    ignoresMerges = try model.optional("ignore_merges")?.bool() ?? false
    (vocabulary, unknownID) = try Vocabulary.read(model, unknown: "unk_token", isRequired: false)
    let vocabulary = self.vocabulary
    byteTokens = try model.optional("byte_fallback")?.bool() ?? false ? vocabulary.byteTokens() : []
    scalarTokens = Self.scalarTokens(vocabulary)
    merges = try Self.readMerges(model.required("merges"), vocabulary, prefix)
  }

  private static func scalarTokens(_ vocabulary: Vocabulary) -> [Int32] {
    (0..<0x800).map { (scalar: UInt32) -> Int32 in
      var text: [UInt8] = []
      ScalarReader.append(scalar, to: &text)
      return text.withUnsafeBufferPointer { vocabulary.id($0) }
    }
  }

  /// Reads `["a b", …]` or `[["a", "b"], …]`.
  private static func readMerges(
    _ list: JSONValue, _ vocabulary: Vocabulary, _ prefix: [UInt8]
  ) throws(ModelError) -> MergeTable {
    let count = list.count
    guard count <= mergeLimit else { throw list.error("has more than \(mergeLimit) merges") }
    var merges = MergeTable(expected: count)
    // Most files list tokens in the order in which merges make them.
    var guess = vocabulary.count
    try list.forEachElement { (element) throws(ModelError) in
      let isAdded: Bool?
      if element.kind == .array {
        isAdded = try appendPair(element, vocabulary, prefix, &merges, &guess)
      } else {
        isAdded = try element.withBytes { (text) throws(ModelError) -> Bool? in
          // What merges.txt begins with.
          if text.starts(with: "#version".utf8) { return true }
          guard let (left, right) = halves(text) else { throw element.error(notTwoTokens) }
          return append(left, right, vocabulary, prefix, &merges, &guess)
        }
      }
      guard let isAdded else {
        throw element.error("is of a token that is not in model.vocab, or makes one that is not")
      }
      guard isAdded else { throw element.error(crowded) }
    }
    return merges
  }

  static let notTwoTokens = "is not two tokens and one space between them"
  static let crowded = "too many pairs hash alike; this happens only to a crafted file"

  /// What is before and after the one space of a merge.
  static func halves(
    _ text: UnsafeBufferPointer<UInt8>
  ) -> (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>)? {
    guard let space = text.firstIndex(of: 0x20), text[(space &+ 1)...].firstIndex(of: 0x20) == nil else { return nil }
    return (UnsafeBufferPointer(rebasing: text[..<space]), UnsafeBufferPointer(rebasing: text[(space &+ 1)...]))
  }

  private static func appendPair(
    _ pair: JSONValue, _ vocabulary: Vocabulary, _ prefix: [UInt8], _ merges: inout MergeTable,
    _ guess: inout Int
  ) throws(ModelError) -> Bool? {
    guard let (first, second) = pair.pair else { throw pair.error("is not two tokens") }
    return try first.withBytes { (left) throws(ModelError) in
      try second.withBytes { (right) throws(ModelError) in append(left, right, vocabulary, prefix, &merges, &guess) }
    }
  }

  /// Whether there was a slot; nil where a token is missing.
  static func append(
    _ left: UnsafeBufferPointer<UInt8>, _ right: UnsafeBufferPointer<UInt8>, _ vocabulary: Vocabulary,
    _ prefix: [UInt8], _ merges: inout MergeTable, _ guess: inout Int
  ) -> Bool? {
    guard right.count >= prefix.count else { return nil }
    let first = vocabulary.id(left)
    let second = vocabulary.id(right)
    let result = vocabulary.id(left, UnsafeBufferPointer(rebasing: right[prefix.count...]), guess: &guess)
    guess &+= 1
    guard first >= 0, second >= 0, result >= 0 else { return nil }
    return merges.append(first, second, makes: result)
  }

  func encode(_ word: UnsafeBufferPointer<UInt8>, _ work: inout ModelWork) {
    if ignoresMerges {
      let id = vocabulary.id(word)
      if id >= 0 { return work.ids.append(id) }
    }
    // Only the next symbol but a byte ends a run of unknown characters.
    var hasUnknown = false
    var position = 0
    while position < word.count {
      let (scalar, length) = ScalarReader.next(word, position)
      let end = position &+ length
      let character = UnsafeBufferPointer(rebasing: word[position..<end])
      let id = symbol(scalar, character, isFirst: position == 0, isLast: end == word.count)
      if id >= 0 {
        if hasUnknown { appendUnknown(&work) }
        hasUnknown = false
        work.merging.append(id)
      } else if !appendBytes(character, isFirst: position == 0, isLast: end == word.count, &work) {
        if hasUnknown && !fusesUnknown { appendUnknown(&work) }
        hasUnknown = true
      }
      position = end
    }
    if hasUnknown { appendUnknown(&work) }
    work.merging.mergeAll(merges, &work.ids)
  }

  private func appendUnknown(_ work: inout ModelWork) { if let unknownID { work.merging.append(unknownID) } }

  @inline(__always)
  private func symbol(
    _ scalar: UInt32, _ character: UnsafeBufferPointer<UInt8>, isFirst: Bool, isLast: Bool
  ) -> Int32 {
    let hasPrefix = !isFirst && !prefix.isEmpty
    let hasSuffix = isLast && !suffix.isEmpty
    guard hasPrefix || hasSuffix else {
      return scalar < 0x800 ? scalarTokens[Int(scalar)] : vocabulary.id(character)
    }
    return prefix.withUnsafeBufferPointer { prefix in
      suffix.withUnsafeBufferPointer { suffix in
        vocabulary.id(hasPrefix ? prefix : Self.nothing, character, hasSuffix ? suffix : nil)
      }
    }
  }

  private static var nothing: UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(start: nil, count: 0) }

  /// Appends the byte tokens of a character, prefix and suffix included; false where one of them is missing.
  private func appendBytes(
    _ character: UnsafeBufferPointer<UInt8>, isFirst: Bool, isLast: Bool, _ work: inout ModelWork
  ) -> Bool {
    if byteTokens.isEmpty { return false }
    let bytes = (isFirst ? [] : prefix) + Array(character) + (isLast ? suffix : [])
    for byte in bytes where byteTokens[Int(byte)] < 0 { return false }
    for byte in bytes { work.merging.append(byteTokens[Int(byte)]) }
    return true
  }
}

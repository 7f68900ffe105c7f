/// `Unigram`: the way to cut a word into tokens whose scores have the largest sum, by Viterbi's algorithm.
struct UnigramModel: Sendable {
  let vocabulary: Vocabulary
  private let unknown: Int32
  private let scores: [Double]
  private let trie: TokenTrie
  private let unknownScore: Double
  /// The tokens `<0x00>` to `<0xFF>`, -1 where there is none; empty without `byte_fallback`.
  private let byteTokens: [Int32]

  var unknownID: Int32? { unknown }

  /// Each place of a text may begin a token of this many bytes.
  private static let tokenLimit = 1024
  /// What an unknown character costs more than the least likely token.
  private static let unknownPenalty = 10.0

  init(_ model: JSONValue) throws(ModelError) {
    try model.expectOnly(["type", "unk_id", "vocab", "byte_fallback"])
    let list = try model.required("vocab")
    let count = list.count
    guard count > 0 else { throw list.error("has no token") }
    unknown = Int32(try model.required("unk_id").int(in: 0...min(count - 1, Int(Int32.max))))
    var scores: [Double] = []
    scores.reserveCapacity(count)
    var trie = TokenTrie()
    vocabulary = try Vocabulary(list: list, count: count) { (element, id, replaced) throws(ModelError) in
      guard let (token, score) = element.pair else { throw element.error("is not [token, score]") }
      scores.append(try score.double())
      try token.withBytes { (text) throws(ModelError) in
        guard text.count <= Self.tokenLimit else {
          throw token.error("is \(text.count) bytes long; it may be at most \(Self.tokenLimit)")
        }
        guard !text.isEmpty else { throw token.error("is empty") }
        guard trie.insert(text, id, &replaced) else { throw token.error("makes the vocabulary too large") }
      }
      return token
    }
    let vocabulary = self.vocabulary
    byteTokens = try model.optional("byte_fallback")?.bool() ?? false ? vocabulary.byteTokens() : []
    self.scores = scores
    self.trie = trie
    unknownScore = (scores.min() ?? 0) - Self.unknownPenalty
  }

  func encode(_ word: UnsafeBufferPointer<UInt8>, _ work: inout ModelWork) {
    let none = BestPath(score: 0, start: -1, id: -1)
    work.paths.removeAll(keepingCapacity: true)
    work.paths.append(contentsOf: repeatElement(none, count: word.count &+ 1))
    work.paths.withUnsafeMutableBufferPointer { findBest(word, $0) }
    // From the end to the start.
    let first = work.ids.count
    var end = word.count
    while end > 0 {
      let path = work.paths[end]
      var start = Int(path.start)
      if path.id == unknown {
        // Unknown characters in a row are one.
        while start > 0, work.paths[start].id == unknown { start = Int(work.paths[start].start) }
        appendUnknown(UnsafeBufferPointer(rebasing: word[start..<end]), &work.ids)
      } else {
        work.ids.append(path.id)
      }
      end = start
    }
    work.ids[first...].reverse()
  }

  private func findBest(_ word: UnsafeBufferPointer<UInt8>, _ paths: UnsafeMutableBufferPointer<BestPath>) {
    var start = 0
    while start < word.count {
      let reached = paths[start].score
      let length = ScalarReader.next(word, start).length
      var hasSingle = false
      var node: UInt32 = 0
      var end = start
      while end < word.count, let child = trie.child(node, word[end]) {
        node = child
        end &+= 1
        let id = trie.token(node)
        if id < 0 { continue }
        if end &- start == length { hasSingle = true }
        Self.offer(reached + scores[Int(id)], start, id, &paths[end])
      }
      if !hasSingle { Self.offer(reached + unknownScore, start, unknown, &paths[start &+ length]) }
      start &+= length
    }
  }

  @inline(__always)
  private static func offer(_ score: Double, _ start: Int, _ id: Int32, _ path: inout BestPath) {
    if path.start < 0 || score > path.score { path = BestPath(score: score, start: start, id: id) }
  }

  /// Appends, last first, the tokens of unknown characters: together they may be a token that scores worse than they do.
  private func appendUnknown(_ text: UnsafeBufferPointer<UInt8>, _ ids: inout [Int32]) {
    let id = vocabulary.id(text)
    if id >= 0 { return ids.append(id) }
    if !byteTokens.isEmpty, text.allSatisfy({ byteTokens[Int($0)] >= 0 }) {
      for byte in text.reversed() { ids.append(byteTokens[Int(byte)]) }
    } else {
      ids.append(unknown)
    }
  }
}

/// The best way found to cut a text up to one place: its score, and the last token.
struct BestPath {
  var score: Double
  var start: Int
  var id: Int32
}

/// Tokens by their bytes, one byte at a time.
struct TokenTrie: Sendable {
  /// Per slot the node and byte above, plus one, and the child below; 0 where free.
  private var slots = [UInt64](repeating: 0, count: 1024)
  private var tokens: [Int32] = [-1]
  /// Drawn per process so that a file cannot aim at a slot.
  private let multiplier = UInt64.random(in: 0 ... .max) | 1

  /// A node and a byte are kept in 32 bits.
  private static let nodeLimit = 1 << 23

  @inline(__always)
  private func slot(_ key: UInt64) -> Int {
    let mixed = key &* multiplier
    return Int(truncatingIfNeeded: ((mixed ^ mixed >> 32) &* 0x9E37_79B9_7F4A_7C15) >> 32) & (slots.count &- 1)
  }

  @inline(__always)
  private static func key(_ node: UInt32, _ byte: UInt8) -> UInt64 { UInt64(node) << 8 | UInt64(byte) &+ 1 }

  @inline(__always)
  func child(_ node: UInt32, _ byte: UInt8) -> UInt32? {
    let key = Self.key(node, byte)
    var slot = slot(key)
    while true {
      let word = slots[slot]
      if word == 0 { return nil }
      if word >> 32 == key { return UInt32(truncatingIfNeeded: word) }
      slot = (slot &+ 1) & (slots.count &- 1)
    }
  }

  @inline(__always)
  func token(_ node: UInt32) -> Int32 { tokens[Int(node)] }

  /// Adds a token, of which `replaced` then says the id it had; false where there is no room.
  mutating func insert(_ text: UnsafeBufferPointer<UInt8>, _ id: Int32, _ replaced: inout Int32) -> Bool {
    var node: UInt32 = 0
    for byte in text {
      if let child = child(node, byte) {
        node = child
        continue
      }
      guard tokens.count < Self.nodeLimit else { return false }
      if tokens.count * 2 > slots.count { grow() }
      let child = UInt32(truncatingIfNeeded: tokens.count)
      place(Self.key(node, byte) << 32 | UInt64(child))
      tokens.append(-1)
      node = child
    }
    replaced = tokens[Int(node)]
    tokens[Int(node)] = id
    return true
  }

  private mutating func place(_ word: UInt64) {
    var slot = slot(word >> 32)
    while slots[slot] != 0 { slot = (slot &+ 1) & (slots.count &- 1) }
    slots[slot] = word
  }

  private mutating func grow() {
    let old = slots
    slots = [UInt64](repeating: 0, count: old.count * 2)
    for word in old where word != 0 { place(word) }
  }
}

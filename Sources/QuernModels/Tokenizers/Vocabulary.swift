/// Token texts and their ids: a hash table over byte slices that can look up a text while it is being hashed,
/// so that the longest token at a place is found without building a string.
struct Vocabulary: Sendable {
  /// A run of occupied slots as long as this does not happen by chance; it would make lookups slow.
  private static let probeLimit = 128

  private var arena: [UInt8] = []
  private var starts: [UInt32] = [0]
  private var ids: [Int32] = []
  /// Per slot the upper half of the hash and, plus one, the entry; 0 where free.
  private var slots: [UInt64]
  private var byID: [UInt32] = []
  private var isSparse = false
  /// Whether the file lists tokens in the order of their ids, from 0.
  private var isInOrder = false
  private(set) var largestID: Int32 = -1
  private static let none = UInt32.max
  private(set) var longestToken = 0
  /// The ids of tokens whose string is a later token's too, which is the one that is found.
  private(set) var shadowed: [Int32] = []
  private let hasher = VocabularyHash()

  var count: Int { ids.count }

  /// Reads `{"token": id, …}`, and refuses a token that is there twice.
  init(_ object: JSONValue) throws(ModelError) {
    self.init(expected: object.count)
    let bytes = object.document.bytes
    try object.forEachRawMember { (quote, value) throws(ModelError) in
      let id = try value.int(in: 0...Int(Int32.max))
      switch JSONValue.withContent(bytes, quote: quote, { appendNew($0, id: Int32(id)) }) {
      case .done: break
      case .isThere: throw object.document.duplicate(quote: quote, object: object.index)
      case .crowded: throw value.error("too many tokens hash alike; this happens only to a crafted file")
      }
    }
    try indexByID(object)
  }

  /// Reads a list, of which `token` gives the string; the place in the list is the id. Where `token` says that a string
  /// has been there before, and where, the later one is found from then on.
  init(
    list: JSONValue, count: Int, token: (JSONValue, Int32, inout Int32) throws(ModelError) -> JSONValue
  ) throws(ModelError) {
    self.init(expected: count)
    try list.forEachElement { (element) throws(ModelError) in
      let id = Int32(truncatingIfNeeded: ids.count)
      var replaced: Int32 = -1
      let inserted = try token(element, id, &replaced).withUTF8 { append($0, id: id, replacing: Int(replaced)) }
      guard inserted else { throw element.error("too many tokens hash alike; this happens only to a crafted file") }
      if replaced >= 0 { shadowed.append(replaced) }
    }
    try indexByID(list)
  }

  /// As many texts, of which the place is the id. Throws what `error` makes of the place of one that is there twice.
  init(_ texts: GGUFStrings, error: (Int, String) throws(ModelError) -> ModelError) throws(ModelError) {
    self.init(expected: texts.count)
    for place in texts.indices {
      let insertion = texts.withUTF8(place) { (text) -> Insertion in
        // An empty text is found nowhere, and there may be many of them.
        if text.isEmpty {
          addEntry(text, id: Int32(truncatingIfNeeded: place))
          return .done
        }
        return appendNew(text, id: Int32(truncatingIfNeeded: place))
      }
      switch insertion {
      case .done: break
      case .isThere: throw try error(place, "is a token that is there twice")
      case .crowded: throw try error(place, "too many tokens hash alike; this happens only to a crafted file")
      }
    }
    // Places are in order from 0.
    (largestID, isInOrder) = (Int32(truncatingIfNeeded: count - 1), true)
  }

  private init(expected: Int) {
    var capacity = 16
    while capacity < expected * 2 { capacity *= 2 }
    slots = [UInt64](repeating: 0, count: capacity)
    starts.reserveCapacity(expected + 1)
    ids.reserveCapacity(expected)
  }

  /// Adds a token, in place of the entry `replacing` where that is not -1; false where there is no slot near its own.
  private mutating func append(_ token: UnsafeRawBufferPointer, id: Int32, replacing: Int = -1) -> Bool {
    var state = hasher.start
    for byte in token { state = hasher.step(state, byte) }
    let inserted = insert(hasher.finish(state), entry: ids.count, replacing: replacing)
    addEntry(token, id: id)
    return inserted
  }

  private enum Insertion { case done, isThere, crowded }

  /// Adds a token unless it is there.
  private mutating func appendNew(_ token: UnsafeRawBufferPointer, id: Int32) -> Insertion {
    var state = hasher.start
    for byte in token { state = hasher.step(state, byte) }
    let hash = hasher.finish(state)
    let mask = slots.count &- 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    for _ in 0..<Self.probeLimit {
      let word = slots[slot]
      if word == 0 {
        slots[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(ids.count + 1)
        addEntry(token, id: id)
        return .done
      }
      if (word ^ hash) >> 32 == 0, holds(Int(truncatingIfNeeded: word & 0xFFFF_FFFF) &- 1, token) { return .isThere }
      slot = (slot &+ 1) & mask
    }
    return .crowded
  }

  private func holds(_ entry: Int, _ token: UnsafeRawBufferPointer) -> Bool {
    arena[Int(starts[entry])..<Int(starts[entry &+ 1])].elementsEqual(token)
  }

  private mutating func addEntry(_ token: UnsafeRawBufferPointer, id: Int32) {
    arena.append(contentsOf: token)
    longestToken = max(longestToken, token.count)
    ids.append(id)
    starts.append(UInt32(truncatingIfNeeded: arena.count))
  }

  private mutating func insert(_ hash: UInt64, entry: Int, replacing: Int) -> Bool {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    for _ in 0..<Self.probeLimit {
      let isFree = slots[slot] == 0
      if replacing < 0 ? isFree : !isFree && slots[slot] & 0xFFFF_FFFF == UInt64(replacing + 1) {
        slots[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(entry + 1)
        return true
      }
      slot = (slot + 1) & mask
    }
    return false
  }

  /// Where ids are nearly without gaps, `byID` is indexed by them; else it is sorted and searched.
  private mutating func indexByID(_ object: JSONValue) throws(ModelError) {
    largestID = ids.max() ?? -1
    isInOrder = self.ids.indices.allSatisfy { self.ids[$0] == Int32(truncatingIfNeeded: $0) }
    if isInOrder { return }
    if Int(largestID) < ids.count * 2 + 1024 {
      byID = [UInt32](repeating: Self.none, count: Int(largestID) + 1)
      for entry in ids.indices {
        let other = byID[Int(ids[entry])]
        guard other == Self.none else { throw sameID(Int(other), entry, object) }
        byID[Int(ids[entry])] = UInt32(truncatingIfNeeded: entry)
      }
      return
    }
    isSparse = true
    byID = Array(0..<UInt32(ids.count))
    let ids = self.ids
    byID.sort { ids[Int($0)] < ids[Int($1)] }
    for (first, second) in zip(byID, byID.dropFirst()) where ids[Int(first)] == ids[Int(second)] {
      throw sameID(Int(first), Int(second), object)
    }
  }

  private func sameID(_ first: Int, _ second: Int, _ object: JSONValue) -> ModelError {
    object.error("the tokens \(text(first)) and \(text(second)) have the same id \(ids[first])")
  }

  private func text(_ entry: Int) -> String {
    String(decoding: arena[Int(starts[entry])..<Int(starts[entry + 1])], as: UTF8.self)
  }

  private func entry(of id: Int32) -> Int? {
    if isInOrder { return id >= 0 && Int(id) < ids.count ? Int(id) : nil }
    guard isSparse else {
      guard id >= 0, Int(id) < byID.count, byID[Int(id)] != Self.none else { return nil }
      return Int(byID[Int(id)])
    }
    var low = 0
    var high = byID.count
    while low < high {
      let middle = (low + high) / 2
      if ids[Int(byID[middle])] < id { low = middle + 1 } else { high = middle }
    }
    guard low < byID.count, ids[Int(byID[low])] == id else { return nil }
    return Int(byID[low])
  }

  /// The ids of `<0x00>` to `<0xFF>`, -1 where there is none.
  func byteTokens() -> [Int32] {
    (0...255).map { (byte: Int) -> Int32 in
      id(of: "<0x" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true) + ">") ?? -1
    }
  }

  func token(of id: Int32) -> String? { entry(of: id).map(text) }

  /// Calls `body` with the UTF-8 of a token; nil where there is no such id.
  func withToken<R>(_ id: Int32, _ body: (UnsafeBufferPointer<UInt8>) -> R) -> R? {
    guard let entry = entry(of: id) else { return nil }
    return arena.withUnsafeBufferPointer { arena in
      body(UnsafeBufferPointer(rebasing: arena[Int(starts[entry])..<Int(starts[entry + 1])]))
    }
  }

  /// The id of the token that is these texts one after another, or -1.
  func id(
    _ first: UnsafeBufferPointer<UInt8>, _ second: UnsafeBufferPointer<UInt8>? = nil,
    _ third: UnsafeBufferPointer<UInt8>? = nil
  ) -> Int32 {
    var state = hasher.start
    for byte in first { state = hasher.step(state, byte) }
    if let second { for byte in second { state = hasher.step(state, byte) } }
    if let third { for byte in third { state = hasher.step(state, byte) } }
    let hash = hasher.finish(state)
    let count = first.count &+ (second?.count ?? 0) &+ (third?.count ?? 0)
    let mask = slots.count &- 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while true {
      let word = slots[slot]
      if word == 0 { return -1 }
      if (word ^ hash) >> 32 == 0 {
        let entry = Int(truncatingIfNeeded: word & 0xFFFF_FFFF) &- 1
        var place = Int(starts[entry])
        if Int(starts[entry &+ 1]) &- place == count, matches(&place, first),
          second.map({ matches(&place, $0) }) ?? true,
          third.map({ matches(&place, $0) }) ?? true
        {
          return isInOrder ? Int32(truncatingIfNeeded: entry) : ids[entry]
        }
      }
      slot = (slot &+ 1) & mask
    }
  }

  /// As `id`, looking first at `entry`; the entry found, or -1.
  func id(
    _ first: UnsafeBufferPointer<UInt8>, _ second: UnsafeBufferPointer<UInt8>, guess entry: inout Int
  ) -> Int32 {
    if entry < ids.count {
      var place = Int(starts[entry])
      if Int(starts[entry &+ 1]) &- place == first.count &+ second.count, matches(&place, first),
        matches(&place, second)
      {
        return ids[entry]
      }
    }
    let id = id(first, second)
    if id >= 0, let found = self.entry(of: id) { entry = found }
    return id
  }

  @inline(__always)
  private func matches(_ place: inout Int, _ text: UnsafeBufferPointer<UInt8>) -> Bool {
    for byte in text {
      if arena[place] != byte { return false }
      place &+= 1
    }
    return true
  }

  func id(of token: String) -> Int32? {
    var copy = token
    return copy.withUTF8 { bytes in
      let found = find(hasher.hash(bytes[...]), prefix: [], UnsafeBufferPointer(rebasing: bytes[...]))
      return found < 0 ? nil : found
    }
  }

  /// The id of the token `prefix` + `text`, whose hash is `hash`, or -1.
  @inline(__always)
  private func find(_ hash: UInt64, prefix: [UInt8], _ text: UnsafeBufferPointer<UInt8>) -> Int32 {
    let mask = slots.count &- 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while true {
      let word = slots[slot]
      if word == 0 { return -1 }
      if (word ^ hash) >> 32 == 0 {
        let entry = Int(truncatingIfNeeded: word & 0xFFFF_FFFF) &- 1
        if matches(entry, prefix, text) { return ids[entry] }
      }
      slot = (slot &+ 1) & mask
    }
  }

  private func matches(_ entry: Int, _ prefix: [UInt8], _ text: UnsafeBufferPointer<UInt8>) -> Bool {
    let start = Int(starts[entry])
    guard Int(starts[entry &+ 1]) &- start == prefix.count &+ text.count else { return false }
    for index in 0..<prefix.count where arena[start &+ index] != prefix[index] { return false }
    for index in 0..<text.count where arena[start &+ prefix.count &+ index] != text[index] { return false }
    return true
  }

  /// The state of hashing `prefix`, to start `longestMatch` from.
  func hashState(_ prefix: [UInt8]) -> UInt64 { prefix.reduce(hasher.start) { hasher.step($0, $1) } }

  /// The longest token that is `prefix` and then the beginning of `text`, at least one character of it.
  /// `states` is working memory.
  @inline(__always)
  func longestMatch(
    prefix: [UInt8], state: UInt64, _ text: UnsafeBufferPointer<UInt8>, _ states: inout [UInt64]
  ) -> (id: Int32, length: Int)? {
    let limit = min(text.count, longestToken &- prefix.count)
    if limit <= 0 { return nil }
    if states.count < limit { states.append(contentsOf: repeatElement(0, count: limit &- states.count)) }
    var running = state
    for index in 0..<limit {
      running = hasher.step(running, text[index])
      states[index] = running
    }
    var length = limit
    while length > 0 {
      // A token ends where a character ends.
      if length == text.count || text[length] & 0xC0 != 0x80 {
        let slice = UnsafeBufferPointer(rebasing: text[0..<length])
        let id = find(hasher.finish(states[length &- 1]), prefix: prefix, slice)
        if id >= 0 { return (id, length) }
      }
      length &-= 1
    }
    return nil
  }
}

/// A hash that can be read off after each byte, seeded per process so that a file cannot aim at it.
private struct VocabularyHash: Sendable {
  let start = UInt64.random(in: 0 ... .max)
  private let multiplier = UInt64.random(in: 0 ... .max) | 1

  @inline(__always)
  func step(_ state: UInt64, _ byte: UInt8) -> UInt64 {
    let mixed = (state ^ UInt64(byte)) &* multiplier
    return mixed ^ mixed >> 29
  }

  @inline(__always)
  func finish(_ state: UInt64) -> UInt64 {
    let mixed = (state ^ state >> 32) &* 0x9E37_79B9_7F4A_7C15
    return mixed ^ mixed >> 32
  }

  func hash(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> UInt64 {
    finish(bytes.reduce(start) { step($0, $1) })
  }
}

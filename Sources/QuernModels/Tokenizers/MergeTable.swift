/// The merges of a BPE model: pairs of ids to the rank of the merge, which says what it makes.
struct MergeTable: Sendable {
  /// A run of occupied slots as long as this does not happen by chance; it would make lookups slow.
  private static let probeLimit = 128
  private struct Slot: Sendable {
    var key = UInt64.max
    var rank = MergeTable.none
  }
  static let none = UInt32.max

  /// What the merge of each rank makes.
  private(set) var results: [Int32] = []
  private var slots: [Slot]
  private let shift: UInt64
  /// Drawn per process so that a file cannot aim at a slot.
  private let seed = UInt64.random(in: 0 ... .max)
  private let multiplier = UInt64.random(in: 0 ... .max) | 1

  init(expected: Int) {
    var bits: UInt64 = 4
    while 1 << bits < expected * 2 { bits += 1 }
    shift = 64 - bits
    slots = [Slot](repeating: Slot(), count: 1 << bits)
    results.reserveCapacity(expected)
  }

  @inline(__always)
  private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  @inline(__always)
  private func slot(_ key: UInt64) -> Int {
    let mixed = (key ^ seed) &* multiplier
    return Int(truncatingIfNeeded: ((mixed ^ mixed >> 32) &* 0x9E37_79B9_7F4A_7C15) >> shift)
  }

  /// Adds the merge of the next rank; of two for one pair the later holds. False where there is no slot near its own.
  mutating func append(_ left: Int32, _ right: Int32, makes result: Int32) -> Bool {
    let key = Self.key(left, right)
    var slot = slot(key)
    for _ in 0..<Self.probeLimit {
      // A free slot has a key that no pair of ids has.
      if slots[slot].key == .max || slots[slot].key == key {
        slots[slot] = Slot(key: key, rank: UInt32(truncatingIfNeeded: results.count))
        results.append(result)
        return true
      }
      slot = (slot &+ 1) & (slots.count &- 1)
    }
    return false
  }

  /// The rank of the merge of two tokens, or `none`.
  @inline(__always)
  func rank(_ left: Int32, _ right: Int32) -> UInt32 {
    let key = Self.key(left, right)
    var slot = slot(key)
    while true {
      let found = slots[slot]
      if found.key == key { return found.rank }
      if found.key == .max { return Self.none }
      slot = (slot &+ 1) & (slots.count &- 1)
    }
  }
}

/// What says in which order neighbours are merged: pairs of ids, or the text that two symbols make.
protocol MergeRule {
  /// The rank of the merge of two symbols that follow each other, or `MergeTable.none`; the smallest is first.
  func rank(_ left: Int, _ right: Int, _ symbols: [MergeWork.Symbol]) -> UInt32

  /// What the merge of two symbols, of this rank, makes.
  func token(_ rank: UInt32, _ left: Int, _ right: Int, _ symbols: [MergeWork.Symbol]) -> Int32

  /// Whether a merge that waits with one rank is that of a pair which now has another.
  func isSame(_ waiting: UInt32, _ now: UInt32) -> Bool
}

extension MergeTable: MergeRule {
  @inline(__always)
  func rank(_ left: Int, _ right: Int, _ symbols: [MergeWork.Symbol]) -> UInt32 {
    rank(symbols[left].id, symbols[right].id)
  }

  @inline(__always)
  func token(_ rank: UInt32, _: Int, _: Int, _: [MergeWork.Symbol]) -> Int32 { results[Int(rank)] }

  /// As Hugging Face tokenizers: an entry holds as long as the pair now at its place makes the same token.
  @inline(__always)
  func isSame(_ waiting: UInt32, _ now: UInt32) -> Bool { results[Int(waiting)] == results[Int(now)] }
}

/// The symbols of one word while they are merged, as a linked list, and the merges that wait.
struct MergeWork {
  struct Symbol {
    var id: Int32
    var previous: Int32
    var next: Int32
    /// The rank of the merge with the next symbol; only words short enough for a plain search keep it.
    var rank: UInt32
  }

  var symbols: [Symbol] = []
  /// A heap, smallest first: the rank above the place, so that of equal merges the leftmost is first.
  private var heap: [UInt64] = []

  /// Up to this many symbols a plain search for the next merge beats a heap.
  private static let plainLimit = 24

  mutating func append(_ id: Int32) {
    let place = Int32(truncatingIfNeeded: symbols.count)
    symbols.append(Symbol(id: id, previous: place &- 1, next: place &+ 1, rank: MergeTable.none))
  }

  /// Merges all that can be, appends the ids to `ids` and is empty again.
  mutating func mergeAll(_ merges: MergeTable, _ ids: inout [Int32]) {
    let count = symbols.count
    if count > Self.plainLimit {
      merge(merges)
    } else if count > 0 {
      symbols[count &- 1].next = -1
      if count > 1 { mergePlain(merges) }
    }
    forEach { place, _ in ids.append(symbols[place].id) }
    symbols.removeAll(keepingCapacity: true)
  }

  /// Merges all that can be; symbols stay at their places.
  mutating func merge(_ rule: some MergeRule) {
    guard !symbols.isEmpty else { return }
    symbols[symbols.count &- 1].next = -1
    mergeHeap(rule)
  }

  /// Calls `body` with the place of each symbol that is left and of the one after it, or -1.
  @inline(__always)
  func forEach(_ body: (_ place: Int, _ next: Int) -> Void) {
    var place = symbols.isEmpty ? -1 : 0
    while place >= 0 {
      let next = Int(symbols[place].next)
      body(place, next)
      place = next
    }
  }

  private mutating func mergePlain(_ merges: MergeTable) {
    symbols.withUnsafeMutableBufferPointer { symbols in
      var count = symbols.count
      for place in 0..<count &- 1 { symbols[place].rank = merges.rank(symbols[place].id, symbols[place &+ 1].id) }
      while count > 1 {
        var best = 0
        for place in 1..<count &- 1 where symbols[place].rank < symbols[best].rank { best = place }
        let rank = symbols[best].rank
        if rank == MergeTable.none { break }
        symbols[best].id = merges.results[Int(rank)]
        count &-= 1
        for place in best &+ 1..<max(count, best &+ 1) {
          symbols[place].id = symbols[place &+ 1].id
          symbols[place].rank = symbols[place &+ 1].rank
        }
        symbols[best].rank =
          best &+ 1 < count ? merges.rank(symbols[best].id, symbols[best &+ 1].id) : MergeTable.none
        if best > 0 { symbols[best &- 1].rank = merges.rank(symbols[best &- 1].id, symbols[best].id) }
      }
      symbols[count &- 1].next = -1
    }
  }

  private mutating func mergeHeap(_ rule: some MergeRule) {
    heap.removeAll(keepingCapacity: true)
    for place in 0..<symbols.count &- 1 { push(place, rule.rank(place, place &+ 1, symbols)) }
    while let top = pop() {
      let place = Int(top & 0xFFFF_FFFF)
      // A symbol that has gone into the one before it has the id -1.
      guard symbols[place].id >= 0, symbols[place].next >= 0 else { continue }
      let right = Int(symbols[place].next)
      let rank = rule.rank(place, right, symbols)
      guard rank != MergeTable.none, rule.isSame(UInt32(truncatingIfNeeded: top >> 32), rank) else { continue }
      symbols[place].id = rule.token(rank, place, right, symbols)
      symbols[right].id = -1
      let next = symbols[right].next
      symbols[place].next = next
      if next >= 0 {
        symbols[Int(next)].previous = Int32(truncatingIfNeeded: place)
        push(place, rule.rank(place, Int(next), symbols))
      }
      let previous = Int(symbols[place].previous)
      if previous >= 0 { push(previous, rule.rank(previous, place, symbols)) }
    }
  }

  private mutating func push(_ place: Int, _ rank: UInt32) {
    if rank == MergeTable.none { return }
    let entry = UInt64(rank) << 32 | UInt64(place)
    var hole = heap.count
    heap.append(entry)
    while hole > 0 {
      let parent = (hole &- 1) / 2
      if heap[parent] <= entry { break }
      heap[hole] = heap[parent]
      hole = parent
    }
    heap[hole] = entry
  }

  private mutating func pop() -> UInt64? {
    guard let last = heap.popLast() else { return nil }
    guard let top = heap.first else { return last }
    var hole = 0
    while true {
      var child = hole &* 2 &+ 1
      if child >= heap.count { break }
      if child &+ 1 < heap.count, heap[child &+ 1] < heap[child] { child &+= 1 }
      if last <= heap[child] { break }
      heap[hole] = heap[child]
      hole = child
    }
    heap[hole] = last
    return top
  }
}

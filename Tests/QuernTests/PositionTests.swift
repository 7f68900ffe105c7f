import Foundation
import Quern
import QuernTesting
import Testing

/// Tables of positions against published values, and operands that rope, the cache and attention's options refuse.
@Suite struct PositionTests {
  private let context = Context(backend: ReferenceBackend())

  @Test func slopesOfALiBi() throws {
    #expect(try Tensor.alibiSlopes(heads: 8).elements == (1...8).map { pow(2, -Float($0)) })
    // The function of Press et al.'s code for 6 heads.
    let six: [Float] = [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    #expect(try Tensor.alibiSlopes(heads: 6).elements == six)
    #expect(try Tensor.alibiSlopes(heads: 0).elements == [])
    refuses("shape") { _ = try Tensor.alibiSlopes(heads: -1) }
  }

  @Test func sinusoids() throws {
    let table = try Tensor.sinusoidalPositions(3, size: 5).view
    for p in 0..<3 {
      for j in 0..<5 {
        let angle = Double(p) / pow(10000, Double(j / 2 * 2) / 5)
        #expect(abs(table[p, j] - (j % 2 == 0 ? sin(angle) : cos(angle))) <= 0x1p-24)
      }
    }
  }

  @Test func timesteps() throws {
    let y = try MutableTensor(zeros: Shape(2, 7))
    try TimestepEmbedding(size: 7, flipSinToCos: true, downscaleFreqShift: 0).write([0, 981], into: y)
    #expect(y.elements[0..<7] == [1, 1, 1, 0, 0, 0, 0])
    #expect(abs(y[1, 1] - cos(981 * pow(10000, -1 / 3.0))) <= 0x1p-24)
    #expect(abs(y[1, 5] - sin(981 * pow(10000, -2 / 3.0))) <= 0x1p-24)
    try TimestepEmbedding(size: 6).write([3], into: y.rows(0..<1).columns(0..<6))
    #expect(abs(y[0, 2] - sin(3 / 10000.0)) <= 0x1p-24)
    refuses("do not fit") { try TimestepEmbedding(size: 6).write([3], into: y) }
    refuses("downscaleFreqShift") {
      try TimestepEmbedding(size: 2).write([3], into: y.rows(0..<1).columns(0..<2))
    }
  }

  @Test func rotaryTables() throws {
    let table = try RotaryTable(positions: 4, size: 4, theta: 100).values
    let (c, s): ([Double], [Double]) = ([cos(3), cos(0.3)], [sin(3), sin(0.3)])
    for j in 0..<2 {
      #expect(table.view[3, j] == Double(Float(c[j])) && table.view[3, 2 + j] == Double(Float(s[j])))
    }
    let linear = try RotaryTable(positions: 8, size: 4, scaling: .linear(factor: 2)).values
    let plain = try RotaryTable(positions: 4, size: 4).values
    #expect(linear.rows(6..<7).elements == plain.rows(3..<4).elements)
    // Llama 3.2: the fastest frequency stays, the slowest is divided by the factor.
    let scaling = RotaryScaling.llama3(factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192)
    let llama = try RotaryTable(positions: 2, size: 64, theta: 500000, scaling: scaling).values.view
    #expect(llama[1, 32] == Double(Float(sin(1.0))))
    #expect(llama[1, 63] == Double(Float(sin(pow(500000, -62 / 64.0) / 32))))
    let middle = pow(500000, -30 / 64.0)  // 2.8 turns of the original context
    let share = (8192 * middle / (2 * .pi) - 1) / 3
    #expect(abs(llama[1, 47] - sin((1 - share) * middle / 32 + share * middle)) < 1e-9)
    refuses("even") { _ = try RotaryTable(positions: 2, size: 3) }
    refuses("out of range") { _ = try RotaryTable(positions: 2, size: 2, theta: 0) }
    // 1 / 2 and 1 / 4 radians at position 1, for tables up to 4 positions and beyond.
    let phi = RotaryScaling.longrope(short: [2], long: [4], originalContext: 4, attentionFactor: 1.5)
    for (positions, angle) in [(4, 0.5), (5, 0.25)] {
      let table = try RotaryTable(positions: positions, size: 2, scaling: phi).values.view
      #expect(abs(table[1, 0] - 1.5 * cos(angle)) < 1e-6 && abs(table[1, 1] - 1.5 * sin(angle)) < 1e-6)
    }
    refuses("out of range") { _ = try RotaryTable(positions: 2, size: 2, scaling: .linear(factor: 0)) }
  }

  @Test func ropeRefuses() throws {
    let table = try RotaryTable(positions: 4, size: 8)
    let (x, y) = (try MutableTensor(zeros: Shape(2, 3, 8)), try MutableTensor(zeros: Shape(2, 3, 8)))
    refuses("1 positions for 2 tokens") { try context.rope(x.view, table: table, positions: [0], into: y) }
    refuses("position 4 of token 1") { try context.rope(x.view, table: table, positions: [0, 4], into: y) }
    refuses("position -1 of token 0") { try context.rope(x.view, table: table, positions: [-1, 0], into: y) }
    refuses("rank 3") {
      try context.rope(x.view.rows(0..<1).reshaped(Shape(3, 8)), table: table, positions: [0], into: y)
    }
    let narrow = try MutableTensor(zeros: Shape(2, 3, 6))
    refuses("must agree") { try context.rope(x.view, table: table, positions: [0, 0], into: narrow) }
    refuses("turns 8 elements") {
      try context.rope(narrow.view, table: table, positions: [0, 0], into: try MutableTensor(zeros: narrow.shape))
    }
    let shifted = x.reinterpreted(offset: 8, shape: Shape(1, 3, 8), strides: x.strides)
    refuses("overlap") { try context.rope(x.view.rows(0..<1), table: table, positions: [0], into: shifted) }
  }

  @Test func appendRefuses() throws {
    let x = try MutableTensor(zeros: Shape(3, 2, 8))
    let cache = try MutableTensor(zeros: Shape(2, 4, 2, 8), dataType: .bf16)
    let two = try Segments(lengths: [1, 2])
    #expect(throws: QuernError.cacheFull(sequence: 1, held: 3, new: 2, capacity: 4)) {
      try context.appendToCache(x.view, sequences: two, lengths: [0, 3], cache: cache)
    }
    refuses("sequence 1 holds 3 rows and 2 more") {
      try context.appendToCache(x.view, sequences: two, lengths: [0, 3], cache: cache)
    }
    refuses("holds -1 rows") { try context.appendToCache(x.view, sequences: two, lengths: [-1, 0], cache: cache) }
    refuses("1 lengths") { try context.appendToCache(x.view, sequences: two, lengths: [0], cache: cache) }
    refuses("rank 4") {
      try context.appendToCache(x.view, sequences: two, lengths: [0, 0], cache: cache.reshaped(Shape(2, 4, 16)))
    }
    refuses("differ in heads") {
      try context.appendToCache(x.view, sequences: two, lengths: [0, 0], cache: cache.reshaped(Shape(2, 4, 4, 4)))
    }
    refuses("x has 3") {
      try context.appendToCache(x.view, sequences: try Segments(lengths: [1, 1]), lengths: [0, 0], cache: cache)
    }
  }

  @Test func int8CachesRefuse() throws {
    let (x, two) = (try MutableTensor(zeros: Shape(3, 2, 8)), try Segments(lengths: [1, 2]))
    let cache = try Int8Cache(sequences: 2, capacity: 4, heads: 2, size: 8)
    #expect(Int8Cache.byteCount(sequences: 2, capacity: 4, heads: 2, size: 8) == 2 * 4 * 2 * 12)
    #expect(Int8Cache.byteCount(sequences: .max, capacity: 4, heads: 2, size: 8) == .max)
    refuses("negative") { _ = try Int8Cache(sequences: -1, capacity: 4, heads: 2, size: 8) }
    #expect(throws: QuernError.cacheFull(sequence: 1, held: 3, new: 2, capacity: 4)) {
      try context.appendToCache(x.view, sequences: two, lengths: [0, 3], cache: cache)
    }
    let narrow = try Int8Cache(sequences: 2, capacity: 4, heads: 2, size: 6)
    refuses(.appendToInt8Cache, "differ in heads or head size") {
      try context.appendToCache(x.view, sequences: two, lengths: [0, 0], cache: narrow)
    }
    let o = try MutableTensor(zeros: Shape(3, 2, 8))
    let layout = try AttentionLayout(queries: two, cache: Segments(lengths: [4, 4]), counts: [1, 2])
    func attention(_ text: String, _ keys: Int8Cache, _ values: Int8Cache, _ layout: AttentionLayout) {
      refuses(.int8Attention, text) {
        try context.attention(queries: x.view, keys: keys, values: values, layout: layout, into: o)
      }
    }
    attention("must agree", cache, narrow, layout)
    attention("differ in head size", narrow, narrow, layout)
    attention("and 3 keys", cache, cache, AttentionLayout(two))
    let one = try Int8Cache(sequences: 2, capacity: 4, heads: 3, size: 8)
    attention("2 query heads are no multiple of 3", one, one, layout)
  }

  /// What is appended comes back to within half a step, and a vector that is not finite does not come back at all.
  @Test func int8VectorsComeBackNearly() throws {
    for backend in [ReferenceBackend(), try MultithreadedBackend()] as [any Backend] {
      let x = try Operands(seed: 3).make(Shape(5, 2, 33))
      x[4, 1, 7] = .infinity
      let cache = try Int8Cache(sequences: 2, capacity: 4, heads: 2, size: 33)
      try Context(backend: backend).appendToCache(
        x.view, sequences: try Segments(lengths: [2, 3]), lengths: [1, 1], cache: cache)
      for (token, place) in [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)].enumerated() {
        for head in 0..<2 where token < 4 || head == 0 {
          let largest = (0..<33).map { abs(x[token, head, $0]) }.max() ?? 0
          for j in 0..<33 {
            let error = abs(cache[place.0, place.1, head, j] - x[token, head, j])
            #expect(error <= largest / 127 * (0.5 + 0x1p-17))
          }
        }
      }
      #expect(cache[1, 3, 1, 0].isNaN && cache[0, 0, 0, 0] == 0)
    }
  }

  /// The error that the documentation states of a cache in 8 bits against one that rounds nothing.
  @Test func int8AttentionIsOffByWhatIsStated() throws {
    let (heads, size, keys) = (2, 24, 60)
    let reference = Context(backend: ReferenceBackend())
    let operands = Operands(seed: 5)
    let q = try operands.make(Shape(1, heads, size))
    let (k, v) = (try operands.make(Shape(keys, heads, size)), try operands.make(Shape(keys, heads, size)))
    let layout = AttentionLayout(queries: try Segments(single: 1), keys: try Segments(single: keys))
    func cached(_ x: MutableTensor) throws -> Int8Cache {
      let cache = try Int8Cache(sequences: 1, capacity: keys, heads: heads, size: size)
      try context.appendToCache(x.view, sequences: try Segments(single: keys), lengths: [0], cache: cache)
      return cache
    }
    let (codedKeys, codedValues) = (try cached(k), try cached(v))
    let sizes = try Tensor(v.elements.map(abs), shape: v.shape)
    let (o, exact, weighted) = (
      try MutableTensor(zeros: q.shape), try MutableTensor(zeros: q.shape), try MutableTensor(zeros: q.shape)
    )
    try context.attention(queries: q.view, keys: codedKeys, values: codedValues, layout: layout, into: o)
    try reference.attention(queries: q.view, keys: k.view, values: v.view, layout: layout, into: exact)
    try reference.attention(queries: q.view, keys: k.view, values: sizes.view, layout: layout, into: weighted)
    var largest = 0.0
    for head in 0..<heads {
      let norm = (0..<size).reduce(0) { $0 + abs(q[0, head, $1]) } / Double(size).squareRoot()
      func steps(_ cache: Int8Cache) -> Double {
        (0..<keys).map { Double(cache.scales[cache.vector(0, $0, head)]) }.max() ?? 0
      }
      let delta = norm * steps(codedKeys) / 2
      for j in 0..<size {
        let bound = steps(codedValues) / 2 + (exp(2 * delta) - 1) * weighted[0, head, j]
        let error = abs(o[0, head, j] - exact[0, head, j])
        #expect(error <= bound * (1 + 1e-4))
        largest = max(largest, error)
      }
    }
    #expect(largest > 1e-4)
  }

  @Test func attentionOptionsRefuse() throws {
    let (q, o) = (try MutableTensor(zeros: Shape(3, 2, 8)), try MutableTensor(zeros: Shape(3, 2, 8)))
    let layout = AttentionLayout(try Segments(single: 3))
    func refuses(
      _ text: String, mask: AttentionMask = .none, cap: Float = 0, lse: MutableTensor? = nil,
      at location: SourceLocation = #_sourceLocation
    ) {
      QuernTests.refuses(text, at: location) {
        try context.attention(
          queries: q.view, keys: q.view, values: q.view, layout: layout, mask: mask, softCap: cap, logSumExp: lse,
          into: o)
      }
    }
    refuses("softCap is -1", cap: -1)
    refuses("softCap is nan", cap: .nan)
    refuses("reaches -1 keys back", mask: .slidingWindow(0))
    refuses("-2 ahead", mask: AttentionMask(after: -2))
    refuses("slopes has shape [3]", mask: AttentionMask(slopes: try Tensor([1, 2, 3])))
    refuses("logSumExp has shape [2, 3]", lse: try MutableTensor(zeros: Shape(2, 3)))
    refuses("logSumExp is bf16", lse: try MutableTensor(zeros: Shape(3, 2), dataType: .bf16))
    refuses("overlaps", lse: o.slice(axis: 2, 0..<2).slice(axis: 1, 0..<1).reshapedRows())
    QuernTests.refuses("4 keys in use of sequence 0") {
      _ = try AttentionLayout(queries: try Segments(single: 1), cache: try Segments(single: 3), counts: [4])
    }
    QuernTests.refuses("2 counts") {
      _ = try AttentionLayout(queries: try Segments(single: 1), cache: try Segments(single: 3), counts: [1, 1])
    }
  }

  /// A cache with room to spare gives the bits of keys laid end to end.
  @Test func aCacheIsItsRowsInUse() throws {
    let context = Context(backend: try MultithreadedBackend())
    let operands = Operands(seed: 5)
    let x = try operands.make(Shape(9, 2, 16))
    let cache = try MutableTensor(zeros: Shape(2, 8, 2, 16))
    try context.appendToCache(
      x.view, sequences: try Segments(lengths: [6, 3]), lengths: [0, 0], cache: cache)
    let queries = try Segments(lengths: [2, 1])
    let q = try operands.make(Shape(3, 4, 16))
    func attend(_ keys: TensorView, _ layout: AttentionLayout) throws -> [Float] {
      let o = try MutableTensor(zeros: q.shape)
      try context.attention(queries: q.view, keys: keys, values: keys, layout: layout, mask: .slidingWindow(4), into: o)
      return o.elements
    }
    let plain = try attend(x.view, AttentionLayout(queries: queries, keys: try Segments(lengths: [6, 3])))
    let cached = try attend(
      cache.view.reshaped(Shape(16, 2, 16)),
      try AttentionLayout(queries: queries, cache: try Segments(lengths: [8, 8]), counts: [6, 3]))
    #expect(plain == cached)
  }
}

extension MutableTensor {
  /// [tokens, 1, n] as [tokens, n].
  fileprivate func reshapedRows() -> MutableTensor {
    reinterpreted(offset: 0, shape: Shape(shape[0], shape[2]), strides: Shape(strides[0], strides[2]))
  }
}

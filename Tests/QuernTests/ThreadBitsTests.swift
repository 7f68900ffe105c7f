import Quern
import QuernTesting
import Testing

/// The same bits for any number of threads, and for a row however many rows come with it.
///
/// Tests beside these may hold the team, and work then runs in place; it is cut for the asked number of threads all the
/// same, and the cut is what could change bits.
@Suite struct ThreadBitsTests {
  private static let threadCounts = 1...8

  private static func context(threads: Int, isa: ISA? = nil) throws -> Context {
    Context(backend: try MultithreadedBackend(options: BackendOptions(threads: threads, isa: isa)))
  }

  /// Runs a workload on every number of threads and compares the bits.
  private static func expectSameBits(_ workload: Workload, isa: ISA? = nil) throws {
    let one = try workload.result(on: context(threads: 1, isa: isa)).map(\.bitPattern)
    for threads in threadCounts.dropFirst() {
      let many = try workload.result(on: context(threads: threads, isa: isa)).map(\.bitPattern)
      let place = zip(one, many).enumerated().first { $0.element.0 != $0.element.1 }?.offset
      #expect(
        place == nil && one.count == many.count,
        "\(workload.operation.rawValue) \(workload.name): element \(place ?? -1) differs on \(threads) threads")
    }
  }

  @Test(arguments: Operation.allCases.filter { $0 != .pack }) func testCasesKeepTheirBits(_ operation: Operation) throws
  {
    let entries = TestCases.all.filter { $0.operation == operation }
    #expect(!entries.isEmpty)
    for (index, entry) in entries.enumerated() {
      try Self.expectSameBits(try entry.workload(seed: SeededRandom.runSeed &+ UInt64(index)))
    }
  }

  /// Shapes large enough to be shared out, which most test cases are not.
  private static func largeWorkloads() throws -> [Workload] {
    func operands(_ number: UInt64) -> Operands { Operands(seed: SeededRandom.runSeed &+ number) }
    return [
      try .linear(
        LinearShape(m: 300, n: 500, k: 700, activation: .gelu, bias: true, residual: true), operands: operands(1)),
      try .linear(LinearShape(m: 1, n: 3000, k: 1100, bias: true), operands: operands(2)),
      try .linear(LinearShape(m: 5, n: 2050, k: 333), operands: operands(3)),
      try .matmul(MatmulShape(m: 300, n: 500, k: 700), operands: operands(4)),
      try .matmul(MatmulShape(m: 9, n: 700, k: 900).with { $0.transposesB = true }, operands: operands(5)),
      try .matmul(MatmulShape(batch: 40, m: 33, n: 65, k: 64), operands: operands(6)),
      try .matmul(MatmulShape(m: 65, n: 70, k: 12_000).with { $0.beta = 1 }, operands: operands(6)),
      try .linear(LinearShape(m: 300, n: 40, k: 9000, bias: true), operands: operands(6)),
      try .conv2d(
        ConvolutionShape(9, 20, 200, to: 130, Convolution(padding: 1, upsampling: 2, allowsWinograd: true)),
        operands: operands(6)),
      try .attention(AttentionShape([200], heads: 4, kvHeads: 2, size: 40, mask: .causal), operands: operands(7)),
      try .attention(AttentionShape([200, 3, 77], keys: [50, 300, 77], heads: 3, size: 64), operands: operands(8)),
      try .attention(AttentionShape([1], keys: [5000], heads: 6, kvHeads: 1, size: 64), operands: operands(8)),
      try .attention(
        AttentionShape([1, 1], keys: [600, 1700], heads: 4, kvHeads: 2, size: 40), operands: operands(8)),
      try .attention(
        AttentionShape([1, 1], keys: [2500, 30], heads: 4, kvHeads: 1, size: 64).with { $0.isInt8 = true },
        operands: operands(8)),
      try .attention(
        AttentionShape([500, 60], heads: 4, kvHeads: 2, size: 40, mask: .causal).with {
          $0.blocks = (96, 32, .dice(of: 2, isForEachHead: false))
        }, operands: operands(8)),
      try .attention(
        AttentionShape([300, 1], keys: [300, 2500], heads: 4, kvHeads: 2, size: 24).with {
          $0.blocks = (50, 100, .dice(of: 3, isForEachHead: true))
        }, operands: operands(8)),
      try .softmax(RowShape(700, 513), operands: operands(9)),
      try .norm(.layerNorm, RowShape(700, 513), residual: true, operands: operands(10)),
      try .norm(.rmsNorm, RowShape(700, 513), operands: operands(11)),
      try .norm(.l2Normalize, RowShape(700, 513), operands: operands(12)),
      try .activation(.gelu, RowShape(700, 513), operands: operands(13)),
      try .embedding(RowShape(3000, 130), table: 50, accumulate: true, operands: operands(14)),
      try .meanPool([500, 0, 3, 700, 90], n: 257, operands: operands(15)),
      try .binary(.add, RowShape(700, 513), oneRow: true, operands: operands(16)),
      try .binary(.multiply, RowShape(700, 513), operands: operands(17)),
      try .scale(RowShape(700, 513), by: 0.3, operands: operands(18)),
    ]
  }

  @Test(arguments: ISA.available) func largeShapesKeepTheirBits(_ isa: ISA) throws {
    for workload in try Self.largeWorkloads() { try Self.expectSameBits(workload, isa: isa) }
  }

  // MARK: A row alone

  private func random(_ shape: Shape, seed: UInt64) throws -> MutableTensor { try Operands(seed: seed).make(shape) }

  private func bits(_ tensor: MutableTensor) -> [UInt32] { tensor.elements.map(\.bitPattern) }

  /// The numbers of rows at which kernels change their way: one, a tile less one, a tile, and beyond.
  private static let rowCounts = [1, 2, 5, 6, 7, 11, 12, 13, 24, 50]

  @Test(arguments: ISA.available) func aRowOfLinearStandsAlone(_ isa: ISA) throws {
    let context = try Self.context(threads: 2, isa: isa)
    let (rows, inputs, outputs) = (50, 700, 333)
    let x = try random(Shape(rows, inputs), seed: 1)
    let weights = try context.pack(random(Shape(outputs, inputs), seed: 2).view)
    let epilogue = Epilogue(bias: try Operands(seed: 3).vector(outputs), activation: .silu)
    let whole = try MutableTensor(zeros: Shape(rows, outputs))
    try context.linear(x.view, weights: weights, epilogue: epilogue, into: whole)
    for count in Self.rowCounts {
      for first in [0, (rows - count) / 2, rows - count] {
        let part = try MutableTensor(zeros: Shape(count, outputs))
        try context.linear(x.view.rows(first..<first + count), weights: weights, epilogue: epilogue, into: part)
        #expect(bits(part) == bits(whole.rows(first..<first + count)), "\(count) rows from \(first)")
      }
    }
  }

  /// K in pieces: their sums are added in the same order for one row, for more than are shared out by piece, and for so many
  /// that sums come in parts.
  @Test(arguments: ISA.available) func aRowOfALongProductStandsAlone(_ isa: ISA) throws {
    let context = try Self.context(threads: 2, isa: isa)
    let largest = isa == ISA.available.last
    for (rows, inputs, outputs) in [(200, 8300, 40)] + (largest ? [(300, 65536, 250)] : []) {
      let x = try random(Shape(rows, inputs), seed: 1)
      let weights = try context.pack(random(Shape(outputs, inputs), seed: 2).view)
      let whole = try MutableTensor(zeros: Shape(rows, outputs))
      try context.linear(x.view, weights: weights, into: whole)
      for count in [1, 2, 5, 16, 17, 128, 129] {
        let part = try MutableTensor(zeros: Shape(count, outputs))
        try context.linear(x.view.rows(rows - count..<rows), weights: weights, into: part)
        #expect(bits(part) == bits(whole.rows(rows - count..<rows)), "\(count) of \(rows) rows")
      }
    }
  }

  /// A cache long enough to be read in parts: alone, beside a short one, and beside a prompt.
  /// One key head, and several that are read together, a few keys at a time.
  @Test(arguments: ISA.available, [(1, 1, 24), (8, 1, 24), (1, 4, 64), (8, 4, 64)])
  func aSingleQueryStandsAlone(_ isa: ISA, _ form: (threads: Int, keyHeads: Int, size: Int)) throws {
    let context = try Self.context(threads: form.threads, isa: isa)
    let (heads, size, held) = (4 * form.keyHeads, form.size, 2000)
    let q = try random(Shape(5, heads, size), seed: 4)
    let rows = Shape(held + 70, form.keyHeads, size)
    let (k, v) = (try random(rows, seed: 5), try random(rows, seed: 6))
    func first(_ queries: [Int], _ keys: [Int]) throws -> [UInt32] {
      let rows = queries.reduce(0, +)
      let o = try MutableTensor(zeros: Shape(rows, heads, size))
      let layout = AttentionLayout(queries: try Segments(lengths: queries), keys: try Segments(lengths: keys))
      let seen = keys.reduce(0, +)
      try context.attention(
        queries: q.view.rows(0..<rows), keys: k.view.rows(0..<seen), values: v.view.rows(0..<seen), layout: layout,
        into: o)
      return bits(o.rows(0..<1))
    }
    let alone = try first([1], [held])
    #expect(try first([1, 1], [held, 20]) == alone)
    #expect(try first([1, 4], [held, 70]) == alone)
  }

  /// Two queries at least: a single one reads the keys where they lie and sums in lanes.
  @Test(arguments: ISA.available) func aQueryOfAttentionStandsAlone(_ isa: ISA) throws {
    let context = try Self.context(threads: 2, isa: isa)
    let (queries, keys, heads, size) = (70, 133, 2, 40)
    let q = try random(Shape(queries, heads, size), seed: 4)
    let (k, v) = (try random(Shape(keys, heads, size), seed: 5), try random(Shape(keys, heads, size), seed: 6))
    func attend(_ rows: Range<Int>) throws -> MutableTensor {
      let o = try MutableTensor(zeros: Shape(rows.count, heads, size))
      let layout = AttentionLayout(queries: try Segments(single: rows.count), keys: try Segments(single: keys))
      try context.attention(queries: q.view.rows(rows), keys: k.view, values: v.view, layout: layout, into: o)
      return o
    }
    let whole = try attend(0..<queries)
    for row in [0, 1, 31, 32, 63, 64, 68] {
      #expect(bits(try attend(row..<row + 2)) == bits(whole.rows(row..<row + 2)), "query \(row)")
    }
  }

  /// Blocks that are all listed, and blocks that list just what a mask leaves, end where keys end without them.
  @Test(arguments: ISA.available) func everyBlockIsNoBlocks(_ isa: ISA) throws {
    let context = try Self.context(threads: 2, isa: isa)
    for (queries, keys, block) in [(150, 200, 64), (1, 1500, 128), (300, 300, 37)] {
      let (q, k) = (try random(Shape(queries, 4, 24), seed: 4), try random(Shape(keys, 2, 24), seed: 5))
      let layout = AttentionLayout(queries: try Segments(single: queries), keys: try Segments(single: keys))
      func attend(_ mask: AttentionMask) throws -> [UInt32] {
        let o = try MutableTensor(zeros: q.shape)
        try context.attention(queries: q.view, keys: k.view, values: k.view, layout: layout, mask: mask, into: o)
        return bits(o)
      }
      let all = try BlockMask(queries: queries, keys: keys, blockQueries: block, blockKeys: block) { _, _, _ in true }
      #expect(try attend(AttentionMask(blocks: all)) == attend(.none))
      #expect(try attend(AttentionMask(isCausal: true, before: 70, blocks: all)) == attend(.slidingWindow(71)))
      guard queries == keys else { continue }
      let causal = try BlockMask.window(length: keys, block: block, reach: keys, isCausal: true)
      #expect(try attend(AttentionMask(isCausal: true, blocks: causal)) == attend(.causal))
    }
  }

  @Test(arguments: ISA.available) func aSequenceStandsAlone(_ isa: ISA) throws {
    let context = try Self.context(threads: 2, isa: isa)
    let segments = try Segments(lengths: [17, 1, 60, 128])
    let qkv = try random(Shape(segments.total, 3, 32), seed: 7)
    func attend(_ rows: Range<Int>, _ layout: AttentionLayout) throws -> MutableTensor {
      let o = try MutableTensor(zeros: Shape(rows.count, 1, 32))
      let part = qkv.view.rows(rows)
      func head(_ index: Int) -> TensorView { part.slice(axis: 1, index..<index + 1) }
      try context.attention(
        queries: head(0), keys: head(1), values: head(2), layout: layout, mask: .causal, into: o)
      return o
    }
    let whole = try attend(0..<segments.total, AttentionLayout(segments))
    for index in 0..<segments.count {
      let rows = segments[index]
      let alone = try attend(rows, AttentionLayout(try Segments(single: rows.count)))
      #expect(bits(alone) == bits(whole.rows(rows)), "sequence \(index)")
    }
  }

  @Test(arguments: ISA.available) func aRowOfLayerNormStandsAlone(_ isa: ISA) throws {
    let context = try Self.context(threads: 2, isa: isa)
    let x = try random(Shape(90, 387), seed: 8)
    let weight = try Operands(seed: 9).vector(387)
    let whole = try MutableTensor(zeros: x.shape)
    try context.layerNorm(x.view, weight: weight, into: whole)
    for row in [0, 1, 44, 89] {
      let part = try MutableTensor(zeros: Shape(1, 387))
      try context.layerNorm(x.view.rows(row..<row + 1), weight: weight, into: part)
      #expect(bits(part) == bits(whole.rows(row..<row + 1)), "row \(row)")
    }
  }
}

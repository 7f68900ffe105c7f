import Quern
import QuernTesting
import Testing

/// Masks of blocks: what they list, what they refuse, and what attention does not read.
@Suite struct BlockMaskTests {
  private func mask(
    _ offsets: [Int32], _ columns: [Int32], queries: Int = 5, keys: Int = 7, blocks: (Int, Int) = (2, 3),
    heads: Int = 1
  ) throws -> BlockMask {
    try BlockMask(
      queries: queries, keys: keys, blockQueries: blocks.0, blockKeys: blocks.1, heads: heads, offsets: offsets,
      columns: columns)
  }

  @Test func blockIndicesAreChecked() throws {
    let good = try mask([0, 2, 2, 3], [0, 2, 1])
    #expect(good.blocks == 3 && good.density == 1.0 / 3 && good.blockRows == 3 && good.blockColumns == 3)
    #expect(try mask([0, 0, 0, 0, 0, 0, 1], [2], heads: 2).columns(ofRow: 2, head: 1) == [2])
    refuses("not ascending") { _ = try mask([0, 2, 2, 3], [2, 0, 1]) }
    refuses("not ascending") { _ = try mask([0, 2, 2, 3], [1, 1, 1]) }
    refuses("outside the 3 block columns") { _ = try mask([0, 2, 2, 3], [0, 3, 1]) }
    refuses("outside the 3 block columns") { _ = try mask([0, 2, 2, 3], [-1, 0, 1]) }
    refuses("exceeds the next") { _ = try mask([0, 4, 2, 3], [0, 2, 1]) }
    refuses("offsets run from") { _ = try mask([0, 2, 2, 4], [0, 2, 1]) }
    refuses("3 offsets for 3 block rows") { _ = try mask([0, 2, 3], [0, 2, 1]) }
    refuses("4 offsets for 6 block rows") { _ = try mask([0, 2, 2, 3], [0, 2, 1], heads: 2) }
    refuses("sides are from 1") { _ = try mask([0], [], blocks: (0, 3)) }
    refuses("a block mask of -1 queries") { _ = try mask([0], [], queries: -1) }
    refuses("a block mask of 0 heads") { _ = try mask([0], [], heads: 0) }
    refuses("8 elements; expected 1 x 3 x 3") {
      _ = try BlockMask(
        queries: 5, keys: 7, blockQueries: 2, blockKeys: 3, dense: [Bool](repeating: true, count: 8))
    }
    refuses("are more than") {
      _ = try BlockMask(queries: 1 << 20, keys: 1 << 20, blockQueries: 1, blockKeys: 1) { _, _, _ in true }
    }
    refuses("a stride of 0 blocks") { _ = try BlockMask.strided(length: 4, block: 1, stride: 0) }
  }

  @Test func patternsListTheirBlocks() throws {
    func rows(_ mask: BlockMask) -> [[Int32]] { (0..<mask.blockRows).map { [Int32](mask.columns(ofRow: $0)) } }
    #expect(
      rows(try .window(length: 9, block: 2, reach: 1, global: 1, isCausal: true))
        == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]])
    #expect(
      rows(try .window(length: 9, block: 2, reach: 1, global: 1))
        == [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4]])
    #expect(
      rows(try .strided(length: 10, block: 2, stride: 2)) == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [0, 2, 3, 4]])
    var generator = SeededRandom(seed: 1)
    let bird = try BlockMask.bigBird(length: 80, block: 2, random: 3, using: &generator)
    #expect(bird.columns(ofRow: 0).count == 40)
    #expect((3..<39).allSatisfy { bird.columns(ofRow: $0).count == 7 })
    let causal = try BlockMask.bigBird(length: 80, block: 2, random: 3, isCausal: true, using: &generator)
    #expect((0..<40).allSatisfy { row in causal.columns(ofRow: row).allSatisfy { $0 <= row } })
    #expect(causal.columns(ofRow: 30).count == 6)
    let dense = try BlockMask(
      queries: 3, keys: 3, blockQueries: 2, blockKeys: 2, dense: [true, false, true, true])
    #expect(rows(dense) == [[0], [0, 1]])
    #expect(dense.allows(head: 0, query: 1, key: 1) && !dense.allows(head: 0, query: 1, key: 2))
  }

  @Test func attentionChecksBlocks() throws {
    let (q, o) = (try MutableTensor(zeros: Shape(3, 2, 8)), try MutableTensor(zeros: Shape(3, 2, 8)))
    let layout = AttentionLayout(try Segments(single: 3))
    let context = Context(backend: ReferenceBackend())
    func refuses(_ text: String, _ blocks: BlockMask) {
      QuernTests.refuses(text) {
        try context.attention(
          queries: q.view, keys: q.view, values: q.view, layout: layout, mask: AttentionMask(blocks: blocks), into: o)
      }
    }
    refuses("the block mask has 3 heads; expected 2, or 1", try mask([0, 0, 0, 0], [], queries: 1, keys: 3, heads: 3))
    refuses("covers 2 queries and 3 keys; sequences have up to 3 and 3", try mask([0, 0], [], queries: 2, keys: 3))
    refuses("covers 4 queries and 2 keys", try mask([0, 0, 0], [], queries: 4, keys: 2))
  }

  /// Queries whose blocks leave no key become zeros, and what lies outside the blocks has no effect, NaN included.
  @Test(arguments: [1, 40]) func unlistedKeysAreNotThere(_ queries: Int) throws {
    let operands = Operands(seed: 3)
    let (q, k) = (try operands.make(Shape(queries, 2, 16)), try operands.make(Shape(900, 1, 16)))
    for key in 0..<900 where key / 100 != 6 { for d in 0..<16 { k.store(.nan, at: key * 16 + d) } }
    let layout = AttentionLayout(queries: try Segments(single: queries), keys: try Segments(single: 900))
    // The second head has one block, and the second block row of it none.
    let blocks = try BlockMask(
      queries: queries, keys: 900, blockQueries: 30, blockKeys: 100, heads: 2
    ) { head, row, column in head == 1 && row == 0 && column == 6 }
    for name in Backends.names where Backends.unavailability(of: name) == nil {
      let (o, lse) = (try MutableTensor(zeros: q.shape), try MutableTensor(zeros: Shape(queries, 2)))
      try Context(backend: Backends.make(name)).attention(
        queries: q.view, keys: k.view, values: k.view, layout: layout, mask: AttentionMask(blocks: blocks),
        logSumExp: lse, into: o)
      for query in 0..<queries {
        let sees = query < 30
        #expect(lse[query, 0] == -.infinity && (lse[query, 1] > -.infinity) == sees)
        #expect((0..<16).allSatisfy { o[query, 0, $0] == 0 && o[query, 1, $0].isFinite })
        #expect((0..<16).contains { o[query, 1, $0] != 0 } == sees)
      }
    }
  }

  @Test func aQueryThatSeesNoKeyIsZeroWhateverItsSink() throws {
    let k = try Operands(seed: 4).make(Shape(3, 2, 8))
    let sinks = try Tensor([Float.nan, .infinity])
    let blocks = try mask([0, 0, 0, 0], [], queries: 3, keys: 3, blocks: (1, 1))
    for name in Backends.names where Backends.unavailability(of: name) == nil {
      let o = try MutableTensor(zeros: k.shape)
      try Context(backend: Backends.make(name)).attention(
        queries: k.view, keys: k.view, values: k.view, layout: AttentionLayout(try Segments(single: 3)),
        mask: AttentionMask(sinks: sinks, blocks: blocks), into: o)
      #expect(o.elements.allSatisfy { $0 == 0 }, "\(name)")
    }
  }
}

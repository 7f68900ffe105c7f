/// Which blocks of keys each block of queries attends to: the patterns of Sparse Transformers (arXiv 1904.10509), Longformer
/// (arXiv 2004.05150) and BigBird (arXiv 2007.14062), and the block masks of FlexAttention (arXiv 2412.05496).
///
/// Query i and key j of a sequence, each counted from its start, lie in block row `i / blockQueries` and block column
/// `j / blockKeys`. Block compressed sparse rows list the block columns that a block row attends to, for all heads at once or for
/// each. Blocks at the lower and right edges may stick out. A mask serves shorter sequences too, which see its upper left part.
public struct BlockMask: Sendable, Equatable {
  /// The longest sequence that it covers.
  public let queries, keys: Int
  public let blockQueries, blockKeys: Int
  /// 1 where one pattern serves all heads.
  public let heads: Int
  /// The first block of each block row, those of a head after those of the head before, then the number of blocks.
  public let offsets: [Int32]
  /// The block column of each block, ascending in a block row.
  public let columns: [Int32]

  /// Block rows of a head.
  public var blockRows: Int { (queries + blockQueries - 1) / blockQueries }
  public var blockColumns: Int { (keys + blockKeys - 1) / blockKeys }
  /// Blocks that are listed, of all heads together.
  public var blocks: Int { columns.count }
  /// The share of blocks that are listed.
  public var density: Double {
    let all = heads * blockRows * blockColumns
    return all == 0 ? 0 : Double(blocks) / Double(all)
  }

  /// A mask of these blocks.
  ///
  /// - Parameters:
  ///   - offsets: `heads * blockRows + 1` of them.
  ///   - columns: ascending in a block row, without repetition.
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for sizes that are negative or, of blocks and heads, zero, for
  ///   offsets that are too many or few or decrease, and for block columns out of range or not strictly ascending.
  public init(
    queries: Int, keys: Int, blockQueries: Int, blockKeys: Int, heads: Int = 1, offsets: [Int32], columns: [Int32]
  ) throws(QuernError) {
    let check = Check(operation: .attention)
    try Self.checkSizes(queries, keys, blockQueries, blockKeys, heads, check)
    (self.queries, self.keys, self.blockQueries, self.blockKeys) = (queries, keys, blockQueries, blockKeys)
    (self.heads, self.offsets, self.columns) = (heads, offsets, columns)
    try check.blockRows(heads * blockRows, across: blockColumns, offsets: offsets, columns: columns)
  }

  /// A mask of the blocks that a function chooses, called once with every head, block row and block column.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for sizes as in
  ///   ``init(queries:keys:blockQueries:blockKeys:heads:offsets:columns:)``, and for more than `Int32.max` blocks, listed or not.
  public init(
    queries: Int, keys: Int, blockQueries: Int, blockKeys: Int, heads: Int = 1,
    attends: (_ head: Int, _ row: Int, _ column: Int) -> Bool
  ) throws(QuernError) {
    let check = Check(operation: .attention)
    try Self.checkSizes(queries, keys, blockQueries, blockKeys, heads, check)
    let (down, across) = ((queries + blockQueries - 1) / blockQueries, (keys + blockKeys - 1) / blockKeys)
    try Self.checkCount(heads, down, across, check)
    var (offsets, columns): ([Int32], [Int32]) = ([0], [])
    for head in 0..<heads {
      for row in 0..<down {
        for column in 0..<across where attends(head, row, column) { columns.append(Int32(column)) }
        offsets.append(Int32(columns.count))
      }
    }
    try self.init(
      queries: queries, keys: keys, blockQueries: blockQueries, blockKeys: blockKeys, heads: heads, offsets: offsets,
      columns: columns)
  }

  /// A mask of the blocks that are true in a dense matrix `[heads, blockRows, blockColumns]`.
  ///
  /// - Throws: ``QuernError/invalidOperand(operation:reason:)`` for a matrix of another size, and as the other initialisers do.
  public init(
    queries: Int, keys: Int, blockQueries: Int, blockKeys: Int, heads: Int = 1, dense: [Bool]
  ) throws(QuernError) {
    let check = Check(operation: .attention)
    try Self.checkSizes(queries, keys, blockQueries, blockKeys, heads, check)
    let (down, across) = ((queries + blockQueries - 1) / blockQueries, (keys + blockKeys - 1) / blockKeys)
    try Self.checkCount(heads, down, across, check)
    try check.require(
      dense.count == heads * down * across,
      "the dense block mask has \(dense.count) elements; expected \(heads) x \(down) x \(across)")
    try self.init(
      queries: queries, keys: keys, blockQueries: blockQueries, blockKeys: blockKeys, heads: heads
    ) { head, row, column in dense[(head * down + row) * across + column] }
  }

  /// The block columns of a block row, ascending.
  public func columns(ofRow row: Int, head: Int = 0) -> ArraySlice<Int32> {
    let place = (heads == 1 ? 0 : head * blockRows) + row
    return columns[Int(offsets[place])..<Int(offsets[place + 1])]
  }

  /// Whether a head's query sees a key, as far as this mask goes. Takes the logarithm of the blocks of a row.
  public func allows(head: Int, query: Int, key: Int) -> Bool {
    let (listed, column) = (columns(ofRow: query / blockQueries, head: head), Int32(key / blockKeys))
    var (low, high) = (listed.startIndex, listed.endIndex)
    while low < high {
      let middle = (low + high) / 2
      if listed[middle] < column { low = middle + 1 } else { high = middle }
    }
    return low < listed.endIndex && listed[low] == column
  }

  private static func checkSizes(
    _ queries: Int, _ keys: Int, _ blockQueries: Int, _ blockKeys: Int, _ heads: Int, _ check: Check
  ) throws(QuernError) {
    let (lengths, sides) = (0...Int(Int32.max), 1...Int(Int32.max))
    try check.require(
      lengths.contains(queries) && lengths.contains(keys), "a block mask of \(queries) queries and \(keys) keys")
    try check.require(
      sides.contains(blockQueries) && sides.contains(blockKeys),
      "blocks of \(blockQueries) queries by \(blockKeys) keys; sides are from 1 to \(Int32.max)")
    try check.require(
      (1...Int(Int16.max)).contains(heads), "a block mask of \(heads) heads; they are from 1 to \(Int16.max)")
  }

  private static func checkCount(_ heads: Int, _ down: Int, _ across: Int, _ check: Check) throws(QuernError) {
    let (count, overflows) = (heads * down).multipliedReportingOverflow(by: across)
    try check.require(
      !overflows && count <= Int(Int32.max), "\(heads) x \(down) x \(across) blocks are more than \(Int32.max)")
  }
}

extension BlockMask {
  /// Self-attention in a window, with global blocks: a block row attends to block columns up to `reach` away, and to the first
  /// `global`, whose own rows attend to every block column (Longformer). Where it is causal, to none after its own.
  ///
  /// A window of blocks is coarser than ``AttentionMask/before``: both together give a window of keys that skips blocks beyond it.
  public static func window(
    length: Int, block: Int, reach: Int, global: Int = 0, isCausal: Bool = false
  ) throws(QuernError) -> BlockMask {
    try BlockMask(queries: length, keys: length, blockQueries: block, blockKeys: block) { _, row, column in
      isInWindow(row, column, reach: reach, global: global, isCausal: isCausal)
    }
  }

  /// The pattern of BigBird: ``window(length:block:reach:global:isCausal:)`` and, in each block row, up to `random` blocks more.
  public static func bigBird(
    length: Int, block: Int, reach: Int = 1, global: Int = 1, random: Int = 3, isCausal: Bool = false,
    using generator: inout some RandomNumberGenerator
  ) throws(QuernError) -> BlockMask {
    let window = try window(length: length, block: block, reach: reach, global: global, isCausal: isCausal)
    var chosen: [Set<Int>] = []
    for row in 0..<window.blockRows {
      let others = (0..<(isCausal ? row : window.blockColumns)).filter {
        !isInWindow(row, $0, reach: reach, global: global, isCausal: isCausal)
      }
      chosen.append(Set(others.shuffled(using: &generator).prefix(max(random, 0))))
    }
    return try BlockMask(queries: length, keys: length, blockQueries: block, blockKeys: block) { _, row, column in
      chosen[row].contains(column)
        || isInWindow(row, column, reach: reach, global: global, isCausal: isCausal)
    }
  }

  /// The strided pattern of Sparse Transformers, causal: the `stride` latest block columns, and every `stride`-th before them.
  public static func strided(length: Int, block: Int, stride: Int) throws(QuernError) -> BlockMask {
    try Check(operation: .attention).require(stride > 0, "a stride of \(stride) blocks; it is positive")
    return try BlockMask(queries: length, keys: length, blockQueries: block, blockKeys: block) { _, row, column in
      column <= row && (row - column < stride || (row - column) % stride == 0)
    }
  }

  private static func isInWindow(_ row: Int, _ column: Int, reach: Int, global: Int, isCausal: Bool) -> Bool {
    (abs(row - column) <= reach || column < global || row < global) && (!isCausal || column <= row)
  }
}

extension Check {
  /// Block compressed sparse rows: `rows` block rows, whose block columns lie below `across` and ascend.
  func blockRows(_ rows: Int, across: Int, offsets: [Int32], columns: [Int32]) throws(QuernError) {
    try require(offsets.count == rows + 1, "\(offsets.count) offsets for \(rows) block rows; expected one more")
    try require(
      offsets[0] == 0 && Int(offsets[rows]) == columns.count,
      "offsets run from \(offsets[0]) to \(offsets[rows]) for \(columns.count) blocks")
    for row in 0..<rows where offsets[row] > offsets[row + 1] {
      try require(false, "offset \(offsets[row]) of block row \(row) exceeds the next, \(offsets[row + 1])")
    }
    for row in 0..<rows {
      for block in Int(offsets[row])..<Int(offsets[row + 1]) {
        try require(
          columns[block] >= 0 && Int(columns[block]) < across,
          "block column \(columns[block]) of block \(block) is outside the \(across) block columns")
        try require(
          block == Int(offsets[row]) || columns[block - 1] < columns[block],
          "block columns of block row \(row) are not ascending at block \(block)")
      }
    }
  }
}

/// Sequences of different lengths laid end to end along the first axis of a tensor, with no padding between them.
public struct Segments: Sendable, Equatable {
  /// The first row of each sequence, then the total: `count + 1` entries, never decreasing.
  public private(set) var offsets: [Int32]
  /// The longest sequence.
  public private(set) var maximumLength: Int

  /// The number of sequences.
  public var count: Int { offsets.count - 1 }
  /// Rows of all sequences together.
  public var total: Int { Int(offsets[offsets.count - 1]) }

  /// Sequences of these lengths.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for a negative length or a total above `Int32.max`.
  public init(lengths: [Int]) throws(QuernError) {
    self.init()
    try assign(lengths: lengths)
  }

  /// No sequence.
  public init() { (offsets, maximumLength) = ([0], 0) }

  /// Becomes sequences of these lengths, in the memory that it has: what a caller does in every pass without allocating.
  ///
  /// - Throws: as ``init(lengths:)``; it then has no sequence.
  public mutating func assign(lengths: [Int]) throws(QuernError) {
    offsets.removeAll(keepingCapacity: true)
    offsets.append(0)
    maximumLength = 0
    var total = 0
    for length in lengths {
      let (sum, overflow) = total.addingReportingOverflow(length)
      guard length >= 0, !overflow, sum <= Int(Int32.max) else {
        self = Segments()
        throw .invalidShape("segment length \(length): lengths are not negative and add up to at most \(Int32.max)")
      }
      total = sum
      offsets.append(Int32(total))
      maximumLength = max(maximumLength, length)
    }
  }

  /// One sequence of this length.
  public init(single length: Int) throws(QuernError) { try self.init(lengths: [length]) }

  /// The rows of one sequence.
  public subscript(index: Int) -> Range<Int> { Int(offsets[index])..<Int(offsets[index + 1]) }
}

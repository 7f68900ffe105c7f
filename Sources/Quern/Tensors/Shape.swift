/// The extents of a tensor of rank 0 to 4, kept inline so that passing one never allocates.
public struct Shape: Sendable, Hashable, CustomStringConvertible, ExpressibleByArrayLiteral {
  /// The highest rank a tensor can have.
  public static let maximumRank = 4

  public private(set) var rank: Int
  private var extents: (Int, Int, Int, Int) = (1, 1, 1, 1)

  /// The shape of a single number.
  public init() { rank = 0 }

  /// A shape with this extent, and up to three more.
  ///
  /// - Precondition: no extent is negative. Use ``init(checking:)`` for extents read from a file.
  public init(_ first: Int) { self.init(rank: 1, (first, 1, 1, 1)) }

  public init(_ first: Int, _ second: Int) { self.init(rank: 2, (first, second, 1, 1)) }

  public init(_ first: Int, _ second: Int, _ third: Int) { self.init(rank: 3, (first, second, third, 1)) }

  public init(_ first: Int, _ second: Int, _ third: Int, _ fourth: Int) {
    self.init(rank: 4, (first, second, third, fourth))
  }

  // One initialiser for each rank, as a variadic one makes an array on the heap.
  private init(rank: Int, _ extents: (Int, Int, Int, Int)) {
    precondition(min(extents.0, extents.1, extents.2, extents.3) >= 0, "a shape has no negative extent")
    (self.rank, self.extents) = (rank, extents)
  }

  public init(arrayLiteral elements: Int...) { self.init(trusted: elements) }

  /// A shape from untrusted extents.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for a rank above four, a negative extent or an element count
  ///   that overflows.
  public init(checking extents: [Int]) throws(QuernError) {
    guard extents.count <= Self.maximumRank, extents.allSatisfy({ $0 >= 0 }) else {
      throw .invalidShape("\(extents): a shape has at most four extents, none negative")
    }
    var product = 1
    for extent in extents {
      // An extent of 0 must not hide strides that overflow.
      let (next, overflow) = product.multipliedReportingOverflow(by: max(extent, 1))
      guard !overflow, next <= Int.max / 8 else { throw .invalidShape("\(extents): too many elements") }
      product = next
    }
    self.init(trusted: extents)
  }

  private init(trusted extents: [Int]) {
    precondition(extents.count <= Self.maximumRank, "a shape has at most four extents")
    rank = extents.count
    for (axis, extent) in extents.enumerated() {
      precondition(extent >= 0, "a shape has no negative extent")
      self[axis] = extent
    }
  }

  /// The extent of an axis, counted from the first.
  public subscript(axis: Int) -> Int {
    get {
      precondition(axis >= 0 && axis < rank, "axis out of range")
      return switch axis {
      case 0: extents.0
      case 1: extents.1
      case 2: extents.2
      default: extents.3
      }
    }
    set {
      precondition(axis >= 0 && axis < rank, "axis out of range")
      switch axis {
      case 0: extents.0 = newValue
      case 1: extents.1 = newValue
      case 2: extents.2 = newValue
      default: extents.3 = newValue
      }
    }
  }

  /// The product of the extents; 1 for rank 0.
  public var count: Int { extents.0 * extents.1 * extents.2 * extents.3 }

  /// The extent of the last axis; 1 for rank 0.
  public var last: Int { rank == 0 ? 1 : self[rank - 1] }

  public var array: [Int] { (0..<rank).map { self[$0] } }
  public var description: String { "\(array)" }

  public static func == (a: Shape, b: Shape) -> Bool { a.rank == b.rank && a.extents == b.extents }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(rank)
    for axis in 0..<rank { hasher.combine(self[axis]) }
  }

  /// The strides, in elements, of a row-major tensor of this shape.
  var rowMajorStrides: Shape {
    var strides = self
    var stride = 1
    for axis in (0..<rank).reversed() {
      strides[axis] = stride
      stride *= max(self[axis], 1)
    }
    return strides
  }

  /// This shape without one axis.
  func removing(axis: Int) -> Shape {
    var result = self
    result.rank = rank - 1
    result.extents = (1, 1, 1, 1)
    for kept in 0..<rank where kept != axis { result[kept < axis ? kept : kept - 1] = self[kept] }
    return result
  }

  /// This shape with an axis of this extent in front of `axis`.
  func inserting(_ extent: Int, at axis: Int) -> Shape {
    precondition(rank < Self.maximumRank, "a shape has at most four extents")
    var result = self
    result.rank = rank + 1
    for kept in (axis..<rank).reversed() { result[kept + 1] = self[kept] }
    result[axis] = extent
    return result
  }
}

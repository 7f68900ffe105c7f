/// What the three tensor types share: extents, strides in elements, and slicing that copies nothing.
public protocol Strided {
  /// The extents.
  var shape: Shape { get }
  /// The distance in elements between neighbours along each axis; 0 repeats one element.
  var strides: Shape { get }
  /// How the elements are stored.
  var dataType: DataType { get }
  /// The same memory, seen from `offset` elements further on with another shape and other strides.
  func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> Self
}

extension Strided {
  /// ``dataType``, as a set.
  public var types: DataTypes { DataTypes(dataType) }

  /// Whether elements lie in row-major order with nothing between them.
  public var isContiguous: Bool {
    if shape.count == 0 { return true }
    let rowMajor = shape.rowMajorStrides
    return (0..<shape.rank).allSatisfy { shape[$0] == 1 || strides[$0] == rowMajor[$0] }
  }

  /// A range along one axis.
  ///
  /// - Precondition: the range lies within the axis.
  public func slice(axis: Int, _ range: Range<Int>) -> Self {
    precondition(range.lowerBound >= 0 && range.upperBound <= shape[axis], "slice outside the axis")
    var extents = shape
    extents[axis] = range.count
    return reinterpreted(offset: range.lowerBound * strides[axis], shape: extents, strides: strides)
  }

  /// A range of the first axis.
  public func rows(_ range: Range<Int>) -> Self { slice(axis: 0, range) }

  /// A range of the last axis.
  public func columns(_ range: Range<Int>) -> Self { slice(axis: shape.rank - 1, range) }

  /// The same elements with the last two axes exchanged.
  public func transposed() -> Self {
    precondition(shape.rank >= 2, "transposing takes two axes")
    let (a, b) = (shape.rank - 2, shape.rank - 1)
    var extents = shape
    var steps = strides
    (extents[a], extents[b]) = (shape[b], shape[a])
    (steps[a], steps[b]) = (strides[b], strides[a])
    return reinterpreted(offset: 0, shape: extents, strides: steps)
  }

  /// The same elements with the axes in another order: axis k of the result is axis `order[k]`. NHWC from NCHW is
  /// `permuted([0, 2, 3, 1])`.
  ///
  /// - Precondition: `order` names each axis once.
  public func permuted(_ order: Shape) -> Self {
    precondition(order.rank == shape.rank, "a permutation names every axis")
    var (extents, steps, seen) = (shape, strides, 0)
    for axis in 0..<order.rank {
      let from = order[axis]
      precondition(from < order.rank && seen & 1 << from == 0, "a permutation names each axis once")
      seen |= 1 << from
      (extents[axis], steps[axis]) = (shape[from], strides[from])
    }
    return reinterpreted(offset: 0, shape: extents, strides: steps)
  }

  /// The last axis cut into `count` equal heads: `[..., count * d]` becomes `[..., count, d]`.
  public func heads(_ count: Int) -> Self {
    let axis = shape.rank - 1
    precondition(count > 0 && shape[axis] % count == 0, "the last axis does not divide into these heads")
    let size = shape[axis] / count
    var extents = shape.inserting(count, at: axis)
    extents[axis + 1] = size
    return reinterpreted(offset: 0, shape: extents, strides: strides.inserting(size * strides[axis], at: axis))
  }

  /// The same elements in another shape.
  ///
  /// - Precondition: the tensor is contiguous and the counts agree.
  public func reshaped(_ extents: Shape) -> Self {
    precondition(isContiguous && extents.count == shape.count, "reshaping takes contiguous elements and the same count")
    return reinterpreted(offset: 0, shape: extents, strides: extents.rowMajorStrides)
  }

  /// Elements from the first to one past the last that this tensor touches.
  var span: Int {
    if shape.count == 0 { return 0 }
    return (0..<shape.rank).reduce(1) { $0 + (shape[$1] - 1) * strides[$1] }
  }

  /// The offset of element [i, j, ...] given by its row-major position.
  package func offset(of position: Int) -> Int {
    var rest = position
    var offset = 0
    for axis in (0..<shape.rank).reversed() {
      offset += rest % shape[axis] * strides[axis]
      rest /= shape[axis]
    }
    return offset
  }
}

/// Tensors that can be handed on without counting references, for one call whose caller keeps the memory alive.
protocol Lendable: Strided {
  /// The same memory in another shape, and no owner.
  func lent(shape: Shape, strides: Shape) -> Self
}

extension Optional where Wrapped: Strided {
  /// The data type of an operand that may be absent, as a set.
  public var types: DataTypes { self?.types ?? [] }
}

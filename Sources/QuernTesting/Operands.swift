import Quern

/// Makes the operands of a case: where they lie, how rows are padded, and what fills them.
public final class Operands {
  /// Where operands lie.
  public enum Placement: Sendable, Equatable {
    /// Ordinary aligned memory.
    case plain
    /// Against a forbidden page, this many elements off it.
    case guarded(GuardedBuffer.Side, misalignment: Int)
  }

  /// What fills operands.
  public enum Fill: Sendable, Equatable {
    /// Roughly normal values.
    case normal
    /// Integers from -4 to 4: every partial sum is exact in f32, so every kernel must agree bit for bit.
    case integers
    /// Normal values with a NaN or an infinity here and there.
    case special
  }

  public let fill: Fill
  /// The storage of what ``make(_:scale:as:)`` returns.
  public let dataType: DataType
  private let placement: Placement
  private let padding: Int
  private var random: SeededRandom
  private var guarded: [GuardedBuffer] = []
  /// Every operand so far, in order.
  private(set) var made: [Made] = []

  /// - Parameter padding: floats between rows.
  public init(
    seed: UInt64, fill: Fill = .normal, placement: Placement = .plain, padding: Int = 0, dataType: DataType = .f32
  ) {
    (self.fill, self.placement, self.padding, self.dataType) = (fill, placement, padding, dataType)
    random = SeededRandom(seed: seed)
  }

  /// A filled operand, of the case's data type unless another is asked for. Rows are padded where the axis before the last
  /// is real; padding holds NaN.
  public func make(_ shape: Shape, scale: Float = 1, as type: DataType? = nil) throws -> MutableTensor {
    let tensor = try allocate(shape, type ?? dataType)
    if tensor.isContiguous {  // tens of millions of elements in a benchmark's weights
      for position in 0..<shape.count { tensor.store(value() * scale, at: position) }
    } else {
      for position in 0..<shape.count { tensor.store(value() * scale, at: tensor.offset(of: position)) }
    }
    made.append(.tensor(tensor.view))
    return tensor
  }

  /// A cache in 8 bits, every position of it filled.
  public func int8Cache(_ sequences: Int, capacity: Int, heads: Int, size: Int) throws -> Int8Cache {
    let cache: Int8Cache
    switch placement {
    case .plain:
      cache = try Int8Cache(sequences: sequences, capacity: capacity, heads: heads, size: size)
    case .guarded(let side, let misalignment):
      let vectors = sequences * capacity * heads
      let codes = GuardedBuffer(bytes: vectors * size, side: side, misalignment: misalignment)
      let scales = GuardedBuffer(bytes: vectors * 4, side: side, misalignment: misalignment * 4)
      guarded += [codes, scales]
      cache = Int8Cache(
        unsafeCodes: codes.base, scales: scales.base.assumingMemoryBound(to: Float.self), sequences: sequences,
        capacity: capacity, heads: heads, size: size)
    }
    let x = try MutableTensor(zeros: Shape(sequences * capacity, heads, size))
    for position in 0..<x.shape.count { x.base[position] = value() }
    try Context(backend: ReferenceBackend()).appendToCache(
      x.view, sequences: try Segments(lengths: [Int](repeating: capacity, count: sequences)),
      lengths: [Int32](repeating: 0, count: sequences), cache: cache)
    return cache
  }

  /// An immutable f32 vector, as epilogues and norms take.
  public func vector(_ count: Int) throws -> Tensor {
    let vector = try Tensor((0..<count).map { _ in value() })
    made.append(.tensor(vector.view))
    return vector
  }

  /// Token ids below `limit`.
  public func ids(_ count: Int, below limit: Int) -> [Int32] {
    let ids = (0..<count).map { _ in Int32.random(in: 0..<Int32(limit), using: &random) }
    made.append(.integers(ids))
    return ids
  }

  /// Whether nothing was written between rows or outside operands.
  public var areIntact: Bool { guarded.allSatisfy(\.isIntact) }

  private func allocate(_ shape: Shape, _ type: DataType) throws -> MutableTensor {
    var strides = shape
    var step = 1
    for axis in (0..<shape.rank).reversed() {
      strides[axis] = step
      step *= max(shape[axis], 1)
      if axis == shape.rank - 1 && shape.rank > 1 { step += padding }
    }
    var span = shape.count == 0 ? 0 : 1
    for axis in 0..<shape.rank where shape.count > 0 { span += (shape[axis] - 1) * strides[axis] }
    switch placement {
    case .plain:
      let memory = try MutableTensor(zeros: Shape(span), dataType: type)
      return memory.reinterpreted(offset: 0, shape: shape, strides: strides)
    case .guarded(let side, let misalignment):
      let buffer = GuardedBuffer(bytes: span * type.size, side: side, misalignment: misalignment * type.size)
      guarded.append(buffer)
      return MutableTensor(unsafeAddress: buffer.base, dataType: type, shape: shape, strides: strides)
    }
  }

  private func value() -> Float {
    switch fill {
    case .normal: return random.normal()
    case .integers: return Float(Int.random(in: -4...4, using: &random))
    case .special:
      switch UInt64.random(in: 0..<64, using: &random) {
      case 0: return .nan
      case 1: return .infinity
      case 2: return -.infinity
      default: return random.normal()
      }
    }
  }
}

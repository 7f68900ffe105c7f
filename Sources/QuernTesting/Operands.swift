import Quern

/// Makes the operands of a case: where they lie, how rows are padded, and what fills them.
public final class Operands {
  /// Where operands lie.
  public enum Placement: Sendable, Equatable {
    /// Ordinary aligned memory.
    case plain
    /// Against a forbidden page, with the floats this far off it.
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
  private let placement: Placement
  private let padding: Int
  private var random: SeededRandom
  private var guarded: [GuardedBuffer] = []
  /// Every operand so far, in order.
  private(set) var made: [Made] = []

  /// - Parameter padding: floats between rows.
  public init(seed: UInt64, fill: Fill = .normal, placement: Placement = .plain, padding: Int = 0) {
    (self.fill, self.placement, self.padding) = (fill, placement, padding)
    random = SeededRandom(seed: seed)
  }

  /// A filled operand. Rows are padded where the axis before the last is real; padding holds NaN.
  public func make(_ shape: Shape, scale: Float = 1) throws -> MutableTensor {
    let tensor = try allocate(shape)
    if tensor.isContiguous {  // tens of millions of elements in a benchmark's weights
      for position in 0..<shape.count { tensor.base[position] = value() * scale }
    } else {
      for position in 0..<shape.count { tensor.base[tensor.offset(of: position)] = value() * scale }
    }
    made.append(.tensor(tensor.view))
    return tensor
  }

  /// An immutable vector, as epilogues and norms take.
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

  private func allocate(_ shape: Shape) throws -> MutableTensor {
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
      let memory = try MutableTensor(zeros: Shape(span))
      return memory.reinterpreted(offset: 0, shape: shape, strides: strides)
    case .guarded(let side, let misalignment):
      let buffer = GuardedBuffer(count: span, side: side, misalignment: misalignment)
      guarded.append(buffer)
      return MutableTensor(unsafeBase: buffer.base, shape: shape, strides: strides)
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

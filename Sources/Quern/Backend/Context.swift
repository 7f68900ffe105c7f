/// The entry point: holds a backend, checks operands once, and runs operations on it.
///
/// Every operation writes into a destination the caller owns, so a steady state allocates nothing. All throw
/// ``QuernError/invalidOperand(operation:reason:)`` for operands that do not fit, and then write nothing.
///
/// ```swift
/// let context = try Context()                       // QUERN_BACKEND, else multithreaded
/// let weights = try context.pack(w.view)            // once
/// try context.linear(x.view, weights: weights, into: y)
/// ```
public struct Context: Sendable {
  public let backend: any Backend

  /// A context on this backend. The API beats the environment.
  public init(backend: any Backend) { self.backend = backend }

  /// A context on the backend of this name, else of `QUERN_BACKEND`, else `multithreaded`.
  ///
  /// - Throws: what ``Backends/make(_:options:)`` throws.
  public init(_ name: String? = nil, options: BackendOptions = BackendOptions()) throws {
    backend = try Backends.make(name, options: options)
  }
}

/// Operand checks. Each throws ``QuernError/invalidOperand(operation:reason:)`` for one operation.
struct Check {
  let operation: Operation

  func require(_ condition: Bool, _ reason: @autoclosure () -> String) throws(QuernError) {
    if !condition { throw .invalidOperand(operation: operation, reason: reason()) }
  }

  /// `tensor` seen as rows: rank 1 becomes one row; higher ranks fold their leading axes where the strides allow.
  func rows<T: Strided>(_ tensor: T, _ name: String) throws(QuernError) -> T {
    let rank = tensor.shape.rank
    try require(rank >= 1, "\(name) has rank 0; rows take at least one axis")
    try require(
      tensor.shape.last <= 1 || tensor.strides[rank - 1] == 1,
      "\(name) \(tensor.shape) needs unit stride along its last axis")
    if rank == 2 { return tensor }
    if rank == 1 {
      return tensor.reinterpreted(
        offset: 0, shape: Shape(1, tensor.shape[0]), strides: Shape(tensor.shape[0], 1))
    }
    var (count, stride) = (tensor.shape[rank - 2], tensor.strides[rank - 2])
    for axis in (0..<(rank - 2)).reversed() where tensor.shape[axis] != 1 {
      if count == 1 { stride = tensor.strides[axis] }
      try require(
        count == 1 || tensor.strides[axis] == count * stride,
        "\(name) \(tensor.shape) with strides \(tensor.strides) does not fold into rows")
      count *= tensor.shape[axis]
    }
    return tensor.reinterpreted(offset: 0, shape: Shape(count, tensor.shape.last), strides: Shape(stride, 1))
  }

  func same(_ a: Shape, _ aName: String, _ b: Shape, _ bName: String) throws(QuernError) {
    try require(a == b, "\(aName) has shape \(a), \(bName) has shape \(b); they must agree")
  }

  /// Rows of a destination lie apart: no two elements share memory.
  func destination(_ tensor: some Strided, _ name: String) throws(QuernError) {
    let rank = tensor.shape.rank
    guard tensor.shape.count > 0, rank >= 2 else { return }
    var extent = 1
    for axis in (0..<rank).reversed() where tensor.shape[axis] > 1 {
      try require(
        tensor.strides[axis] >= extent, "\(name) \(tensor.shape) has strides \(tensor.strides) that overlap")
      extent = tensor.strides[axis] * (tensor.shape[axis] - 1) + extent
    }
  }

  /// Source and destination share no memory, or, where `mayBeSame`, are the very same elements.
  func disjoint(
    _ source: TensorView?, _ name: String, from destination: MutableTensor, mayBeSame: Bool = false
  ) throws(QuernError) {
    guard let source, source.shape.count > 0, destination.shape.count > 0 else { return }
    let target = UnsafePointer(destination.base)
    if source.base + source.span <= target || target + destination.span <= source.base { return }
    let same = source.base == target && source.shape == destination.shape && source.strides == destination.strides
    if same && mayBeSame { return }
    // Columns of one buffer interleave without touching, as queries and keys of a joint projection do.
    if interleaved(source, destination) { return }
    try require(
      false, "\(name) overlaps the destination" + (mayBeSame ? " without being it" : "; use memory of its own"))
  }

  /// Whether two row sets with one row stride occupy different columns.
  private func interleaved(_ a: TensorView, _ b: MutableTensor) -> Bool {
    guard a.shape.rank == 2, b.shape.rank == 2, a.strides[0] == b.strides[0], a.strides[0] > 0 else { return false }
    let distance = UnsafePointer(b.base) - a.base
    let stride = a.strides[0]
    let shift = ((distance % stride) + stride) % stride
    return shift >= a.shape[1] && shift + b.shape[1] <= stride
  }

  /// A vector of `count` elements without gaps, or none.
  func vector(_ tensor: Tensor?, _ name: String, count: Int) throws(QuernError) {
    guard let tensor else { return }
    try require(
      tensor.shape == Shape(count) && tensor.isContiguous, "\(name) has shape \(tensor.shape); expected [\(count)]")
  }
}

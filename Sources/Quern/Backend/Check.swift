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
    // From the axis of the smallest stride to that of the largest, whatever their order: axes may be permuted.
    var (extent, done) = (1, 0)
    for _ in 0..<rank {
      var next = -1
      for axis in (0..<rank).reversed() where done & 1 << axis == 0 {
        if next < 0 || tensor.strides[axis] < tensor.strides[next] { next = axis }
      }
      done |= 1 << next
      guard tensor.shape[next] > 1 else { continue }
      try require(
        tensor.strides[next] >= extent, "\(name) \(tensor.shape) has strides \(tensor.strides) that overlap")
      extent = tensor.strides[next] * (tensor.shape[next] - 1) + extent
    }
  }

  /// Source and destination share no memory, or, where `mayBeSame`, are the very same elements.
  func disjoint(
    _ source: TensorView, _ name: String, from destination: MutableTensor, mayBeSame: Bool = false
  ) throws(QuernError) {
    guard source.shape.count > 0, destination.shape.count > 0 else { return }
    let target = UnsafeRawPointer(destination.address)
    if source.address + source.span * source.dataType.size <= target { return }
    if target + destination.span * destination.dataType.size <= source.address { return }
    let same =
      source.address == target && source.shape == destination.shape && source.strides == destination.strides
      && source.dataType == destination.dataType
    if same && mayBeSame { return }
    // Column ranges of one matrix interleave without touching.
    if interleaved(source, destination) { return }
    try require(
      false, "\(name) overlaps the destination" + (mayBeSame ? " without being it" : "; use memory of its own"))
  }

  /// Whether two row sets with one row stride occupy different columns.
  private func interleaved(_ a: TensorView, _ b: MutableTensor) -> Bool {
    guard a.shape.rank == 2, b.shape.rank == 2, a.strides[0] == b.strides[0], a.strides[0] > 0 else { return false }
    guard a.dataType == b.dataType else { return false }
    let distance = (UnsafeRawPointer(b.address) - a.address) / a.dataType.size
    let stride = a.strides[0]
    let shift = ((distance % stride) + stride) % stride
    return shift >= a.shape[1] && shift + b.shape[1] <= stride
  }

  /// An f32 vector of `count` elements without gaps, or none.
  func vector(_ tensor: Tensor?, _ name: String, count: Int) throws(QuernError) {
    guard let tensor else { return }
    try require(
      tensor.shape == Shape(count) && tensor.isContiguous, "\(name) has shape \(tensor.shape); expected [\(count)]")
    try require(tensor.dataType == .f32, "\(name) is \(tensor.dataType.rawValue); vectors of parameters are f32")
  }

  /// Input and output rows of one shape, where the output may be the input.
  func pair(_ x: TensorView, _ y: MutableTensor) throws(QuernError) -> (TensorView, MutableTensor) {
    try same(y.shape, "y", x.shape, "x")
    let (x, y) = (try rows(x, "x"), try rows(y, "y"))
    try destination(y, "y")
    try disjoint(x, "x", from: y, mayBeSame: true)
    return (x, y)
  }

  /// A second operand of y's shape, or, where it `repeats`, of one row (given a row stride of 0).
  func second(
    _ operand: TensorView, _ name: String, of y: MutableTensor, repeats: Bool, mayBeSame: Bool
  ) throws(QuernError) -> TensorView {
    var view = try rows(operand, name)
    if repeats, view.shape[0] == 1, y.shape[0] != 1 {
      view = view.reinterpreted(offset: 0, shape: Shape(y.shape[0], view.shape[1]), strides: Shape(0, 1))
    }
    try same(view.shape, name, y.shape, "y")
    try disjoint(view, name, from: y, mayBeSame: mayBeSame)
    return view
  }

  /// The same for an operand that may be absent.
  func second(
    _ operand: TensorView?, _ name: String, of y: MutableTensor, repeats: Bool, mayBeSame: Bool
  ) throws(QuernError) -> TensorView? {
    guard let operand else { return nil }
    return .some(try second(operand, name, of: y, repeats: repeats, mayBeSame: mayBeSame))
  }
}

/// Copies between layouts and storage types, and combinations of elements. See ``Backend`` for what every requirement may
/// rely on.
public protocol DataOperations {
  /// `y = x`, element by element: equal shapes of any rank, any strides, any two data types.
  func copy(_ x: TensorView, into y: MutableTensor)

  /// `y = function(a, b)`; b may have one row for all. y may be a or b.
  func binary(_ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = min(max(x, low), high)`, low at most high. y may be x.
  func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor)

  /// `y = x` where |mask| > 0, and y elsewhere; the mask may have one row for all.
  func select(_ x: TensorView, mask: TensorView, into y: MutableTensor)

  /// `y = a + fraction (b - a)`, reckoned from the nearer end; b may have one row for all. y may be a or b.
  func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor)

  /// `y = sin((1 - fraction) w) / sin w a + sin(fraction w) / sin w b` for each row, w the angle between the rows; `lerp`
  /// where |cos w| is above ``sphericalLimit`` or is none. b may have one row for all. y may be a or b.
  func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor)
}

/// The |cos w| above which `slerp` goes in a straight line: SLERP_PARALLEL_ of `CKernels/body/slerp.h`.
package let sphericalLimit = 0.9995

/// Functions of two elements besides sum and product.
public enum BinaryFunction: String, Sendable, CaseIterable {
  /// `a - b`.
  case subtract
  /// `a / b`.
  case divide
  /// The larger; NaN where either is.
  case maximum
  /// The smaller; NaN where either is.
  case minimum
}

extension Backend {
  public func copy(_ x: TensorView, into y: MutableTensor) { handOn(.copy).copy(x, into: y) }

  public func binary(_ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor) {
    handOn(.binary).binary(function, a, b, into: y)
  }

  public func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor) {
    handOn(.clamp).clamp(x, low: low, high: high, into: y)
  }

  public func select(_ x: TensorView, mask: TensorView, into y: MutableTensor) {
    handOn(.select).select(x, mask: mask, into: y)
  }

  public func lerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    handOn(.lerp).lerp(a, b, fraction: fraction, into: y)
  }

  public func slerp(_ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor) {
    handOn(.slerp).slerp(a, b, fraction: fraction, into: y)
  }
}

extension Check {
  /// No two elements of a destination share memory, in whatever order its axes lie.
  fileprivate func distinct(_ tensor: MutableTensor, _ name: String) throws(QuernError) {
    let shape = tensor.shape
    guard shape.count > 0 else { return }
    var (extent, done) = (1, Shape(0, 0, 0, 0))
    for _ in 0..<shape.rank {
      var least = -1
      for axis in 0..<shape.rank where done[axis] == 0 {
        if least < 0 || tensor.strides[axis] < tensor.strides[least] { least = axis }
      }
      done[least] = 1
      guard shape[least] > 1 else { continue }
      try require(tensor.strides[least] >= extent, "\(name) \(shape) has strides \(tensor.strides) that overlap")
      extent += tensor.strides[least] * (shape[least] - 1)
    }
  }

  /// The rows of an interpolation between a and b.
  fileprivate func ends(
    _ a: TensorView, _ b: TensorView, fraction: Float = 0, _ y: MutableTensor
  ) throws(QuernError) -> (TensorView, TensorView, MutableTensor) {
    try require(fraction.isFinite, "the fraction is \(fraction); it is finite")
    let (a, y) = try pair(a, y)
    return (a, try second(b, "b", of: y, repeats: true, mayBeSame: true), y)
  }

  /// Shapes that agree but for one axis, along which the parts fill the whole.
  fileprivate func parts<T: Strided>(_ parts: [T], axis: Int, of whole: some Strided) throws(QuernError) {
    let shape = whole.shape
    try require(axis >= 0 && axis < shape.rank, "axis \(axis) is outside \(shape)")
    var length = 0
    for (index, part) in parts.enumerated() {
      var expected = shape
      if part.shape.rank == shape.rank { expected[axis] = part.shape[axis] }
      try require(part.shape == expected, "part \(index) has shape \(part.shape), the whole \(shape)")
      length += part.shape[axis]
    }
    try require(length == shape[axis], "the parts have \(length) along axis \(axis), the whole \(shape[axis])")
  }
}

extension Context {
  /// `y = x`, element by element, whatever the strides of either: transposes, permutations, broadcasts (a stride of 0 in x),
  /// packing, and conversion between data types with one rounding to nearest even. Exact where y's type is as wide as x's;
  /// where the types are the same the bits are kept.
  ///
  /// - Parameters:
  ///   - x: any shape, any strides.
  ///   - y: the shape of x; its elements lie apart from each other and from x.
  public func copy(_ x: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .copy)
    try check.same(y.shape, "y", x.shape, "x")
    try check.distinct(y, "y")
    try check.disjoint(x, "x", from: y)
    try run(runner(.copy, x.types, y.types)) { $0.copy(x, into: y) }
  }

  /// `y = xᵀ` in the last two axes, in memory: see ``copy(_:into:)``. ``Strided/transposed()`` moves nothing.
  public func transpose(_ x: TensorView, into y: MutableTensor) throws(QuernError) {
    try Check(operation: .copy).require(x.shape.rank >= 2, "x has shape \(x.shape); transposing takes two axes")
    try copy(x.transposed(), into: y)
  }

  /// The parts side by side along `axis`: see ``copy(_:into:)``. Their other extents are those of y.
  public func concat(_ parts: [TensorView], axis: Int, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .copy)
    try check.parts(parts, axis: axis, of: y)
    try check.distinct(y, "y")
    for part in parts { try check.disjoint(part, "a part", from: y) }
    var start = 0
    for part in parts {
      try copy(part, into: y.slice(axis: axis, start..<start + part.shape[axis]))
      start += part.shape[axis]
    }
  }

  /// x cut along `axis` into the parts, which fill it: see ``copy(_:into:)``. A ``Strided/slice(axis:_:)`` moves nothing.
  public func split(_ x: TensorView, axis: Int, into parts: [MutableTensor]) throws(QuernError) {
    let check = Check(operation: .copy)
    try check.parts(parts, axis: axis, of: x)
    for part in parts {
      try check.distinct(part, "a part")
      try check.disjoint(x, "x", from: part)
    }
    var start = 0
    for part in parts {
      try copy(x.slice(axis: axis, start..<start + part.shape[axis]), into: part)
      start += part.shape[axis]
    }
  }

  /// `y = function(a, b)`, element by element, rounded once; b may have one row for all rows of a. y may be a or b.
  public func binary(
    _ function: BinaryFunction, _ a: TensorView, _ b: TensorView, into y: MutableTensor
  ) throws(QuernError) {
    let (a, b, y) = try Check(operation: .binary).ends(a, b, y)
    try run(runner(.binary, a.types, b.types, y.types)) { $0.binary(function, a, b, into: y) }
  }

  /// `y = min(max(x, low), high)`, element by element, exactly; NaN stays. y may be x.
  ///
  /// - Parameter low: at most `high`; either may be infinite, neither NaN.
  public func clamp(_ x: TensorView, low: Float, high: Float, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .clamp)
    let (x, y) = try check.pair(x, y)
    try check.require(low <= high, "low is \(low), high \(high); low is at most high")
    try run(runner(.clamp, x.types, y.types)) { $0.clamp(x, low: low, high: high, into: y) }
  }

  /// `y = x` where the mask is not 0, exactly; y keeps its other elements. A NaN in the mask counts as 0.
  ///
  /// - Parameters:
  ///   - mask: the shape of x, or one row for all; does not overlap y.
  ///   - y: the shape of x; does not overlap it.
  public func select(_ x: TensorView, mask: TensorView, into y: MutableTensor) throws(QuernError) {
    let check = Check(operation: .select)
    let (rows, y) = try check.pair(x, y)
    try check.disjoint(rows, "x", from: y)
    let mask = try check.second(mask, "mask", of: y, repeats: true, mayBeSame: false)
    try run(runner(.select, rows.types, mask.types, y.types)) { $0.select(rows, mask: mask, into: y) }
  }

  /// `y = a + fraction (b - a)`, element by element: a at 0, b at 1, exactly; any other finite fraction extrapolates.
  ///
  /// Reckoned from the nearer end, with the distance to it rounded: within γ(4) |near (b - a)| + u |y|.
  ///
  /// - Parameters:
  ///   - b: the shape of a, or one row for all.
  ///   - y: the shape of a; may be a or b.
  public func lerp(
    _ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .lerp)
    let (a, b, y) = try check.ends(a, b, fraction: fraction, y)
    try run(runner(.lerp, a.types, b.types, y.types)) { $0.lerp(a, b, fraction: fraction, into: y) }
  }

  /// Each row from a to b along a great circle, as Diffusers interpolates latents (Shoemake, SIGGRAPH 1985):
  /// `y = sin((1 - fraction) w) / sin w a + sin(fraction w) / sin w b`, w the angle between the two rows.
  ///
  /// Rows with |cos w| above 0.9995, or of length 0, go in a straight line. Lengths are not normalised. See
  /// `docs/accuracy.md` for the bound.
  ///
  /// - Parameters:
  ///   - b: the shape of a, or one row for all.
  ///   - y: the shape of a; may be a or b.
  public func slerp(
    _ a: TensorView, _ b: TensorView, fraction: Float, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .slerp)
    let (a, b, y) = try check.ends(a, b, fraction: fraction, y)
    try run(runner(.slerp, a.types, b.types, y.types)) { $0.slerp(a, b, fraction: fraction, into: y) }
  }
}

/// Keys, or values, of several sequences in 8 bits: each head's vector at a position is signed codes and one f32 scale, element j
/// being `scale code[j]` with `scale = max |x| / 127` and codes rounded to nearest even.
///
/// An element is off from what was appended by at most `scale (1/2 + 2⁻¹⁷)`, 0.4 % of the largest of its vector. A vector that is not
/// finite throughout has NaN for a scale. Takes `size + 4` bytes a vector.
///
/// Copies refer to the same memory. Not `Sendable`, so that the compiler keeps it within one task at a time.
public struct Int8Cache {
  public let sequences, capacity, heads, size: Int
  /// `[heads, sequences, capacity, size]`, int8.
  package let codes: UnsafeMutableRawPointer
  /// `[heads, sequences, capacity]`.
  package let scales: UnsafeMutablePointer<Float>
  private let owners: [TensorStorage]

  /// A cache of zeros with memory of its own.
  ///
  /// - Parameters:
  ///   - sequences: sequences that it has room for.
  ///   - capacity: positions of each.
  ///   - heads: key heads.
  ///   - size: elements of a head's vector.
  /// - Throws: ``QuernError/invalidShape(_:)`` for extents that are negative or too many, ``QuernError/outOfMemory(bytes:)``.
  public init(sequences: Int, capacity: Int, heads: Int, size: Int) throws(QuernError) {
    let shape = try Shape(checking: [heads, sequences, capacity, size])
    let codes = try TensorStorage(zeros: shape.count / 4 + 1, of: .f32)
    let scales = try TensorStorage(zeros: try Shape(checking: [heads, sequences, capacity]).count, of: .f32)
    (self.sequences, self.capacity, self.heads, self.size) = (sequences, capacity, heads, size)
    (self.codes, self.scales) = (codes.base, scales.base.assumingMemoryBound(to: Float.self))
    owners = [codes, scales]
  }

  /// The same in memory that the caller keeps alive while the value is in use.
  package init(
    unsafeCodes codes: UnsafeMutableRawPointer, scales: UnsafeMutablePointer<Float>, sequences: Int, capacity: Int,
    heads: Int, size: Int
  ) {
    (self.sequences, self.capacity, self.heads, self.size) = (sequences, capacity, heads, size)
    (self.codes, self.scales, owners) = (codes, scales, [])
  }

  /// The same codes and scales in memory of their own.
  func copied() throws(QuernError) -> Int8Cache {
    let copy = try Int8Cache(sequences: sequences, capacity: capacity, heads: heads, size: size)
    let vectors = sequences * capacity * heads
    copy.codes.copyMemory(from: codes, byteCount: vectors * size)
    UnsafeMutableRawPointer(copy.scales).copyMemory(from: scales, byteCount: vectors * 4)
    return copy
  }

  /// Bytes of such a cache, or the largest number where that is too many.
  public static func byteCount(sequences: Int, capacity: Int, heads: Int, size: Int) -> Int {
    [sequences, capacity, heads, size + 4].reduce(1) { product, factor in
      let (next, overflows) = product.multipliedReportingOverflow(by: factor)
      return overflows ? .max : next
    }
  }

  /// Makes positions of a sequence hold what those of another hold.
  ///
  /// - Precondition: both have them.
  public func copy(_ source: Int, to destination: Int, positions: Range<Int>) {
    precondition(
      positions.lowerBound >= 0 && positions.upperBound <= capacity && (0..<sequences).contains(source)
        && (0..<sequences).contains(destination), "a cache copies positions that it has")
    for head in 0..<heads {
      let from = vector(source, positions.lowerBound, head)
      let to = vector(destination, positions.lowerBound, head)
      (codes + to * size).copyMemory(from: codes + from * size, byteCount: positions.count * size)
      UnsafeMutableRawPointer(scales + to).copyMemory(from: scales + from, byteCount: positions.count * 4)
    }
  }

  /// The place of a vector among all.
  package func vector(_ sequence: Int, _ position: Int, _ head: Int) -> Int {
    (head * sequences + sequence) * capacity + position
  }

  package subscript(sequence: Int, position: Int, head: Int, j: Int) -> Double {
    let place = vector(sequence, position, head)
    return Double(scales[place]) * Double(codes.load(fromByteOffset: place * size + j, as: Int8.self))
  }

  /// Codes a vector by the arithmetic of the kernels.
  func store(_ x: (Int) -> Float, at place: Int) {
    var (largest, isFinite) = (Float(0x1p-100), true)
    for j in 0..<size {
      isFinite = isFinite && x(j).isFinite
      if x(j).isFinite { largest = max(largest, abs(x(j))) }
    }
    let unit = largest / 127
    scales[place] = isFinite ? unit : .nan
    for j in 0..<size {
      let code = isFinite ? max(-127, min(127, (x(j) / unit).rounded(.toNearestOrEven))) : 0
      codes.storeBytes(of: Int8(code), toByteOffset: place * size + j, as: Int8.self)
    }
  }

  /// Rows of every sequence's positions, end to end.
  var shape: Shape { Shape(sequences * capacity, heads, size) }
}

/// An immutable f32 tensor: weights, constants, results. `Sendable`, and cheap to copy and to slice.
public struct Tensor: Sendable, Strided {
  public let shape: Shape
  public let strides: Shape
  let storage: TensorStorage
  let offset: Int

  /// A tensor whose elements `fill` writes; they start as zeros.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)``, or what `fill` throws.
  public init(shape: Shape, fill: (UnsafeMutableBufferPointer<Float>) throws -> Void) throws {
    let storage = try TensorStorage(zeros: shape.count)
    try fill(UnsafeMutableBufferPointer(start: storage.base, count: shape.count))
    self.init(shape: shape, strides: shape.rowMajorStrides, storage: storage, offset: 0)
  }

  /// A tensor with these elements in row-major order.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` where the count differs, ``QuernError/outOfMemory(bytes:)``.
  public init(_ elements: some Collection<Float>, shape: Shape) throws(QuernError) {
    guard elements.count == shape.count else {
      throw .invalidShape("\(elements.count) elements cannot fill shape \(shape)")
    }
    let storage = try TensorStorage(zeros: shape.count)
    for (index, element) in elements.enumerated() { storage.base[index] = element }
    self.init(shape: shape, strides: shape.rowMajorStrides, storage: storage, offset: 0)
  }

  /// A rank-1 tensor with these elements.
  public init(_ elements: [Float]) throws(QuernError) { try self.init(elements, shape: Shape(elements.count)) }

  init(shape: Shape, strides: Shape, storage: TensorStorage, offset: Int) {
    (self.shape, self.strides, self.storage, self.offset) = (shape, strides, storage, offset)
  }

  public func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> Tensor {
    Tensor(shape: shape, strides: strides, storage: storage, offset: self.offset + offset)
  }

  /// What operations read.
  public var view: TensorView {
    TensorView(base: storage.base + offset, shape: shape, strides: strides, owner: storage)
  }

  /// The elements in row-major order.
  public var elements: [Float] { view.elements }
}

/// A read-only handle on a tensor's memory, which it keeps alive. Operations take these.
///
/// Not `Sendable`: the memory may belong to a ``MutableTensor`` that is written to later.
public struct TensorView: Strided {
  /// The first element. Valid while this value lives.
  public let base: UnsafePointer<Float>
  public let shape: Shape
  public let strides: Shape
  private let owner: TensorStorage?

  init(base: UnsafePointer<Float>, shape: Shape, strides: Shape, owner: TensorStorage?) {
    (self.base, self.shape, self.strides, self.owner) = (base, shape, strides, owner)
  }

  /// A view of memory that the caller keeps alive and unchanged while the view is in use.
  public init(unsafeBase base: UnsafePointer<Float>, shape: Shape, strides: Shape) {
    self.init(base: base, shape: shape, strides: strides, owner: nil)
  }

  public func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> TensorView {
    TensorView(base: base + offset, shape: shape, strides: strides, owner: owner)
  }

  /// The elements in row-major order.
  public var elements: [Float] { (0..<shape.count).map { base[offset(of: $0)] } }
}

/// A tensor to write to: destinations and workspaces. Copies and slices refer to the same memory.
///
/// Not `Sendable`, so that the compiler keeps it within one task at a time.
public struct MutableTensor: Strided {
  /// The first element. Valid while this value lives.
  public let base: UnsafeMutablePointer<Float>
  public let shape: Shape
  public let strides: Shape
  private let owner: TensorStorage?

  init(base: UnsafeMutablePointer<Float>, shape: Shape, strides: Shape, owner: TensorStorage?) {
    (self.base, self.shape, self.strides, self.owner) = (base, shape, strides, owner)
  }

  /// A tensor of zeros with memory of its own.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)``.
  public init(zeros shape: Shape) throws(QuernError) {
    let storage = try TensorStorage(zeros: shape.count)
    self.init(base: storage.base, shape: shape, strides: shape.rowMajorStrides, owner: storage)
  }

  /// A destination in memory that the caller keeps alive while the value is in use.
  public init(unsafeBase base: UnsafeMutablePointer<Float>, shape: Shape, strides: Shape) {
    self.init(base: base, shape: shape, strides: strides, owner: nil)
  }

  public func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> MutableTensor {
    MutableTensor(base: base + offset, shape: shape, strides: strides, owner: owner)
  }

  /// What operations read.
  public var view: TensorView { TensorView(base: base, shape: shape, strides: strides, owner: owner) }

  /// The elements in row-major order.
  public var elements: [Float] { view.elements }

  /// An immutable copy.
  public func copied() throws(QuernError) -> Tensor { try Tensor(elements, shape: shape) }
}

/// An immutable tensor: weights, constants, results. `Sendable`, and cheap to copy and to slice.
public struct Tensor: Sendable, Strided {
  public let shape: Shape
  public let strides: Shape
  public let dataType: DataType
  let storage: TensorStorage
  let offset: Int

  /// An f32 tensor whose elements `fill` writes; they start as zeros.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)``, or what `fill` throws.
  public init(shape: Shape, fill: (UnsafeMutableBufferPointer<Float>) throws -> Void) throws {
    try self.init(shape: shape, dataType: .f32) { bytes in
      try fill(
        UnsafeMutableBufferPointer(
          start: bytes.baseAddress?.assumingMemoryBound(to: Float.self), count: shape.count))
    }
  }

  /// A tensor of any data type, whose bytes `fill` writes in the machine's order; they start as zeros.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)``, or what `fill` throws.
  public init(shape: Shape, dataType: DataType, fill: (UnsafeMutableRawBufferPointer) throws -> Void) throws {
    try self.init(shape, dataType, TensorStorage(zeros: shape.count, of: dataType), fill)
  }

  /// A tensor all of whose bytes `write` writes: they start as anything.
  package init(
    uninitialized shape: Shape, dataType: DataType = .f32, write: (UnsafeMutableRawBufferPointer) throws -> Void
  ) throws {
    let storage = try TensorStorage(uninitialized: shape.count, of: dataType)
    try self.init(shape, dataType, storage, write)
  }

  private init(
    _ shape: Shape, _ dataType: DataType, _ storage: TensorStorage,
    _ fill: (UnsafeMutableRawBufferPointer) throws -> Void
  ) throws {
    try fill(UnsafeMutableRawBufferPointer(start: storage.base, count: shape.count * dataType.size))
    self.init(shape: shape, strides: shape.rowMajorStrides, dataType: dataType, storage: storage, offset: 0)
  }

  /// An f32 tensor with these elements in row-major order.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` where the count differs, ``QuernError/outOfMemory(bytes:)``.
  public init(_ elements: some Collection<Float>, shape: Shape) throws(QuernError) {
    guard elements.count == shape.count else {
      throw .invalidShape("\(elements.count) elements cannot fill shape \(shape)")
    }
    let storage = try TensorStorage(zeros: shape.count, of: .f32)
    for (index, element) in elements.enumerated() { DataType.f32.store(element, to: storage.base, index) }
    self.init(shape: shape, strides: shape.rowMajorStrides, dataType: .f32, storage: storage, offset: 0)
  }

  /// A rank-1 f32 tensor with these elements.
  public init(_ elements: [Float]) throws(QuernError) { try self.init(elements, shape: Shape(elements.count)) }

  init(shape: Shape, strides: Shape, dataType: DataType, storage: TensorStorage, offset: Int) {
    (self.shape, self.strides, self.dataType) = (shape, strides, dataType)
    (self.storage, self.offset) = (storage, offset)
  }

  public func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> Tensor {
    Tensor(shape: shape, strides: strides, dataType: dataType, storage: storage, offset: self.offset + offset)
  }

  /// What operations read.
  public var view: TensorView {
    TensorView(
      address: storage.base + offset * dataType.size, dataType: dataType, shape: shape, strides: strides,
      owner: storage)
  }

  /// The elements in row-major order, widened.
  public var elements: [Float] { view.elements }

  /// A contiguous copy of this data type, each element rounded once.
  public func converted(to type: DataType) throws(QuernError) -> Tensor {
    let copy = try MutableTensor(uninitialized: shape, dataType: type)
    let source = view
    if isContiguous, dataType == .f32 {
      try KernelTable().kernels.f32_narrow(type.code, shape.count, source.pointer, copy.address)
    } else if isContiguous, type == .f32 {
      try KernelTable().kernels.f32_widen(dataType.code, shape.count, source.address, copy.pointer)
    } else {
      for position in 0..<shape.count { copy.store(source.load(source.offset(of: position)), at: position) }
    }
    return try copy.moved()
  }
}

/// A read-only handle on a tensor's memory, which it keeps alive. Operations take these.
///
/// Not `Sendable`: the memory may belong to a ``MutableTensor`` that is written to later.
public struct TensorView: Strided, Lendable {
  /// The first element, of ``dataType``. Valid while this value lives.
  public let address: UnsafeRawPointer
  public let dataType: DataType
  public let shape: Shape
  public let strides: Shape
  private let owner: TensorStorage?

  init(address: UnsafeRawPointer, dataType: DataType, shape: Shape, strides: Shape, owner: TensorStorage?) {
    (self.address, self.dataType, self.shape, self.strides, self.owner) = (address, dataType, shape, strides, owner)
  }

  /// A view of memory that the caller keeps alive and unchanged while the view is in use.
  public init(unsafeBase base: UnsafePointer<Float>, shape: Shape, strides: Shape) {
    self.init(address: base, dataType: .f32, shape: shape, strides: strides, owner: nil)
  }

  public func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> TensorView {
    TensorView(
      address: address + offset * dataType.size, dataType: dataType, shape: shape, strides: strides, owner: owner)
  }

  func lent(shape: Shape, strides: Shape) -> TensorView {
    TensorView(address: address, dataType: dataType, shape: shape, strides: strides, owner: nil)
  }

  /// The first element of an f32 tensor. Valid while this value lives.
  ///
  /// - Precondition: ``dataType`` is `f32`.
  public var base: UnsafePointer<Float> {
    precondition(dataType == .f32, "base is of f32 tensors; address serves every data type")
    return pointer
  }

  /// The first element as C kernels take it: a pointer to elements of ``dataType``, whatever its own type says.
  package var pointer: UnsafePointer<Float> { address.assumingMemoryBound(to: Float.self) }

  @inline(__always)
  package func load(_ offset: Int) -> Float { dataType.load(address, offset) }

  /// Elements along the last axis from `offset` on, for inner loops.
  @inline(__always)
  package func line(_ offset: Int = 0) -> Elements {
    Elements(
      address: address + offset * dataType.size, dataType: dataType,
      stride: shape.rank == 0 ? 1 : strides[shape.rank - 1])
  }

  /// Elements of row i of `[rows, n]`.
  @inline(__always)
  package func row(_ i: Int) -> Elements { line(i * strides[0]) }

  @inline(__always)
  package subscript(i: Int) -> Double { Double(load(i * strides[0])) }
  @inline(__always)
  package subscript(i: Int, j: Int) -> Double { Double(load(i * strides[0] + j * strides[1])) }
  @inline(__always)
  package subscript(i: Int, j: Int, k: Int) -> Double {
    Double(load(i * strides[0] + j * strides[1] + k * strides[2]))
  }
  @inline(__always)
  package subscript(i: Int, j: Int, k: Int, l: Int) -> Double {
    Double(load(i * strides[0] + j * strides[1] + k * strides[2] + l * strides[3]))
  }

  /// The elements in row-major order, widened.
  public var elements: [Float] { (0..<shape.count).map { load(offset(of: $0)) } }
}

/// A run of elements of any type at one stride, of which the first may lie two by two.
public struct Elements {
  let address: UnsafeRawPointer
  let dataType: DataType
  let stride: Int
  /// How many lie two by two, a pair every two strides, and how far the others lie before their place.
  var paired = 0
  var before = 0

  @inline(__always)
  public subscript(index: Int) -> Double {
    Double(dataType.load(address, index < paired ? (index & ~1) * stride + index & 1 : index * stride - before))
  }
}

/// A tensor to write to: destinations and workspaces. Copies and slices refer to the same memory.
///
/// Not `Sendable`, so that the compiler keeps it within one task at a time.
public struct MutableTensor: Strided, Lendable {
  /// The first element, of ``dataType``. Valid while this value lives.
  public let address: UnsafeMutableRawPointer
  public let dataType: DataType
  public let shape: Shape
  public let strides: Shape
  private let owner: TensorStorage?

  init(address: UnsafeMutableRawPointer, dataType: DataType, shape: Shape, strides: Shape, owner: TensorStorage?) {
    (self.address, self.dataType, self.shape, self.strides, self.owner) = (address, dataType, shape, strides, owner)
  }

  /// A tensor of zeros with memory of its own.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)``.
  public init(zeros shape: Shape, dataType: DataType = .f32) throws(QuernError) {
    self.init(shape, dataType, try TensorStorage(zeros: shape.count, of: dataType))
  }

  /// The same with elements that start as anything, for an owner that writes before it reads.
  package init(uninitialized shape: Shape, dataType: DataType = .f32) throws(QuernError) {
    self.init(shape, dataType, try TensorStorage(uninitialized: shape.count, of: dataType))
  }

  private init(_ shape: Shape, _ dataType: DataType, _ storage: TensorStorage) {
    self.init(
      address: storage.base, dataType: dataType, shape: shape, strides: shape.rowMajorStrides, owner: storage)
  }

  /// A destination in memory that the caller keeps alive while the value is in use.
  public init(unsafeBase base: UnsafeMutablePointer<Float>, shape: Shape, strides: Shape) {
    self.init(address: base, dataType: .f32, shape: shape, strides: strides, owner: nil)
  }

  /// The same for elements of any type.
  public init(unsafeAddress address: UnsafeMutableRawPointer, dataType: DataType, shape: Shape, strides: Shape) {
    self.init(address: address, dataType: dataType, shape: shape, strides: strides, owner: nil)
  }

  public func reinterpreted(offset: Int, shape: Shape, strides: Shape) -> MutableTensor {
    MutableTensor(
      address: address + offset * dataType.size, dataType: dataType, shape: shape, strides: strides, owner: owner)
  }

  func lent(shape: Shape, strides: Shape) -> MutableTensor {
    MutableTensor(address: address, dataType: dataType, shape: shape, strides: strides, owner: nil)
  }

  /// The first element of an f32 tensor. Valid while this value lives.
  ///
  /// - Precondition: ``dataType`` is `f32`.
  public var base: UnsafeMutablePointer<Float> {
    precondition(dataType == .f32, "base is of f32 tensors; address serves every data type")
    return pointer
  }

  /// The first element as C kernels take it: a pointer to elements of ``dataType``, whatever its own type says.
  package var pointer: UnsafeMutablePointer<Float> { address.assumingMemoryBound(to: Float.self) }

  @inline(__always)
  package func store(_ value: Float, at offset: Int) { dataType.store(value, to: address, offset) }

  @inline(__always)
  package subscript(i: Int) -> Double {
    get { view[i] }
    nonmutating set { store(Float(newValue), at: i * strides[0]) }
  }
  @inline(__always)
  package subscript(i: Int, j: Int) -> Double {
    get { view[i, j] }
    nonmutating set { store(Float(newValue), at: i * strides[0] + j * strides[1]) }
  }
  @inline(__always)
  package subscript(i: Int, j: Int, k: Int) -> Double {
    get { view[i, j, k] }
    nonmutating set { store(Float(newValue), at: i * strides[0] + j * strides[1] + k * strides[2]) }
  }
  @inline(__always)
  package subscript(i: Int, j: Int, k: Int, l: Int) -> Double {
    get { view[i, j, k, l] }
    nonmutating set {
      store(Float(newValue), at: i * strides[0] + j * strides[1] + k * strides[2] + l * strides[3])
    }
  }

  /// What operations read.
  public var view: TensorView {
    TensorView(address: address, dataType: dataType, shape: shape, strides: strides, owner: owner)
  }

  /// The elements in row-major order, widened.
  public var elements: [Float] { view.elements }

  /// An immutable copy, contiguous, of the same data type.
  public func copied() throws(QuernError) -> Tensor {
    let copy = try MutableTensor(zeros: shape, dataType: dataType)
    for position in 0..<shape.count { copy.store(view.load(offset(of: position)), at: position) }
    return try copy.moved()
  }

  /// This memory as an immutable tensor, for one who keeps no other handle on it.
  func moved() throws(QuernError) -> Tensor {
    guard let owner else { return try copied() }
    let offset = (UnsafeRawPointer(address) - UnsafeRawPointer(owner.base)) / dataType.size
    return Tensor(shape: shape, strides: strides, dataType: dataType, storage: owner, offset: offset)
  }
}

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A 64-byte aligned block of elements that lives as long as anything refers to it.
///
/// Tensors share blocks; ``Tensor`` promises not to write, ``MutableTensor`` is not `Sendable`.
public final class TensorStorage: @unchecked Sendable {
  /// The bytes every block is aligned to: one cache line and one AVX-512 register.
  public static let alignment = 64
  private static let hugePage = 2 << 20

  let base: UnsafeMutableRawPointer

  /// A block of zeros.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)`` where the system refuses the memory.
  convenience init(zeros count: Int, of type: DataType) throws(QuernError) {
    try self.init(uninitialized: count, of: type)
    memset(base, 0, max(count * type.size, Self.alignment))
  }

  /// A block whose bytes are whatever the system leaves in them, for an owner that writes them all.
  init(uninitialized count: Int, of type: DataType) throws(QuernError) {
    guard count >= 0, count <= (Int.max >> 1) / type.size else { throw .outOfMemory(bytes: Int.max) }
    let bytes = max(count * type.size, Self.alignment)
    let large = bytes >= Self.hugePage
    var pointer: UnsafeMutableRawPointer?
    guard posix_memalign(&pointer, large ? Self.hugePage : Self.alignment, bytes) == 0, let pointer else {
      throw .outOfMemory(bytes: bytes)
    }
    #if os(Linux)
      // A matrix in 4 KiB pages costs a TLB miss for every few rows that a tile reads.
      if large { _ = madvise(pointer, bytes, MADV_HUGEPAGE) }
    #endif
    base = pointer
  }

  deinit { free(base) }
}

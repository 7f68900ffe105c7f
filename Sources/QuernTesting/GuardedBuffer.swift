#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Bytes between two pages that nothing may touch: a stray access is a fault at the instruction that made it.
///
/// Only one end can lie flush against its page, so tests run every case at both ends. The slack on the other side holds a
/// NaN pattern, of f32 and of bf16, that ``isIntact`` checks.
public final class GuardedBuffer {
  /// Which end lies against a forbidden page.
  public enum Side: Sendable, CaseIterable {
    case start, end
  }

  /// The bytes of a quiet NaN that no kernel produces: 0x7FD57FD5, twice 0x7FD5.
  private static func canary(_ offset: Int) -> UInt8 { offset % 2 == 0 ? 0xD5 : 0x7F }

  public let base: UnsafeMutableRawPointer
  public let bytes: Int
  private let mapping: UnsafeMutableRawPointer
  private let mappedBytes: Int
  private let usable: UnsafeMutableRawBufferPointer

  /// - Parameter misalignment: bytes to step back from the page's end, or forward from its start.
  /// - Precondition: the system has memory for it; this is test equipment.
  public init(bytes: Int, side: Side, misalignment: Int = 0) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let usableBytes = max((bytes + misalignment + page - 1) / page * page, page)
    mappedBytes = usableBytes + 2 * page
    let mapped = mmap(nil, mappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    precondition(mapped != MAP_FAILED && mapped != nil, "mmap failed")
    mapping = mapped!
    mprotect(mapping, page, PROT_NONE)
    mprotect(mapping + page + usableBytes, page, PROT_NONE)
    usable = UnsafeMutableRawBufferPointer(start: mapping + page, count: usableBytes)
    for offset in usable.indices { usable[offset] = Self.canary(offset) }
    self.bytes = bytes
    base = mapping + page + (side == .start ? misalignment : usableBytes - bytes - misalignment)
  }

  deinit { munmap(mapping, mappedBytes) }

  /// Whether nothing was written outside the bytes.
  public var isIntact: Bool {
    let first = base - usable.baseAddress!
    return usable.indices.allSatisfy { ($0 >= first && $0 < first + bytes) || usable[$0] == Self.canary($0) }
  }
}

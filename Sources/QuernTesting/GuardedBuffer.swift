#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Floats between two pages that nothing may touch: a stray access is a fault at the instruction that made it.
///
/// Only one end can lie flush against its page, so tests run every case at both ends. The slack on the other side holds a
/// NaN pattern that ``isIntact`` checks.
public final class GuardedBuffer {
  /// Which end lies against a forbidden page.
  public enum Side: Sendable, CaseIterable {
    case start, end
  }

  /// A quiet NaN that no kernel produces.
  static let canary = Float(bitPattern: 0x7FD5_A5A5)

  public let base: UnsafeMutablePointer<Float>
  public let count: Int
  private let mapping: UnsafeMutableRawPointer
  private let mappedBytes: Int
  private let usable: UnsafeMutableBufferPointer<Float>

  /// - Parameter misalignment: floats to step back from the page's end, or forward from its start.
  /// - Precondition: the system has memory for it; this is test equipment.
  public init(count: Int, side: Side, misalignment: Int = 0) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let bytes = ((count + misalignment) * MemoryLayout<Float>.stride + page - 1) / page * page
    let usableBytes = max(bytes, page)
    mappedBytes = usableBytes + 2 * page
    let mapped = mmap(nil, mappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    precondition(mapped != MAP_FAILED && mapped != nil, "mmap failed")
    mapping = mapped!
    mprotect(mapping, page, PROT_NONE)
    mprotect(mapping + page + usableBytes, page, PROT_NONE)
    let floats = (mapping + page).bindMemory(to: Float.self, capacity: usableBytes / 4)
    usable = UnsafeMutableBufferPointer(start: floats, count: usableBytes / 4)
    usable.update(repeating: Self.canary)
    self.count = count
    base = side == .start ? floats + misalignment : floats + usable.count - count - misalignment
  }

  deinit { munmap(mapping, mappedBytes) }

  /// Whether nothing was written outside the floats.
  public var isIntact: Bool {
    let first = base - usable.baseAddress!
    for index in usable.indices where index < first || index >= first + count {
      if usable[index].bitPattern != Self.canary.bitPattern { return false }
    }
    return true
  }
}

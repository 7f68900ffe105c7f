#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// Bytes read from a file, in memory of their own that starts on a 64-byte boundary and never changes.
public final class FileBytes: @unchecked Sendable {
  public static let alignment = 64

  public let count: Int
  private let base: UnsafeMutableRawPointer

  /// Memory for `count` bytes, not yet set. A refusal by the system is an error, not a trap.
  init(count: Int, file: String, field: String) throws(ModelError) {
    var pointer: UnsafeMutableRawPointer?
    guard count >= 0, posix_memalign(&pointer, Self.alignment, max(count, 1)) == 0, let pointer else {
      throw ModelError(file: file, field: field, reason: "no memory for \(count) bytes")
    }
    self.count = count
    base = pointer
  }

  /// A copy of `bytes`.
  convenience init(copying bytes: UnsafeRawBufferPointer, file: String, field: String) throws(ModelError) {
    try self.init(count: bytes.count, file: file, field: field)
    mutableBytes.copyMemory(from: bytes)
  }

  deinit { free(base) }

  public func withUnsafeBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
    try body(bytes)
  }

  /// Valid only while this object lives.
  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  /// For the code that fills the memory, before anyone else sees the object.
  var mutableBytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(start: base, count: count) }
}

/// A file of a model, open for reading. Ranges are read with `pread`, so a file that shrinks while it is read
/// gives an error where a mapped file would end the process.
public final class ModelFile: Sendable {
  public let path: String
  /// The size when the file was opened.
  public let size: Int
  private let descriptor: Int32

  public init(path: String) throws(ModelError) {
    // O_NONBLOCK: opening a named pipe must not wait for a writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw Self.openError(path, errno) }
    var info = stat()
    guard fstat(descriptor, &info) == 0 else {
      let code = errno
      close(descriptor)
      throw ModelError(file: path, field: "", reason: "cannot be examined: \(Self.message(code))")
    }
    guard info.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      let isDirectory = info.st_mode & S_IFMT == S_IFDIR
      throw ModelError(
        file: path, field: "", reason: isDirectory ? "is a directory, where a file is needed" : "is not a regular file")
    }
    self.path = path
    self.descriptor = descriptor
    size = Int(info.st_size)
  }

  deinit { close(descriptor) }

  /// Whether there is anything (a file, a directory) at `path`.
  package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  package static func isDirectory(_ path: String) -> Bool {
    var info = stat()
    return stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
  }

  /// The bytes of `range`, which must lie inside the file.
  public func read(_ range: Range<Int>, field: String = "") throws(ModelError) -> FileBytes {
    try check(range, field: field)
    let bytes = try FileBytes(count: range.count, file: path, field: field)
    try read(into: bytes.mutableBytes, at: range.lowerBound, field: field)
    return bytes
  }

  /// The whole file, refused when it is larger than `limit`.
  public func readAll(limit: Int) throws(ModelError) -> FileBytes {
    guard size <= limit else {
      throw ModelError(file: path, field: "", reason: "is \(size) bytes; files of this kind are at most \(limit)")
    }
    return try read(0..<size)
  }

  /// Fills `buffer` from the byte `offset` on.
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: Int, field: String = ""
  ) throws(ModelError) {
    guard offset >= 0, offset <= size, buffer.count <= size - offset else {
      throw outside(offset, buffer.count, field)
    }
    guard let base = buffer.baseAddress else { return }
    var done = 0
    while done < buffer.count {
      // The kernel moves at most 2 GiB at a time; ask for no more.
      let got = pread(descriptor, base + done, min(buffer.count - done, 1 << 30), off_t(offset + done))
      if got > 0 {
        done += got
      } else if got == 0 {
        throw ModelError(
          file: path, field: field, offset: offset + done,
          reason: "the file ended here while it was read; it was \(size) bytes when opened and has been cut short")
      } else if errno != EINTR {
        throw ModelError(
          file: path, field: field, offset: offset + done, reason: "cannot be read: \(Self.message(errno))")
      }
    }
  }

  /// Reads `range` in pieces of at most 1 MiB, whole multiples of `unit` bytes but for the last, and calls `body` with each and
  /// its place in the range.
  func forEachPiece(
    of range: Range<Int>, unit: Int = 1, field: String = "",
    _ body: (UnsafeRawBufferPointer, Int) throws(ModelError) -> Void
  ) throws(ModelError) {
    let piece = try FileBytes(count: min(range.count, (1 << 20) / unit * unit), file: path, field: field)
    var position = range.lowerBound
    while position < range.upperBound {
      let size = min(piece.count, range.upperBound - position)
      let buffer = UnsafeMutableRawBufferPointer(rebasing: piece.mutableBytes[0..<size])
      try read(into: buffer, at: position, field: field)
      try body(UnsafeRawBufferPointer(buffer), position - range.lowerBound)
      position += size
    }
  }

  private func check(_ range: Range<Int>, field: String) throws(ModelError) {
    guard range.lowerBound >= 0, range.upperBound <= size else {
      throw outside(range.lowerBound, range.count, field)
    }
  }

  private func outside(_ offset: Int, _ count: Int, _ field: String) -> ModelError {
    ModelError(
      file: path, field: field, offset: offset,
      reason: "needs \(count) bytes from here, but the file is \(size) bytes long")
  }

  private static func openError(_ path: String, _ code: Int32) -> ModelError {
    let reason = code == ENOENT || code == ENOTDIR ? "no such file" : "cannot be opened: \(message(code))"
    return ModelError(file: path, field: "", reason: reason)
  }

  static func message(_ code: Int32) -> String { strerror(code).map { String(cString: $0) } ?? "error \(code)" }
}

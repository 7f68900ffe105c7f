#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// A file that appears under its name only when `commit` has put all of it on the disk.
package final class AtomicFile {
  private let path: String
  private let temporaryPath: String
  private var descriptor: Int32
  private var isCommitted = false

  package init(path: String) throws(ModelError) {
    self.path = path
    temporaryPath = "\(path).tmp-\(getpid())-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
    descriptor = open(temporaryPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    if descriptor < 0 { throw failure("cannot be created") }
  }

  deinit {
    if descriptor >= 0 { close(descriptor) }
    if !isCommitted { unlink(temporaryPath) }
  }

  package func write(_ bytes: UnsafeRawBufferPointer) throws(ModelError) {
    guard let base = bytes.baseAddress else { return }
    var done = 0
    while done < bytes.count {
      #if canImport(Darwin)
        let written = Darwin.write(descriptor, base + done, min(bytes.count - done, 1 << 30))
      #elseif canImport(Musl)
        let written = Musl.write(descriptor, base + done, min(bytes.count - done, 1 << 30))
      #else
        let written = Glibc.write(descriptor, base + done, min(bytes.count - done, 1 << 30))
      #endif
      if written > 0 {
        done += written
      } else if errno != EINTR {
        throw failure("cannot be written")
      }
    }
  }

  package func commit() throws(ModelError) {
    guard fsync(descriptor) == 0 else { throw failure("cannot be put on the disk") }
    let open = descriptor
    descriptor = -1
    guard close(open) == 0 else { throw failure("cannot be put on the disk") }
    guard rename(temporaryPath, path) == 0 else { throw failure("cannot replace the file of that name") }
    isCommitted = true
    let folder = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[..<$0]) + "/" } ?? "."
    try Self.syncFolder(folder, for: path)
  }

  /// Without this a new name in `folder` may be lost in a power cut although its data is safe.
  static func syncFolder(_ folder: String, for path: String) throws(ModelError) {
    func failure(_ what: String) -> ModelError {
      ModelError(file: path, field: "", reason: "its folder cannot be \(what): \(ModelFile.message(errno))")
    }
    let directory = open(folder, O_RDONLY | O_CLOEXEC)
    guard directory >= 0 else { throw failure("opened") }
    defer { close(directory) }
    // Some file systems do not sync folders and say EINVAL.
    guard fsync(directory) == 0 || errno == EINVAL else { throw failure("put on the disk") }
  }

  private func failure(_ what: String) -> ModelError {
    ModelError(file: path, field: "", reason: "\(what): \(ModelFile.message(errno))")
  }
}

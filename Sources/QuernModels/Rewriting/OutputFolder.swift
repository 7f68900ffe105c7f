#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// The folder that a model is written to. Files appear in it whole; what a failed run put into a folder that was new or empty
/// is taken out again.
final class OutputFolder {
  let path: String
  /// Whether it held something that may be replaced.
  private let wasUsed: Bool
  private var made: [String] = []
  private var files: [String] = []

  /// - Parameters:
  ///   - path: a folder that is empty or not there, unless `replacing`.
  ///   - input: the folder that must not be written to.
  init(path: String, input: String, replacing: Bool) throws(ModelError) {
    self.path = path
    func refusal(_ reason: String) -> ModelError { ModelError(file: path, field: "", reason: reason) }
    guard !path.isEmpty, !path.utf8.contains(0) else { throw refusal("is not the name of a folder") }
    let inside = "is the folder that is read, or inside it; write to another"
    if Self.isInside(Self.nearestFolder(path), input) { throw refusal(inside) }
    if let names = Self.names(path) {
      guard names.isEmpty || replacing else {
        throw refusal("exists and is not empty; name another folder, or replace its model with --force")
      }
      wasUsed = !names.isEmpty
    } else if ModelFile.exists(path) {
      throw refusal("is not a folder that can be read")
    } else {
      wasUsed = false
    }
    try makeFolders(path)
    // A path through a folder that was not there yet can lead anywhere.
    if Self.isInside(path, input) {
      undo()
      throw refusal(inside)
    }
  }

  /// The path of a file to be written, whose folders are made.
  func place(_ name: String) throws(ModelError) -> String {
    var folder = path
    for part in name.split(separator: "/").dropLast() {
      folder += "/\(part)"
      var info = stat()
      if lstat(folder, &info) == 0, info.st_mode & S_IFMT != S_IFDIR {
        throw ModelError(file: folder, field: "", reason: "is not a folder, where one is needed")
      }
      try makeFolders(folder)
    }
    let file = "\(path)/\(name)"
    files.append(file)
    return file
  }

  /// Whether a file of this name was written, or will be.
  func has(_ name: String) -> Bool { files.contains("\(path)/\(name)") }

  /// Removes a file of an earlier model.
  func remove(_ name: String) throws(ModelError) {
    let file = "\(path)/\(name)"
    guard unlink(file) != 0 else { return try AtomicFile.syncFolder(path, for: file) }
    guard errno == ENOENT else {
      throw ModelError(file: file, field: "", reason: "cannot be removed: \(ModelFile.message(errno))")
    }
  }

  /// Takes out what this run put in, unless the folder had something in it before.
  func undo() {
    if !wasUsed { for file in files { unlink(file) } }
    for folder in made.reversed() { rmdir(folder) }
  }

  private func makeFolders(_ path: String) throws(ModelError) {
    var missing: [String] = []
    var folder = path
    while !ModelFile.exists(folder) {
      missing.append(folder)
      guard let parent = Self.parent(folder) else { break }
      folder = parent
    }
    for folder in missing.reversed() {
      if mkdir(folder, 0o755) == 0 {
        made.append(folder)
        try AtomicFile.syncFolder(Self.parent(folder) ?? ".", for: folder)
      } else if errno != EEXIST {
        throw ModelError(file: folder, field: "", reason: "cannot be made: \(ModelFile.message(errno))")
      }
    }
  }

  // MARK: Paths

  /// What is in a folder, in order; `nil` where it cannot be listed.
  static func names(_ path: String) -> [String]? {
    guard let folder = opendir(path) else { return nil }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: pointer.pointee)) {
          String(cString: $0)
        }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted { UTF8Key($0) < UTF8Key($1) }
  }

  /// The folder that `path` lies in; `nil` for one that has none to look at.
  private static func parent(_ path: String) -> String? {
    let parts = path.split(separator: "/")
    guard parts.count > 1 else { return path.hasPrefix("/") || parts.isEmpty ? nil : "." }
    return (path.hasPrefix("/") ? "/" : "") + parts.dropLast().joined(separator: "/")
  }

  /// `path`, or where it is not there yet, the folder above it that is.
  private static func nearestFolder(_ path: String) -> String {
    var folder = path
    while !ModelFile.exists(folder) {
      guard let parent = parent(folder) else { return folder.hasPrefix("/") ? "/" : "." }
      folder = parent
    }
    return folder
  }

  /// Whether climbing up from `folder` meets `other`, whatever the names: links are followed.
  private static func isInside(_ folder: String, _ other: String) -> Bool {
    var (target, here, above) = (stat(), stat(), stat())
    guard stat(other, &target) == 0 else { return false }
    var path = folder
    for _ in 0..<512 {
      guard stat(path, &here) == 0 else { return false }
      if here.st_dev == target.st_dev && here.st_ino == target.st_ino { return true }
      guard stat(path + "/..", &above) == 0 else { return false }
      if here.st_dev == above.st_dev && here.st_ino == above.st_ino { return false }
      path += "/.."
    }
    return true
  }
}

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// The files of a model directory beside its weights.
enum CompanionFiles {
  /// Those that loaders read, under fixed names.
  static let read = [
    "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
  ]
  private static let endings = [".json", ".txt", ".model", ".jinja", ".md"]

  /// Configurations, vocabularies and texts in a folder and two levels below it; hidden files and linked folders are left.
  static func names(in folder: String, depth: Int = 2) -> [String] {
    var found: [String] = []
    for name in OutputFolder.names(folder) ?? [] where !name.hasPrefix(".") {
      var info = stat()
      let path = "\(folder)/\(name)"
      guard lstat(path, &info) == 0 else { continue }
      if info.st_mode & S_IFMT == S_IFDIR {
        if depth > 0 { found += names(in: path, depth: depth - 1).map { "\(name)/\($0)" } }
      } else if isCompanion(name) {
        found.append(name)
      }
    }
    return found
  }

  private static func isCompanion(_ name: String) -> Bool {
    if name.hasSuffix(".safetensors.index.json") { return false }
    return endings.contains { name.hasSuffix($0) } || name.hasPrefix("LICENSE") || name.hasPrefix("NOTICE")
  }
}

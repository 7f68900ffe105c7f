/// What a GGUF file says about the model that it is one part of: `split.no`, `split.count` and `split.tensors.count`, as llama.cpp's
/// `gguf-split` writes them. Source: https://github.com/ggml-org/llama.cpp, `tools/gguf-split`.
struct GGUFSplit: Equatable {
  /// From 0.
  let number: Int
  let count: Int
  /// Tensors of all parts.
  let tensorCount: Int?

  static let countLimit = 4096

  /// Nil for a file that is a model of its own.
  init?(_ metadata: GGUFMetadata) throws(ModelError) {
    let key = "split.count"
    guard metadata.contains(key) else { return nil }
    count = try metadata.int(key, in: 0...Self.countLimit)
    if count < 2 { return nil }
    number = try metadata.int("split.no", in: 0...count - 1)
    tensorCount =
      metadata.contains("split.tensors.count")
      ? try metadata.int("split.tensors.count", in: 0...GGUFHeader.tensorLimit) : nil
  }

  /// The end of the name of a part, from 0.
  private static func suffix(_ number: Int, of count: Int) -> String {
    func digits(_ value: Int) -> String {
      let text = "\(value)"
      return String(repeating: "0", count: max(0, 5 - text.utf8.count)) + text
    }
    return "-\(digits(number + 1))-of-\(digits(count)).gguf"
  }

  /// The paths of the other parts of a model whose first is at `path`.
  func others(_ path: String, _ metadata: GGUFMetadata) throws(ModelError) -> [String] {
    let suffix = Self.suffix(number, of: count)
    guard path.utf8.count > suffix.utf8.count, path.hasSuffix(suffix) else {
      throw try metadata.error("split.no", "is \(number), so that the name of this file should end in \(suffix)")
    }
    let stem = path.dropLast(suffix.count)
    guard number == 0 else {
      throw try metadata.error(
        "split.no", "is \(number); a model is opened by its first part, \(stem)\(Self.suffix(0, of: count))")
    }
    return (1..<count).map { stem + Self.suffix($0, of: count) }
  }

  /// Refuses a file that is not part `number` of this model.
  func check(_ metadata: GGUFMetadata, isPart number: Int) throws(ModelError) {
    guard let other = try GGUFSplit(metadata) else {
      throw ModelError(
        file: metadata.file, field: "metadata.split.count", offset: GGUFHeader.fixedSize,
        reason: "does not say that this is one of \(count) parts, as the first part does")
    }
    func require(_ isSame: Bool, _ key: String, _ found: Int?, _ expected: Int?) throws(ModelError) {
      if isSame { return }
      func text(_ value: Int?) -> String { value.map { "\($0)" } ?? "missing" }
      throw try metadata.error(
        metadata.contains(key) ? key : "split.count",
        "\(key) is \(text(found)), where the first part implies \(text(expected)): the parts are not of one model")
    }
    try require(other.count == count, "split.count", other.count, count)
    try require(other.number == number, "split.no", other.number, number)
    try require(other.tensorCount == tensorCount, "split.tensors.count", other.tensorCount, tensorCount)
  }
}

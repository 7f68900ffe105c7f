/// A JSON file of a Hugging Face model folder: `config.json`, `modules.json`, `1_Pooling/config.json` and the like.
public struct HubConfig: Sendable {
  /// Files of this kind are a few kilobytes; anything larger is something else.
  public static let sizeLimit = 16 << 20

  public let path: String
  public let root: JSONValue

  /// Reads `name` in `directory`.
  ///
  /// - Parameter allowsInfinity: see ``JSONDocument/init(path:limit:allowsInfinity:)``.
  public init(directory: String, name: String = "config.json", allowsInfinity: Bool = false) throws(ModelError) {
    let path = "\(directory)/\(name)"
    guard ModelFile.exists(path) else {
      let reason =
        ModelFile.isDirectory(directory)
        ? "no such file; \(Self.expectation(name))" : "no such file; \(directory) is not a directory"
      throw ModelError(file: path, field: "", reason: reason)
    }
    self.path = path
    root = try JSONDocument(path: path, limit: Self.sizeLimit, allowsInfinity: allowsInfinity).root
  }

  /// As `init`, or nil when there is no such file.
  public static func ifPresent(directory: String, name: String) throws(ModelError) -> HubConfig? {
    guard ModelFile.exists("\(directory)/\(name)") else { return nil }
    return try HubConfig(directory: directory, name: name)
  }

  private static func expectation(_ name: String) -> String {
    switch name {
    case "config.json", "tokenizer.json": "a Hugging Face model directory has one"
    case "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json":
      "a sentence-transformers model directory has one"
    case "model_index.json", "scheduler_config.json": "a diffusers model directory has one"
    default: "the model needs it"
    }
  }

  private init(path: String, root: JSONValue) { (self.path, self.root) = (path, root) }

  /// The object at `key` as a configuration of its own: a part of a model of several.
  public func section(_ key: String) throws(ModelError) -> HubConfig { try section(root.required(key)) }

  private func section(_ part: JSONValue) throws(ModelError) -> HubConfig {
    guard part.kind == .object else { throw part.error("is not an object") }
    return HubConfig(path: path, root: part)
  }

  /// Calls `body` with each object of the one at `key`, whatever they are called.
  func forEachSection(of key: String, _ body: (HubConfig) throws(ModelError) -> Void) throws(ModelError) {
    try section(key).root.forEachMember { (_, part) throws(ModelError) in try body(section(part)) }
  }

  /// What the reader of this file's `model_type` makes of it; another type is refused by name.
  func read<Configuration>(
    _ readers: [(type: String, read: @Sendable (HubConfig) throws(ModelError) -> Configuration)]
  ) throws(ModelError) -> Configuration {
    let type = try string("model_type", oneOf: readers.map(\.type))
    guard let reader = readers.first(where: { $0.type == type }) else {
      throw try root.required("model_type").error("\(type) is not supported")
    }
    return try reader.read(self)
  }

  // MARK: Fields

  public func int(_ key: String, in range: ClosedRange<Int> = 0...Int.max) throws(ModelError) -> Int {
    try root.required(key).int(in: range)
  }

  public func int(
    _ key: String, in range: ClosedRange<Int> = 0...Int.max, default value: Int
  ) throws(ModelError) -> Int {
    try root.optional(key)?.int(in: range) ?? value
  }

  public func double(_ key: String) throws(ModelError) -> Double { try root.required(key).double() }

  public func double(_ key: String, default value: Double) throws(ModelError) -> Double {
    try root.optional(key)?.double() ?? value
  }

  public func bool(_ key: String, default value: Bool) throws(ModelError) -> Bool {
    try root.optional(key)?.bool() ?? value
  }

  public func string(_ key: String) throws(ModelError) -> String { try root.required(key).string() }

  package func string(_ key: String, oneOf allowed: [String], default value: String) throws(ModelError) -> String {
    try root.optional(key) == nil ? value : string(key, oneOf: allowed)
  }

  public func string(_ key: String, default value: String) throws(ModelError) -> String {
    try root.optional(key)?.string() ?? value
  }

  /// The string at `key`, which must be one of `allowed`.
  public func string(_ key: String, oneOf allowed: [String]) throws(ModelError) -> String {
    let value = try root.required(key)
    let text = try value.string()
    guard allowed.contains(text) else {
      throw value.error("\(text) is not supported; supported: \(allowed.joined(separator: ", "))")
    }
    return text
  }
}

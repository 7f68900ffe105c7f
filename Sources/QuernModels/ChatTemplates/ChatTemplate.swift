/// One message of a conversation.
public struct ChatMessage: Sendable, Equatable {
  /// `system`, `user`, `assistant` or `tool`, or what else a template knows.
  public var role: String
  public var content: String
  /// Whatever more a template reads, such as `tool_calls`; a `role` or `content` here takes the place of the other.
  public var fields: TemplateObject

  public init(role: String, content: String, fields: TemplateObject = [:]) {
    (self.role, self.content, self.fields) = (role, content, fields)
  }

  /// As a template sees it. Reasoning goes by three names, and templates read the first or the second; transformers does the same.
  var value: TemplateValue {
    var object: TemplateObject = ["role": .string(role), "content": .string(content)]
    for (key, value) in fields.pairs { object[key] = value }
    let found = ["reasoning_content", "thinking", "reasoning"].lazy.compactMap { object[$0] }.first { $0 != .none }
    guard let reasoning = found else { return .object(object) }
    var aliased: TemplateObject = ["thinking": reasoning]
    for (key, value) in object.pairs { aliased[key] = value }
    aliased["reasoning_content"] = reasoning
    return .object(aliased)
  }
}

/// A chat template: what makes the text of a conversation that a model was trained on.
///
/// Templates are written in Jinja, of which this is a subset that renders those in common use; what is not in it is refused, with
/// its name and place, when the template is read (tags, operators) or comes to it (filters, tests, methods). Results are those of
/// transformers, white space included. A template can neither read nor change anything but what it is given, and the work it may
/// do is limited.
public struct ChatTemplate: Sendable {
  /// Longer templates are refused.
  public static let sizeLimit = 1 << 18

  /// How much a template may do before it is refused.
  public struct Limits: Sendable, Equatable {
    /// Bytes of the result, and of each text on the way to it.
    public var outputBytes: Int
    /// Nodes of the template that are run; elements of lists that are made, as four each; and every 16 bytes of text.
    public var steps: Int
    /// How deep expressions, tags and macros may be in one another as they run.
    public var depth: Int

    public init(outputBytes: Int = 1 << 23, steps: Int = 10_000_000, depth: Int = 300) {
      (self.outputBytes, self.steps, self.depth) = (outputBytes, steps, depth)
    }
  }

  /// The file that errors name.
  public let file: String
  public var limits = Limits()
  /// What every conversation is rendered with, such as `bos_token`; `load(directory:named:)` fills it with the special tokens.
  public var variables: TemplateObject = [:]

  private let bytes: [UInt8]
  private let statements: [TemplateStatement]
  private let origin: Origin

  /// What the bytes of errors count from.
  private enum Origin {
    /// The file is the template.
    case file
    /// The template is a string of a JSON file, which begins at this byte.
    case value(field: String, offset: Int)
    /// Bytes of the template say nothing about those of the file.
    case unknown
  }

  /// Reads a template; `file` is the name that errors carry.
  public init(source: String, file: String) throws(ModelError) {
    try self.init(source: source, file: file, origin: .file)
  }

  private init(source: String, file: String, origin: Origin) throws(ModelError) {
    guard source.utf8.count <= Self.sizeLimit else {
      throw ModelError(
        file: file, field: "chat_template",
        reason: "is \(source.utf8.count) bytes; templates of at most \(Self.sizeLimit) are read")
    }
    bytes = TemplateLexer.normalized(source)
    self.file = file
    if case .file = origin, source.utf8.contains(UInt8(ascii: "\r")) {
      self.origin = .unknown
    } else {
      self.origin = origin
    }
    do throws(TemplateError) {
      statements = try TemplateParser.statements(bytes)
    } catch {
      throw Self.located(error, bytes, file, self.origin)
    }
  }

  /// The template of a model folder: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, where one of several
  /// may be chosen by name. Special tokens of `tokenizer_config.json` become variables.
  public static func load(directory: String, named name: String = "default") throws(ModelError) -> ChatTemplate {
    let path = "\(directory)/chat_template.jinja"
    let config = try HubConfig.ifPresent(directory: directory, name: "tokenizer_config.json")
    var template: ChatTemplate
    if ModelFile.exists(path), name == "default" {
      let storage = try ModelFile(path: path).readAll(limit: sizeLimit)
      guard UTF8Rules.isValid(storage.bytes) else { throw ModelError(file: path, field: "", reason: "is not UTF-8") }
      template = try ChatTemplate(source: String(decoding: storage.bytes, as: UTF8.self), file: path)
    } else if let config, let value = try config.root.optional("chat_template") {
      let text = try value.kind == .array ? chosen(name, of: value) : value
      if value.kind != .array, name != "default" { throw value.error("is a single template, not one named \(name)") }
      template = try ChatTemplate(
        source: text.string(), file: config.path, origin: .value(field: text.field, offset: text.offset))
    } else {
      throw ModelError(
        file: path, field: "",
        reason: "no such file, and no chat_template in tokenizer_config.json: this model has no chat template")
    }
    for key in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map({ $0 + "_token" }) {
      guard let token = try config?.root.optional(key) else { continue }
      template.variables[key] = .string(try (token.kind == .object ? token.required("content") : token).string())
    }
    return template
  }

  /// The template of a GGUF file, `tokenizer.chat_template`, or one of several by its name. Its special tokens become variables.
  public static func load(_ file: GGUF, named name: String = "default") throws(ModelError) -> ChatTemplate {
    let (metadata, key) = (file.metadata, "tokenizer.chat_template" + (name == "default" ? "" : ".\(name)"))
    guard metadata.contains(key) else {
      throw ModelError(
        file: file.path, field: "metadata.\(key)", offset: GGUFHeader.fixedSize,
        reason: "is missing: this model has no such chat template")
    }
    let place = try metadata.error(key, "")
    var template = try ChatTemplate(
      source: metadata.string(key), file: file.path, origin: .value(field: place.field, offset: place.offset ?? 0))
    let tokens = try metadata.strings("tokenizer.ggml.tokens")
    for (variable, key) in [
      ("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("sep", "seperator"), ("pad", "padding"), ("cls", "cls"),
      ("mask", "mask"),
    ].map({ ("\($0)_token", "tokenizer.ggml.\($1)_token_id") }) where metadata.contains(key) {
      guard !tokens.isEmpty else { throw try metadata.error(key, "is a token of an empty vocabulary") }
      template.variables[variable] = .string(tokens[try metadata.int(key, in: 0...tokens.count - 1)])
    }
    return template
  }

  /// One of a list of objects with a name and a template.
  private static func chosen(_ name: String, of list: JSONValue) throws(ModelError) -> JSONValue {
    var (names, found): ([String], JSONValue?) = ([], nil)
    try list.forEachElement { (entry) throws(ModelError) in
      names.append(try entry.required("name").string())
      if UTF8Key(names[names.count - 1]) == UTF8Key(name) { found = try entry.required("template") }
    }
    guard let found else { throw list.error("has no template named \(name); it has \(names.joined(separator: ", "))") }
    return found
  }

  /// The text of a conversation.
  ///
  /// - Parameters:
  ///   - tools: descriptions of functions that the model may call, as JSON schemas.
  ///   - addGenerationPrompt: whether the text ends with what begins an answer.
  ///   - extra: variables that the template reads, such as `enable_thinking`. They come before `variables`.
  ///   - clock: what `strftime_now` gives for a format. Without it that function is undefined, and dates are the template's own.
  public func render(
    messages: [ChatMessage], tools: [TemplateValue]? = nil, documents: [TemplateValue]? = nil,
    addGenerationPrompt: Bool = false, bosToken: String? = nil, eosToken: String? = nil,
    extra: [String: TemplateValue] = [:], clock: (@Sendable (String) -> String)? = nil
  ) throws(ModelError) -> String {
    var values = variables
    for (key, value) in extra { values[key] = value }
    values["messages"] = .array(messages.map(\.value))
    values["tools"] = tools.map { .array($0) } ?? TemplateValue.none
    values["documents"] = documents.map { .array($0) } ?? TemplateValue.none
    values["add_generation_prompt"] = .bool(addGenerationPrompt)
    if let bosToken { values["bos_token"] = .string(bosToken) }
    if let eosToken { values["eos_token"] = .string(eosToken) }
    return try render(values, clock)
  }

  private func render(
    _ values: TemplateObject, _ clock: (@Sendable (String) -> String)?
  ) throws(ModelError) -> String {
    var globals: [String: TemplateResult] = [:]
    for name in TemplateEvaluator.functions + (clock == nil ? [] : ["strftime_now"]) { globals[name] = .function(name) }
    for (key, value) in values.pairs {
      guard value.count() != nil else {
        throw ModelError(
          file: file, field: key, reason: "is more than \(TemplateValue.depthLimit) levels of lists and objects")
      }
      globals[key] = .data(value)
    }
    let scope = TemplateScope(globals)
    var evaluator = TemplateEvaluator(limits: limits, clock: clock, globals: scope)
    var output = ""
    do throws(TemplateError) {
      _ = try evaluator.run(statements, scope, into: &output)
    } catch {
      throw Self.located(error, bytes, file, origin)
    }
    return output
  }

  /// The error with its line and column, both from 1.
  private static func located(
    _ error: TemplateError, _ bytes: [UInt8], _ file: String, _ origin: Origin
  ) -> ModelError {
    let before = bytes[..<min(error.offset, bytes.count)]
    let line = before.count { $0 == UInt8(ascii: "\n") } + 1
    let start = before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
    let column = before[start...].count { $0 & 0xC0 != 0x80 } + 1
    let place = "line \(line), column \(column)"
    switch origin {
    case .file: return ModelError(file: file, field: place, offset: error.offset, reason: error.reason)
    case .unknown: return ModelError(file: file, field: place, reason: error.reason)
    case .value(let field, let offset):
      return ModelError(file: file, field: "\(field), \(place)", offset: offset, reason: error.reason)
    }
  }
}

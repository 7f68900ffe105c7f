import Quern

/// What `modules.json` and the files it names say.
struct SentenceModules {
  static let promptFile = "config_sentence_transformers.json"

  private(set) var pooling = SentenceEmbedder.Pooling.mean
  private(set) var normalizes = false
  private(set) var maximumLength: Int?
  private(set) var prompts: [String: String] = [:]
  private(set) var defaultPrompt: String?

  init(directory: String) throws(ModelError) {
    if let config = try HubConfig.ifPresent(directory: directory, name: "sentence_bert_config.json") {
      // Two tokens are the special ones; fewer leave no room for text.
      maximumLength = try config.root.optional("max_seq_length")?.int(in: 2...(1 << 24))
    }
    try readPrompts(directory)
    guard let modules = try HubConfig.ifPresent(directory: directory, name: "modules.json") else { return }
    var kinds: [String] = []
    var poolingDirectory: String?
    try modules.root.forEachElement { (module) throws(ModelError) in
      let type = try module.required("type")
      let kind = try type.string().split(separator: ".").last.map(String.init) ?? ""
      guard ["Transformer", "Pooling", "Normalize"].contains(kind) else {
        throw type.error("\(kind) is not supported; supported: Transformer, Pooling, Normalize")
      }
      kinds.append(kind)
      if kind == "Pooling" {
        let path = try module.required("path")
        let name = try path.string()
        guard !name.isEmpty, !name.hasPrefix("/"), !name.split(separator: "/").contains("..") else {
          throw path.error("\(name) is not a folder inside the model directory")
        }
        poolingDirectory = name
      }
    }
    guard kinds.first == "Transformer", kinds.dropFirst().first == "Pooling", kinds.count <= 3 else {
      throw modules.root.error("the modules are \(kinds); expected Transformer, Pooling and, perhaps, Normalize")
    }
    normalizes = kinds.count == 3
    if normalizes && kinds[2] != "Normalize" {
      throw modules.root.error("the modules are \(kinds); expected Normalize last")
    }
    if let poolingDirectory { try readPooling(directory, poolingDirectory) }
  }

  private mutating func readPooling(_ directory: String, _ folder: String) throws(ModelError) {
    let config = try HubConfig(directory: directory, name: "\(folder)/config.json")
    var modes: [String] = []
    try config.root.forEachMember { (key, value) throws(ModelError) in
      if key.hasPrefix("pooling_mode_"), try value.bool() { modes.append(String(key.dropFirst("pooling_mode_".count))) }
    }
    // Newer directories have one name instead.
    if let mode = try config.root.optional("pooling_mode") { modes = [try mode.string()] }
    switch modes {
    case ["mean_tokens"], ["mean"]: pooling = .mean
    case ["cls_token"], ["cls"]: pooling = .cls
    case ["lasttoken"]: pooling = .lastToken
    default:
      throw config.root.error(
        "pooling_mode \(modes.joined(separator: ", ")) is not supported; supported: mean_tokens, cls_token or lasttoken, "
          + "one of them alone")
    }
    if let include = try config.root.optional("include_prompt"), try !include.bool(),
      prompts.values.contains(where: { !$0.isEmpty })
    {
      throw include.error("pooling without the tokens of a prompt is not supported")
    }
  }

  private mutating func readPrompts(_ directory: String) throws(ModelError) {
    guard let config = try HubConfig.ifPresent(directory: directory, name: Self.promptFile) else { return }
    var found: [String: String] = [:]
    try config.root.optional("prompts")?.forEachMember { (name, text) throws(ModelError) in
      found[name] = try text.string()
    }
    prompts = found
    guard let name = try config.root.optional("default_prompt_name") else { return }
    guard prompts[try name.string()] != nil else { throw name.error("\(try name.string()) is not one of the prompts") }
    defaultPrompt = try name.string()
  }
}

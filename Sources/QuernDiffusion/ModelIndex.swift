import QuernModels

/// `model_index.json` of a diffusers directory: the pipeline's class, and the library and class of each of its parts.
public struct ModelIndex: Sendable, Equatable {
  public struct Part: Sendable, Equatable {
    /// `diffusers` or `transformers`.
    public var library: String
    /// The class's name in that library, such as `UNet2DConditionModel`.
    public var className: String

    public init(library: String, className: String) { (self.library, self.className) = (library, className) }
  }

  /// The pipeline's class, such as `StableDiffusionPipeline`.
  public var pipeline: String
  /// By the name of its folder. Parts that the pipeline does without, which the file lists as nulls, are not here.
  public var parts: [String: Part]

  /// - Throws: ``ModelError`` naming file, field and offset, where the file is missing or is not as diffusers writes it.
  public init(directory: String) throws(ModelError) {
    try self.init(HubConfig(directory: directory, name: "model_index.json"))
  }

  init(_ config: HubConfig) throws(ModelError) {
    var parts: [String: Part] = [:]
    try config.root.forEachMember { (name, value) throws(ModelError) in
      guard value.kind == .array else { return }
      var names: [String] = []
      try value.forEachElement { (element) throws(ModelError) in
        if !element.isNull { names.append(try element.string()) }
      }
      if value.count == 2, names.isEmpty { return }
      guard value.count == 2, names.count == 2 else { throw value.error("is not a library and a class") }
      parts[name] = Part(library: names[0], className: names[1])
    }
    (pipeline, self.parts) = (try config.string("_class_name"), parts)
  }
}

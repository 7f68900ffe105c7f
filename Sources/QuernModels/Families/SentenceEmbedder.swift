import Quern

/// Sentence embeddings from a sentence-transformers directory: tokenizer, encoder, pooling, normalisation.
///
/// ```swift
/// let embedder = try SentenceEmbedder(directory: ".model/all-MiniLM-L6-v2", context: Context())
/// let vectors = try embedder.embed(["a sentence", "another"])   // unit vectors
/// ```
public final class SentenceEmbedder: Sendable {
  /// How token vectors become one vector.
  public enum Pooling: String, Sendable { case mean, cls }

  public let model: BertModel
  public let tokenizer: any Tokenizer
  public let pooling: Pooling
  /// Whether `modules.json` ends in a Normalize module.
  public let normalizes: Bool
  /// Tokens kept of a longer text, special ones included: the documented truncation.
  public let maximumLength: Int
  /// Elements of a vector.
  public var dimension: Int { model.configuration.hiddenSize }

  /// - Parameters:
  ///   - directory: as sentence-transformers saves it. Without `modules.json`: mean pooling, no normalisation.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and hidden states; vectors are f32 always.
  /// - Throws: ``ModelError`` naming file, field and offset, also for modules and pooling modes that are not supported.
  public init(directory: String, context: Context, precision: DataType = .f32) throws {
    let modules = try SentenceModules(directory: directory)
    model = try BertModel(directory: directory, context: context, precision: precision)
    tokenizer = try TokenizerFile.load(directory: directory)
    (pooling, normalizes) = (modules.pooling, modules.normalizes)
    maximumLength = min(
      modules.maximumLength ?? tokenizer.truncation?.maximumLength ?? Int.max,
      model.configuration.maxPositionEmbeddings)
    guard Int(tokenizer.largestID) < model.configuration.vocabSize else {
      throw ModelError(
        file: "\(directory)/tokenizer.json", field: "model.vocab",
        reason: "token id \(tokenizer.largestID) is outside the embedding table of "
          + "\(model.configuration.vocabSize) rows; tokenizer and weights do not belong together")
    }
  }

  /// The token ids of a text, cut to ``maximumLength``. An empty text is its special tokens alone.
  public func tokens(_ text: String) throws -> [Int32] {
    try tokenizer.encode(text, options: EncodingOptions(length: .atMost(maximumLength)))
  }

  /// One vector of ``dimension`` elements for each text.
  ///
  /// - Parameters:
  ///   - tokensPerPass: texts are run in batches of about this many tokens, which bounds the memory.
  ///   - progress: called after each batch with the number of texts done.
  public func embed(
    _ texts: [String], tokensPerPass: Int = 16384, progress: (Int) -> Void = { _ in }
  ) throws -> [[Float]] {
    let workspace = try BertModel.Workspace()
    var vectors: [[Float]] = []
    vectors.reserveCapacity(texts.count)
    var sequences: [[Int32]] = []
    var count = 0
    for (index, text) in texts.enumerated() {
      sequences.append(try tokens(text))
      count += sequences[sequences.count - 1].count
      guard count >= tokensPerPass || index == texts.count - 1 else { continue }
      vectors += try embed(EncoderBatch(sequences), workspace: workspace)
      progress(index + 1)
      sequences.removeAll(keepingCapacity: true)
      count = 0
    }
    return vectors
  }

  private func embed(_ batch: EncoderBatch, workspace: BertModel.Workspace) throws -> [[Float]] {
    let hidden = try model.forward(batch, workspace: workspace)
    let pooled = try MutableTensor(zeros: Shape(batch.segments.count, dimension))
    let context = model.context
    switch pooling {
    case .mean: try context.meanPool(hidden.view, segments: batch.segments, into: pooled)
    case .cls:
      let first = batch.segments.offsets.dropLast().map { $0 }
      try context.embedding(first, table: hidden.view, into: pooled)
    }
    if normalizes { try context.l2Normalize(pooled.view, into: pooled) }
    return (0..<batch.segments.count).map { pooled.rows($0..<$0 + 1).elements }
  }
}

/// What `modules.json` and the files it names say.
private struct SentenceModules {
  var pooling = SentenceEmbedder.Pooling.mean
  var normalizes = false
  var maximumLength: Int?

  init(directory: String) throws(ModelError) {
    if let config = try HubConfig.ifPresent(directory: directory, name: "sentence_bert_config.json") {
      // Two tokens are the special ones; fewer leave no room for text.
      maximumLength = try config.root.optional("max_seq_length")?.int(in: 2...(1 << 24))
    }
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
      if key.hasPrefix("pooling_mode_"), try value.bool() { modes.append(key) }
    }
    switch modes {
    case ["pooling_mode_mean_tokens"]: pooling = .mean
    case ["pooling_mode_cls_token"]: pooling = .cls
    default:
      throw config.root.error(
        "pooling by \(modes) is not supported; supported: pooling_mode_mean_tokens or pooling_mode_cls_token alone")
    }
  }
}

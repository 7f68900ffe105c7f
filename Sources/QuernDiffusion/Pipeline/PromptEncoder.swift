import Quern
import QuernModels

/// The text encoders of a pipeline, and what they make of prompts.
struct PromptEncoder: Sendable {
  private struct Tower: Sendable {
    let tokenizer: CLIPTokenizer
    let model: CLIPTextModel

    init(
      directory: String, suffix: String, adapters: [DiffusionLoRA], context: Context, precision: DataType
    ) throws {
      let folder = "\(directory)/text_encoder\(suffix)"
      let configuration = try CLIPTextConfiguration(HubConfig(directory: folder))
      tokenizer = try CLIPTokenizer(
        directory: "\(directory)/tokenizer\(suffix)", positions: configuration.encoder.maximumLength)
      guard Int(tokenizer.tokenizer.largestID) < configuration.encoder.vocabSize else {
        throw ModelError(
          file: "\(folder)/config.json", field: "vocab_size",
          reason:
            "is \(configuration.encoder.vocabSize), and the tokenizer has ids up to \(tokenizer.tokenizer.largestID)")
      }
      let source = try SafetensorsDirectory(path: folder)
      let adapted = try AdaptedSource(
        source, adapters, part: suffix.isEmpty ? .textEncoder : .textEncoder2, context: context,
        aliases: { "text_model.\($0)" })
      model = try CLIPTextModel(
        configuration, source: adapters.isEmpty ? source : adapted, file: folder, context: context,
        precision: precision)
    }

    var width: Int { model.configuration.encoder.hiddenSize }
  }

  /// Of one or several prompts, in their order.
  struct Embeddings {
    /// `[prompts, tokens, width]`, f32.
    let hidden: MutableTensor
    /// `[prompts, width]`, f32: SDXL's second encoder's.
    let pooled: MutableTensor?
  }

  private let towers: [Tower]
  private let configuration: PipelineConfiguration

  init(
    directory: String, _ configuration: PipelineConfiguration, adapters: [DiffusionLoRA], context: Context,
    precision: DataType
  ) throws {
    let suffixes = configuration.kind == .stableDiffusionXL ? ["", "_2"] : [""]
    let towers = try suffixes.map {
      try Tower(directory: directory, suffix: $0, adapters: adapters, context: context, precision: precision)
    }
    guard Set(towers.map(\.tokenizer.maximumLength)).count == 1 else {
      throw ModelError(
        file: "\(directory)/tokenizer_2/tokenizer_config.json", field: "model_max_length",
        reason: "is another length than the first tokenizer's, and their states are joined token by token")
    }
    (self.towers, self.configuration) = (towers, configuration)
  }

  /// Elements of a token's state.
  var width: Int { towers.reduce(0) { $0 + $1.width } }

  /// The states of `prompt`, with guidance behind those of `negative`.
  func encode(_ prompt: String, negative: String?, isGuided: Bool, _ context: Context) throws -> Embeddings {
    let isXL = configuration.kind == .stableDiffusionXL
    // Zeros stand for the first prompt.
    let isZero = isGuided && isXL && negative == nil && configuration.forceZerosForEmptyPrompt
    let texts = (isGuided && !isZero ? [negative ?? ""] : []) + [prompt]
    let (count, first) = (isGuided ? 2 : 1, isZero ? 1 : 0)
    let tokens = towers[0].tokenizer.maximumLength
    let hidden = try MutableTensor(zeros: Shape(checking: [count * tokens, width]))
    var (column, pooled): (Int, MutableTensor?) = (0, nil)
    for (index, tower) in towers.enumerated() {
      let workspace = try EncoderModel.Workspace()
      let batch = try EncoderBatch(texts.map { (text) throws(TokenizerError) in try tower.tokenizer.encode(text) })
      let target = hidden.rows(first * tokens..<count * tokens).columns(column..<column + tower.width)
      let layers = max(tower.model.configuration.encoder.numHiddenLayers - (isXL ? 1 : 0), 0)
      // The first encoder's pooled state goes nowhere.
      if isXL, index == towers.count - 1 {
        let embedded = try tower.model.embed(batch, workspace: workspace, keeping: (layers, target))
        let vectors = try MutableTensor(zeros: Shape(count, tower.model.embeddingSize))
        try context.copy(embedded.view, into: vectors.rows(first..<count))
        pooled = vectors
      } else {
        let states = try tower.model.encoder.forward(
          batch, workspace: workspace, layers: layers, finalNorm: !isXL)
        try context.copy(states.view, into: target)
      }
      column += tower.width
    }
    return Embeddings(hidden: hidden.reshaped(Shape(count, tokens, width)), pooled: pooled)
  }
}

import Quern

/// A text encoder as a set of switches: its embeddings, and ``stack``, its layers; each family is read from its own `config.json`.
///
/// The fields have the names of the `transformers` package where it has one for them.
public struct EncoderConfiguration: Sendable, Equatable {
  /// The `model_type` that it was read from.
  public var modelType: String
  public var stack: EncoderStackConfiguration
  public var vocabSize: Int
  /// Rows of the table of positions; with rotary positions, the most that the model was trained on.
  public var maxPositionEmbeddings: Int
  /// 0 where tokens have no types.
  public var typeVocabSize: Int
  /// Positions are a learned table, added to the embeddings.
  public var hasLearnedPositions = true
  /// A norm behind the embeddings.
  public var hasEmbeddingNorm = true
  /// Positions count the tokens other than this one, from it plus 1 on, and this one stands at its own number: RoBERTa's.
  public var padTokenID: Int32?
  var names = EncoderNames()

  public var hiddenSize: Int { stack.hiddenSize }
  public var intermediateSize: Int { stack.intermediateSize }
  public var numHiddenLayers: Int { stack.numHiddenLayers }
  /// The most tokens of a sequence.
  public var maximumLength: Int { maxPositionEmbeddings - (padTokenID.map { Int($0) + 1 } ?? 0) }

  /// BERT (Devlin et al., arXiv 1810.04805).
  public init(
    vocabSize: Int, hiddenSize: Int, numHiddenLayers: Int, numAttentionHeads: Int, intermediateSize: Int,
    hiddenAct: Activation = .gelu, maxPositionEmbeddings: Int = 512, typeVocabSize: Int = 2, layerNormEps: Float = 1e-12
  ) {
    self.init(
      modelType: "bert",
      stack: EncoderStackConfiguration(
        hiddenSize: hiddenSize, intermediateSize: intermediateSize, numAttentionHeads: numAttentionHeads,
        numHiddenLayers: numHiddenLayers),
      vocabSize: vocabSize, maxPositionEmbeddings: maxPositionEmbeddings, typeVocabSize: typeVocabSize)
    (stack.hiddenAct, stack.norm.epsilon) = (hiddenAct, layerNormEps)
  }

  init(
    modelType: String, stack: EncoderStackConfiguration, vocabSize: Int, maxPositionEmbeddings: Int,
    typeVocabSize: Int = 0
  ) {
    (self.modelType, self.stack, self.vocabSize) = (modelType, stack, vocabSize)
    (self.maxPositionEmbeddings, self.typeVocabSize) = (maxPositionEmbeddings, typeVocabSize)
  }

  /// Appends the positions of a sequence's tokens: rows of the table of positions.
  func appendPositions(of sequence: some Sequence<Int32>, to positions: inout [Int32]) {
    var next = padTokenID.map { $0 + 1 } ?? 0
    for id in sequence {
      if let padTokenID, id == padTokenID {
        positions.append(padTokenID)
      } else {
        positions.append(next)
        next += 1
      }
    }
  }
}

/// What a checkpoint calls its tensors, without `.weight`, after the prefix.
struct EncoderNames: Sendable, Equatable {
  var prefixes = ["", "bert."]
  var words = "embeddings.word_embeddings"
  var positions = "embeddings.position_embeddings"
  var types = "embeddings.token_type_embeddings"
  var norm = "embeddings.LayerNorm"
}

extension EncoderConfiguration {
  /// Every `model_type` that is read, with its reader.
  private static let readers: [(type: String, read: @Sendable (HubConfig) throws(ModelError) -> EncoderConfiguration)] =
    [
      ("bert", bert), ("roberta", roberta), ("xlm-roberta", roberta), ("modernbert", modernBert),
      ("clip_text_model", clip), ("t5", t5),
    ]

  static var modelTypes: [String] { readers.map(\.type) }

  /// Reads the fields of a `config.json`, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    self = try config.read(Self.readers)
  }
}

extension EncoderConfiguration: ModelFamily {
  var tensorPrefixes: [String] { names.prefixes }
  var probe: String { "\(names.words).weight" }
  var linearLayers: [LinearLayer] { stack.linearLayers }
}

extension Activation {
  /// The names that `hidden_act` has in the `transformers` package.
  static let hubNames: [(name: String, activation: Activation)] = [
    ("gelu", .gelu), ("gelu_new", .geluTanh), ("gelu_pytorch_tanh", .geluTanh), ("quick_gelu", .quickGelu),
    ("relu", .relu), ("silu", .silu), ("swish", .silu), ("tanh", .tanh), ("sigmoid", .sigmoid), ("linear", .identity),
  ]
}

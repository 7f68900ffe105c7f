import Quern

/// The layers of an encoder as a set of switches: what the families of text and image encoders differ in.
///
/// The fields have the names of the `transformers` package where it has one for them.
public struct EncoderStackConfiguration: Sendable, Equatable {
  public var hiddenSize: Int
  public var intermediateSize: Int
  public var numAttentionHeads: Int
  public var headDim: Int
  /// What each layer attends to.
  public var layers: [Layer]

  public var norm = Norm()
  /// Norms stand before attention and before the feed-forward part (Xiong et al., arXiv 2002.04745), else after each residual.
  public var isPreNorm = false
  /// A norm behind the last layer.
  public var hasFinalNorm = false
  /// A token sees none after it.
  public var isCausal = false
  public var hasAttentionBias = true
  public var hasAttentionOutputBias = true
  public var hasFeedForwardBias = true

  public var hiddenAct = Activation.gelu
  /// `down(act(gate x) up x)`; else `down(act(up x))`.
  public var isGated = false
  /// Scores are `attentionScale q kᵀ`.
  public var attentionScale: Float
  /// Rotary positions of layers that see every token; `nil` where positions are not rotary.
  public var rotary: DecoderConfiguration.Rotary?
  /// Of layers with a window, where they have their own.
  public var localRotary: DecoderConfiguration.Rotary?
  /// A bias of the scores by distance, the same in every layer.
  public var relativePositions: RelativePositions?
  var names = EncoderLayerNames()

  public var numHiddenLayers: Int { layers.count }

  /// One layer.
  public struct Layer: Sendable, Equatable {
    /// Tokens on either side that a token sees; `nil` for all.
    public var reach: Int?
    /// Whether the attention of a pre-norm layer has its norm.
    public var hasAttentionNorm = true
  }

  /// The norms of the layers and of the embeddings.
  public struct Norm: Sendable, Equatable {
    /// LayerNorm instead of RMSNorm.
    public var isCentred = true
    public var hasBias = true
    public var epsilon: Float = 1e-12
  }

  /// Distances of key and query in buckets, each with a learned bias for each head.
  public struct RelativePositions: Sendable, Equatable {
    public var buckets: Int
    /// Distances from here on share the last bucket.
    public var maxDistance: Int
    /// Keys after the query have buckets of their own.
    public var isBidirectional: Bool
  }

  /// A stack of equal layers, whose heads divide the hidden size among them.
  public init(hiddenSize: Int, intermediateSize: Int, numAttentionHeads: Int, numHiddenLayers: Int) {
    (self.hiddenSize, self.intermediateSize) = (hiddenSize, intermediateSize)
    (self.numAttentionHeads, headDim) = (numAttentionHeads, hiddenSize / max(numAttentionHeads, 1))
    layers = [Layer](repeating: Layer(), count: numHiddenLayers)
    attentionScale = 1 / Float(max(headDim, 1)).squareRoot()
  }

  /// The fields that most families share; those that are missing are those of `defaults`, where there are any.
  init(_ config: HubConfig, defaults: EncoderStackConfiguration? = nil) throws(ModelError) {
    func field(_ key: String, _ limit: Int, least: Int = 1, _ value: Int?) throws(ModelError) -> Int {
      if let value { return try config.int(key, in: least...limit, default: value) }
      return try config.int(key, in: least...limit)
    }
    let width = try field("hidden_size", 1 << 16, defaults?.hiddenSize)
    let heads = try field("num_attention_heads", 1 << 12, defaults?.numAttentionHeads)
    guard width % heads == 0 else {
      throw try (config.root.optional("num_attention_heads") ?? config.root)
        .error("hidden_size \(width) is no multiple of num_attention_heads \(heads)")
    }
    self.init(
      hiddenSize: width, intermediateSize: try field("intermediate_size", 1 << 18, defaults?.intermediateSize),
      numAttentionHeads: heads,
      numHiddenLayers: try field("num_hidden_layers", 1024, least: 0, defaults?.numHiddenLayers))
  }
}

/// What a checkpoint calls the tensors of its layers, without `.weight`.
struct EncoderLayerNames: Sendable, Equatable {
  var layers = "encoder.layer"
  /// One name where queries, keys and values lie in one tensor.
  var queriesKeysValues = ["attention.self.query", "attention.self.key", "attention.self.value"]
  var attentionOutput = "attention.output.dense"
  var attentionNorm = "attention.output.LayerNorm"
  /// One name where gate and up lie in one tensor, or there is no gate.
  var gateUp = ["intermediate.dense"]
  var down = "output.dense"
  var feedForwardNorm = "output.LayerNorm"
  var finalNorm = ""
  /// The table of ``EncoderStackConfiguration/RelativePositions``.
  var relativeBias = ""
  /// Of a decoder's attention to an encoder's output, between its own and the feed-forward part.
  var cross: Cross?

  struct Cross: Sendable, Equatable {
    var norm: String
    var queries: String
    var keysValues: [String]
    var output: String
  }
}

extension EncoderStackConfiguration {
  var linearLayers: [LinearLayer] {
    layers.indices.flatMap { index in
      let cross = names.cross.map {
        [crossQueries(index, $0), crossKeysValues(index, $0), crossOutput(index, $0)]
      }
      return [queriesKeysValues(index), attentionOutput(index)] + (cross ?? []) + [gateUp(index), down(index)]
    }
  }

  var attentionWidth: Int { numAttentionHeads * headDim }

  func layerName(_ index: Int) -> String { "\(names.layers).\(index)" }

  func queriesKeysValues(_ index: Int) -> LinearLayer {
    layer(index, names.queriesKeysValues, 3 * attentionWidth, hiddenSize)
  }

  func attentionOutput(_ index: Int) -> LinearLayer {
    layer(index, [names.attentionOutput], hiddenSize, attentionWidth)
  }

  func crossQueries(_ index: Int, _ names: EncoderLayerNames.Cross) -> LinearLayer {
    layer(index, [names.queries], attentionWidth, hiddenSize)
  }

  func crossKeysValues(_ index: Int, _ names: EncoderLayerNames.Cross) -> LinearLayer {
    layer(index, names.keysValues, 2 * attentionWidth, hiddenSize)
  }

  func crossOutput(_ index: Int, _ names: EncoderLayerNames.Cross) -> LinearLayer {
    layer(index, [names.output], hiddenSize, attentionWidth)
  }

  func gateUp(_ index: Int) -> LinearLayer {
    layer(index, names.gateUp, intermediateSize * (isGated ? 2 : 1), hiddenSize)
  }

  func down(_ index: Int) -> LinearLayer { layer(index, [names.down], hiddenSize, intermediateSize) }

  /// Equal parts that have these outputs together.
  private func layer(_ index: Int, _ parts: [String], _ outputs: Int, _ inputs: Int) -> LinearLayer {
    LinearLayer(
      parts: parts.map { .init(name: "\(layerName(index)).\($0)", outputs: outputs / parts.count) }, inputs: inputs)
  }
}

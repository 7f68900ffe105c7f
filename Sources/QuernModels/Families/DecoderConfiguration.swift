import Quern

/// A decoder-only transformer as a set of switches: what the families differ in, each read from its own `config.json`.
///
/// The fields have the names of the `transformers` package where it has one for them.
public struct DecoderConfiguration: Sendable, Equatable {
  /// The `model_type` that it was read from.
  public var modelType: String
  public var vocabSize: Int
  public var hiddenSize: Int
  public var intermediateSize: Int
  public var numAttentionHeads: Int
  public var numKeyValueHeads: Int
  public var headDim: Int
  public var maxPositionEmbeddings: Int
  /// What each layer attends to and whether it has experts.
  public var layers: [Layer]

  public var norm = Norm()
  /// RMSNorm of each head's queries and keys, before positions are added.
  public var hasHeadNorms = false
  /// Norms after attention and after the feed-forward part, before they are added to the residual.
  public var hasPostNorms = false
  public var hasAttentionBias = false
  public var hasAttentionOutputBias = false
  public var hasFeedForwardBias = false

  public var hiddenAct = Activation.silu
  /// `down(act(gate x) up x)`; else `down(act(up x))`.
  public var isGated = true
  /// The gate is at most this, the value within it and increased by 1: `swiglu_limit`.
  public var gateLimit: Float?
  public var experts: Experts?
  /// Keys and values as products of one small vector a token.
  public var latent: Latent?

  /// Rotary positions of layers without a window; `nil` where positions are learned.
  public var rotary: Rotary?
  /// Of layers with a window, where they have their own.
  public var localRotary: Rotary?
  /// Scores are `attentionScale q kᵀ`.
  public var attentionScale: Float
  /// One more score for each head, of a key whose value is zero.
  public var hasSinks = false
  /// `attn_logit_softcapping`; 0 for none.
  public var attentionSoftCap: Float = 0
  /// `final_logit_softcapping`; 0 for none.
  public var finalSoftCap: Float = 0
  /// What embeddings are multiplied by.
  public var embeddingScale: Float = 1
  public var tieWordEmbeddings = false
  /// Ids that end a text: `eos_token_id`.
  public var endOfText: [Int32] = []
  var names = DecoderNames()
  /// What Hugging Face directories call the layers, where `names` are those of GGUF files.
  var hubNames: DecoderNames?

  public var numHiddenLayers: Int { layers.count }

  /// Positions for a prompt and what follows it, as far as the model has them.
  package func capacity(prompt: Int, maximumTokens: Int) -> Int {
    let (wanted, overflows) = prompt.addingReportingOverflow(maximumTokens)
    return overflows ? maxPositionEmbeddings : min(wanted, maxPositionEmbeddings)
  }

  /// One layer.
  public struct Layer: Sendable, Equatable {
    /// The latest keys that a query sees, its own among them; `nil` for all.
    public var window: Int?
    /// Whether its feed-forward part is a mixture of experts.
    public var isSparse = false
  }

  /// The norms before attention, before the feed-forward part and before the head.
  public struct Norm: Sendable, Equatable {
    /// LayerNorm, with a bias, instead of RMSNorm.
    public var isCentred = false
    public var epsilon: Float = 1e-6
    /// Added to the weights: Gemma stores them less 1.
    public var offset: Float = 0
  }

  /// Rotary positions.
  public struct Rotary: Sendable, Equatable {
    /// Elements of a head that are turned.
    public var size: Int
    public var theta: Double
    public var scaling = RotaryScaling.none
    public var pairing = RotaryPairing.split
  }

  /// A mixture of experts: the router's softmax, the largest of it, and a gated feed-forward part each.
  public struct Experts: Sendable, Equatable {
    public var count: Int
    public var perToken: Int
    public var intermediateSize: Int
    /// Whether the shares of the chosen experts add up to 1.
    public var normalizes: Bool
    public var scoring = Scoring.softmax
    /// Experts are chosen within the best groups of them.
    public var groups: Groups?
    /// What the shares are multiplied by: `routed_scaling_factor`.
    public var scale: Float = 1
    /// The width of a part that every token takes; 0 for none.
    public var sharedIntermediateSize = 0
    /// Of the router and of every expert's products.
    public var hasBias = false

    /// How the router's logits become scores.
    public enum Scoring: Sendable { case softmax, sigmoid }

    /// Groups of neighbouring experts, of which each token keeps some.
    public struct Groups: Sendable, Equatable {
      public var count: Int
      public var kept: Int
      /// A group's score is the sum of its two largest, else the largest.
      public var sumsTwo: Bool
    }
  }

  /// Latent attention, with the names that `config.json` has for its sizes.
  public struct Latent: Sendable, Equatable {
    /// Of the vector that queries are made of; `nil` where they are made of the hidden state.
    public var qLoraRank: Int?
    /// Of the vector that keys and values are made of.
    public var kvLoraRank: Int
    public var qkNopeHeadDim: Int
    public var qkRopeHeadDim: Int
    public var vHeadDim: Int

    /// Elements of a head's query.
    var queryHeadDim: Int { qkNopeHeadDim + qkRopeHeadDim }
    /// What a cache holds of a token: the vector and the key that all heads share.
    var cacheWidth: Int { kvLoraRank + qkRopeHeadDim }
  }
}

/// What a checkpoint calls its tensors, without `.weight`, after the prefix.
struct DecoderNames: Sendable, Equatable {
  var prefixes = ["model.", ""]
  var embedding = "embed_tokens"
  /// Learned positions.
  var positions = ""
  var finalNorm = "norm"
  /// Has no prefix.
  var head = "lm_head"
  var layers = "layers"
  var attentionNorm = "input_layernorm"
  /// One name where queries, keys and values lie in one tensor.
  var queriesKeysValues = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
  /// A tensor of its own, without `.weight`.
  var sinks = "self_attn.sinks"
  var queryNorm = "self_attn.q_norm"
  var keyNorm = "self_attn.k_norm"
  var attentionOutput = "self_attn.o_proj"
  var feedForwardNorm = "post_attention_layernorm"
  /// One name where gate and up lie in one tensor, or there is no gate.
  var gateUp = ["mlp.gate_proj", "mlp.up_proj"]
  var down = "mlp.down_proj"
  var postAttentionNorm = ""
  var postFeedForwardNorm = ""
  var router = "mlp.gate"
  var experts = "mlp.experts"
  /// One name where gate and up lie in one tensor, as of `gateUp`.
  var expertGateUp = ["gate_proj", "up_proj"]
  var expertDown = "down_proj"
  /// A tensor of its own, without `.weight`.
  var correction = ""
  var sharedExperts = "mlp.shared_experts"
  var sharedGateUp = ["gate_proj", "up_proj"]
  var latentQueries = ["self_attn.q_a_proj", "self_attn.q_a_layernorm", "self_attn.q_b_proj"]
  var latent = ["self_attn.kv_a_proj_with_mqa", "self_attn.kv_a_layernorm"]
  /// One name where a head's keys and values lie in one tensor, its keys first; else `[heads, latent, key]` and `[heads, value, latent]`.
  var latentHeads = ["self_attn.kv_b_proj"]
  /// Matrices are `[inputs, outputs]`.
  var isTransposed = false
}

extension DecoderConfiguration {
  /// Every `model_type` that is read, with its reader.
  private static let readers: [(type: String, read: @Sendable (HubConfig) throws(ModelError) -> DecoderConfiguration)] =
    [
      ("llama", llama), ("mistral", mistral), ("mixtral", mixtral), ("qwen2", qwen2), ("qwen3", qwen3),
      ("qwen3_moe", qwen3Moe), ("gemma2", gemma2), ("gemma3_text", gemma3), ("phi3", phi3), ("gpt2", gpt2),
      ("deepseek_v2", deepseekV2), ("deepseek_v3", deepseekV3), ("gpt_oss", gptOss),
    ]

  /// The weights of a model directory, under the names that this family's layers have.
  func source(directory: String) throws(ModelError) -> any TensorSource {
    // The quantization_config of gpt_oss is about its experts.
    if modelType == "gpt_oss" { return GptOssExperts(try SafetensorsDirectory(path: directory)) }
    return try SafetensorsDirectory.weights(of: directory)
  }

  static var modelTypes: [String] { readers.map(\.type) }

  /// Reads the fields of a `config.json`, and refuses values that are not implemented, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    self = try config.read(Self.readers)
    endOfText = try config.tokenIDs("eos_token_id")
  }

  /// The fields that most families share.
  ///
  /// - Parameter headDim: that of a family which does not say it in `head_dim`.
  init(common config: HubConfig, headDim given: Int? = nil) throws(ModelError) {
    modelType = try config.string("model_type")
    vocabSize = try config.int("vocab_size", in: 1...(1 << 24))
    hiddenSize = try config.int("hidden_size", in: 1...(1 << 16))
    intermediateSize = try config.int("intermediate_size", in: 1...(1 << 18))
    numAttentionHeads = try config.int("num_attention_heads", in: 1...(1 << 12))
    numKeyValueHeads = try config.int("num_key_value_heads", in: 1...(1 << 12), default: numAttentionHeads)
    if let given {
      headDim = given
    } else if let size = try config.root.optional("head_dim") {
      headDim = try size.int(in: 1...1024)
    } else {
      guard hiddenSize % numAttentionHeads == 0 else {
        throw try config.root.required("num_attention_heads")
          .error("hidden_size \(hiddenSize) is no multiple of \(numAttentionHeads), and there is no head_dim")
      }
      headDim = hiddenSize / numAttentionHeads
    }
    guard numAttentionHeads % numKeyValueHeads == 0 else {
      throw try config.root.required("num_key_value_heads")
        .error("\(numAttentionHeads) attention heads are no multiple of \(numKeyValueHeads)")
    }
    maxPositionEmbeddings = try config.int("max_position_embeddings", in: 1...(1 << 24))
    layers = [Layer](repeating: Layer(), count: try config.int("num_hidden_layers", in: 0...1024))
    norm.epsilon = try config.epsilon("rms_norm_eps", default: 1e-6)
    hiddenAct = try config.activation(
      try config.root.optional("hidden_activation") == nil ? "hidden_act" : "hidden_activation")
    attentionScale = 1 / Float(headDim).squareRoot()
    tieWordEmbeddings = try config.bool("tie_word_embeddings", default: false)
  }

  /// The same window in every layer, where `sliding_window` is a number.
  mutating func readWindow(_ config: HubConfig) throws(ModelError) {
    guard let window = try config.root.optional("sliding_window") else { return }
    let size = try window.int(in: 1...Int(Int32.max))
    for index in layers.indices { layers[index].window = size }
  }

  /// `sliding_window` in the layers that `layer_types` names; where it is not there, in those that `isLocal` says.
  mutating func readWindows(_ config: HubConfig, isLocal: (Int) -> Bool) throws(ModelError) {
    let size = try config.root.optional("sliding_window")?.int(in: 1...Int(Int32.max))
    for (index, isLocal) in try config.localLayers(layers.count, else: isLocal).enumerated()
    where isLocal {
      guard let size else { throw try config.root.required("sliding_window").error("is needed by layer \(index)") }
      layers[index].window = size
    }
  }
}

extension HubConfig {
  /// Which of `count` layers `layer_types` says have a window; where it is not there, those that `isLocal` says.
  func localLayers(_ count: Int, else isLocal: (Int) -> Bool) throws(ModelError) -> [Bool] {
    guard let types = try root.optional("layer_types") else { return (0..<count).map(isLocal) }
    guard types.count == count else { throw types.error("has \(types.count) entries for \(count) layers") }
    var local: [Bool] = []
    try types.forEachElement { (type) throws(ModelError) in
      switch try type.string() {
      case "full_attention": local.append(false)
      case "sliding_attention": local.append(true)
      case let other: throw type.error("\(other) is not supported; supported: full_attention, sliding_attention")
      }
    }
    return local
  }

  func epsilon(_ key: String, default value: Double) throws(ModelError) -> Float {
    let epsilon = try double(key, default: value)
    guard epsilon >= 0, epsilon < 1 else { throw try root.required(key).error("\(epsilon) is not in 0 ..< 1") }
    return Float(epsilon)
  }

  func activation(_ key: String) throws(ModelError) -> Activation {
    let name = try string(key, oneOf: Activation.hubNames.map(\.name))
    return Activation.hubNames.first { $0.name == name }?.activation ?? .identity
  }

  /// A positive number, or `value` where the field is missing or null.
  package func positive(_ key: String, default value: Double) throws(ModelError) -> Double {
    let number = try double(key, default: value)
    guard number > 0, number.isFinite else { throw try root.required(key).error("\(number) is not a positive number") }
    return number
  }

  /// One id, or a list of them, or none.
  func tokenIDs(_ key: String) throws(ModelError) -> [Int32] {
    guard let value = try root.optional(key) else { return [] }
    guard value.kind == .array else { return [Int32(try value.int(in: 0...Int(Int32.max)))] }
    var ids: [Int32] = []
    try value.forEachElement { (id) throws(ModelError) in ids.append(Int32(try id.int(in: 0...Int(Int32.max)))) }
    return ids
  }
}

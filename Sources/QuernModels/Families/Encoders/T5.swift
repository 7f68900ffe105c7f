import Quern

/// T5 (Raffel et al., arXiv 1910.10683): an encoder, and a decoder that attends to it.
public struct T5Configuration: Sendable, Equatable {
  public var encoder: EncoderConfiguration
  public var decoder: EncoderStackConfiguration
  /// The token that every output begins behind.
  public var decoderStartTokenID: Int32
  /// Ids that end an output: `eos_token_id`.
  public var endOfText: [Int32]
  /// The head's logits are divided by the root of `d_model`: `scale_decoder_outputs`, or, as in version 1.0, `tie_word_embeddings`.
  public var scalesLogits: Bool

  public init(_ config: HubConfig) throws(ModelError) {
    encoder = try EncoderConfiguration.t5(config)
    let layers = try config.int("num_decoder_layers", in: 0...1024, default: encoder.numHiddenLayers)
    decoder = try EncoderStackConfiguration.t5(config, layers: layers, isDecoder: true)
    let start = try config.int("pad_token_id", in: 0...(encoder.vocabSize - 1), default: 0)
    decoderStartTokenID = Int32(
      try config.int("decoder_start_token_id", in: 0...(encoder.vocabSize - 1), default: start))
    endOfText = try config.tokenIDs("eos_token_id")
    // transformers 5 ties the head of either version and has a field of its own for this.
    scalesLogits = try config.bool("scale_decoder_outputs", default: config.bool("tie_word_embeddings", default: true))
  }
}

extension EncoderConfiguration {
  /// The encoder alone, as text encoders of images have it too.
  static func t5(_ config: HubConfig) throws(ModelError) -> EncoderConfiguration {
    let layers = try config.int("num_layers", in: 0...1024)
    // Distances have no limit.
    var encoder = EncoderConfiguration(
      modelType: "t5", stack: try .t5(config, layers: layers, isDecoder: false),
      vocabSize: try config.int("vocab_size", in: 1...(1 << 24)), maxPositionEmbeddings: 1 << 24)
    (encoder.hasLearnedPositions, encoder.hasEmbeddingNorm) = (false, false)
    encoder.names = EncoderNames(prefixes: [""], words: "shared", positions: "", types: "", norm: "")
    return encoder
  }
}

extension EncoderStackConfiguration {
  /// The layers of either half: RMSNorm before each part, no biases, scores that are not scaled.
  fileprivate static func t5(
    _ config: HubConfig, layers: Int, isDecoder: Bool
  ) throws(ModelError) -> EncoderStackConfiguration {
    var stack = EncoderStackConfiguration(
      hiddenSize: try config.int("d_model", in: 1...(1 << 16)),
      intermediateSize: try config.int("d_ff", in: 1...(1 << 18)),
      numAttentionHeads: try config.int("num_heads", in: 1...(1 << 12)), numHiddenLayers: layers)
    stack.headDim = try config.int("d_kv", in: 1...1024)
    stack.attentionScale = 1
    stack.norm = .init(
      isCentred: false, hasBias: false, epsilon: try config.epsilon("layer_norm_epsilon", default: 1e-6))
    (stack.isPreNorm, stack.hasFinalNorm, stack.isCausal) = (true, true, isDecoder)
    (stack.hasAttentionBias, stack.hasAttentionOutputBias, stack.hasFeedForwardBias) = (false, false, false)
    (stack.hiddenAct, stack.isGated) = try config.feedForward()
    stack.relativePositions = try RelativePositions(config, isBidirectional: !isDecoder)
    let (part, place) = (isDecoder ? "decoder" : "encoder", isDecoder ? "layer.2" : "layer.1")
    func projections(_ attention: String, _ names: [String]) -> [String] { names.map { "\(attention).\($0)" } }
    stack.names = EncoderLayerNames(
      layers: "\(part).block", queriesKeysValues: projections("layer.0.SelfAttention", ["q", "k", "v"]),
      attentionOutput: "layer.0.SelfAttention.o", attentionNorm: "layer.0.layer_norm",
      gateUp: projections("\(place).DenseReluDense", stack.isGated ? ["wi_0", "wi_1"] : ["wi"]),
      down: "\(place).DenseReluDense.wo", feedForwardNorm: "\(place).layer_norm",
      finalNorm: "\(part).final_layer_norm",
      relativeBias: "\(part).block.0.layer.0.SelfAttention.relative_attention_bias")
    if isDecoder {
      stack.names.cross = .init(
        norm: "layer.1.layer_norm", queries: "layer.1.EncDecAttention.q",
        keysValues: projections("layer.1.EncDecAttention", ["k", "v"]), output: "layer.1.EncDecAttention.o")
    }
    return stack
  }
}

extension EncoderStackConfiguration.RelativePositions {
  fileprivate init(_ config: HubConfig, isBidirectional: Bool) throws(ModelError) {
    buckets = try config.int("relative_attention_num_buckets", in: 4...(1 << 16), default: 32)
    maxDistance = try config.int("relative_attention_max_distance", in: 1...(1 << 24), default: 128)
    self.isBidirectional = isBidirectional
    // The decoder's buckets of one token each are twice the encoder's.
    guard maxDistance > buckets / 2 else {
      throw try (config.root.optional("relative_attention_max_distance") ?? config.root)
        .error("a distance of \(maxDistance) is not beyond the \(buckets / 2) buckets of one token each")
    }
  }
}

extension HubConfig {
  /// `feed_forward_proj`: an activation's name, behind `gated-` where a second product is multiplied with it.
  fileprivate func feedForward() throws(ModelError) -> (activation: Activation, isGated: Bool) {
    guard let field = try root.optional("feed_forward_proj") else { return (.relu, false) }
    let name = try field.string()
    let isGated = name.hasPrefix("gated-")
    // T5 means the tanh approximation by this one.
    let own = name == "gated-gelu" ? "gelu_new" : isGated ? String(name.dropFirst("gated-".count)) : name
    guard let found = Activation.hubNames.first(where: { $0.name == own }) else {
      let names = Activation.hubNames.map(\.name).joined(separator: ", ")
      throw field.error("\(name) is not supported; supported: \(names), and gated- before each")
    }
    return (found.activation, isGated)
  }
}

extension T5Configuration: ModelFamily {
  var tensorPrefixes: [String] { encoder.tensorPrefixes }
  var probe: String { encoder.probe }

  var linearLayers: [LinearLayer] {
    // An encoder's own directory has the configuration of both.
    let decoding = decoder.linearLayers + [head]
    return encoder.linearLayers
      + decoding.map {
        var layer = $0
        layer.isOptional = true
        return layer
      }
  }

  /// Whether the files have both halves.
  func hasDecoder(_ source: any TensorSource) -> Bool { source.contains("\(decoder.names.finalNorm).weight") }

  /// The product with every token's output embedding, where it is not the input embedding.
  var head: LinearLayer {
    LinearLayer(
      parts: [.init(name: "lm_head", outputs: encoder.vocabSize)], inputs: encoder.hiddenSize, isOptional: true,
      takesFactors: false)
  }
}

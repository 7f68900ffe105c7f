import Quern

extension EncoderConfiguration {
  /// ModernBERT (Warner et al., arXiv 2412.13663): rotary positions, norms before each part but the first attention, GeGLU, no
  /// biases, and in most layers a window of `local_attention` tokens around each.
  static func modernBert(_ config: HubConfig) throws(ModelError) -> EncoderConfiguration {
    var stack = try EncoderStackConfiguration(config)
    stack.norm = .init(
      hasBias: try config.bool("norm_bias", default: false), epsilon: try config.epsilon("norm_eps", default: 1e-5))
    (stack.isPreNorm, stack.hasFinalNorm, stack.isGated) = (true, true, true)
    stack.hiddenAct = try config.activation("hidden_activation")
    stack.hasAttentionBias = try config.bool("attention_bias", default: false)
    stack.hasAttentionOutputBias = stack.hasAttentionBias
    stack.hasFeedForwardBias = try config.bool("mlp_bias", default: false)
    try stack.readWindows(config)
    if !stack.layers.isEmpty { stack.layers[0].hasAttentionNorm = false }
    try stack.readRotary(config)
    stack.names = EncoderLayerNames(
      layers: "layers", queriesKeysValues: ["attn.Wqkv"], attentionOutput: "attn.Wo", attentionNorm: "attn_norm",
      gateUp: ["mlp.Wi"], down: "mlp.Wo", feedForwardNorm: "mlp_norm", finalNorm: "final_norm")
    var encoder = EncoderConfiguration(
      modelType: "modernbert", stack: stack, vocabSize: try config.int("vocab_size", in: 1...(1 << 24)),
      maxPositionEmbeddings: try config.int("max_position_embeddings", in: 1...(1 << 24)))
    encoder.hasLearnedPositions = false
    encoder.names = EncoderNames(
      prefixes: ["", "model."], words: "embeddings.tok_embeddings", positions: "", types: "", norm: "embeddings.norm")
    return encoder
  }
}

extension EncoderStackConfiguration {
  fileprivate mutating func readWindows(_ config: HubConfig) throws(ModelError) {
    let every = try config.int("global_attn_every_n_layers", in: 1...1024, default: 3)
    let window = try config.int("local_attention", in: 1...Int(Int32.max), default: 128)
    for (index, isLocal) in try config.localLayers(numHiddenLayers, else: { $0 % every != 0 }).enumerated()
    where isLocal {
      layers[index].reach = window / 2
    }
  }

  /// `rope_parameters` (`transformers` 5), or two bases of the family's own names; without the local one, the global one serves all.
  fileprivate mutating func readRotary(_ config: HubConfig) throws(ModelError) {
    if try config.root.optional("rope_parameters") != nil {
      rotary = try .init(config, headDim: headDim)
      localRotary = try .init(config, headDim: headDim, layerType: "sliding_attention")
      return
    }
    guard headDim % 2 == 0 else {
      throw try config.root.required("num_attention_heads").error("heads of \(headDim) elements; an even number")
    }
    rotary = .init(size: headDim, theta: try config.positive("global_rope_theta", default: 160_000))
    if try config.root.member("local_rope_theta")?.isNull != true {
      localRotary = .init(size: headDim, theta: try config.positive("local_rope_theta", default: 10_000))
    }
  }
}

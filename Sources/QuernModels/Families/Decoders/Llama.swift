import Quern

extension DecoderConfiguration {
  /// Llama 1, 2 and 3 (Touvron et al., arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU, grouped queries.
  static func llama(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try DecoderConfiguration(common: config)
    decoder.rotary = try Rotary(config, headDim: decoder.headDim)
    decoder.hasAttentionBias = try config.bool("attention_bias", default: false)
    decoder.hasAttentionOutputBias = decoder.hasAttentionBias
    decoder.hasFeedForwardBias = try config.bool("mlp_bias", default: false)
    return decoder
  }

  /// Mistral (Jiang et al., arXiv 2310.06825): Llama with, in its first version, a sliding window.
  static func mistral(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try DecoderConfiguration(common: config)
    decoder.rotary = try Rotary(config, headDim: decoder.headDim)
    try decoder.readWindow(config)
    return decoder
  }

  /// Mixtral (Jiang et al., arXiv 2401.04088): Mistral with experts in every layer.
  static func mixtral(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try mistral(config)
    decoder.experts = try Experts(
      config, count: "num_local_experts", intermediateSize: decoder.intermediateSize, normalizes: true)
    for index in decoder.layers.indices { decoder.layers[index].isSparse = true }
    decoder.names.router = "block_sparse_moe.gate"
    decoder.names.experts = "block_sparse_moe.experts"
    (decoder.names.expertGateUp, decoder.names.expertDown) = (["w1", "w3"], "w2")
    return decoder
  }

  /// Phi-3 (Abdin et al., arXiv 2404.14219): Llama with queries, keys and values in one tensor, and gate and up in another.
  static func phi3(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try mistral(config)
    decoder.names.queriesKeysValues = ["self_attn.qkv_proj"]
    decoder.names.gateUp = ["mlp.gate_up_proj"]
    return decoder
  }
}

extension DecoderConfiguration.Experts {
  init(
    _ config: HubConfig, count: String, intermediateSize: Int, normalizes: Bool
  ) throws(ModelError) {
    self.count = try config.int(count, in: 1...4096)
    perToken = try config.int("num_experts_per_tok", in: 1...self.count)
    (self.intermediateSize, self.normalizes) = (intermediateSize, normalizes)
  }
}

import Quern

extension DecoderConfiguration {
  /// Gemma 2 (arXiv 2408.00118): norms on both sides of each part, soft caps, a window in every other layer.
  static func gemma2(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try gemma(config)
    try decoder.readWindows(config) { $0 % 2 == 0 }
    decoder.rotary = try Rotary(config, headDim: decoder.headDim)
    return decoder
  }

  /// Gemma 3, text (arXiv 2503.19786): norms of each head's queries and keys, and two bases of rotary positions.
  static func gemma3(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try gemma(config)
    if let both = try config.root.optional("use_bidirectional_attention"), try both.bool() {
      throw both.error("attention in both directions is not supported in a decoder")
    }
    let pattern = try config.int(
      "_sliding_window_pattern", in: 1...1024, default: config.int("sliding_window_pattern", in: 1...1024, default: 6))
    try decoder.readWindows(config) { ($0 + 1) % pattern != 0 }
    decoder.hasHeadNorms = true
    decoder.rotary = try Rotary(config, headDim: decoder.headDim)
    var local = try Rotary(config, headDim: decoder.headDim, layerType: "sliding_attention")
    if try config.root.optional("rope_parameters") == nil {
      local = Rotary(size: decoder.headDim, theta: try config.positive("rope_local_base_freq", default: 10000))
    }
    decoder.localRotary = local
    return decoder
  }

  private static func gemma(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try DecoderConfiguration(common: config)
    decoder.norm.offset = 1
    decoder.hasPostNorms = true
    decoder.embeddingScale = Float(decoder.hiddenSize).squareRoot()
    decoder.attentionScale = Float(1 / (try config.positive("query_pre_attn_scalar", default: 256)).squareRoot())
    decoder.attentionSoftCap = try config.softCap("attn_logit_softcapping")
    decoder.finalSoftCap = try config.softCap("final_logit_softcapping")
    decoder.hasAttentionBias = try config.bool("attention_bias", default: false)
    decoder.hasAttentionOutputBias = decoder.hasAttentionBias
    decoder.tieWordEmbeddings = try config.bool("tie_word_embeddings", default: true)
    decoder.names.prefixes = DecoderNames.gemmaPrefixes
    decoder.names.postAttentionNorm = "post_attention_layernorm"
    decoder.names.feedForwardNorm = "pre_feedforward_layernorm"
    decoder.names.postFeedForwardNorm = "post_feedforward_layernorm"
    return decoder
  }
}

extension DecoderNames {
  /// Those of models of text alone, and of text beside images.
  static let gemmaPrefixes = ["model.", "", "language_model.model.", "model.language_model."]
}

extension HubConfig {
  /// A cap on logits, or 0 for none.
  fileprivate func softCap(_ key: String) throws(ModelError) -> Float {
    try root.optional(key) == nil ? 0 : Float(positive(key, default: 1))
  }
}

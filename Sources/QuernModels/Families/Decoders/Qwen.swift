import Quern

extension DecoderConfiguration {
  /// Qwen 2 and 2.5 (arXiv 2407.10671): Llama with biases on queries, keys and values.
  static func qwen2(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try qwen(config)
    decoder.hasAttentionBias = true
    return decoder
  }

  /// Qwen 3 (arXiv 2505.09388): norms of each head's queries and keys instead of biases.
  static func qwen3(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try qwen(config)
    decoder.hasHeadNorms = true
    decoder.hasAttentionBias = try config.bool("attention_bias", default: false)
    decoder.hasAttentionOutputBias = decoder.hasAttentionBias
    return decoder
  }

  /// Qwen 3 with experts in each `decoder_sparse_step`-th layer but those of `mlp_only_layers`.
  static func qwen3Moe(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try qwen3(config)
    let count = try config.root.optional("num_experts") == nil ? "num_local_experts" : "num_experts"
    decoder.experts = try Experts(
      config, count: count, intermediateSize: try config.int("moe_intermediate_size", in: 1...(1 << 18)),
      normalizes: try config.bool("norm_topk_prob", default: false))
    let step = try config.int("decoder_sparse_step", in: 1...1024, default: 1)
    for index in decoder.layers.indices { decoder.layers[index].isSparse = (index + 1) % step == 0 }
    try config.root.optional("mlp_only_layers")?.forEachElement { (layer) throws(ModelError) in
      let index = try layer.int()
      if decoder.layers.indices.contains(index) { decoder.layers[index].isSparse = false }
    }
    return decoder
  }

  private static func qwen(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try DecoderConfiguration(common: config)
    decoder.rotary = try Rotary(config, headDim: decoder.headDim)
    if try config.bool("use_sliding_window", default: false) {
      let first = try config.int("max_window_layers", default: decoder.numHiddenLayers)
      try decoder.readWindows(config) { $0 >= first }
    }
    return decoder
  }
}

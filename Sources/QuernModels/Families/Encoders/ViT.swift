import Quern

extension ImageEncoderConfiguration {
  /// The vision transformer (Dosovitskiy et al., arXiv 2010.11929), with a classifier or a pooler.
  static func vit(_ config: HubConfig) throws(ModelError) -> ImageEncoderConfiguration {
    var stack = try EncoderStackConfiguration(config)
    stack.norm.epsilon = try config.epsilon("layer_norm_eps", default: 1e-12)
    stack.hiddenAct = try config.activation("hidden_act")
    (stack.isPreNorm, stack.hasFinalNorm) = (true, true)
    stack.hasAttentionBias = try config.bool("qkv_bias", default: true)
    stack.names = EncoderLayerNames(
      queriesKeysValues: ["query", "key", "value"].map { "attention.attention.\($0)" },
      attentionNorm: "layernorm_before", feedForwardNorm: "layernorm_after", finalNorm: "layernorm")
    for (key, only) in [("pooler_output_size", "\(stack.hiddenSize)"), ("pooler_act", "tanh")] {
      guard let value = try config.root.optional(key) else { continue }
      let text = value.kind == .string ? try value.string() : "\(try value.int())"
      guard text == only else { throw value.error("\(text) is not supported; supported: \(only)") }
    }
    var encoder = try ImageEncoderConfiguration(config, modelType: "vit", stack: stack, patchSize: 16)
    encoder.numLabels = try config.numLabels()
    encoder.names = ImageEncoderNames(
      prefixes: ["", "vit."], classToken: "embeddings.cls_token", patches: "embeddings.patch_embeddings.projection",
      positions: "embeddings.position_embeddings", classTokenAxes: 2, positionAxes: 1)
    return encoder
  }
}

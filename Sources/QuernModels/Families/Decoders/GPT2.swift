import Quern

extension DecoderConfiguration {
  /// GPT-2 (Radford et al., 2019): LayerNorm, learned positions, biases, matrices stored `[inputs, outputs]`.
  static func gpt2(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    let width = try config.int("n_embd", in: 1...(1 << 16))
    let heads = try config.int("n_head", in: 1...(1 << 12))
    guard width % heads == 0 else {
      throw try config.root.required("n_head").error("n_embd \(width) is no multiple of \(heads)")
    }
    for key in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
      if let field = try config.root.optional(key), try field.bool() { throw field.error("true is not supported") }
    }
    var decoder = DecoderConfiguration(
      modelType: "gpt2", vocabSize: try config.int("vocab_size", in: 1...(1 << 24)), hiddenSize: width,
      intermediateSize: try config.int("n_inner", in: 1...(1 << 18), default: 4 * width), numAttentionHeads: heads,
      numKeyValueHeads: heads, headDim: width / heads,
      maxPositionEmbeddings: try config.int("n_positions", in: 1...(1 << 24)),
      layers: [Layer](repeating: Layer(), count: try config.int("n_layer", in: 0...1024)),
      attentionScale: try config.bool("scale_attn_weights", default: true) ? 1 / Float(width / heads).squareRoot() : 1)
    decoder.norm = Norm(isCentred: true, epsilon: try config.epsilon("layer_norm_epsilon", default: 1e-5))
    (decoder.hasAttentionBias, decoder.hasAttentionOutputBias, decoder.hasFeedForwardBias) = (true, true, true)
    decoder.hiddenAct = try config.activation("activation_function")
    decoder.isGated = false
    decoder.tieWordEmbeddings = try config.bool("tie_word_embeddings", default: true)
    decoder.names = DecoderNames(
      prefixes: ["transformer.", ""], embedding: "wte", positions: "wpe", finalNorm: "ln_f", layers: "h",
      attentionNorm: "ln_1", queriesKeysValues: ["attn.c_attn"], attentionOutput: "attn.c_proj",
      feedForwardNorm: "ln_2", gateUp: ["mlp.c_fc"], down: "mlp.c_proj", isTransposed: true)
    return decoder
  }
}

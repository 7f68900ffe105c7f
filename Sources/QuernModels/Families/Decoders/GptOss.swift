import Quern

extension DecoderConfiguration {
  /// gpt-oss (arXiv 2508.10925): experts with biases and a clamped SwiGLU, attention sinks, every other layer with a window.
  static func gptOss(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try DecoderConfiguration(common: config)
    decoder.rotary = try Rotary(config, headDim: decoder.headDim)
    try decoder.readWindows(config) { $0 % 2 == 0 }
    decoder.hasAttentionBias = try config.bool("attention_bias", default: true)
    decoder.hasAttentionOutputBias = decoder.hasAttentionBias
    decoder.hasSinks = true
    // x sigmoid(1.702 x), which is what `hidden_act` stands for here.
    decoder.hiddenAct = .quickGelu
    if let field = try config.root.optional("swiglu_alpha"), try field.double() != 1.702 {
      throw field.error("\(try field.double()) is not supported; supported: 1.702")
    }
    decoder.gateLimit = Float(try config.positive("swiglu_limit", default: 7))
    var experts = try Experts(
      config, count: "num_local_experts", intermediateSize: decoder.intermediateSize, normalizes: true)
    experts.hasBias = true
    decoder.experts = experts
    for index in decoder.layers.indices { decoder.layers[index].isSparse = true }
    decoder.names.router = "mlp.router"
    decoder.names.expertGateUp = ["gate_up_proj"]
    return decoder
  }
}

import Foundation
import Quern

extension DecoderConfiguration {
  /// DeepSeek-V2 (arXiv 2405.04434): latent attention; experts by softmax, perhaps of the best groups, beside shared ones.
  static func deepseekV2(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try deepseek(config)
    let method = try config.string("topk_method", oneOf: ["greedy", "group_limited_greedy"], default: "greedy")
    if method == "group_limited_greedy" { decoder.experts?.groups = try .init(config, sumsTwo: false) }
    if let field = try config.root.optional("scoring_func"), try field.string() != "softmax" {
      throw field.error("\(try field.string()) is not supported in deepseek_v2; supported: softmax")
    }
    // As transformers and the published code: V2 scales its shares and does not normalise them.
    if let field = try config.root.optional("norm_topk_prob"), try field.bool() {
      throw field.error("true is not supported in deepseek_v2")
    }
    return decoder
  }

  /// DeepSeek-V3 and R1 (arXiv 2412.19437): experts by sigmoid, with a correction that balances them.
  static func deepseekV3(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    var decoder = try deepseek(config)
    decoder.experts?.scoring = .sigmoid
    decoder.experts?.normalizes = try config.bool("norm_topk_prob", default: true)
    decoder.experts?.groups = try .init(config, sumsTwo: true)
    if let field = try config.root.optional("scoring_func"), try field.string() != "sigmoid" {
      throw field.error("\(try field.string()) is not supported in deepseek_v3; supported: sigmoid")
    }
    decoder.names.correction = "mlp.gate.e_score_correction_bias"
    return decoder
  }

  private static func deepseek(_ config: HubConfig) throws(ModelError) -> DecoderConfiguration {
    let latent = try Latent(config)
    // `head_dim` is that of the rotary part in newer files, and hidden_size need not be a multiple of the heads.
    var decoder = try DecoderConfiguration(common: config, headDim: latent.queryHeadDim)
    decoder.latent = latent
    decoder.rotary = try Rotary(config, headDim: latent.qkRopeHeadDim)
    let isInterleaved = try config.bool("rope_interleave", default: true)
    decoder.rotary?.pairing = isInterleaved ? .interleaved : .split
    decoder.attentionScale *= try scoreMagnitude(config)
    decoder.hasAttentionBias = try config.bool("attention_bias", default: false)
    decoder.hasAttentionOutputBias = decoder.hasAttentionBias
    if decoder.hasAttentionBias && latent.qLoraRank == nil {
      throw try config.root.required("attention_bias").error("true is not supported without q_lora_rank")
    }
    decoder.hasFeedForwardBias = try config.bool("mlp_bias", default: false)
    if let field = try config.root.optional("moe_layer_freq"), try field.int() != 1 {
      throw field.error("\(try field.int()) is not supported; supported: 1")
    }
    let dense = try config.int("first_k_dense_replace", in: 0...1024, default: 0)
    for index in decoder.layers.indices { decoder.layers[index].isSparse = index >= dense }
    let width = try config.int("moe_intermediate_size", in: 1...(1 << 18))
    var experts = try Experts(config, count: "n_routed_experts", intermediateSize: width, normalizes: false)
    experts.scale = Float(try config.positive("routed_scaling_factor", default: 1))
    experts.sharedIntermediateSize = try config.int("n_shared_experts", in: 0...1024, default: 0) * width
    decoder.experts = experts
    return decoder
  }

  /// What YaRN multiplies scores by, `mscale_all_dim` of its parameters: the square of `0.1 mscale_all_dim log(factor) + 1`.
  private static func scoreMagnitude(_ config: HubConfig) throws(ModelError) -> Float {
    let own = try config.root.optional("rope_parameters")
    guard let scaling = if let own { own } else { try config.root.optional("rope_scaling") },
      let all = try scaling.optional("mscale_all_dim"), let factor = try scaling.optional("factor")
    else { return 1 }
    let (scale, stretch) = (try all.double(), try factor.double())
    guard scale >= 0, scale.isFinite, stretch.isFinite else {
      throw all.error("\(scale) is not 0 or a positive number")
    }
    let magnitude = stretch <= 1 ? 1 : 0.1 * scale * log(stretch) + 1
    return Float(magnitude * magnitude)
  }
}

extension DecoderConfiguration.Latent {
  init(_ config: HubConfig) throws(ModelError) {
    qLoraRank = try config.root.optional("q_lora_rank")?.int(in: 1...(1 << 16))
    kvLoraRank = try config.int("kv_lora_rank", in: 1...4096)
    qkNopeHeadDim = try config.int("qk_nope_head_dim", in: 1...1024)
    qkRopeHeadDim = try config.int("qk_rope_head_dim", in: 2...1024)
    vHeadDim = try config.int("v_head_dim", in: 1...1024)
  }
}

extension DecoderConfiguration.Experts.Groups {
  init?(_ config: HubConfig, sumsTwo: Bool) throws(ModelError) {
    let experts = try config.int("n_routed_experts", in: 1...4096)
    let count = try config.int("n_group", in: 1...experts, default: 1)
    try self.init(
      count, kept: config.int("topk_group", in: 1...count, default: count), sumsTwo: sumsTwo, of: experts,
      choosing: config.int("num_experts_per_tok", in: 1...experts)
    ) { (isCount, reason) throws(ModelError) in
      try config.root.required(isCount ? "n_group" : "topk_group").error(reason)
    }
  }

  /// - Parameter error: for numbers that do not fit together, the first or the second of them.
  init?(
    _ count: Int, kept: Int, sumsTwo: Bool, of experts: Int, choosing chosen: Int,
    error: (_ isCount: Bool, _ reason: String) throws(ModelError) -> ModelError
  ) throws(ModelError) {
    guard count > 1 else { return nil }
    guard experts % count == 0, !sumsTwo || experts / count >= 2 else {
      throw try error(true, "\(experts) experts do not form \(count) groups")
    }
    guard chosen <= kept * (experts / count) else {
      throw try error(false, "\(kept) groups of \(experts / count) experts have no \(chosen) to choose")
    }
    (self.count, self.kept, self.sumsTwo) = (count, kept, sumsTwo)
  }
}

import Foundation
import Quern

extension DecoderConfiguration {
  /// DeepSeek-V2 and V3, after the fields that all files have: latent attention, with rotary elements as in the published models, where
  /// neighbours are pairs.
  mutating func readDeepSeek(_ file: GGUF, _ key: (String) -> String) throws(ModelError) {
    let metadata = file.metadata
    for name in ["nextn_predict_layers", "attention.temperature_scale"] {
      let value = try metadata.double(key(name), default: 0)
      guard value == 0 else { throw try metadata.error(key(name), "\(value) is not supported; supported: 0") }
    }
    let rotarySize = rotary?.size ?? headDim
    guard rotarySize < headDim else {
      throw try metadata.error(key("rope.dimension_count"), "is \(rotarySize), all of the \(headDim) elements of a key")
    }
    // Files of before heads were split call the lengths of a head what others call those of a cache row.
    let valueLength = metadata.contains(key("attention.value_length_mla")) ? "value_length_mla" : "value_length"
    let queryRank = key("attention.q_lora_rank")
    latent = Latent(
      qLoraRank: metadata.contains(queryRank) ? try metadata.int(queryRank, in: 1...(1 << 16)) : nil,
      kvLoraRank: try metadata.int(key("attention.kv_lora_rank"), in: 1...4096), qkNopeHeadDim: headDim - rotarySize,
      qkRopeHeadDim: rotarySize, vHeadDim: try metadata.int(key("attention.\(valueLength)"), in: 1...1024))
    // One in newer files, for the row that all heads share.
    numKeyValueHeads = numAttentionHeads
    if file.contains("blk.0.attn_kv_b.weight") { names.latentHeads = ["attn_kv_b"] }
    rotary?.pairing = .interleaved
    try readMagnitudes(metadata, key("rope.scaling.yarn_log_multiplier"))
    try readSharedExperts(file, key)
  }

  /// What YaRN multiplies scores by. The multiplier is a tenth of `mscale_all_dim`, and `mscale` is taken to be the same, as it is
  /// in the published models; without one, cosines and sines are multiplied instead.
  private mutating func readMagnitudes(_ metadata: GGUFMetadata, _ key: String) throws(ModelError) {
    guard case .yarn(let factor, let fast, let slow, let context, _, _)? = rotary?.scaling, metadata.contains(key)
    else {
      return
    }
    let multiplier = try metadata.double(key)
    guard multiplier >= 0 else { throw try metadata.error(key, "\(multiplier) is not 0 or a positive number") }
    let magnitude = factor <= 1 ? 1 : 1 + multiplier * log(factor)
    attentionScale *= Float(magnitude * magnitude)
    rotary?.scaling = .yarn(
      factor: factor, betaFast: fast, betaSlow: slow, originalContext: context, attentionFactor: 1)
  }

  private mutating func readSharedExperts(_ file: GGUF, _ key: (String) -> String) throws(ModelError) {
    let metadata = file.metadata
    let dense = try metadata.int(key("leading_dense_block_count"), in: 0...1024)
    for index in layers.indices { layers[index].isSparse = experts != nil && index >= dense }
    guard let experts else { return }
    let shared = try metadata.int(key("expert_shared_count"), in: 0...1024, default: 0)
    self.experts?.sharedIntermediateSize = shared * experts.intermediateSize
    if file.contains("blk.\(dense).exp_probs_b.bias") { names.correction = "exp_probs_b.bias" }
    let (count, kept) = (key("expert_group_count"), key("expert_group_used_count"))
    let groups = try metadata.int(count, in: 0...experts.count, default: 0)
    guard groups > 1 else { return }
    // As in the models: V3 goes by the sum of a group's two largest, V2 by the largest. llama.cpp takes the sum for both.
    self.experts?.groups = try Experts.Groups(
      groups, kept: metadata.int(kept, in: 1...groups), sumsTwo: experts.scoring == .sigmoid, of: experts.count,
      choosing: experts.perToken
    ) { (isCount, reason) throws(ModelError) in try metadata.error(isCount ? count : kept, reason) }
  }
}

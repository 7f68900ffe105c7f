import Quern

extension EncoderConfiguration {
  /// BERT (Devlin et al., arXiv 1810.04805): learned positions, token types, a norm after each part.
  static func bert(_ config: HubConfig) throws(ModelError) -> EncoderConfiguration {
    var stack = try EncoderStackConfiguration(config)
    stack.norm.epsilon = try config.epsilon("layer_norm_eps", default: 1e-12)
    stack.hiddenAct = try config.activation("hidden_act")
    if let position = try config.root.optional("position_embedding_type"), try position.string() != "absolute" {
      throw position.error("\(try position.string()) is not supported; supported: absolute")
    }
    if let decoder = try config.root.optional("is_decoder"), try decoder.bool() {
      throw decoder.error("a decoder of this family is not supported; set it to false for an encoder")
    }
    return EncoderConfiguration(
      modelType: try config.string("model_type"), stack: stack,
      vocabSize: try config.int("vocab_size", in: 1...(1 << 24)),
      maxPositionEmbeddings: try config.int("max_position_embeddings", in: 1...(1 << 24)),
      typeVocabSize: try config.int("type_vocab_size", in: 1...(1 << 12), default: 2))
  }

  /// RoBERTa (Liu et al., arXiv 1907.11692) and XLM-RoBERTa (Conneau et al., arXiv 1911.02116): BERT whose positions count from
  /// `pad_token_id` plus 1.
  static func roberta(_ config: HubConfig) throws(ModelError) -> EncoderConfiguration {
    var encoder = try bert(config)
    let padding = try config.int("pad_token_id", in: 0...Int(Int32.max - 1), default: 1)
    guard padding + 1 < encoder.maxPositionEmbeddings else {
      throw try config.root.required("max_position_embeddings")
        .error("\(encoder.maxPositionEmbeddings) positions leave none behind pad_token_id \(padding)")
    }
    encoder.padTokenID = Int32(padding)
    encoder.names.prefixes = ["", "roberta."]
    return encoder
  }
}

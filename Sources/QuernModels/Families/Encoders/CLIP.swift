import Quern

/// The two towers of CLIP (Radford et al., arXiv 2103.00020), whose embeddings are compared.
public struct CLIPConfiguration: Sendable, Equatable {
  public var text: CLIPTextConfiguration
  public var image: ImageEncoderConfiguration

  /// Reads `text_config` and `vision_config`, or the older `…_config_dict`, which then hold in their stead.
  public init(_ config: HubConfig) throws(ModelError) {
    _ = try config.string("model_type", oneOf: ["clip"])
    let dimension = try config.int("projection_dim", in: 1...(1 << 16), default: 512)
    func part(_ name: String) throws(ModelError) -> HubConfig {
      try config.section(try config.root.optional("\(name)_dict") == nil ? name : "\(name)_dict")
    }
    text = try CLIPTextConfiguration(part("text_config"))
    image = try ImageEncoderConfiguration.clip(part("vision_config"))
    (text.projectionDim, image.projectionDim) = (dimension, dimension)
  }
}

/// CLIP's text tower: causal, with the hidden state of the end token as the text's.
public struct CLIPTextConfiguration: Sendable, Equatable {
  public var encoder: EncoderConfiguration
  /// The token whose state is the text's; `nil` for the largest id of a text, as configurations say that were made before
  /// `transformers` 4.31.
  public var endOfText: Int32?
  /// Elements of a text's embedding, where the files have a projection to them.
  public var projectionDim: Int

  public init(_ config: HubConfig) throws(ModelError) {
    encoder = try EncoderConfiguration.clip(config)
    let end = try config.int("eos_token_id", in: 0...Int(Int32.max), default: 49407)
    endOfText = end == 2 ? nil : Int32(end)
    projectionDim = try config.int("projection_dim", in: 1...(1 << 16), default: 512)
  }
}

extension EncoderConfiguration {
  static func clip(_ config: HubConfig) throws(ModelError) -> EncoderConfiguration {
    var stack = try EncoderStackConfiguration(
      config, defaults: .init(hiddenSize: 512, intermediateSize: 2048, numAttentionHeads: 8, numHiddenLayers: 12))
    try stack.readCLIP(config)
    (stack.isCausal, stack.hasFinalNorm, stack.names.finalNorm) = (true, true, "final_layer_norm")
    var encoder = EncoderConfiguration(
      modelType: "clip_text_model", stack: stack,
      vocabSize: try config.int("vocab_size", in: 1...(1 << 24), default: 49408),
      maxPositionEmbeddings: try config.int("max_position_embeddings", in: 1...(1 << 24), default: 77))
    encoder.hasEmbeddingNorm = false
    encoder.names = EncoderNames(
      prefixes: ["text_model.", ""], words: "embeddings.token_embedding", positions: "embeddings.position_embedding",
      types: "", norm: "")
    return encoder
  }
}

extension ImageEncoderConfiguration {
  static func clip(_ config: HubConfig) throws(ModelError) -> ImageEncoderConfiguration {
    var stack = try EncoderStackConfiguration(
      config, defaults: .init(hiddenSize: 768, intermediateSize: 3072, numAttentionHeads: 12, numHiddenLayers: 12))
    try stack.readCLIP(config)
    var encoder = try ImageEncoderConfiguration(
      config, modelType: "clip_vision_model", stack: stack, patchSize: 32)
    (encoder.hasPatchBias, encoder.hasEmbeddingNorm, encoder.hasClassNorm) = (false, true, true)
    encoder.projectionDim = try config.int("projection_dim", in: 1...(1 << 16), default: 512)
    encoder.names = ImageEncoderNames(
      prefixes: ["vision_model.", ""], classToken: "embeddings.class_embedding", patches: "embeddings.patch_embedding",
      positions: "embeddings.position_embedding.weight", embeddingNorm: "pre_layrnorm", classNorm: "post_layernorm")
    return encoder
  }
}

extension EncoderStackConfiguration {
  /// What both towers have.
  fileprivate mutating func readCLIP(_ config: HubConfig) throws(ModelError) {
    isPreNorm = true
    norm.epsilon = try config.epsilon("layer_norm_eps", default: 1e-5)
    hiddenAct = try config.root.optional("hidden_act") == nil ? .quickGelu : config.activation("hidden_act")
    names = EncoderLayerNames(
      layers: "encoder.layers", queriesKeysValues: ["q_proj", "k_proj", "v_proj"].map { "self_attn.\($0)" },
      attentionOutput: "self_attn.out_proj", attentionNorm: "layer_norm1", gateUp: ["mlp.fc1"], down: "mlp.fc2",
      feedForwardNorm: "layer_norm2")
  }
}

extension CLIPTextConfiguration: ModelFamily {
  var tensorPrefixes: [String] { encoder.tensorPrefixes }
  var probe: String { encoder.probe }
  var unprefixed: [String] { [projection.parts[0].weight] }
  var linearLayers: [LinearLayer] { encoder.linearLayers + [projection] }

  var projection: LinearLayer {
    LinearLayer(
      parts: [.init(name: "text_projection", outputs: projectionDim)], inputs: encoder.hiddenSize, isOptional: true)
  }
}

extension CLIPConfiguration: ModelFamily {
  var tensorPrefixes: [String] { [""] }
  var probe: String { "text_model.\(text.probe)" }
  var linearLayers: [LinearLayer] {
    text.encoder.linearLayers.map { $0.prefixed("text_model.") } + [text.projection]
      + image.stack.linearLayers.map { $0.prefixed("vision_model.") } + image.heads.map(\.layer)
  }
}

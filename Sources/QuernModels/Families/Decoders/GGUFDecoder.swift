import Quern

extension DecoderConfiguration {
  /// The architectures of GGUF files that are read.
  private static let architectures = [
    "llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "gpt-oss", "deepseek2",
  ]

  /// Reads the metadata of a GGUF file, with keys and tensors named as llama.cpp names them.
  public init(_ file: GGUF) throws(ModelError) {
    let metadata = file.metadata
    let architecture = try metadata.string("general.architecture", oneOf: Self.architectures)
    func key(_ name: String) -> String { "\(architecture).\(name)" }
    func optional(_ name: String) throws(ModelError) -> Double? {
      metadata.contains(key(name)) ? try metadata.double(key(name)) : nil
    }
    modelType = architecture
    hiddenSize = try metadata.int(key("embedding_length"), in: 1...(1 << 16))
    intermediateSize = try metadata.int(key("feed_forward_length"), in: 1...(1 << 18))
    numAttentionHeads = try metadata.int(key("attention.head_count"), in: 1...(1 << 12))
    numKeyValueHeads = try metadata.int(
      key("attention.head_count_kv"), in: 1...(1 << 12), default: numAttentionHeads)
    guard numAttentionHeads % numKeyValueHeads == 0 else {
      throw try metadata.error(
        key("attention.head_count_kv"), "\(numAttentionHeads) heads are no multiple of \(numKeyValueHeads)")
    }
    let keyLength = metadata.contains(key("attention.key_length_mla")) ? "key_length_mla" : "key_length"
    headDim = try metadata.int(
      key("attention.\(keyLength)"), in: 1...1024, default: max(1, hiddenSize / numAttentionHeads))
    maxPositionEmbeddings = try metadata.int(key("context_length"), in: 1...(1 << 24))
    layers = [Layer](repeating: Layer(), count: try metadata.int(key("block_count"), in: 0...1024))
    let table = try file.info("token_embd.weight")
    guard table.shape.count == 2 || table.quantization != nil else {
      throw ModelError(
        file: file.path, field: "tensors.token_embd.weight", offset: table.byteRange.lowerBound,
        reason: "has shape \(table.shape); expected [vocabulary, \(hiddenSize)]")
    }
    vocabSize = table.quantization?.outputs ?? table.shape[0]
    let epsilon = try metadata.double(key("attention.layer_norm_rms_epsilon"))
    guard epsilon >= 0, epsilon < 1 else {
      throw try metadata.error(key("attention.layer_norm_rms_epsilon"), "\(epsilon) is not in 0 ..< 1")
    }
    norm.epsilon = Float(epsilon)
    attentionScale = 1 / Float(headDim).squareRoot()
    tieWordEmbeddings = !file.contains("output.weight")
    endOfText = try Self.endOfText(metadata)
    (names, hubNames) = (.gguf, .hub(architecture))
    hasAttentionBias = file.contains("blk.0.attn_q.bias")
    hasHeadNorms = file.contains("blk.0.attn_q_norm.weight")
    rotary = try Self.rotary(file, key("rope"), headDim, truncates: architecture != "gpt-oss")
    try readExperts(file, key)
    switch architecture {
    // llama.cpp reorders queries and keys of this one for pairs of neighbours.
    case "llama": rotary?.pairing = .interleaved
    case "phi3":
      names.queriesKeysValues = ["attn_qkv"]
      names.gateUp = ["ffn_up"]
    case "gpt-oss": try readGptOss(metadata, key)
    case "deepseek2": try readDeepSeek(file, key)
    case "gemma2": try readGemma(metadata, key, period: 2, layersOf27B: 46)
    case "gemma3":
      try readGemma(metadata, key, period: 6, layersOf27B: 62)
      localRotary = Rotary(
        size: headDim, theta: try metadata.double(key("rope.freq_base_swa"), default: 10000))
    default: break
    }
    attentionSoftCap = Float(try optional("attn_logit_softcapping") ?? 0)
    finalSoftCap = Float(try optional("final_logit_softcapping") ?? 0)
  }

  /// Experts where `expert_count` says so, in the layers that have a router; their size is the feed-forward part's unless the file
  /// has another.
  private mutating func readExperts(_ file: GGUF, _ key: (String) -> String) throws(ModelError) {
    let metadata = file.metadata
    let count = try metadata.int(key("expert_count"), in: 0...4096, default: 0)
    guard count > 0 else { return }
    experts = Experts(
      count: count, perToken: try metadata.int(key("expert_used_count"), in: 1...count),
      intermediateSize: try metadata.int(
        key("expert_feed_forward_length"), in: 1...(1 << 18), default: intermediateSize),
      normalizes: try metadata.bool(key("expert_weights_norm"), default: modelType != "deepseek2"))
    try readGating(metadata, key)
    for index in layers.indices {
      layers[index].isSparse = file.contains("blk.\(index).ffn_gate_inp.weight")
    }
    // The converter's option to fuse is for a whole file: each expert's gate, and its values below.
    if layers.indices.contains(where: { file.contains("blk.\($0).ffn_gate_up_exps.weight") }) {
      names.expertGateUp = ["gate_up"]
    }
  }

  /// How the router's logits become shares; the numbers are those of llama.cpp.
  private mutating func readGating(_ metadata: GGUFMetadata, _ key: (String) -> String) throws(ModelError) {
    let (gating, scale) = (key("expert_gating_func"), key("expert_weights_scale"))
    switch try metadata.int(gating, default: 0) {
    case 0, 1: experts?.scoring = .softmax
    case 2: experts?.scoring = .sigmoid
    // The softmax of the chosen logits: that of all, made to add up to 1.
    case 3:
      experts?.scoring = .softmax
      experts?.normalizes = true
    case let other:
      throw try metadata.error(gating, "\(other) is not supported; supported: 0 to 3, softmax and sigmoid")
    }
    let factor = try metadata.double(scale, default: 1)
    guard factor > 0 else { throw try metadata.error(scale, "\(factor) is not a positive number") }
    experts?.scale = Float(factor)
  }

  private mutating func readGemma(
    _ metadata: GGUFMetadata, _ key: (String) -> String, period: Int, layersOf27B: Int
  ) throws(ModelError) {
    hasPostNorms = true
    hiddenAct = .geluTanh
    embeddingScale = Float(hiddenSize).squareRoot()
    names.postAttentionNorm = "post_attention_norm"
    names.postFeedForwardNorm = "post_ffw_norm"
    if layers.count == layersOf27B { attentionScale = 1 / Float(hiddenSize / numAttentionHeads).squareRoot() }
    try readWindows(metadata, key, period: period)
  }

  /// Layers with a window, but for the last of each `period`.
  private mutating func readWindows(
    _ metadata: GGUFMetadata, _ key: (String) -> String, period: Int
  ) throws(ModelError) {
    let window = try metadata.int(key("attention.sliding_window"), in: 1...Int(Int32.max))
    let period = try metadata.int(key("attention.sliding_window_pattern"), in: 1...1024, default: period)
    for index in layers.indices where (index + 1) % period != 0 { layers[index].window = window }
  }

  /// What such a file does not say is as in the published models: biases everywhere, the limit of the gate, and YaRN between exact
  /// frequencies, which llama.cpp rounds to whole pairs.
  private mutating func readGptOss(_ metadata: GGUFMetadata, _ key: (String) -> String) throws(ModelError) {
    try readWindows(metadata, key, period: 2)
    (hasAttentionBias, hasAttentionOutputBias, hasSinks) = (true, true, true)
    (hiddenAct, gateLimit) = (.quickGelu, 7)
    guard experts != nil else { throw try metadata.error(key("expert_count"), "is 0, where experts are needed") }
    experts?.hasBias = true
    (names.sinks, names.feedForwardNorm) = ("attn_sinks.weight", "post_attention_norm")
    if let rotary, metadata.contains(key("rope.freq_base_swa")) {
      localRotary = rotary
      localRotary?.theta = try Self.theta(metadata, key("rope.freq_base_swa"))
    }
  }

  private static func endOfText(_ metadata: GGUFMetadata) throws(ModelError) -> [Int32] {
    var ids: [Int32] = []
    for name in ["eos_token_id", "eot_token_id", "eom_token_id"] where metadata.contains("tokenizer.ggml.\(name)") {
      ids.append(Int32(try metadata.int("tokenizer.ggml.\(name)", in: 0...Int(Int32.max))))
    }
    return ids
  }

  private static func theta(_ metadata: GGUFMetadata, _ key: String) throws(ModelError) -> Double {
    let theta = try metadata.double(key, default: 10000)
    guard theta > 1, theta.isFinite else { throw try metadata.error(key, "\(theta) is not a number above 1") }
    return theta
  }

  private static func rotary(
    _ file: GGUF, _ place: String, _ headDim: Int, truncates: Bool
  ) throws(ModelError) -> Rotary {
    let metadata = file.metadata
    let size = try metadata.int("\(place).dimension_count", in: 2...headDim, default: headDim)
    guard size % 2 == 0 else { throw try metadata.error("\(place).dimension_count", "\(size) is odd") }
    var rotary = Rotary(size: size, theta: try theta(metadata, "\(place).freq_base"))
    if file.contains("rope_freqs.weight") {
      rotary.scaling = .divided(by: try file.readFloat32("rope_freqs.weight").map(Double.init))
    } else if metadata.contains("\(place).scaling.type") {
      rotary.scaling = try scaling(metadata, "\(place).scaling", truncates: truncates)
    }
    guard rotary.scaling.isValid else {
      throw ModelError(file: file.path, field: "metadata.\(place).scaling", reason: "the numbers do not fit together")
    }
    return rotary
  }

  private static func scaling(
    _ metadata: GGUFMetadata, _ place: String, truncates: Bool
  ) throws(ModelError) -> RotaryScaling {
    switch try metadata.string("\(place).type", oneOf: ["none", "linear", "yarn"]) {
    case "linear": return .linear(factor: try metadata.double("\(place).factor"))
    case "yarn":
      let factor = try metadata.double("\(place).factor")
      // What converters add to these from a configuration means one thing to llama.cpp and another to transformers.
      for name in ["attn_factor", "yarn_attn_factor", "yarn_ext_factor"] {
        let value = try metadata.double("\(place).\(name)", default: 1)
        guard value == 1 else {
          throw try metadata.error("\(place).\(name)", "\(value) is not supported; supported: 1")
        }
      }
      return .yarn(
        factor: factor, betaFast: try metadata.double("\(place).yarn_beta_fast", default: 32),
        betaSlow: try metadata.double("\(place).yarn_beta_slow", default: 1),
        originalContext: try metadata.int("\(place).original_context_length", in: 1...(1 << 24)),
        attentionFactor: RotaryScaling.yarnAttentionFactor(factor), truncates: truncates)
    default: return .none
    }
  }
}

extension DecoderNames {
  /// The names of llama.cpp; those of experts as `GGUFExperts` has them.
  fileprivate static var gguf: DecoderNames {
    DecoderNames(
      prefixes: [""], embedding: "token_embd", finalNorm: "output_norm", head: "output", layers: "blk",
      attentionNorm: "attn_norm", queriesKeysValues: ["attn_q", "attn_k", "attn_v"], queryNorm: "attn_q_norm",
      keyNorm: "attn_k_norm", attentionOutput: "attn_output", feedForwardNorm: "ffn_norm",
      gateUp: ["ffn_gate", "ffn_up"], down: "ffn_down", router: "ffn_gate_inp", experts: "ffn_exps",
      expertGateUp: ["gate", "up"], expertDown: "down", sharedExperts: "ffn_shexp", sharedGateUp: ["gate", "up"],
      latentQueries: ["attn_q_a", "attn_q_a_norm", "attn_q_b"], latent: ["attn_kv_a_mqa", "attn_kv_a_norm"],
      latentHeads: ["attn_k_b", "attn_v_b"])
  }

  /// The names of the Hugging Face directories that files of an architecture are made of.
  fileprivate static func hub(_ architecture: String) -> DecoderNames {
    var names = DecoderNames()
    switch architecture {
    // With experts it is Mixtral.
    case "llama": names.router = "block_sparse_moe.gate"
    case "phi3": (names.queriesKeysValues, names.gateUp) = (["self_attn.qkv_proj"], ["mlp.gate_up_proj"])
    case "gpt-oss": names.router = "mlp.router"
    case "gemma2", "gemma3": names.prefixes = gemmaPrefixes
    default: break
    }
    return names
  }
}

import Quern

extension DecoderConfiguration {
  /// The architectures of GGUF files that are read.
  private static let architectures = ["llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3"]

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
    headDim = try metadata.int(
      key("attention.key_length"), in: 1...1024, default: max(1, hiddenSize / numAttentionHeads))
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
    names = .gguf
    hasAttentionBias = file.contains("blk.0.attn_q.bias")
    hasHeadNorms = file.contains("blk.0.attn_q_norm.weight")
    rotary = try Self.rotary(file, key("rope"), headDim)
    try readExperts(file, key)
    switch architecture {
    // llama.cpp reorders queries and keys of this one for pairs of neighbours.
    case "llama": rotary?.pairing = .interleaved
    case "phi3":
      names.queriesKeysValues = ["attn_qkv"]
      names.gateUp = ["ffn_up"]
    case "gemma2": try readGemma(metadata, key, pattern: 2, layersOf27B: 46)
    case "gemma3":
      try readGemma(metadata, key, pattern: 6, layersOf27B: 62)
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
      normalizes: try metadata.bool(key("expert_weights_norm"), default: true))
    for index in layers.indices {
      layers[index].isSparse = file.contains("blk.\(index).ffn_gate_inp.weight")
    }
    names.router = "ffn_gate_inp"
    // As `GGUFExperts` has them.
    (names.experts, names.expertGateUp, names.expertDown) = ("ffn_exps", ["gate", "up"], "down")
  }

  private mutating func readGemma(
    _ metadata: GGUFMetadata, _ key: (String) -> String, pattern: Int, layersOf27B: Int
  ) throws(ModelError) {
    hasPostNorms = true
    hiddenAct = .geluTanh
    embeddingScale = Float(hiddenSize).squareRoot()
    names.postAttentionNorm = "post_attention_norm"
    names.postFeedForwardNorm = "post_ffw_norm"
    if layers.count == layersOf27B { attentionScale = 1 / Float(hiddenSize / numAttentionHeads).squareRoot() }
    let window = try metadata.int(key("attention.sliding_window"), in: 1...Int(Int32.max))
    for index in layers.indices where (index + 1) % pattern != 0 { layers[index].window = window }
  }

  private static func endOfText(_ metadata: GGUFMetadata) throws(ModelError) -> [Int32] {
    var ids: [Int32] = []
    for name in ["eos_token_id", "eot_token_id", "eom_token_id"] where metadata.contains("tokenizer.ggml.\(name)") {
      ids.append(Int32(try metadata.int("tokenizer.ggml.\(name)", in: 0...Int(Int32.max))))
    }
    return ids
  }

  private static func rotary(_ file: GGUF, _ place: String, _ headDim: Int) throws(ModelError) -> Rotary {
    let metadata = file.metadata
    let size = try metadata.int("\(place).dimension_count", in: 2...headDim, default: headDim)
    let theta = try metadata.double("\(place).freq_base", default: 10000)
    guard size % 2 == 0 else { throw try metadata.error("\(place).dimension_count", "\(size) is odd") }
    guard theta > 1, theta.isFinite else {
      throw try metadata.error("\(place).freq_base", "\(theta) is not a number above 1")
    }
    var rotary = Rotary(size: size, theta: theta)
    if file.contains("rope_freqs.weight") {
      rotary.scaling = .divided(by: try file.readFloat32("rope_freqs.weight").map(Double.init))
    } else if metadata.contains("\(place).scaling.type") {
      rotary.scaling = try scaling(metadata, "\(place).scaling")
    }
    guard rotary.scaling.isValid else {
      throw ModelError(file: file.path, field: "metadata.\(place).scaling", reason: "the numbers do not fit together")
    }
    return rotary
  }

  private static func scaling(_ metadata: GGUFMetadata, _ place: String) throws(ModelError) -> RotaryScaling {
    switch try metadata.string("\(place).type", oneOf: ["none", "linear", "yarn"]) {
    case "linear": return .linear(factor: try metadata.double("\(place).factor"))
    case "yarn":
      let factor = try metadata.double("\(place).factor")
      return .yarn(
        factor: factor, originalContext: try metadata.int("\(place).original_context_length", in: 1...(1 << 24)),
        attentionFactor: RotaryScaling.yarnAttentionFactor(factor))
    default: return .none
    }
  }
}

extension DecoderNames {
  /// The names of llama.cpp.
  fileprivate static var gguf: DecoderNames {
    DecoderNames(
      prefixes: [""], embedding: "token_embd", finalNorm: "output_norm", head: "output", layers: "blk",
      attentionNorm: "attn_norm", queriesKeysValues: ["attn_q", "attn_k", "attn_v"], queryNorm: "attn_q_norm",
      keyNorm: "attn_k_norm", attentionOutput: "attn_output", feedForwardNorm: "ffn_norm",
      gateUp: ["ffn_gate", "ffn_up"], down: "ffn_down")
  }
}

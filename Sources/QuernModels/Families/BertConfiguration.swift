import Quern

/// The fields of a BERT `config.json`, under their own names (Devlin et al., arXiv 1810.04805; the `transformers` package).
public struct BertConfiguration: Sendable, Equatable {
  public var vocabSize: Int
  public var hiddenSize: Int
  public var numHiddenLayers: Int
  public var numAttentionHeads: Int
  public var intermediateSize: Int
  public var hiddenAct: Activation
  public var maxPositionEmbeddings: Int
  public var typeVocabSize: Int
  public var layerNormEps: Float

  public init(
    vocabSize: Int, hiddenSize: Int, numHiddenLayers: Int, numAttentionHeads: Int, intermediateSize: Int,
    hiddenAct: Activation = .gelu, maxPositionEmbeddings: Int = 512, typeVocabSize: Int = 2, layerNormEps: Float = 1e-12
  ) {
    (self.vocabSize, self.hiddenSize, self.numHiddenLayers) = (vocabSize, hiddenSize, numHiddenLayers)
    (self.numAttentionHeads, self.intermediateSize) = (numAttentionHeads, intermediateSize)
    (self.hiddenAct, self.maxPositionEmbeddings) = (hiddenAct, maxPositionEmbeddings)
    (self.typeVocabSize, self.layerNormEps) = (typeVocabSize, layerNormEps)
  }

  /// Reads the fields, and refuses values that the encoder does not implement, by name.
  public init(_ config: HubConfig) throws(ModelError) {
    _ = try config.string("model_type", oneOf: ["bert"])
    let counts = 1...(1 << 24)
    vocabSize = try config.int("vocab_size", in: counts)
    hiddenSize = try config.int("hidden_size", in: 1...(1 << 16))
    numHiddenLayers = try config.int("num_hidden_layers", in: 0...1024)
    numAttentionHeads = try config.int("num_attention_heads", in: 1...(1 << 12))
    intermediateSize = try config.int("intermediate_size", in: 1...(1 << 18))
    maxPositionEmbeddings = try config.int("max_position_embeddings", in: counts)
    typeVocabSize = try config.int("type_vocab_size", in: 1...(1 << 12), default: 2)
    let epsilon = try config.double("layer_norm_eps", default: 1e-12)
    guard epsilon >= 0, epsilon < 1 else {
      throw try config.root.required("layer_norm_eps").error("\(epsilon) is not in 0 ..< 1")
    }
    layerNormEps = Float(epsilon)
    let act = try config.string("hidden_act", oneOf: Activation.hubNames.map(\.name))
    hiddenAct = Activation.hubNames.first { $0.name == act }?.activation ?? .gelu
    if let position = try config.root.optional("position_embedding_type"), try position.string() != "absolute" {
      throw position.error("\(try position.string()) is not supported; supported: absolute")
    }
    if let decoder = try config.root.optional("is_decoder"), try decoder.bool() {
      throw decoder.error("a BERT decoder is not supported; set it to false for an encoder")
    }
    guard hiddenSize % numAttentionHeads == 0 else {
      throw try config.root.required("num_attention_heads")
        .error("hidden_size \(hiddenSize) is no multiple of \(numAttentionHeads)")
    }
  }
}

extension BertConfiguration: ModelFamily {
  var tensorPrefixes: [String] { ["", "bert."] }
  var probe: String { "embeddings.word_embeddings.weight" }

  var linearLayers: [LinearLayer] {
    (0..<numHiddenLayers).flatMap { index in
      let layer = linears(ofLayer: index)
      return [layer.qkv, layer.output, layer.up, layer.down]
    }
  }

  static func layerName(_ index: Int) -> String { "encoder.layer.\(index)" }

  func linears(ofLayer index: Int) -> (qkv: LinearLayer, output: LinearLayer, up: LinearLayer, down: LinearLayer) {
    let name = Self.layerName(index)
    func layer(_ names: [String], _ outputs: Int, _ inputs: Int) -> LinearLayer {
      LinearLayer(parts: names.map { .init(name: "\(name).\($0)", outputs: outputs) }, inputs: inputs)
    }
    return (
      qkv: layer(["query", "key", "value"].map { "attention.self.\($0)" }, hiddenSize, hiddenSize),
      output: layer(["attention.output.dense"], hiddenSize, hiddenSize),
      up: layer(["intermediate.dense"], intermediateSize, hiddenSize),
      down: layer(["output.dense"], hiddenSize, intermediateSize)
    )
  }
}

extension Activation {
  /// The names that `hidden_act` has in the `transformers` package.
  static let hubNames: [(name: String, activation: Activation)] = [
    ("gelu", .gelu), ("gelu_new", .geluTanh), ("gelu_pytorch_tanh", .geluTanh), ("relu", .relu), ("silu", .silu),
    ("swish", .silu), ("tanh", .tanh), ("sigmoid", .sigmoid), ("linear", .identity),
  ]
}

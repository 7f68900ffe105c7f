import Foundation
import Quern
import QuernModels

/// A decoder of a published shape with random weights, which are made as they are asked for.
struct RandomDecoder {
  let name: String
  let hidden, inner, layers, heads, keyHeads, headDim, vocabulary: Int
  let hasHeadNorms: Bool

  static let all = [
    RandomDecoder(
      name: "Llama-3.2-1B", hidden: 2048, inner: 8192, layers: 16, heads: 32, keyHeads: 8, headDim: 64,
      vocabulary: 128256, hasHeadNorms: false),
    RandomDecoder(
      name: "Qwen3-0.6B", hidden: 1024, inner: 3072, layers: 28, heads: 16, keyHeads: 8, headDim: 128,
      vocabulary: 151936, hasHeadNorms: true),
  ]

  /// The elements of its linear layers and its head, each of which a token meets once.
  var productElements: Int {
    layers * (hidden * (2 * heads + 2 * keyHeads) * headDim + 3 * hidden * inner) + vocabulary * hidden
  }

  /// - Parameter format: of the linear layers; `nil` for bf16. The embeddings, which are the head too, are bf16 always.
  func model(_ format: QuantizedFormat?, context: Context) throws -> DecoderModel {
    let config = """
      {"model_type": "\(hasHeadNorms ? "qwen3" : "llama")", "vocab_size": \(vocabulary), "hidden_size": \(hidden),
       "intermediate_size": \(inner), "num_hidden_layers": \(layers), "num_attention_heads": \(heads),
       "num_key_value_heads": \(keyHeads), "head_dim": \(headDim), "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
       "rope_theta": 500000, "hidden_act": "silu", "tie_word_embeddings": true}
      """
    return try DecoderModel(
      DecoderConfiguration(HubConfig(text: config)), source: RandomWeights(self, format), file: name,
      context: context)
  }

  /// The shape of a tensor by the last words of its name.
  fileprivate func shape(_ name: String) -> [Int]? {
    let (queries, keys) = (heads * headDim, keyHeads * headDim)
    let shapes: [String: [Int]] = [
      "embed_tokens": [vocabulary, hidden], "q_proj": [queries, hidden], "k_proj": [keys, hidden],
      "v_proj": [keys, hidden], "o_proj": [hidden, queries], "gate_proj": [inner, hidden], "up_proj": [inner, hidden],
      "down_proj": [hidden, inner], "q_norm": [headDim], "k_norm": [headDim], "norm": [hidden],
      "input_layernorm": [hidden], "post_attention_layernorm": [hidden],
    ]
    return name.split(separator: ".").dropLast().last.flatMap { shapes[String($0)] }
  }
}

extension HubConfig {
  /// A `config.json` of this text.
  init(text: String) throws {
    let folder = NSTemporaryDirectory() + "/quern-benchmark-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try Data(text.utf8).write(to: URL(fileURLWithPath: folder + "/config.json"))
    try self.init(directory: folder)
  }
}

/// Weights that are different enough for speed: small numbers of both signs.
private struct RandomWeights: TensorSource {
  let decoder: RandomDecoder
  let format: QuantizedFormat?
  let path = "random weights"
  var tensorNames: [String] { [] }

  init(_ decoder: RandomDecoder, _ format: QuantizedFormat?) { (self.decoder, self.format) = (decoder, format) }

  func contains(_ name: String) -> Bool { name.hasPrefix("model.") && decoder.shape(name) != nil }

  func info(_ name: String) throws(ModelError) -> TensorInfo {
    guard contains(name), let shape = decoder.shape(name) else {
      throw ModelError(file: path, field: "tensors.\(name)", reason: "there is no such tensor")
    }
    guard let format, shape.count == 2, !name.contains("embed") else {
      let count = shape.reduce(1, *)
      return TensorInfo(dtype: .bf16, shape: shape, byteRange: 0..<2 * count, elementCount: count)
    }
    let row = shape[1] / format.blockSize * format.blockBytes
    return TensorInfo(
      dtype: .u8, shape: [shape[0], row], byteRange: 0..<shape[0] * row, elementCount: shape[0] * row,
      quantization: TensorInfo.Quantization(format: format, outputs: shape[0], inputs: shape[1]))
  }

  func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    destination.update(repeating: 1)
  }

  func readInt64(_ name: String) throws(ModelError) -> [Int64] { throw unread(name) }

  func readBytes(_ name: String) throws(ModelError) -> FileBytes { throw unread(name) }

  private func unread(_ name: String) -> ModelError {
    ModelError(file: path, field: "tensors.\(name)", reason: "is not read this way")
  }

  func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    let isQuantized = try info(name).quantization != nil
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    destination.withMemoryRebound(to: UInt16.self) { words in
      for index in words.indices {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let random = UInt16(truncatingIfNeeded: state >> 40)
        // bf16 of 2^-6 to 2^-5 and both signs.
        words[index] = isQuantized ? random : random & 0x807F | 0x3C80
      }
    }
    guard isQuantized, let format else { return }
    for block in stride(from: 0, to: destination.count - format.blockBytes + 1, by: format.blockBytes) {
      // The scale, in f16: 2^-9 for codes of 4 bits, 2^-12 for int8.
      (destination[block], destination[block + 1]) = (0, format == .q8 ? 0x0C : 0x18)
    }
  }
}

import Foundation
import Quern
import QuernModels
import QuernTesting

/// A folder with a small BERT encoder of random weights, made anew by each test that wants one.
struct RandomModel {
  var hidden = 64
  var inner = 96
  var layers = 2
  var prefix = ""
  /// Files that the tensors are dealt out to; more than one has an index.
  var shards = 1
  /// A weight that is not finite, in this tensor.
  var spoiled: String?
  var extraFiles = ["vocab.txt": "a\nb\n", "1_Pooling/config.json": "{}", ".hidden.json": "{}", "model.bin": "x"]

  static let query = "encoder.layer.0.attention.self.query.weight"

  /// Matrices of linear layers, and the inputs of each.
  var linears: [String: Int] {
    var linears: [String: Int] = [:]
    for layer in 0..<layers {
      let name = "\(prefix)encoder.layer.\(layer)"
      for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
        linears["\(name).\(part).weight"] = hidden
      }
      linears["\(name).intermediate.dense.weight"] = hidden
      linears["\(name).output.dense.weight"] = inner
    }
    return linears
  }

  var config: String {
    """
    {"model_type": "bert", "vocab_size": 50, "hidden_size": \(hidden), "num_hidden_layers": \(layers),
     "num_attention_heads": 4, "intermediate_size": \(inner), "hidden_act": "gelu", "max_position_embeddings": 40}
    """
  }

  func tensors() -> [Safetensors.NewTensor] {
    var shapes: [(String, [Int])] = [
      ("embeddings.word_embeddings.weight", [50, hidden]), ("embeddings.position_embeddings.weight", [40, hidden]),
      ("embeddings.token_type_embeddings.weight", [2, hidden]), ("pooler.dense.weight", [hidden, hidden]),
    ]
    func add(_ name: String, _ weight: [Int]) { shapes += [("\(name).weight", weight), ("\(name).bias", [weight[0]])] }
    add("embeddings.LayerNorm", [hidden])
    for layer in 0..<layers {
      let name = "encoder.layer.\(layer)"
      for part in ["query", "key", "value"] { add("\(name).attention.self.\(part)", [hidden, hidden]) }
      add("\(name).attention.output.dense", [hidden, hidden])
      add("\(name).attention.output.LayerNorm", [hidden])
      add("\(name).intermediate.dense", [inner, hidden])
      add("\(name).output.dense", [hidden, inner])
      add("\(name).output.LayerNorm", [hidden])
    }
    var random = SeededRandom()
    let floats = shapes.map { name, shape in
      var values = (0..<shape.reduce(1, *)).map { _ in 0.1 * random.normal() }
      if name == spoiled { values[values.count - 1] = .nan }
      return Safetensors.NewTensor(name: prefix + name, shape: shape, values: .float32(values))
    }
    return floats + [.init(name: prefix + "embeddings.position_ids", shape: [1, 2], values: .int64([0, 1]))]
  }

  /// The folder, with what `change` makes of the tensors.
  func folder(_ change: (inout [Safetensors.NewTensor]) -> Void = { _ in }) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("config.json", config.utf8)
    for (name, text) in extraFiles { try folder.write(name, text.utf8) }
    var tensors = tensors()
    change(&tensors)
    guard shards > 1 else {
      try Safetensors.write(path: "\(folder.path)/model.safetensors", tensors: tensors, metadata: ["format": "pt"])
      return folder
    }
    var places: [String: String] = [:]
    for shard in 0..<shards {
      let name = "parts/model-\(shard).safetensors"
      let part = tensors.enumerated().filter { $0.offset % shards == shard }.map(\.element)
      try FileManager.default.createDirectory(atPath: "\(folder.path)/parts", withIntermediateDirectories: true)
      try Safetensors.write(path: "\(folder.path)/\(name)", tensors: part)
      for tensor in part { places[tensor.name] = name }
    }
    let index = ["weight_map": places]
    try folder.write("model.safetensors.index.json", JSONSerialization.data(withJSONObject: index))
    return folder
  }

  /// What the model in a directory makes of a few sequences.
  static func output(
    _ directory: String, on backend: String = "reference", precision: DataType = .f32
  ) throws -> [Float] {
    let model = try EncoderModel(directory: directory, context: Context(backend), precision: precision)
    let batch = try EncoderBatch([[1, 2, 3, 4, 5], [7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 11, 12, 13, 14, 15, 16, 17]])
    return try model.forward(batch, workspace: EncoderModel.Workspace()).elements
  }

  /// A copy of a quantised directory in which every matrix is the f32 that its blocks stand for.
  static func dequantized(_ directory: String) throws -> TemporaryFolder {
    let source = try SafetensorsDirectory(path: directory)
    let folder = try TemporaryFolder()
    try folder.write("config.json", Data(contentsOf: URL(fileURLWithPath: "\(directory)/config.json")))
    let tensors = try source.tensorNames.map { name -> Safetensors.NewTensor in
      let info = try source.info(name)
      if info.dtype == .i64 { return .init(name: name, shape: info.shape, values: .int64(try source.readInt64(name))) }
      guard let matrix = try blocks(name, source) else {
        return .init(name: name, shape: info.shape, values: .float32(try source.readFloat32(name)))
      }
      let values = try matrix.dequantized().elements
      return .init(name: name, shape: [matrix.outputs, matrix.inputs], values: .float32(values))
    }
    try Safetensors.write(path: "\(folder.path)/model.safetensors", tensors: tensors)
    return folder
  }

  /// The blocks of a tensor, if it is quantised.
  static func blocks(_ name: String, _ source: any TensorSource) throws -> QuantizedMatrix? {
    guard let found = try source.info(name).quantization else { return nil }
    return try source.readBytes(name).withUnsafeBytes {
      try QuantizedMatrix(blocks: $0, outputs: found.outputs, inputs: found.inputs, format: found.format)
    }
  }

  /// Every file and folder below a path.
  static func everything(_ path: String) -> [String] {
    (FileManager.default.enumerator(atPath: path)?.compactMap { $0 as? String } ?? []).sorted()
  }
}

import Foundation
import QuernModels
import QuernTesting

/// Tensors of any type with their bytes, for files that Quern does not write.
struct RawTensor {
  var name: String
  var dtype: SafetensorsDType
  var shape: [Int]
  var bytes: [UInt8]

  init(_ name: String, _ dtype: SafetensorsDType, _ shape: [Int], _ bytes: [UInt8]) {
    (self.name, self.dtype, self.shape, self.bytes) = (name, dtype, shape, bytes)
  }

  /// FP8 codes.
  init(_ name: String, _ shape: [Int], codes: [UInt8]) { self.init(name, .f8E4M3, shape, codes) }

  /// Numbers as F32, or their upper halves as BF16.
  init(_ name: String, _ shape: [Int], _ values: [Float], as dtype: SafetensorsDType = .f32) {
    let bytes = values.flatMap { value in withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) } }
    let halves = bytes.enumerated().filter { $0.offset % 4 > 1 }.map(\.element)
    self.init(name, dtype, shape, dtype == .bf16 ? halves : bytes)
  }

  /// A safetensors file.
  static func file(_ tensors: [RawTensor]) -> [UInt8] {
    var (entries, end): ([String], Int) = ([], 0)
    for tensor in tensors {
      let offsets = "[\(end),\(end + tensor.bytes.count)]"
      entries.append(
        "\"\(tensor.name)\":{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":\(tensor.shape),\"data_offsets\":\(offsets)}"
      )
      end += tensor.bytes.count
    }
    let header = Array("{\(entries.joined(separator: ","))}".utf8)
    return withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header + tensors.flatMap(\.bytes)
  }

  /// The tensors of a model directory.
  static func all(_ directory: String) throws -> [RawTensor] {
    let source = try SafetensorsDirectory(path: directory)
    return try source.tensorNames.map { name in
      let info = try source.info(name)
      return RawTensor(name, info.dtype, info.shape, try source.readBytes(name).withUnsafeBytes { Array($0) })
    }
  }

  /// A folder with this `config.json` and the tensors, dealt out to shards where there are several.
  static func folder(_ config: String, _ tensors: [RawTensor], shards: Int = 1) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("config.json", config.utf8)
    guard shards > 1 else {
      try folder.write("model.safetensors", file(tensors))
      return folder
    }
    var places: [String: String] = [:]
    for shard in 0..<shards {
      let part = tensors.enumerated().filter { $0.offset % shards == shard }.map(\.element)
      for tensor in part { places[tensor.name] = "model-\(shard).safetensors" }
      try folder.write("model-\(shard).safetensors", file(part))
    }
    try folder.write(
      "model.safetensors.index.json", JSONSerialization.data(withJSONObject: ["weight_map": places]))
    return folder
  }
}

import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Decoders from FP8 directories, made by tools/fixtures/fp8_decoders.py.
@Suite struct FP8DecoderTests {
  static let models = ["deepseek-v3", "qwen3", "qwen3-moe", "qwen3-moe-tensors", "llama-rows"]

  private static func directory(_ model: String) -> String { Fixture.path("fp8/\(model)") }

  private static func logits(
    _ directory: String, on backend: String = "multithreaded", precision: DataType?, inputs: String
  ) throws -> [Float] {
    let file = "\(Self.directory(inputs))/inputs.safetensors"
    let ids = try Safetensors(path: file).readInt64("input_ids").prefix(13).map { Int32($0) }
    let model = try DecoderModel(path: directory, context: Context(backend), precision: precision)
    let workspace = try DecoderModel.Workspace()
    let hidden = try model.forward(ids, segments: Segments(single: 13), workspace: workspace)
    return try model.logits(hidden, rows: (0..<13).map { Int32($0) }, workspace: workspace).elements
  }

  @Test(arguments: Parity.backends, models) func logitsAgreeWithTransformers(_ backend: String, _ model: String) throws
  {
    let directory = Self.directory(model)
    let forward = try NamedForward(directory: directory, context: Context(backend))
    let inputs = "\(directory)/inputs.safetensors"
    let logits = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("logits")
    let difference = try Parity.difference(logits, expected)
    #expect(difference <= 1e-5, "\(difference)")
  }

  @Test(arguments: Parity.backends, models) func greedyTokensAgreeWithTransformers(
    _ backend: String, _ model: String
  ) throws {
    let directory = Self.directory(model)
    let ids = try Safetensors(path: "\(directory)/inputs.safetensors").readInt64("input_ids").prefix(13).map {
      Int32($0)
    }
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readInt64("greedy").map { Int32($0) }
    let decoder = try DecoderModel(path: directory, context: Context(backend), precision: .f32)
    let (cache, workspace) = (try decoder.makeCache(capacity: 100), try DecoderModel.Workspace())
    var (next, produced): ([Int32], [Int32]) = (ids, [])
    while produced.count < expected.count {
      let hidden = try decoder.forward(next, segments: Segments(single: next.count), cache: cache, workspace: workspace)
      let logits = try decoder.logits(hidden, rows: [Int32(next.count - 1)], workspace: workspace).elements
      next = [Int32(logits.indices.max { logits[$0] < logits[$1] } ?? 0)]
      produced += next
    }
    #expect(produced == expected)
  }

  /// Rounded to bf16 as they are read, the matrices are those of a directory in bf16: the same logits, and the same memory.
  @Test(arguments: models) func asBF16ItIsTheModelInBF16(_ model: String) throws {
    let (directory, place) = (Self.directory(model), try TemporaryFolder())
    _ = try ModelQuantizer(model: directory, as: .bf16).write(to: place.path)
    let narrow = try Self.logits(directory, precision: nil, inputs: model)
    #expect(try narrow == Self.logits(directory, precision: .bf16, inputs: model))
    #expect(try narrow == Self.logits(place.path, precision: nil, inputs: model))
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("logits").prefix(13 * 96)
    let difference = try Parity.difference(narrow, Array(expected))
    #expect(difference > 1e-5 && difference < 0.05, "\(difference)")
    for precision in [nil, .bf16, .f32] as [DataType?] {
      let need = try DecoderModel.memoryNeed(path: directory, precision: precision, capacity: 50)
      #expect(try need == DecoderModel.memoryNeed(path: place.path, precision: precision, capacity: 50))
    }
  }

  @Test func memoryIsThatOfTheWidenedWeights() throws {
    let directory = Self.directory("qwen3")
    let source = try SafetensorsDirectory(path: directory)
    var (elements, vectors, largest) = (0, 0, 0)
    for name in source.tensorNames where !name.hasSuffix("_scale_inv") {
      let info = try source.info(name)
      if info.shape.count == 1 { vectors += info.elementCount } else { elements += info.elementCount }
      largest = max(largest, info.elementCount)
    }
    for (precision, size) in [(nil, 2), (.bf16, 2), (.f32, 4)] as [(DataType?, Int)] {
      let need = try DecoderModel.memoryNeed(path: directory, precision: precision, capacity: 50)
      #expect(need.weights >= elements * size + vectors * 2 && need.weights <= elements * size + vectors * 32 + 20_000)
      // Gates and values are read together.
      #expect(need.loading == 2 * largest * size)
    }
  }

  /// Linear layers become blocks of what codes and scales stand for; what the model has besides stays, its scales too.
  @Test(arguments: models, [1, 3]) func quantizingStartsFromTheWidenedWeights(_ model: String, _ shards: Int) throws {
    let config = try String(contentsOfFile: "\(Self.directory(model))/config.json", encoding: .utf8)
    let place = try TemporaryFolder()
    // Each weight's scales lie in another shard.
    let input = try RawTensor.folder(config, RawTensor.all(Self.directory(model)), shards: shards)
    let report = try ModelQuantizer(model: input.path, as: .blocks(.q8)).write(to: place.path)
    let (before, after) = (
      try SafetensorsDirectory.weights(of: input.path), try SafetensorsDirectory.weights(of: place.path)
    )
    #expect(report.matrices.count > 0)
    for matrix in report.matrices {
      let info = try before.info(matrix.name)
      let weights = try Tensor(before.readFloat32(matrix.name), shape: Shape(checking: info.shape))
      let expected = try QuantizedMatrix(quantizing: weights.view, as: .q8)
      let found = try #require(try RandomModel.blocks(matrix.name, after))
      #expect(expected.withBlocks { expected in found.withBlocks { $0.elementsEqual(expected) } }, "\(matrix.name)")
    }
    let replaced = Set(report.matrices.map(\.name))
    let dropped = replaced.flatMap { ["\($0)_scale_inv", "\($0)_scale"] }
    let names = Set(before.tensorNames).subtracting(dropped)
    #expect(Set(after.tensorNames) == names)
    _ = try Self.logits(place.path, precision: nil, inputs: model)
  }

  #if OpenBLAS
    @Test func compressingStartsFromTheWidenedWeights() throws {
      let (directory, place) = (Self.directory("qwen3"), try TemporaryFolder())
      let report = try ModelCompressor(model: directory, to: .share(0.99)).write(to: place.path)
      #expect(report.matrices.count == 14 && report.kept.isEmpty)
      let model = try Self.logits(place.path, precision: .f32, inputs: "qwen3")
      #expect(model.allSatisfy { $0.isFinite })
    }
  #endif

  /// Other families read the same layer: an encoder whose linear layers are codes with one scale, and the same in f32.
  @Test func encodersReadFP8() throws {
    let model = RandomModel(layers: 1)
    let (plain, scale) = (try model.folder(), 0x1p-13 as Float)
    var (narrow, wide): ([RawTensor], [RawTensor]) = ([], [])
    for tensor in try RawTensor.all(plain.path) {
      guard model.linears[tensor.name] != nil else {
        narrow.append(tensor)
        wide.append(tensor)
        continue
      }
      let codes = FP8TensorTests.codes(tensor.shape[0] * tensor.shape[1])
      narrow += [
        RawTensor(tensor.name, tensor.shape, codes: codes), RawTensor("\(tensor.name)_scale_inv", [], [scale]),
      ]
      wide.append(RawTensor(tensor.name, tensor.shape, codes.map { E4M3.values[Int($0)] * scale }))
    }
    let quantization = #", "quantization_config": {"quant_method": "fp8"}}"#
    let folder = try RawTensor.folder(String(model.config.dropLast()) + quantization, narrow)
    let other = try RawTensor.folder(model.config, wide)
    for precision in [.f32, .bf16] as [DataType] {
      let output = try RandomModel.output(folder.path, precision: precision)
      #expect(try output == RandomModel.output(other.path, precision: precision) && output.allSatisfy { $0.isFinite })
    }
  }

  /// That of gpt-oss says that its experts are in MXFP4, which its tensors say too.
  @Test func gptOssKeepsAConfigurationOfItsOwn() throws {
    let files = ["config.json", "model.safetensors"]
    let folder = try TemporaryFolder(copying: files, of: Fixture.path("decoders/gpt-oss-mxfp4"))
    let type = "\"model_type\": \"gpt_oss\""
    try folder.replace(type, with: type + ", \"quantization_config\": {\"quant_method\": \"mxfp4\"}", in: "config.json")
    _ = try DecoderModel.memoryNeed(path: folder.path, capacity: 50)
    _ = try NamedForward(directory: folder.path, context: Context())
  }

  @Test func theCommandRunsAndRefuses() throws {
    let place = try TemporaryFolder()
    let directory = Self.directory("qwen3-moe")
    let outputs = "\(place.path)/out.safetensors"
    func forward(_ model: String) throws -> BuiltProgram.Output {
      try BuiltProgram("quern").run([
        "forward", "--model", model, "--inputs", "\(directory)/inputs.safetensors", "--outputs", outputs,
      ])
    }
    #expect(try forward(directory).status == 0)
    let logits = try Safetensors(path: outputs).readFloat32("logits")
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("logits")
    #expect(try Parity.difference(logits, expected) <= 1e-5)
    let other = try TemporaryFolder(copying: ["config.json", "model.safetensors"], of: directory)
    try other.replace("\"fp8\"", with: "\"awq\"", in: "config.json")
    let refused = try forward(other.path)
    #expect(refused.status == 1 && refused.standardError.contains("quantization_config.quant_method"))
  }
}

import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// FP8 weights and their scales as numbers, and files in which they do not fit.
@Suite struct FP8TensorTests {
  static func config(_ block: String = "[2,3]", _ more: String = "") -> String {
    #"{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": \#(block)\#(more)}}"#
  }

  static let scaleName = "a.weight_scale_inv"

  /// All codes that are numbers, again and again.
  static func codes(_ count: Int) -> [UInt8] {
    (0..<count).map {
      let code = UInt8(truncatingIfNeeded: $0 &* 37)
      return code & 0x7F == 0x7F ? 0x7E : code
    }
  }

  @Test func everyCodeIsWhatTorchSays() throws {
    let expected = try Safetensors(path: Fixture.path("fp8/e4m3.safetensors")).readFloat32("values")
    #expect(E4M3.values.count == 256 && expected.count == 256)
    for (code, value) in E4M3.values.enumerated() {
      let (sign, exponent, fraction) = (code > 127 ? -1.0 : 1.0, code / 8 % 16, Double(code % 8))
      let own = sign * (exponent == 0 ? fraction / 512 : (8 + fraction) * pow(2, Double(exponent - 10)))
      if code % 128 == 127 {
        #expect(value.isNaN && expected[code].isNaN)
      } else {
        #expect(value.bitPattern == expected[code].bitPattern && value.bitPattern == Float(own).bitPattern, "\(code)")
      }
    }
  }

  /// Blocks of one element, blocks that end within the matrix, and one that is larger; the last matrix takes several pieces.
  @Test(
    arguments: [(5, 7), (700, 600)], [(1, 1), (2, 3), (128, 128), (5, 1), (3, 1 << 24), (1 << 24, 1 << 24)])
  func weightsAreCodesTimesScales(_ shape: (Int, Int), _ block: (Int, Int)) throws {
    let (rows, columns) = shape
    let across = (columns + block.1 - 1) / block.1
    let count = (rows + block.0 - 1) / block.0 * across
    let codes = Self.codes(rows * columns)
    for dtype in [SafetensorsDType.f32, .bf16] {
      var random = SeededRandom()
      // With 8 bits of fraction, so that both types have them.
      let scales = (0..<count).map { _ in Float(bitPattern: (abs(random.normal()) + 0.01).bitPattern & 0xFFFF_0000) }
      let expected = codes.indices.map { place in
        E4M3.values[Int(codes[place])] * scales[place / columns / block.0 * across + place % columns / block.1]
      }
      let folder = try RawTensor.folder(
        Self.config("[\(block.0),\(block.1)]"),
        [
          RawTensor("a.weight", [rows, columns], codes: codes),
          RawTensor(Self.scaleName, [count / across, across], scales, as: dtype),
        ])
      let source = try SafetensorsDirectory.weights(of: folder.path)
      #expect(try source.readFloat32("a.weight").map(\.bitPattern) == expected.map(\.bitPattern))
      var pieces: [Float] = []
      try source.forEachFloat32("a.weight") { values, first in
        #expect(first == pieces.count && values.count <= 1 << 18)
        pieces += values
      }
      #expect(pieces.map(\.bitPattern) == expected.map(\.bitPattern))
      let weights = try Weights(source, file: folder.path, probe: "a.weight")
      let rounded = try weights.tensor("a.weight", Shape(rows, columns), as: .bf16)
      let wide = try Tensor(expected, shape: Shape(rows, columns))
      #expect(try rounded.elements == wide.converted(to: .bf16).elements && rounded.dataType == .bf16)
      #expect(try weights.stored("a.weight") == .bf16)
      #expect(try weights.tensor("a.weight", Shape(rows, columns), as: nil).dataType == .bf16)
    }
  }

  /// One scale for all of a tensor, of any rank, and zero, which makes all of them zero.
  @Test(arguments: ["_scale_inv", "_scale"], [0.375, 0] as [Float])
  func oneScaleIsForTheWholeTensor(_ suffix: String, _ scale: Float) throws {
    for (extents, shape) in [([3, 4], []), ([12], [1]), ([2, 3, 2], [1])] as [([Int], [Int])] {
      let folder = try RawTensor.folder(
        #"{"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}"#,
        [
          RawTensor("a.weight", extents, codes: Self.codes(12)),
          RawTensor("a.weight" + suffix, shape, [scale]), RawTensor("a.input_scale", [], [2]),
        ])
      let values = try SafetensorsDirectory.weights(of: folder.path).readFloat32("a.weight")
      #expect(values == Self.codes(12).map { E4M3.values[Int($0)] * scale })
    }
  }

  static func compressed(_ weights: String, _ more: String = "") -> String {
    #"{"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": "#
      + #"{"group_0": {"targets": ["Linear"], "weights": \#(weights)}, "group_1": {"weights": null}}\#(more)}}"#
  }

  /// The form of a group's weights, as llm-compressor writes it.
  static func weights(_ strategy: String, _ more: String = "") -> String {
    #"{"num_bits": 8, "type": "float", "symmetric": true, "strategy": "\#(strategy)", "dynamic": false\#(more)}"#
  }

  /// Scales of rows, more than are read at a time; in the same file one for a whole matrix.
  @Test(arguments: [compressed(weights("channel")), #"{"quantization_config": {"quant_method": "fbgemm_fp8"}}"#])
  func rowsMayHaveScales(_ config: String) throws {
    let (rows, columns) = (9001, 3)
    let codes = Self.codes(rows * columns)
    let scales = (0..<rows).map { Float($0 % 251 + 1) }
    let folder = try RawTensor.folder(
      config,
      [
        RawTensor("a.weight", [rows, columns], codes: codes),
        RawTensor("a.weight_scale", [rows, 1], scales, as: .bf16),
        RawTensor("b.weight", [2, 3], codes: Self.codes(6)), RawTensor("b.weight_scale", [1], [3]),
        RawTensor("c.weight", [0, 3], codes: []), RawTensor("c.weight_scale", [0, 1], []),
        RawTensor("d.weight", [3, 0], codes: []), RawTensor("d.weight_scale", [3, 1], [1, 2, 3]),
      ])
    let source = try SafetensorsDirectory.weights(of: folder.path)
    let expected = codes.indices.map { E4M3.values[Int(codes[$0])] * scales[$0 / columns] }
    #expect(try source.readFloat32("a.weight") == expected)
    #expect(try source.readFloat32("b.weight") == Self.codes(6).map { E4M3.values[Int($0)] * 3 })
    #expect(try source.readFloat32("c.weight").isEmpty && source.readFloat32("d.weight").isEmpty)
  }

  @Test(arguments: ["", #", "sparsity_config": {}, "transform_config": {}, "kv_cache_scheme": null"#])
  func compressedTensorsMayHaveBlocks(_ more: String) throws {
    let config = Self.compressed(Self.weights("block", #", "block_structure": [2, 3]"#), more)
    let (codes, scales) = (Self.codes(35), (1...9).map { Float($0) })
    let folder = try RawTensor.folder(
      config, [RawTensor("a.weight", [5, 7], codes: codes), RawTensor("a.weight_scale", [3, 3], scales)])
    let values = try SafetensorsDirectory.weights(of: folder.path).readFloat32("a.weight")
    #expect(values == codes.indices.map { E4M3.values[Int(codes[$0])] * scales[$0 / 7 / 2 * 3 + $0 % 7 / 3] })
  }

  @Test func emptyMatricesAndF16ScalesAreRead() throws {
    let folder = try RawTensor.folder(
      Self.config(),
      [
        RawTensor("a.weight", [0, 4], codes: []), RawTensor(Self.scaleName, [0, 2], []),
        RawTensor("b.weight", [2, 3], codes: Self.codes(6)),
        RawTensor("b.weight_scale_inv", .f16, [1, 1], [0, 0x3E]),
      ])
    let source = try SafetensorsDirectory.weights(of: folder.path)
    #expect(try source.readFloat32("a.weight").isEmpty)
    #expect(try source.readFloat32("b.weight") == Self.codes(6).map { E4M3.values[Int($0)] * 1.5 })
  }

  @Test func scalesMayLieInAnotherShard() throws {
    let tensors = [
      RawTensor("a.weight", [2, 3], codes: Self.codes(6)), RawTensor(Self.scaleName, [1, 1], [2]),
      RawTensor("b", [1], [7]),
    ]
    let folder = try RawTensor.folder(Self.config(), tensors, shards: 2)
    let source = try SafetensorsDirectory.weights(of: folder.path)
    #expect(try source.readFloat32("a.weight") == Self.codes(6).map { E4M3.values[Int($0)] * 2 })
    #expect(try source.readFloat32("b") == [7])
  }

  // MARK: What does not fit

  struct Bad: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var file: String
    var field: String
    var config: String
    var codes: [UInt8]
    /// `[5, 7]` where it is not said.
    var shape: [Int]
    var name: String
    var dtype: SafetensorsDType
    var scaleShape: [Int]
    var scales: [Float]
    var others: [String]
    var reason: String

    init(
      _ name: String, config: String = FP8TensorTests.config(), codes: [UInt8] = FP8TensorTests.codes(35),
      shape: [Int] = [5, 7], scale: String = FP8TensorTests.scaleName, dtype: SafetensorsDType = .f32,
      _ scaleShape: [Int] = [3, 3], _ scales: [Float]? = nil, others: [String] = [],
      in file: String = "model.safetensors",
      field: String, says reason: String
    ) {
      (testDescription, self.config, self.codes, self.shape, self.name) = (name, config, codes, shape, scale)
      (self.dtype, self.scaleShape, self.others, self.file, self.field) = (dtype, scaleShape, others, file, field)
      self.scales = scales ?? [Float](repeating: 1, count: scaleShape.reduce(1, *))
      self.reason = reason
    }

    var tensors: [RawTensor] {
      [RawTensor("a.weight", shape, codes: codes), RawTensor(name, scaleShape, scales, as: dtype)]
        + others.map { RawTensor($0, [3, 3], [Float](repeating: 1, count: 9)) }
    }
  }

  private static func badConfig(_ name: String, _ fields: String, _ field: String, _ reason: String) -> Bad {
    Bad(
      name, config: #"{"quantization_config": \#(fields)}"#, in: "config.json", field: "quantization_config" + field,
      says: reason)
  }

  private static func badGroup(_ name: String, _ weights: String, _ field: String, _ reason: String) -> Bad {
    Bad(
      name, config: compressed(weights), in: "config.json",
      field: "quantization_config.config_groups.group_0.weights" + field, says: reason)
  }

  private static func badScale(_ value: Float, _ place: Int) -> Bad {
    var scales = [Float](repeating: 1, count: 9)
    scales[place] = value
    return Bad(
      "a scale of \(value)", [3, 3], scales, field: "tensors.a.weight_scale_inv", says: "element \(place) is \(value)")
  }

  static let bad: [Bad] = [
    badConfig(
      "another method", #"{"quant_method": "gptq"}"#, ".quant_method", "gptq is not supported; supported: fp8, "),
    badConfig("no method", "{}", ".quant_method", "missing"),
    badConfig("no object", "[]", "", "not an object"),
    badConfig("E5M2", #"{"quant_method": "fp8", "fmt": "e5m2"}"#, ".fmt", "e5m2 is not supported; supported: e4m3"),
    badConfig(
      "another scheme", #"{"quant_method": "fp8", "activation_scheme": "x"}"#, ".activation_scheme", "dynamic, static"),
    badConfig(
      "blocks of no rows", #"{"quant_method": "fp8", "weight_block_size": [0, 3]}"#, ".weight_block_size[0]", "0"),
    badConfig(
      "huge blocks", #"{"quant_method": "fp8", "weight_block_size": [2, 9223372036854775807]}"#,
      ".weight_block_size[1]",
      "9223372036854775807"),
    badConfig(
      "negative blocks", #"{"quant_method": "fp8", "weight_block_size": [-1, 3]}"#, ".weight_block_size[0]", "-1"),
    badConfig(
      "one extent", #"{"quant_method": "fp8", "weight_block_size": [3]}"#, ".weight_block_size", "[rows, columns]"),
    badConfig(
      "a number for blocks", #"{"quant_method": "fp8", "weight_block_size": 128}"#, ".weight_block_size",
      "[rows, columns]"),
    badGroup("integers", weights("channel").replacing("float", with: "int"), ".type", "int is not supported"),
    badGroup("4 bits", weights("channel").replacing("8", with: "4"), ".num_bits", "4"),
    badGroup("groups of inputs", weights("group"), ".strategy", "group is not supported; supported: tensor, channel"),
    badGroup("blocks without a size", weights("block"), ".strategy", "no block_structure"),
    badGroup(
      "blocks of no columns", weights("block", #", "block_structure": [1, 0]"#), ".block_structure[1]", "0"),
    Bad(
      "packed codes", config: compressed(weights("channel")).replacing("float-quantized", with: "pack-quantized"),
      in: "config.json", field: "quantization_config.format", says: "pack-quantized is not supported"),
    Bad(
      "sparse weights",
      config: compressed(weights("channel"), #", "sparsity_config": {"format": "sparse-24-bitmask"}"#),
      in: "config.json", field: "quantization_config.sparsity_config.format", says: "sparse-24-bitmask"),
    Bad(
      "rotated weights", config: compressed(weights("channel"), #", "transform_config": {"config_groups": {}}"#),
      in: "config.json", field: "quantization_config.transform_config", says: "is not supported"),
    Bad(
      "two sizes of blocks",
      config: compressed(weights("block", #", "block_structure": [2, 3]"#)).replacing(
        #""weights": null"#, with: #""weights": \#(weights("block", #", "block_structure": [3, 3]"#))"#),
      in: "config.json", field: "quantization_config.config_groups.group_1.weights.block_structure", says: "another"),
    Bad(
      "no groups",
      config: #"{"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}"#,
      in: "config.json", field: "quantization_config.config_groups", says: "missing"),
    Bad(
      "scales of blocks for rows", config: compressed(weights("channel")), field: "tensors.a.weight_scale_inv.shape",
      says: "scales of its rows [5, 1]"),
    Bad("no scales", scale: "b", field: "tensors.a.weight_scale_inv", says: "is missing, while a.weight is F8_E4M3"),
    Bad(
      "scales of no weight", others: ["c.weight_scale_inv"], field: "tensors.c.weight_scale_inv",
      says: "the scale of c.weight, which is missing"),
    Bad(
      "scales of a weight that is not FP8", others: ["c.weight", "c.weight_scale"], field: "tensors.c.weight_scale",
      says: "the scale of c.weight, which is F32"),
    Bad(
      "scales twice", others: ["a.weight_scale"], field: "tensors.a.weight_scale", says: "beside a.weight_scale_inv"),
    Bad("too few scales", [3, 2], field: "tensors.a.weight_scale_inv.shape", says: "need [3, 3]"),
    Bad("scales the other way", [9, 1], field: "tensors.a.weight_scale_inv.shape", says: "need [3, 3]"),
    Bad("one scale in two dimensions", [1, 1], field: "tensors.a.weight_scale_inv.shape", says: "need [3, 3]"),
    Bad("scales of one dimension", [9], field: "tensors.a.weight_scale_inv.shape", says: "need [3, 3]"),
    Bad(
      "blocks of a vector", shape: [35], field: "tensors.a.weight_scale_inv.shape", says: "only those of a matrix"),
    Bad(
      "scales of blocks without their size", config: config("null"), field: "tensors.a.weight_scale_inv.shape",
      says: "weight_block_size"),
    Bad(
      "scales of 8 bits", dtype: .f8E8M0, [12, 3], [Float](repeating: 1, count: 9),
      field: "tensors.a.weight_scale_inv.dtype", says: "F8_E8M0 is not supported; supported: F32, BF16, F16"),
    badScale(-1, 0), badScale(-.leastNonzeroMagnitude, 8), badScale(.infinity, 4), badScale(.nan, 5),
    badScale(.greatestFiniteMagnitude, 2),
    Bad("NaN", codes: [UInt8](repeating: 1, count: 34) + [0x7F], field: "tensors.a.weight", says: "element 34 is NaN"),
    Bad("NaN with a sign", codes: [0xFF] + codes(34), field: "tensors.a.weight", says: "element 0 is NaN"),
  ]

  @Test(arguments: bad) func whatDoesNotFitIsRefused(_ bad: Bad) throws {
    let folder = try RawTensor.folder(bad.config, bad.tensors)
    let error = try #require(
      modelError { _ = try SafetensorsDirectory.weights(of: folder.path).readFloat32("a.weight") })
    #expect(error.file == "\(folder.path)/\(bad.file)" && error.field == bad.field && error.offset != nil, "\(error)")
    #expect(error.reason.contains(bad.reason), "\(error)")
    // A piece at a time as well.
    let other = modelError { try SafetensorsDirectory.weights(of: folder.path).forEachFloat32("a.weight") { _, _ in } }
    #expect(other == error)
  }

  /// Without scales the codes stand for nothing.
  @Test func codesAreNotReadWithoutAConfiguration() throws {
    let scales = [Float](repeating: 1, count: 9)
    let tensors = [RawTensor("a.weight", [5, 7], codes: Self.codes(35)), RawTensor(Self.scaleName, [3, 3], scales)]
    let folder = try RawTensor.folder("{}", tensors)
    let error = modelError { _ = try SafetensorsDirectory.weights(of: folder.path).readFloat32("a.weight") }
    #expect(error?.field == "tensors.a.weight.dtype" && error?.reason.contains("quantization_config") == true)
    let fives = RawTensor("a.weight", .f8E5M2, [5, 7], Self.codes(35))
    let other = try RawTensor.folder(Self.config(), [fives])
    let refusal = modelError { _ = try SafetensorsDirectory.weights(of: other.path).readFloat32("a.weight") }
    #expect(refusal?.field == "tensors.a.weight.dtype" && refusal?.reason.contains("F8_E5M2") == true)
  }
}

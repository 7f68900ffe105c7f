import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Files by the `gguf` package, and what that package reads from them; tools/fixtures/gguf_files.py.
@Suite struct GGUFTests {
  struct Expected: Decodable {
    var name, type: String
    var offset, size: Int
    var shape: [Int]
  }

  private static let types = Fixture.path("gguf/types.gguf")
  /// Types whose blocks are read as those of others.
  private static let becomes = [
    "Q4_1": "Q5_1", "Q5_0": "Q8_0", "Q2_K": "Q8_0", "Q3_K": "Q6_K", "IQ4_NL": "Q8_0", "IQ4_XS": "Q8_0",
  ]

  @Test func tensorsLieWhereThePackageHasThem() throws {
    let file = try GGUF(path: Self.types)
    let expected = try Fixture.decode([Expected].self, "gguf/types.expected.json")
    #expect(file.version == 3 && file.tensorNames == expected.map(\.name))
    for tensor in expected {
      #expect(file.contains(tensor.name))
      #expect(try file.typeName(tensor.name) == tensor.type)
      guard tensor.type != "IQ3_S" else { continue }
      let info = try file.info(tensor.name)
      #expect(info.byteRange == tensor.offset..<tensor.offset + tensor.size, "\(tensor.name)")
      #expect(info.valueCount == tensor.shape.reduce(1, *))
      if let quantization = info.quantization {
        #expect(info.dtype == .u8 && info.shape.dropLast() == tensor.shape.dropLast())
        #expect(info.shape.reduce(1, *) == tensor.size && info.elementCount == tensor.size)
        let format = Self.becomes[tensor.type] ?? tensor.type
        #expect(quantization.inputs == tensor.shape.last && quantization.format.rawValue.uppercased() == format)
        #expect(quantization.outputs == tensor.shape.dropLast().reduce(1, *))
      } else {
        #expect(info.dtype.rawValue == tensor.type && info.shape == tensor.shape)
      }
    }
  }

  @Test func valuesAreThoseOfThePackage() throws {
    let file = try GGUF(path: Self.types)
    let expected = try Safetensors(path: Fixture.path("gguf/types.expected.safetensors"))
    #expect(expected.tensorNames.count + 1 == file.tensorNames.count)
    for name in expected.tensorNames {
      if ["i8", "i16", "i32", "i64"].contains(name) {
        #expect(try file.readInt64(name) == expected.readInt64(name), "\(name)")
      } else {
        #expect(try file.readFloat32(name).map(\.bitPattern) == expected.readFloat32(name).map(\.bitPattern), "\(name)")
      }
    }
  }

  @Test func blocksArePacked() throws {
    let file = try GGUF(path: Self.types)
    let context = try Context("reference")
    let names = [
      "q8_0", "q4_0", "q4_k", "q6_k", "mxfp4", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q5_k", "iq4_nl", "iq4_xs",
    ]
    for name in names {
      let quantization = try #require(try file.info(name).quantization)
      let (outputs, inputs) = (quantization.outputs, quantization.inputs)
      let matrix = try file.readBytes(name).withUnsafeBytes {
        try QuantizedMatrix(blocks: $0, outputs: outputs, inputs: inputs, format: quantization.format)
      }
      let (found, expected) = (try matrix.dequantized().elements, try file.readFloat32(name) as [Float])
      _ = try context.pack(matrix)
      switch name {
      case "q2_k":  // rounded to 127 steps of the largest of 32
        for first in stride(from: 0, to: found.count, by: 32) {
          let block = first..<first + 32
          let most = expected[block].map(abs).max() ?? 0
          #expect(block.allSatisfy { abs(found[$0] - expected[$0]) <= Float(QuantizedFormat.q8.largestError) * most })
        }
      case "iq4_xs": #expect(zip(found, expected).allSatisfy { abs($0 - $1) <= 0x1p-11 * abs($1) })
      default: #expect(found == expected, "\(name)")
      }
    }
  }

  @Test(arguments: [(UInt32(10), 84, 80), (23, 136, 0)])
  func blocksWithoutAFiniteScaleAreRefused(type: UInt32, bytes: Int, scale: Int) throws {
    var data = [UInt8](repeating: 17, count: 3 * bytes)
    data.replaceSubrange(bytes + scale..<bytes + scale + 2, with: [0x00, 0x7C])
    var builder = GGUFBuilder()
    builder.tensor("a", [256, 3], type: type, data: data)
    let folder = try TemporaryFolder()
    let file = try GGUF(path: folder.write("bad.gguf", builder.bytes))
    let error = modelError { _ = try file.readBytes("a") }
    let first = try file.info("a").byteRange.lowerBound
    #expect(error?.field == "tensors.a" && error?.offset == first + bytes, "\(String(describing: error))")
    #expect(error?.reason.contains("finite scale") == true)
    #expect((try file.readFloat32("a") as [Float]).contains { !$0.isFinite })
  }

  @Test func metadataIsWhatThePackageWrote() throws {
    let metadata = try GGUF(path: Self.types).metadata
    #expect(metadata.keys.prefix(3) == ["general.architecture", "general.alignment", "llama.block_count"])
    #expect(try metadata.string("general.architecture") == "llama")
    #expect(try metadata.string("general.architecture", oneOf: ["qwen2", "llama"]) == "llama")
    #expect(try metadata.int("llama.block_count", in: 1...1000) == 2)
    for (key, value) in [
      ("uint8", 255), ("int8", -128), ("uint16", 65535), ("int16", -32768), ("uint32", 1 << 32 - 1),
      ("int32", -1 << 31), ("uint64", Int.max), ("int64", Int.min),
    ] {
      #expect(try metadata.int("t.\(key)", in: Int.min...Int.max) == value)
      #expect(try metadata.double("t.\(key)") == Double(value))
    }
    #expect(try metadata.double("t.float32") == Double(Float(1e-5)))
    #expect(try metadata.double("t.float64") == 0.1)
    #expect(try metadata.bool("t.true") && !metadata.bool("t.false"))
    #expect(try metadata.string("t.string") == "é \"quoted\" \n 東京 \0.")
    #expect(try metadata.ints("t.ints") == [-1, 0, 7])
    #expect(try metadata.floats("t.ints") == [-1, 0, 7])
    #expect(try metadata.floats("t.floats") == [0.5, -1000, 0.1])
    #expect(try metadata.bools("t.bools") == [true, false, true])
    let tokens = try metadata.strings("tokenizer.ggml.tokens")
    #expect(Array(tokens) == ["<s>", "", "▁the", "é", "\u{1F600}", "<0x0A>"])
    #expect(tokens.withUTF8(2) { Array($0) } == Array("▁the".utf8))
    #expect(metadata.isArray("t.ints") && !metadata.isArray("t.int8") && !metadata.isArray("t.nothing"))
    #expect(try metadata.int("t.nothing", default: 3) == 3 && metadata.string("t.nothing", default: "x") == "x")
    #expect(try metadata.double("t.nothing", default: 0.5) == 0.5 && metadata.bool("t.nothing", default: true))
  }

  @Test func metadataErrorsNameTheKeyAndItsByte() throws {
    let metadata = try GGUF(path: Self.types).metadata
    let bytes = try Data(contentsOf: URL(fileURLWithPath: Self.types))
    func refused(_ key: String, _ reason: String, _ body: (String) throws -> Void) throws {
      let error = try #require(modelError { try body("t.\(key)") }, "\(key) was read")
      #expect(error.field == "metadata.t.\(key)" && error.reason.contains(reason), "\(error)")
      // The key, the four bytes of its type, the value.
      let place = try #require(bytes.range(of: Data("t.\(key)".utf8))).upperBound + 4
      #expect(error.offset == place, "\(error)")
    }
    try refused("uint8", "outside 0...10") { _ = try metadata.int($0, in: 0...10) }
    try refused("float32", "an integer") { _ = try metadata.int($0) }
    try refused("true", "a number") { _ = try metadata.double($0) }
    try refused("uint8", "a bool") { _ = try metadata.bool($0) }
    try refused("uint8", "a string") { _ = try metadata.string($0) }
    try refused("uint8", "an array") { _ = try metadata.ints($0) }
    try refused("string", "x, y") { _ = try metadata.string($0, oneOf: ["x", "y"]) }
    #expect(modelError { _ = try metadata.strings("t.ints") }?.field == "metadata.t.ints")
    #expect(modelError { _ = try metadata.int("t.ints") }?.reason.contains("single") == true)
    #expect(modelError { _ = try metadata.int("t.nothing") }?.reason == "is missing")
  }

  @Test func aTypeThatIsNotReadIsRefusedByName() throws {
    let file = try GGUF(path: Self.types)
    let error = modelError { _ = try file.info("iq3_s") }
    #expect(error?.field == "tensors.iq3_s.type" && error?.reason.contains("IQ3_S") == true && error?.offset != nil)
    #expect(modelError { _ = try file.readFloat32("iq3_s") as [Float] }?.reason.contains("IQ3_S") == true)
    #expect(modelError { _ = try file.readBytes("iq3_s") }?.reason.contains("IQ3_S") == true)
    #expect(modelError { _ = try file.info("nothing") }?.field == "tensors.nothing")
    #expect(modelError { _ = try file.readInt64("q8_0") }?.field == "tensors.q8_0.dtype")
    #expect(!file.contains("nothing"))
  }

  @Test func aFileOfMetadataAlone() throws {
    let file = try GGUF(path: Fixture.path("gguf/vocabulary.gguf"))
    #expect(file.tensorNames.isEmpty)
    let tokens = try file.metadata.strings("tokenizer.ggml.tokens")
    #expect(tokens.count == 1000 && tokens[999] == "token 999")
    #expect(try file.metadata.floats("tokenizer.ggml.scores").last == -999)
    #expect(try file.metadata.ints("tokenizer.ggml.token_type").prefix(3) == [1, 2, 3])
  }

  /// The blocks of a matrix as a file has them: ggml's MXFP4 has the exponent of a scale where the format has half of it in bf16.
  private static func stored(_ matrix: QuantizedMatrix) -> [UInt8] {
    let (bytes, size) = (matrix.withBlocks { Array($0) }, matrix.format.blockBytes)
    guard matrix.format == .mxfp4 else { return bytes }
    var stored: [UInt8] = []
    for block in stride(from: 0, to: bytes.count, by: size) {
      stored.append((bytes[block + 1] << 1 | bytes[block] >> 7) + 1)
      stored += bytes[block + 2..<block + size]
    }
    return stored
  }

  /// More than one piece of a file, and of a header.
  @Test func longTensorsAndHeaders() throws {
    let folder = try TemporaryFolder()
    var random = SeededRandom()
    let rows = 1200
    let values = (0..<rows * 2048).map { _ in random.normal() }
    for (format, type) in [(QuantizedFormat.q8, UInt32(8)), (.q6K, 14), (.mxfp4, 39)] {
      let matrix = try QuantizedMatrix(quantizing: Tensor(values, shape: Shape(rows, 2048)).view, as: format)
      var builder = GGUFBuilder()
      let tokens = (0..<200_000).map { "token \($0)" }
      builder.strings("tokens", tokens)
      builder.tensor("a", [2048, UInt64(rows)], type: type, data: Self.stored(matrix))
      let file = try GGUF(path: folder.write("long.gguf", builder.bytes))
      #expect(try file.readFloat32("a") == matrix.dequantized().elements)
      #expect(try file.readBytes("a").withUnsafeBytes { Array($0) } == matrix.withBlocks { Array($0) })
      let found = try file.metadata.strings("tokens")
      #expect(found.count == 200_000 && found.elementsEqual(tokens))
    }
  }
}

/// Writes GGUF files, good ones and any other: fields are as they are set, right or wrong.
struct GGUFBuilder {
  var magic = Array("GGUF".utf8)
  var version: UInt32 = 3
  var tensorCount: UInt64?
  var keyCount: UInt64?
  var alignment = 32
  var keys: [[UInt8]] = []
  var tensors: [[UInt8]] = []
  var data: [UInt8] = []

  static func number(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  static func string(_ bytes: some Sequence<UInt8>, length: UInt64? = nil) -> [UInt8] {
    let content = Array(bytes)
    return number(length ?? UInt64(content.count)) + content
  }

  mutating func key(_ name: String, _ type: UInt32, _ value: [UInt8]) {
    keys.append(Self.string(name.utf8) + Self.number(type) + value)
  }

  mutating func array(_ name: String, of type: UInt32, count: UInt64, _ value: [UInt8]) {
    key(name, 9, Self.number(type) + Self.number(count) + value)
  }

  mutating func string(_ name: String, _ value: String) { key(name, 8, Self.string(value.utf8)) }

  mutating func strings(_ name: String, _ values: [String]) {
    array(name, of: 8, count: UInt64(values.count), values.flatMap { Self.string($0.utf8) })
  }

  /// A tensor of any description, behind those there are.
  mutating func tensor(
    _ name: String, _ extents: [UInt64], type: UInt32 = 0, data bytes: [UInt8] = [], offset: UInt64? = nil,
    rank: UInt32? = nil
  ) {
    data += [UInt8](repeating: 0, count: -data.count & (alignment - 1))
    tensors.append(
      Self.string(name.utf8) + Self.number(rank ?? UInt32(extents.count)) + extents.flatMap(Self.number)
        + Self.number(type) + Self.number(offset ?? UInt64(data.count)))
    data += bytes
  }

  var bytes: [UInt8] {
    var bytes = magic + Self.number(version) + Self.number(tensorCount ?? UInt64(tensors.count))
    bytes += Self.number(keyCount ?? UInt64(keys.count))
    for part in keys + tensors { bytes += part }
    if !tensors.isEmpty { bytes += [UInt8](repeating: 0, count: -bytes.count & (alignment - 1)) }
    return bytes + data
  }
}

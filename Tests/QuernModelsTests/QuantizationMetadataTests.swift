import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Files that say of a tensor that it is quantised, and are wrong; and models whose tensors do not go together.
@Suite struct QuantizationMetadataTests {
  static let key = "quern.quantization.tensors.a"

  struct Bad: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var metadata: String
    var field: String
    var dtype = "U8"
    var shape = "[2,34]"
    var size = 68

    init(_ name: String, _ value: String, dtype: String = "U8", shape: String = "[2,34]", size: Int = 68) {
      self.init(
        name, metadata: "\"quern.quantization.version\":\"1\",\"\(key)\":\(value)",
        field: "tensors.__metadata__.\(key)")
      (self.dtype, self.shape, self.size) = (dtype, shape, size)
    }

    init(_ name: String, metadata: String, field: String) {
      (testDescription, self.metadata, self.field) = (name, metadata, field)
    }

    var bytes: [UInt8] {
      let header =
        "{\"__metadata__\":{\(metadata)},\"a\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":[0,\(size)]}}"
      return withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) } + Array(header.utf8)
        + [UInt8](repeating: 0, count: size)
    }
  }

  static let bad: [Bad] = [
    Bad("unknown format", "\"q5_1 2x32\""), Bad("format in upper case", "\"Q8_0 2x32\""),
    Bad("no shape", "\"q8_0\""), Bad("no format", "\"2x32\""), Bad("nothing", "\"\""), Bad("a number", "1"),
    Bad("two spaces", "\"q8_0  2x32\""), Bad("space at the end", "\"q8_0 2x32 \""),
    Bad("one extent", "\"q8_0 64\""), Bad("three extents", "\"q8_0 1x2x32\""), Bad("capital X", "\"q8_0 2X32\""),
    Bad("sign", "\"q8_0 +2x32\""), Bad("negative", "\"q8_0 -2x32\""), Bad("leading zero", "\"q8_0 02x32\""),
    Bad("empty extent", "\"q8_0 x32\""), Bad("hexadecimal", "\"q8_0 2x0x20\""), Bad("other digits", "\"q8_0 ２x32\""),
    Bad("extent over 64 bits", "\"q8_0 2x99999999999999999999\""),
    Bad("bytes of a row over 64 bits", "\"q8_0 2x9223372036854775776\""),
    Bad("inputs 33", "\"q8_0 2x33\""), Bad("inputs 16", "\"q4_0 2x16\"", shape: "[2,9]", size: 18),
    Bad("more inputs", "\"q8_0 2x64\""), Bad("more outputs", "\"q8_0 3x32\""), Bad("another format", "\"q4_0 2x32\""),
    Bad("transposed", "\"q8_0 32x2\""), Bad("no elements", "\"q8_0 0x0\""),
    Bad("I8", "\"q8_0 2x32\"", dtype: "I8"), Bad("F32", "\"q8_0 2x32\"", dtype: "F32", shape: "[17]"),
    Bad("rank 1", "\"q8_0 2x32\"", shape: "[68]"), Bad("rank 3", "\"q8_0 2x32\"", shape: "[2,34,1]"),
    Bad("rank 0", "\"q8_0 1x32\"", shape: "[]", size: 1),
    Bad(
      "missing tensor",
      metadata: #""quern.quantization.version":"1","quern.quantization.tensors.b":"q8_0 2x32""#,
      field: "tensors.__metadata__.quern.quantization.tensors.b"),
    Bad("no version", metadata: "\"\(key)\":\"q8_0 2x32\"", field: "tensors.__metadata__.\(key)"),
    Bad(
      "version 2", metadata: "\"\(key)\":\"q8_0 2x32\",\"quern.quantization.version\":\"2\"",
      field: "tensors.__metadata__.quern.quantization.version"),
    Bad(
      "version is a number", metadata: "\"quern.quantization.version\":1",
      field: "tensors.__metadata__.quern.quantization.version"),
    Bad(
      "unknown key", metadata: #""quern.quantization.version":"1","quern.quantization.groups":"4""#,
      field: "tensors.__metadata__.quern.quantization.groups"),
    Bad(
      "entry twice",
      metadata: "\"quern.quantization.version\":\"1\",\"\(key)\":\"q8_0 2x32\",\"\(key)\":\"q8_0 2x32\"",
      field: "tensors.__metadata__.\(key)"),
  ]

  @Test(arguments: bad) func refuses(_ bad: Bad) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("bad.safetensors", bad.bytes)
    let error = try #require(modelError { _ = try Safetensors(path: path) }, "was accepted")
    #expect(error.file == path && error.field == bad.field, "\(error)")
    let offset = try #require(error.offset)
    #expect(offset > 8 && offset < bad.bytes.count && !error.reason.isEmpty)
  }

  @Test func theGoodFileOfTheseCasesIsAccepted() throws {
    let folder = try TemporaryFolder()
    let good = Bad("good", "\"q8_0 2x32\"")
    let info = try Safetensors(path: folder.write("g.safetensors", good.bytes)).info("a")
    #expect(info.quantization == TensorInfo.Quantization(format: .q8, outputs: 2, inputs: 32))
    #expect(info.shape == [2, 34] && info.elementCount == 68)
    // Metadata of others is theirs.
    let other = Bad("other", metadata: #""quern.other":"x","quantization":"y""#, field: "")
    #expect(try Safetensors(path: folder.write("o.safetensors", other.bytes)).info("a").quantization == nil)
  }

  // MARK: Models

  /// A quantised model whose file is written again with other bytes in the header, of the same length.
  private func model(
    _ format: QuantizedFormat = .q8, replacing old: String = "", with new: String = ""
  ) throws -> TemporaryFolder {
    let (input, folder) = (try RandomModel().folder(), try TemporaryFolder())
    _ = try ModelQuantizer(model: input.path, as: .blocks(format)).write(to: folder.path)
    guard !old.isEmpty else { return folder }
    #expect(old.utf8.count == new.utf8.count)
    var bytes = try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/model.safetensors"))
    let range = try #require(bytes.range(of: Data(old.utf8)))
    bytes.replaceSubrange(range, with: Data(new.utf8))
    try folder.write("model.safetensors", bytes)
    return folder
  }

  private func failure(_ folder: TemporaryFolder) -> ModelError? {
    modelError { _ = try EncoderModel(directory: folder.path, context: Context("reference")) }
  }

  @Test func bytesWithoutMetadataAreRefused() throws {
    // All of it lost: the key of the version, then those of the tensors.
    let folder = try model()
    var bytes = try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/model.safetensors"))
    while let range = bytes.range(of: Data("quern.quantization".utf8)) {
      bytes.replaceSubrange(range, with: Data("other.quantization".utf8))
    }
    try folder.write("model.safetensors", bytes)
    let error = failure(folder)
    #expect(
      error?.field == "tensors.\(RandomModel.query).dtype" && error?.offset != nil, "\(String(describing: error))")
    #expect(error?.reason.contains("metadata") == true)
    #expect(error?.file.hasPrefix(folder.path) == true)
  }

  @Test func metadataOfAMissingTensorIsRefused() throws {
    let key = "quern.quantization.tensors.\(RandomModel.query)"
    let folder = try model(replacing: "\"\(key)\"", with: "\"\(key.dropLast())z\"")
    let error = failure(folder)
    #expect(error?.field == "tensors.__metadata__.\(key.dropLast())z" && error?.offset != nil)
    #expect(error?.file == "\(folder.path)/model.safetensors")
  }

  /// Matrices of one layer that are stored differently are products of their own, near the model they were made from.
  @Test func tensorsOfALayerMayBeStoredDifferently() throws {
    let (plain, q8, q4) = (try RandomModel().folder(), try model(.q8), try model(.q4))
    let configuration = try EncoderConfiguration(HubConfig(directory: plain.path))
    func output(_ source: any TensorSource) throws -> [Float] {
      let model = try EncoderModel(configuration, source: source, file: "x", context: Context("reference"))
      return try model.forward(EncoderBatch([[1, 2, 3, 4, 5]]), workspace: EncoderModel.Workspace()).elements
    }
    let expected = try output(SafetensorsDirectory(path: plain.path))
    let largest = expected.map(abs).max() ?? 0
    for (name, other) in [("key", q4), ("key", plain), ("query", plain)] {
      let source = Mixed(
        sources: [try SafetensorsDirectory(path: q8.path), try SafetensorsDirectory(path: other.path)],
        taken: ["encoder.layer.0.attention.self.\(name).weight"])
      let difference = zip(try output(source), expected).map { abs($0 - $1) }.max() ?? .infinity
      #expect(difference > 0 && difference < 0.05 * largest, "\(name): \(difference) of \(largest)")
    }
  }

  @Test func blocksInPlaceOfATableAreRefused() throws {
    let (plain, q8) = (try RandomModel().folder(), try model(.q8))
    let configuration = try EncoderConfiguration(HubConfig(directory: plain.path))
    func failure(_ source: Mixed) -> ModelError? {
      modelError { _ = try EncoderModel(configuration, source: source, file: "x", context: Context("reference")) }
    }
    // Query's blocks under the name of an embedding table.
    let error = failure(
      Mixed(
        sources: [try SafetensorsDirectory(path: plain.path), try SafetensorsDirectory(path: q8.path)],
        taken: ["embeddings.token_type_embeddings.weight"], renamed: RandomModel.query))
    #expect(error?.field == "tensors.embeddings.token_type_embeddings.weight" && error?.offset != nil)
    #expect(error?.reason.contains("linear") == true)
  }

  @Test func anotherConfigurationIsRefused() throws {
    let folder = try model()
    try folder.write("config.json", RandomModel(inner: 128).config.utf8)
    let error = failure(folder)
    #expect(error?.field == "tensors.encoder.layer.0.intermediate.dense.weight.shape" && error?.offset != nil)
    #expect(error?.reason.contains("[96, 64]") == true && error?.reason.contains("[128, 64]") == true)
  }

  /// Some tensors from the second source, perhaps under the name of another.
  private struct Mixed: TensorSource {
    let sources: [any TensorSource]
    let taken: Set<String>
    var renamed: String?
    var path: String { sources[0].path }
    var tensorNames: [String] { sources[0].tensorNames }

    private func place(_ name: String) -> (any TensorSource, String) {
      taken.contains(name) ? (sources[1], renamed ?? name) : (sources[0], name)
    }
    func info(_ name: String) throws(ModelError) -> TensorInfo { try place(name).0.info(place(name).1) }
    func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
      try place(name).0.readFloat32(place(name).1, into: destination)
    }
    func readInt64(_ name: String) throws(ModelError) -> [Int64] { try place(name).0.readInt64(place(name).1) }
    func readBytes(_ name: String) throws(ModelError) -> FileBytes { try place(name).0.readBytes(place(name).1) }
  }
}

import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// A model written in fewer bits, and what comes of running it.
@Suite struct QuantizedModelTests {
  private static let formats = QuantizedFormat.allCases
  private static let backends = Parity.backends

  /// A model, and where it is written in another storage.
  private struct Pair {
    let input: TemporaryFolder
    let place: TemporaryFolder
    let report: QuantizationReport
    var output: String { place.path + "/out" }

    init(_ model: RandomModel, _ storage: WeightStorage) throws {
      (input, place) = (try model.folder(), try TemporaryFolder())
      report = try ModelQuantizer(model: input.path, as: storage).write(to: place.path + "/out")
    }
  }

  /// One whose inputs are whole blocks.
  private static func model(for storage: WeightStorage) -> RandomModel {
    storage.granularity == 256 ? RandomModel(hidden: 256, inner: 512, layers: 1) : RandomModel()
  }

  @Test(arguments: formats) func exactlyTheMatricesOfLinearLayersAreBlocks(_ format: QuantizedFormat) throws {
    let model = Self.model(for: .blocks(format))
    let pair = try Pair(model, .blocks(format))
    let (before, after) = (try SafetensorsDirectory(path: pair.input.path), try SafetensorsDirectory(path: pair.output))
    #expect(Set(before.tensorNames) == Set(after.tensorNames))
    for name in before.tensorNames {
      let (old, new) = (try before.info(name), try after.info(name))
      guard model.linears[name] != nil else {
        #expect(new.dtype == old.dtype && new.shape == old.shape && new.quantization == nil)
        let (a, b) = (try before.readBytes(name), try after.readBytes(name))
        #expect(a.withUnsafeBytes { a in b.withUnsafeBytes { a.elementsEqual($0) } }, "\(name)")
        continue
      }
      #expect(new.dtype == .u8 && new.shape == [old.shape[0], old.shape[1] / format.blockSize * format.blockBytes])
      let weights = try Tensor(before.readFloat32(name), shape: Shape(checking: old.shape))
      let expected = try QuantizedMatrix(quantizing: weights.view, as: format)
      let found = try #require(try RandomModel.blocks(name, after))
      #expect(found.outputs == old.shape[0] && found.inputs == old.shape[1] && found.format == format)
      #expect(expected.withBlocks { expected in found.withBlocks { $0.elementsEqual(expected) } }, "\(name)")
    }
    let metadata = try Safetensors(path: "\(pair.output)/model.safetensors").metadata
    #expect(metadata["format"] == "pt" && metadata["quern.quantization.version"] == "1")
    #expect(
      metadata["quern.quantization.tensors.\(RandomModel.query)"]
        == "\(format.rawValue) \(model.hidden)x\(model.hidden)")
    #expect(metadata.count == 2 + model.linears.count)
  }

  /// The reference sums in Double what the blocks stand for: the same bits. Others round x to 16 bits in each of 4 products a
  /// layer, each x by 2^-16 of the largest of its run.
  @Test(arguments: formats, backends)
  func itComputesWhatItsBlocksStandFor(_ format: QuantizedFormat, _ backend: String) throws {
    let model = Self.model(for: .blocks(format))
    let pair = try Pair(model, .blocks(format))
    let plain = try RandomModel.dequantized(pair.output)
    let expected = try RandomModel.output(plain.path)
    let found = try RandomModel.output(pair.output, on: backend)
    guard backend != "reference" else { return #expect(found.map(\.bitPattern) == expected.map(\.bitPattern)) }
    let largest = expected.map(abs).max() ?? 0
    let difference = zip(found, expected).map { abs($0 - $1) }.max() ?? .infinity
    #expect(
      found.count == expected.count && difference <= Float(4 * model.layers) * 0x1p-16 * largest,
      "\(difference) of \(largest)")
  }

  /// The output moves as much as independent errors of its products add up to: 4 products a layer, each of the relative
  /// error of its weights; a norm after each pair of them keeps hidden states at one size. Twice that allows for chance.
  @Test(arguments: WeightStorage.allCases) func itStaysNearTheModelItWasMadeFrom(_ storage: WeightStorage) throws {
    let model = Self.model(for: storage)
    let pair = try Pair(model, storage)
    let (a, b) = (try RandomModel.output(pair.input.path), try RandomModel.output(pair.output))
    let distance = zip(a, b).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }.squareRoot()
    let size = a.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
    let relative = pair.report.matrices.map(\.relativeError).max() ?? 0
    let bound = 2 * Double(4 * model.layers).squareRoot() * relative
    #expect(distance > 0 && distance <= bound * size, "\(distance / size), bound \(bound)")
  }

  @Test(arguments: formats, [DataType.bf16, .f16])
  func hiddenStatesMayBeNarrow(_ format: QuantizedFormat, _ precision: DataType) throws {
    let pair = try Pair(Self.model(for: .blocks(format)), .blocks(format))
    let expected = try RandomModel.output(pair.output, precision: precision)
    let found = try RandomModel.output(pair.output, on: "multithreaded", precision: precision)
    let largest = expected.map(abs).max() ?? 0
    let difference = zip(found, expected).map { abs($0 - $1) }.max() ?? .infinity
    // A sum that falls on the other side of a rounding moves by a whole place; some 10 roundings a layer follow.
    #expect(Double(difference) <= 20 * 2 * precision.unitRoundoff * Double(largest), "\(difference) of \(largest)")
  }

  @Test func bf16IsTheWeightsRoundedOnce() throws {
    let model = RandomModel()
    let pair = try Pair(model, .bf16)
    let (before, after) = (try SafetensorsDirectory(path: pair.input.path), try SafetensorsDirectory(path: pair.output))
    for name in before.tensorNames where try before.info(name).dtype == .f32 {
      let isLinear = model.linears[name] != nil
      #expect(try after.info(name).dtype == (isLinear ? .bf16 : .f32))
      let old = try before.readFloat32(name)
      let expected = isLinear ? try Tensor(old).converted(to: .bf16).elements : old
      #expect(try after.readFloat32(name) == expected, "\(name)")
    }
    #expect(try Safetensors(path: "\(pair.output)/model.safetensors").metadata == ["format": "pt"])
    // Rounding again changes nothing.
    let again = pair.place.path + "/again"
    let report = try ModelQuantizer(model: pair.output, as: .bf16).write(to: again)
    #expect(report.matrices.count == model.linears.count && report.matrices.allSatisfy { $0.largestError == 0 })
    let files = ["\(pair.output)/model.safetensors", "\(again)/model.safetensors"]
    #expect(FileManager.default.contentsEqual(atPath: files[0], andPath: files[1]))
    // From bf16 to blocks: what the rounded weights give.
    let blocks = pair.place.path + "/blocks"
    _ = try ModelQuantizer(model: pair.output, as: .blocks(.q8)).write(to: blocks)
    let source = try SafetensorsDirectory(path: blocks)
    let rounded = try Tensor(after.readFloat32(RandomModel.query), shape: Shape(64, 64))
    let expected = try QuantizedMatrix(quantizing: rounded.view, as: .q8)
    let found = try #require(try RandomModel.blocks(RandomModel.query, source))
    #expect(expected.withBlocks { expected in found.withBlocks { $0.elementsEqual(expected) } })
  }

  @Test func inputsThatAreNoMultipleOf32StayAsTheyAre() throws {
    let model = RandomModel(inner: 80)
    let pair = try Pair(model, .blocks(.q4))
    #expect(Set(pair.report.kept.map(\.name)) == Set(model.linears.filter { $0.value == 80 }.keys))
    #expect(pair.report.kept.allSatisfy { $0.reason.contains("80") && $0.reason.contains("32") })
    let source = try SafetensorsDirectory(path: pair.output)
    for (name, inputs) in model.linears { #expect(try (source.info(name).quantization != nil) == (inputs == 64)) }
    #expect(try !RandomModel.output(pair.output).isEmpty)
    #expect(try Pair(model, .bf16).report.kept.isEmpty)
  }

  @Test(arguments: ["", "bert."]) func theReportAddsUp(_ prefix: String) throws {
    let model = RandomModel(prefix: prefix)
    let pair = try Pair(model, .blocks(.q8))
    let report = pair.report
    #expect(report.storage == "q8_0" && Set(report.matrices.map(\.name)) == Set(model.linears.keys))
    #expect(report.otherTensors == model.tensors().count - model.linears.count && report.kept.isEmpty)
    func size(_ folder: String) throws -> Int { try Data(contentsOf: URL(fileURLWithPath: folder)).count }
    #expect(try report.bytesBefore == size("\(pair.input.path)/model.safetensors"))
    #expect(try report.bytesAfter == size("\(pair.output)/model.safetensors"))
    for matrix in report.matrices {
      #expect(matrix.bytesBefore == matrix.outputs * matrix.inputs * 4)
      #expect(matrix.bytesAfter == matrix.outputs * matrix.inputs / 32 * 34)
      #expect(matrix.largestError > 0 && matrix.largestError <= QuantizedFormat.q8.largestError)
      #expect(matrix.relativeError > 0 && matrix.relativeError < 0.01)
    }
  }

  @Test(arguments: [WeightStorage.blocks(.q8), .bf16]) func shardsStayShards(_ storage: WeightStorage) throws {
    let model = RandomModel(shards: 3)
    let pair = try Pair(model, storage)
    let names = (0..<3).map { "parts/model-\($0).safetensors" }
    for name in names {
      let (before, after) = (
        try Safetensors(path: "\(pair.input.path)/\(name)"), try Safetensors(path: "\(pair.output)/\(name)")
      )
      #expect(Set(before.tensorNames) == Set(after.tensorNames))
    }
    struct Index: Decodable {
      let metadata: [String: Int]
      let weightMap: [String: String]
      enum CodingKeys: String, CodingKey { case metadata, weightMap = "weight_map" }
    }
    let index = try JSONDecoder().decode(
      Index.self, from: Data(contentsOf: URL(fileURLWithPath: "\(pair.output)/model.safetensors.index.json")))
    let source = try SafetensorsDirectory(path: pair.output)
    #expect(Set(index.weightMap.keys) == Set(source.tensorNames) && Set(index.weightMap.values) == Set(names))
    let sizes = try source.tensorNames.map { try source.info($0).byteRange.count }
    #expect(index.metadata["total_size"] == sizes.reduce(0, +))
    let single = try Pair(RandomModel(), storage)
    #expect(try RandomModel.output(pair.output) == RandomModel.output(single.output))
  }

  @Test func whatLoadersReadIsCopiedAndTheRestIsNot() throws {
    let pair = try Pair(RandomModel(), .blocks(.q8))
    #expect(
      RandomModel.everything(pair.output) == [
        "1_Pooling", "1_Pooling/config.json", "config.json", "model.safetensors", "vocab.txt",
      ])
    for name in ["1_Pooling/config.json", "config.json", "vocab.txt"] {
      #expect(
        FileManager.default.contentsEqual(atPath: "\(pair.input.path)/\(name)", andPath: "\(pair.output)/\(name)"))
    }
  }

  /// Bounds as in ``itStaysNearTheModelItWasMadeFrom``, with the relative errors that the report gives for these weights.
  @Test(
    .enabled(if: Fixture.miniLM != nil, "needs all-MiniLM-L6-v2: run `make model`"),
    arguments: [QuantizedFormat.q8, .q4])
  func sentenceEmbeddingsStayClose(_ format: QuantizedFormat) throws {
    let folder = try TemporaryFolder()
    let quantizer = try ModelQuantizer(model: #require(Fixture.miniLM), as: .blocks(format))
    let report = try quantizer.write(to: folder.path)
    let relative = report.matrices.map(\.relativeError).max() ?? 0
    let rows = try EmbeddingTests.rows()
    let vectors = try SentenceEmbedder(directory: folder.path, context: Context()).embed(rows.map(\.text))
    var largest = 0.0
    for (vector, row) in zip(vectors, rows) {
      let squares = zip(vector, row.embedding).reduce(0) { $0 + (Double($1.0) - $1.1) * (Double($1.0) - $1.1) }
      largest = max(largest, squares.squareRoot())
    }
    let bound = 2 * (4.0 * 6).squareRoot() * relative
    print("\(format.rawValue): largest distance from PyTorch's f64 vectors \(largest), bound \(bound)")
    #expect(largest > 0 && largest < bound)
  }
}

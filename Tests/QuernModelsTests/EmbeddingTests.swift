import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// all-MiniLM-L6-v2 from its published directory, against PyTorch's vectors (tools/fixtures/minilm_embeddings.py).
@Suite(.enabled(if: Fixture.miniLM != nil, "needs all-MiniLM-L6-v2: run `make model` or set QUERN_MODEL_DIR"))
struct EmbeddingTests {
  struct Row: Decodable {
    let text: String
    let ids: [Int32]
    let embedding: [Double]
  }

  static func rows() throws -> [Row] { try Fixture.decode([Row].self, "embeddings/minilm.json") }

  @Test(arguments: Parity.backends) func agreesWithPyTorch(_ backend: String) throws {
    let embedder = try SentenceEmbedder(directory: #require(Fixture.miniLM), context: Context(backend))
    #expect(embedder.maximumLength == 256 && embedder.normalizes && embedder.pooling == .mean)
    let rows = try Self.rows()
    for row in rows { #expect(try embedder.tokens(row.text) == row.ids) }
    let vectors = try embedder.embed(rows.map(\.text))
    var largest = 0.0
    for (vector, row) in zip(vectors, rows) {
      #expect(vector.count == row.embedding.count)
      for (ours, theirs) in zip(vector, row.embedding) { largest = max(largest, abs(Double(ours) - theirs)) }
    }
    print("\(backend): largest difference from PyTorch \(largest)")
    #expect(largest < 2e-6)
  }

  /// Each of some 30 roundings of a hidden state to bf16 moves a unit vector by about 2^-9 / sqrt(3).
  @Test(arguments: [(DataType.bf16, 0.03), (.f16, 0.004)]) func narrowStorageStaysClose(
    _ precision: DataType, _ bound: Double
  ) throws {
    let embedder = try SentenceEmbedder(directory: #require(Fixture.miniLM), context: Context(), precision: precision)
    let rows = try Self.rows()
    let vectors = try embedder.embed(rows.map(\.text))
    var largest = 0.0
    for (vector, row) in zip(vectors, rows) {
      let squares = zip(vector, row.embedding).reduce(0) { $0 + (Double($1.0) - $1.1) * (Double($1.0) - $1.1) }
      largest = max(largest, squares.squareRoot())
    }
    print("\(precision): largest distance from PyTorch's f64 vectors \(largest)")
    #expect(largest < bound && largest > 0)
  }

  @Test func batchesDoNotChangeAVector() throws {
    let embedder = try SentenceEmbedder(directory: #require(Fixture.miniLM), context: Context())
    let texts = (0..<40).map { index in "sentence \(index) " + String(repeating: "of words ", count: index % 9) }
    let whole = try embedder.embed(texts)
    let small = try embedder.embed(texts, tokensPerPass: 1)
    #expect(whole == small)
  }

  @Test func theToolPrintsTheSameVectors() throws {
    let directory = try #require(Fixture.miniLM)
    let rows = try Self.rows().filter { !$0.text.isEmpty }
    let lines = rows.map { $0.text + "\n" }.joined()
    let output = try BuiltProgram("quern").run(
      ["embed", "--model", directory, "--format", "json"], input: Data(lines.utf8))
    #expect(output.status == 0, "\(output.standardError)")
    let printed = output.standardOutput.split(separator: "\n")
    #expect(printed.count == rows.count)
    for (line, row) in zip(printed, rows) {
      let found = try JSONDecoder().decode(Row.Printed.self, from: Data(line.utf8))
      #expect(found.text == row.text)
      #expect(zip(found.embedding, row.embedding).allSatisfy { abs($0 - $1) < 2e-6 })
    }
  }
}

extension EmbeddingTests.Row {
  struct Printed: Decodable {
    let text: String
    let embedding: [Double]
  }
}

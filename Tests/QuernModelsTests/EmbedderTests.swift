import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Sentence-transformers directories of encoders and of a decoder, against what PyTorch and the tokenizers package make of them
/// (tools/fixtures/tiny_embedders.py).
@Suite struct EmbedderTests {
  struct Row: Decodable {
    let text: String
    let prompt: String?
    let ids: [Int32]
    let embedding: [Float]
  }

  static let models = ["qwen3", "roberta", "xlm-roberta"]

  private static func directory(_ model: String) -> String { Fixture.path("embedders/\(model)") }

  @Test(arguments: Parity.backends, models) func agreesWithPyTorch(_ backend: String, _ model: String) throws {
    let embedder = try SentenceEmbedder(directory: Self.directory(model), context: Context(backend))
    let rows = try Fixture.decode([Row].self, "embedders/\(model)/expected.json")
    for row in rows { #expect(try embedder.tokens(row.text, prompt: row.prompt) == row.ids, "\(row.text)") }
    for prompt in Set(rows.map(\.prompt)) {
      let those = rows.filter { $0.prompt == prompt }
      let vectors = try embedder.embed(those.map(\.text), prompt: prompt)
      let difference = try Parity.difference(vectors.flatMap { $0 }, those.flatMap(\.embedding))
      print("\(backend), \(model), \(prompt ?? "no prompt"): largest difference \(difference) of the largest value")
      #expect(difference <= 1e-5)
    }
  }

  @Test func theDirectorySaysHowVectorsAreMade() throws {
    let qwen = try SentenceEmbedder(directory: Self.directory("qwen3"), context: Context())
    #expect(qwen.pooling == .lastToken && qwen.normalizes && qwen.maximumLength == 24 && qwen.dimension == 16)
    #expect(qwen.prompts.keys.sorted() == ["document", "query"] && qwen.defaultPrompt == nil)
    let xlmr = try SentenceEmbedder(directory: Self.directory("xlm-roberta"), context: Context())
    #expect(xlmr.pooling == .cls && !xlmr.normalizes && xlmr.defaultPrompt == "passage")
    let plain = try TemporaryFolder(
      copying: ["config.json", "model.safetensors", "tokenizer.json"], of: Self.directory("roberta"))
    // 40 positions, of which RoBERTa's begin behind those of padding.
    #expect(try SentenceEmbedder(directory: plain.path, context: Context()).maximumLength == 38)
  }

  /// Newer directories name one mode.
  @Test(arguments: [("mean", SentenceEmbedder.Pooling.mean), ("cls", .cls), ("lasttoken", .lastToken)])
  func poolingByOneNameIsRead(_ name: String, _ pooling: SentenceEmbedder.Pooling) throws {
    let folder = try Self.copy("qwen3")
    try folder.write("1_Pooling/config.json", "{\"pooling_mode\": \"\(name)\"}".utf8)
    #expect(try SentenceEmbedder(directory: folder.path, context: Context()).pooling == pooling)
    try folder.replace(name, with: "weightedmean", in: "1_Pooling/config.json")
    let error = modelError { _ = try SentenceEmbedder(directory: folder.path, context: Context()) }
    #expect(error?.reason.contains("weightedmean") == true)
  }

  @Test(arguments: models) func batchesDoNotChangeAVector(_ model: String) throws {
    let embedder = try SentenceEmbedder(directory: Self.directory(model), context: Context())
    let texts = (0..<20).map { "text \($0) " + String(repeating: "of words ", count: $0 % 7) }
    #expect(try embedder.embed(texts) == embedder.embed(texts, tokensPerPass: 1))
  }

  @Test func textsWithoutTokensAreRefusedWhereOneIsNeeded() throws {
    let folder = try Self.copy("qwen3")
    try folder.write("tokenizer.json", Data(contentsOf: URL(fileURLWithPath: Fixture.path("tokenizers/qwen2.json"))))
    let embedder = try SentenceEmbedder(directory: folder.path, context: Context())
    let error = #expect(throws: QuernError.self) { try embedder.embed(["some", "", "more"]) }
    #expect("\(String(describing: error))".contains("text 1"))
  }

  @Test func theToolTakesAPrompt() throws {
    let (directory, rows) = (Self.directory("qwen3"), try Fixture.decode([Row].self, "embedders/qwen3/expected.json"))
    let row = try #require(rows.first { $0.prompt == "query" })
    let output = try BuiltProgram("quern").run(["embed", "--model", directory, "--prompt", "query", row.text])
    #expect(output.status == 0, "\(output.standardError)")
    let vector = output.standardOutput.split(whereSeparator: \.isWhitespace).compactMap { Float($0) }
    #expect(try Parity.difference(vector, row.embedding) <= 1e-5)
    let unknown = try BuiltProgram("quern").run(["embed", "--model", directory, "--prompt", "haiku", "x"])
    #expect(unknown.status == 1 && unknown.standardError.contains("prompts.haiku"))
    #expect(unknown.standardError.contains("document, query"))
  }

  /// Each change to a file, and the field that the error must name.
  @Test(arguments: [
    ("1_Pooling/config.json", "\"pooling_mode_lasttoken\": true", "\"pooling_mode_max_tokens\": true", "max_tokens"),
    ("1_Pooling/config.json", "\"include_prompt\": true", "\"include_prompt\": false", "include_prompt"),
    ("config_sentence_transformers.json", "\"document\": \"\"", "\"document\": 7", "prompts.document"),
    (
      "config_sentence_transformers.json", "\"default_prompt_name\": null", "\"default_prompt_name\": \"x\"", "default_"
    ),
    ("modules.json", "models.Normalize", "models.Dense", "Dense"),
    ("config.json", "\"vocab_size\": 904", "\"vocab_size\": 903", "embed_tokens"),
  ])
  func whatIsNotImplementedIsNamed(_ file: String, _ old: String, _ new: String, _ field: String) throws {
    let folder = try Self.copy("qwen3")
    try folder.replace(old, with: new, in: file)
    let error = try #require(modelError { _ = try SentenceEmbedder(directory: folder.path, context: Context()) })
    #expect(error.field.contains(field) || error.reason.contains(field), "\(error)")
  }

  /// The head, which the files lack, is nothing that quantising needs.
  @Test func aQuantisedEmbedderStaysClose() throws {
    let (directory, folder) = (Self.directory("qwen3"), try TemporaryFolder())
    let report = try ModelQuantizer(model: directory, as: .bf16).write(to: folder.path)
    #expect(report.matrices.count == 14)
    let texts = ["A man is eating food."]
    let vectors = try [directory, folder.path].map {
      try SentenceEmbedder(directory: $0, context: Context()).embed(texts, prompt: "query")
    }
    #expect(vectors[0] == vectors[1])  // the weights were bf16 before
  }

  private static func copy(_ model: String) throws -> TemporaryFolder {
    let names = [
      "config.json", "model.safetensors", "tokenizer.json", "modules.json", "sentence_bert_config.json",
      "config_sentence_transformers.json", "1_Pooling/config.json",
    ]
    return try TemporaryFolder(copying: names, of: directory(model))
  }
}

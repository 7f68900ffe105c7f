import Quern
import QuernModels
import QuernTesting
import Testing

/// What README.md shows a model user: compiled, run where the model is here, and the same text.
@Suite struct ReadmeModelTests {
  @Test(.enabled(if: Fixture.miniLM != nil, "needs all-MiniLM-L6-v2: make model, or QUERN_MODEL_DIR set to its folder"))
  func theModelSnippetRuns() throws {
    let directory = try #require(Fixture.miniLM)
    // readme:model
    let embedder = try SentenceEmbedder(directory: directory, context: Context())
    let texts = ["A cat sits on the mat.", "A kitten rests on the rug.", "Interest rates rose again."]
    let vectors = try embedder.embed(texts)  // unit vectors of embedder.dimension elements
    let similarities: [Float] = vectors.map { vector in
      zip(vectors[0], vector).reduce(0) { $0 + $1.0 * $1.1 }
    }
    print(similarities)  // the first text with each of the three
    // readme:end

    #expect(vectors.count == 3 && vectors.allSatisfy { $0.count == embedder.dimension })
    #expect(abs(similarities[0] - 1) < 1e-5)
    #expect(similarities[1] > similarities[2] + 0.2)
  }

  @Test func theReadmeShowsTheModelSnippet() throws {
    #expect(
      try ReadmeSnippet.isShown("model", in: #filePath),
      "README.md lacks the lines between // readme:model and // readme:end, in this order")
  }
}

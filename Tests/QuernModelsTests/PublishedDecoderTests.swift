import Foundation
import QuernTesting
import Testing

/// SmolLM2-135M-Instruct, as it is published in Q4_1, against llama.cpp 0.3.36 on the same weights in f32.
@Suite(.enabled(if: Fixture.smolLM != nil, "needs SmolLM2-135M-Instruct: run `make language-model`"))
struct PublishedDecoderTests {
  private static let prompt = "6403 1980 253 655 28 281 253 1165 6560 411 260 3426 28"
  private static let continued = """
    665 436 253 9357 1573 267 19341 3365 17644 793 30 909 4161 281 253 11637 10000 411 253 3953 4480 4412 351 511 11695 282 9077 6734 30 198 198 \
    1082 270 793 436 1343 327 650 11347 284 26677 30 909 761 253 1767 10274 28 253 9077 4504 338 856 724 967 617 592 6118 30 909 4161 281 253 \
    1165 31039 28 284 2573 281 260 6560 5341 563 1272 30 198 198 2705 1194 28
    """

  private func generate(_ arguments: String...) throws -> String {
    let model = try #require(Fixture.smolLM)
    let output = try BuiltProgram("quern").run(["generate", "--model", model] + arguments)
    #expect(output.status == 0, "\(output.standardError)")
    return output.standardOutput.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  @Test func eightyTokensAreThoseOfLlamaCpp() throws {
    #expect(try generate("--ids", Self.prompt, "--max-tokens", "80") == Self.continued)
    #expect(
      try generate("Once upon a time, in a small village by the sea,", "--max-tokens", "9").hasPrefix(
        "there was a wise old wizard"))
  }

  @Test func itAnswersThroughItsTemplate() throws {
    #expect(try generate("--chat", "What is the capital of France?") == "The capital of France is Paris.")
  }
}

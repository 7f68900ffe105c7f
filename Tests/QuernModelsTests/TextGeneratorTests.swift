import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// Text in, text out, from a directory with a tokenizer and random weights.
@Suite struct TextGeneratorTests {
  /// A Llama of one layer with the vocabulary of a tokenizer fixture.
  static func folder(_ tokenizer: String = "llama3", positions: Int = 256) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    let path = Fixture.path("tokenizers/\(tokenizer).json")
    let rows = Int(try HubTokenizer(path: path).largestID) + 1
    try folder.write("tokenizer.json", Array(Data(contentsOf: URL(fileURLWithPath: path))))
    try folder.write(
      "config.json",
      Array(
        """
        {"model_type": "llama", "vocab_size": \(rows), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": \(positions), "rms_norm_eps": 1e-6,
         "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": null}
        """.utf8))
    var random = SeededRandom()
    func tensor(_ name: String, _ shape: [Int], around centre: Float = 0) -> Safetensors.NewTensor {
      let values = (0..<shape.reduce(1, *)).map { _ in centre + 0.3 * random.normal() }
      return .init(name: "model.\(name).weight", shape: shape, values: .float32(values))
    }
    var tensors = [tensor("embed_tokens", [rows, 32]), tensor("norm", [32], around: 1)]
    for (name, shape) in [
      ("self_attn.q_proj", [32, 32]), ("self_attn.k_proj", [16, 32]), ("self_attn.v_proj", [16, 32]),
      ("self_attn.o_proj", [32, 32]), ("mlp.gate_proj", [48, 32]), ("mlp.up_proj", [48, 32]),
      ("mlp.down_proj", [32, 48]),
    ] { tensors.append(tensor("layers.0.\(name)", shape)) }
    for name in ["input_layernorm", "post_attention_layernorm"] {
      tensors.append(tensor("layers.0.\(name)", [32], around: 1))
    }
    try Safetensors.write(path: folder.path + "/model.safetensors", tensors: tensors)
    return folder
  }

  private static func generator(positions: Int = 256) throws -> TextGenerator {
    let folder = try folder(positions: positions)
    return try withExtendedLifetime(folder) { try TextGenerator(path: folder.path, context: Context()) }
  }

  private static func options(_ count: Int, stop: [String] = []) -> TextGenerator.Options {
    TextGenerator.Options(
      generation: GenerationOptions(
        maximumTokens: count, sampling: SamplingOptions(temperature: 1, seed: 11), stopIDs: []),
      stopStrings: stop)
  }

  @Test func theStreamIsWhatTheTokensDecodeTo() async throws {
    let generator = try Self.generator()
    var (text, tokens, finish) = ("", [Int32](), FinishReason?.none)
    for try await piece in generator.stream("Once upon a time, Ärger 👩‍🚀", options: Self.options(60)) {
      text += piece.text
      if let token = piece.token { tokens.append(token) }
      finish = piece.finish
    }
    #expect(tokens.count == 60 && finish == .length)
    #expect(try text == generator.tokenizer.decode(tokens))
    // The same seed, another task: the same text; a stop string cuts it.
    let stop = String(text.dropFirst(text.count / 2).prefix(3))
    var cut = ""
    for try await piece in generator.stream(
      "Once upon a time, Ärger 👩‍🚀", options: Self.options(60, stop: [stop]))
    {
      cut += piece.text
      finish = piece.finish
    }
    #expect(finish == .stopString)
    #expect(text.utf8.starts(with: cut.utf8) && !cut.contains(stop))
  }

  /// The work holds the generator until it ends; all of it would take far longer than the limit.
  @Test(.timeLimit(.minutes(2)), arguments: [false, true]) func leavingTheLoopEndsTheWork(_ cancels: Bool) async throws
  {
    var generator: TextGenerator? = try Self.generator(positions: 200_000)
    weak let work = generator
    let task = Task { [generator] in
      var pieces = 0
      guard let generator else { return pieces }
      for try await _ in generator.stream("a", options: Self.options(190_000)) {
        pieces += 1
        if pieces == 3 {
          if cancels { withUnsafeCurrentTask { $0?.cancel() } } else { break }
        }
      }
      return pieces
    }
    generator = nil
    #expect(try await task.value >= 3)
    while work != nil { try await Task.sleep(for: .milliseconds(5)) }
  }

  @Test func promptsThatDoNotFitAreRefused() async throws {
    let generator = try Self.generator()
    let prompt = [Int32](repeating: 5, count: 300)
    #expect(throws: GenerationError.promptTooLong(tokens: 300, capacity: 256)) {
      try generator.generate(prompt) { _ in }
    }
    var none = Self.options(5)
    none.capacity = 2
    #expect(throws: GenerationError.self) { try generator.generate([5, 6], options: none) { _ in } }
  }

  @Test func aTokenizerOfAnotherModelIsRefused() throws {
    let (folder, larger) = (try Self.folder("falcon"), Fixture.path("tokenizers/llama3.json"))
    try folder.write("tokenizer.json", Array(Data(contentsOf: URL(fileURLWithPath: larger))))
    let error = modelError { _ = try TextGenerator(path: folder.path, context: Context()) }
    #expect(error?.field == "model.vocab" && error?.file.hasSuffix("tokenizer.json") == true)
  }

  @Test func theCommandPrintsTextAndRates() throws {
    let folder = try Self.folder()
    func quern(_ arguments: [String]) throws -> BuiltProgram.Output { try BuiltProgram("quern").run(arguments) }
    let plain = try quern(["generate", "--model", folder.path, "--max-tokens", "8", "--ignore-end", "Hello"])
    #expect(plain.status == 0 && plain.standardError.contains("tokens of prompt at"))
    let json = try quern([
      "generate", "--model", folder.path, "--max-tokens", "8", "--ignore-end", "--format", "json", "Hello",
    ])
    struct Row: Decodable {
      let tokens: [Int32]
      let text: String
      let finish: String
      let promptTokens: Int
      let prefillTokensPerSecond: Double
    }
    let row = try JSONDecoder().decode(Row.self, from: Data(json.standardOutput.utf8))
    #expect(row.tokens.count == 8 && row.finish == "length" && row.promptTokens > 0 && row.prefillTokensPerSecond > 0)
    #expect(plain.standardOutput == row.text + "\n")
    let endless = try quern([
      "generate", "--model", folder.path, "--ids", "5", "--ignore-end", "--max-tokens", "\(Int.max)",
    ])
    #expect(endless.status == 0 && endless.standardOutput.split(separator: " ").count == 256)
    let both = try quern(["generate", "--model", folder.path, "--ids", "1 2", "Hello"])
    #expect(both.status == 2)
    let chat = try quern(["generate", "--model", folder.path, "--chat", "Hello"])
    #expect(
      chat.status == 1 && chat.standardError.contains("chat_template")
        && chat.standardError.split(separator: "\n").count == 1)
  }
}

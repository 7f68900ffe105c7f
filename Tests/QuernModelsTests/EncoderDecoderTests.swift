import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// T5 behind the same generation as decoders: prompts go to the encoder, answers come a token at a time.
@Suite struct EncoderDecoderTests {
  private static func directory(_ name: String) -> String { Fixture.path("t5/\(name)") }

  /// The first input of a fixture, without padding, and its greedy tokens, none of which is the end.
  private static func example(_ name: String) throws -> (prompt: [Int32], greedy: [Int32]) {
    let inputs = try Safetensors(path: "\(directory(name))/inputs.safetensors")
    let (ids, mask) = (try inputs.readInt64("input_ids"), try inputs.readInt64("attention_mask"))
    let length = try inputs.info("input_ids").shape[1]
    let prompt = (0..<length).filter { mask[$0] == 1 }.map { Int32(ids[$0]) }
    let all = try Safetensors(path: "\(directory(name))/expected.safetensors").readInt64("greedy")
    return (prompt, all.prefix(all.count / 2).map { Int32($0) })
  }

  private static func run(
    _ generator: any TokenGenerator, _ prompt: [Int32], _ options: GenerationOptions
  ) throws -> (tokens: [Int32], finish: FinishReason?) {
    _ = try generator.add(prompt, options: options)
    var (tokens, finish) = ([Int32](), FinishReason?.none)
    while !generator.isIdle {
      for event in try generator.step(proceed: {}) {
        if let token = event.token { tokens.append(token) }
        finish = event.finish
      }
    }
    return (tokens, finish)
  }

  @Test(arguments: Parity.backends, T5ModelTests.models)
  func greedyTokensAgreeWithTransformers(_ backend: String, _ name: String) throws {
    let model = try GenerativeModels.load(path: Self.directory(name), context: Context(backend))
    let (prompt, greedy) = try Self.example(name)
    var options = GenerationOptions(maximumTokens: 40, stopIDs: [])
    let generator = try model.tokenGenerator(
      prompt: prompt.count, options: TextGenerator.Options(generation: options))
    // Twice: the second answer must know nothing of the first.
    for _ in 0..<2 {
      let (tokens, finish) = try Self.run(generator, prompt, options)
      #expect(tokens == greedy && finish == .length)
    }
    // A token that comes early ends the text, and is not part of it.
    options.stopIDs = [greedy[5]]
    let (tokens, finish) = try Self.run(generator, prompt, options)
    #expect(tokens == greedy.prefix { $0 != greedy[5] } && finish == .endOfText)
  }

  @Test func aNarrowCacheChangesLittle() throws {
    let model = try T5Model(directory: Self.directory("t5"), context: Context())
    let (prompt, greedy) = try Self.example("t5")
    func logits(_ type: CacheType) throws -> [Float] {
      let workspace = try T5Model.Workspace()
      let state = try model.start(EncoderBatch([prompt]), capacity: 41, cacheType: type, workspace: workspace)
      var all: [Float] = []
      for id in [0] + greedy {
        let hidden = try model.forward([id], segments: Segments(single: 1), state: state, workspace: workspace)
        all += try model.logits(hidden, rows: [0]).elements
      }
      return all
    }
    let wide = try logits(.f32)
    for (type, bound) in [(CacheType.f16, 1e-3), (.bf16, 1e-2), (.int8, 0.02)] as [(CacheType, Float)] {
      let difference = try Parity.difference(logits(type), wide)
      print("t5, \(type): a cache changes logits by \(difference) of the largest")
      #expect(difference > 0 && difference <= bound)
    }
  }

  @Test func badRequestsAreRefused() throws {
    let model = try T5Model(directory: Self.directory("t5"), context: Context())
    let generator = try EncoderDecoderGenerator(model: model, capacity: 4)
    #expect(throws: GenerationError.emptyPrompt) { try generator.add([]) }
    #expect(throws: GenerationError.self) { try generator.add([5], options: GenerationOptions(maximumTokens: 0)) }
    #expect(throws: GenerationError.self) { try EncoderDecoderGenerator(model: model, capacity: 0).add([5]) }
    let first = try generator.add([5, 1])
    #expect(throws: GenerationError.busy(sequences: 1)) { try generator.add([5]) }
    #expect(throws: CancellationError.self) { try generator.step { throw CancellationError() } }
    // Nothing was lost: the answer goes on, as long as there is room.
    #expect(try generator.step().count == 1)
    generator.cancel(first)
    #expect(generator.isIdle)
    #expect(try generator.step().isEmpty)
    #expect(try Self.run(generator, [5, 1], GenerationOptions(stopIDs: [])).tokens.count == 4)
    _ = try generator.add([64])
    #expect(throws: QuernError.self) { try generator.step() }
    let decoder = try DecoderModel(path: Fixture.path("decoders/qwen3"), context: Context())
    #expect(throws: GenerationError.self) {
      try model.tokenGenerator(
        prompt: 1, options: TextGenerator.Options(draft: TextGenerator.Draft(model: decoder)))
    }
    #expect(throws: (any Error).self) {
      try EncoderDecoderGenerator(model: model, capacity: .max).run([5], maximumTokens: .max)
    }
  }

  /// A T5 of one layer with the vocabulary of a tokenizer fixture.
  private static func folder() throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    let path = Fixture.path("tokenizers/t5.json")
    let rows = Int(try HubTokenizer(path: path).largestID) + 1
    try folder.write("tokenizer.json", Array(Data(contentsOf: URL(fileURLWithPath: path))))
    try folder.write(
      "config.json",
      Array(
        """
        {"model_type": "t5", "vocab_size": \(rows), "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
         "relative_attention_num_buckets": 8, "feed_forward_proj": "relu", "eos_token_id": 1, "decoder_start_token_id": 0}
        """.utf8))
    var random = SeededRandom()
    func tensor(_ name: String, _ shape: [Int], around centre: Float = 0) -> Safetensors.NewTensor {
      let values = (0..<shape.reduce(1, *)).map { _ in centre + 0.3 * random.normal() }
      return .init(name: "\(name).weight", shape: shape, values: .float32(values))
    }
    var tensors = [tensor("shared", [rows, 16])]
    for (half, parts) in [("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"])] {
      for (place, part) in (parts + ["DenseReluDense"]).enumerated() {
        let layer = "\(half).block.0.layer.\(place)"
        tensors.append(tensor("\(layer).layer_norm", [16], around: 1))
        if part == "DenseReluDense" {
          tensors += [tensor("\(layer).\(part).wi", [24, 16]), tensor("\(layer).\(part).wo", [16, 24])]
        } else {
          for name in ["q", "k", "v", "o"] { tensors.append(tensor("\(layer).\(part).\(name)", [16, 16])) }
        }
        if part == "SelfAttention" { tensors.append(tensor("\(layer).\(part).relative_attention_bias", [8, 2])) }
      }
      tensors.append(tensor("\(half).final_layer_norm", [16], around: 1))
    }
    try Safetensors.write(path: folder.path + "/model.safetensors", tensors: tensors)
    return folder
  }

  @Test func textStreamsAsFromADecoder() async throws {
    let folder = try Self.folder()
    let generator = try TextGenerator(path: folder.path, context: Context())
    #expect(generator.endOfText == [1])
    let options = TextGenerator.Options(
      generation: GenerationOptions(
        maximumTokens: 24, sampling: SamplingOptions(temperature: 1, repetitionPenalty: 1.2, seed: 5), stopIDs: []))
    var (text, tokens, finish) = ("", [Int32](), FinishReason?.none)
    for try await piece in generator.stream("Once upon a time", options: options) {
      text += piece.text
      if let token = piece.token { tokens.append(token) }
      finish = piece.finish
    }
    #expect(tokens.count == 24 && finish == .length)
    #expect(try text == generator.tokenizer.decode(tokens))
    var again: [Int32] = []
    try generator.generate(generator.encode("Once upon a time"), options: options) {
      again += $0.token.map { [$0] } ?? []
    }
    #expect(again == tokens)
  }

  struct Row: Decodable {
    let tokens: [Int32]
    let text: String?
    let finish: String
    let promptTokens: Int
    let memoryBytes: [String: Int]
  }

  @Test func theCommandAnswers() throws {
    func quern(_ arguments: [String]) throws -> BuiltProgram.Output {
      try BuiltProgram("quern").run(["generate", "--model"] + arguments)
    }
    let (prompt, greedy) = try Self.example("t5-gated")
    let ids = prompt.map { "\($0)" }.joined(separator: " ")
    let arguments = [Self.directory("t5-gated"), "--ids", ids, "--ignore-end", "--max-tokens", "40"]
    let plain = try quern(arguments)
    #expect(plain.status == 0, "\(plain.standardError)")
    #expect(plain.standardOutput == greedy.map { "\($0)" }.joined(separator: " ") + "\n")
    #expect(plain.standardError.contains("tokens/s"))
    let json = try quern(arguments + ["--format", "json", "--cache-type", "int8"])
    let row = try JSONDecoder().decode(Row.self, from: Data(json.standardOutput.utf8))
    #expect(row.tokens.count == 40 && row.finish == "length" && row.promptTokens == prompt.count && row.text == nil)
    // Three layers of four heads of 12: codes and scales of 40 positions, then f32 of the prompt.
    #expect(row.memoryBytes["cache"] == 3 * 2 * 4 * (40 * (12 + 4) + prompt.count * 12 * 4))
    let folder = try Self.folder()
    let text = try quern([folder.path, "--max-tokens", "8", "--format", "json", "Hello there"])
    let answer = try JSONDecoder().decode(Row.self, from: Data(text.standardOutput.utf8))
    #expect(try answer.text == HubTokenizer(path: folder.path + "/tokenizer.json").decode(answer.tokens))
    for (option, text) in [(["--beams", "2"], "has an encoder"), (["--draft", folder.path], "has an encoder")] {
      let refused = try quern([folder.path, "Hello"] + option)
      #expect(refused.status != 0 && refused.standardError.contains(text))
    }
    let huge = try quern([folder.path, "--max-tokens", "\(Int.max)", "Hello"])
    #expect(huge.status == 1 && huge.standardError.contains("of memory"))
  }
}

extension EncoderDecoderGenerator {
  fileprivate func run(_ prompt: [Int32], maximumTokens: Int) throws {
    _ = try add(prompt, options: GenerationOptions(maximumTokens: maximumTokens))
    _ = try step()
  }
}

import ArgumentParser
import Foundation
import Quern
import QuernModels

struct GenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Continues a text.",
    discussion: "Prints the text as it comes, and the rates of prompt and generated tokens on standard error.")

  @Option(help: "A Hugging Face model directory.") var model: String
  @Option(help: "Token ids in place of a text, separated by spaces; needs no tokenizer.") var ids: String?
  @Option(name: .customLong("max-tokens"), help: "Tokens to generate at most.") var maximumTokens = 256
  @Option(help: "Tokens of prompt and answer together (default: the prompt and --max-tokens).") var context: Int?
  @Option(help: "How matrices are stored, unless they are quantised (default: as the files have them).")
  var precision: DataType?
  @Option(name: .customLong("cache-type"), help: "How keys and values are stored.") var cacheType = DataType.f32
  @Flag(name: .customLong("ignore-end"), help: "Go on after the token that ends a text.") var ignoresEnd = false
  @OptionGroup var sampling: SamplingArguments
  @OptionGroup var backend: BackendArguments
  @Option(help: "json: an object with tokens and rates, when all is done.") var format = OutputFormat.text

  private struct Report: Encodable {
    let tokens: [Int32]
    let finish: String
    let promptTokens: Int
    let prefillTokensPerSecond: Double
    let decodeTokensPerSecond: Double?
  }

  func run() throws {
    let decoder = try DecoderModel(directory: model, context: backend.context(), precision: precision)
    let prompt = try tokens(decoder)
    let capacity = context ?? min(prompt.count + maximumTokens, decoder.configuration.maxPositionEmbeddings)
    let generator = try BatchGenerator(model: decoder, capacity: capacity, cacheType: cacheType)
    _ = try generator.add(
      prompt,
      options: GenerationOptions(
        maximumTokens: maximumTokens, sampling: sampling.options, stopIDs: ignoresEnd ? [] : nil))
    let clock = ContinuousClock()
    let start = clock.now
    var (first, produced, finish) = (start, [Int32](), FinishReason.length)
    while !generator.isIdle {
      for event in try generator.step() {
        if produced.isEmpty { first = clock.now }
        if let token = event.token { produced.append(token) }
        if let reason = event.finish { finish = reason }
      }
    }
    let (prefill, decode) = ((first - start) / .seconds(1), (clock.now - first) / .seconds(1))
    let report = Report(
      tokens: produced, finish: finish.rawValue, promptTokens: prompt.count,
      prefillTokensPerSecond: Double(prompt.count) / prefill,
      decodeTokensPerSecond: produced.count > 1 ? Double(produced.count - 1) / decode : nil)
    switch format {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(report), as: UTF8.self))
    case .text: print(produced.map { "\($0)" }.joined(separator: " "))
    }
  }

  private func tokens(_ decoder: DecoderModel) throws -> [Int32] {
    try (ids ?? "").split(separator: " ").map { field in
      guard let id = Int32(field), id >= 0, Int(id) < decoder.configuration.vocabSize else {
        throw ValidationError("--ids: \(field) is not a token id below \(decoder.configuration.vocabSize)")
      }
      return id
    }
  }
}

/// The options that choose the next token.
struct SamplingArguments: ParsableArguments {
  @Option(help: "Logits are divided by it; 0 takes the most likely token.") var temperature: Float = 0
  @Option(name: .customLong("top-k"), help: "Only the k most likely tokens; 0 for all.") var topK = 0
  @Option(name: .customLong("top-p"), help: "Only the most likely tokens that together have this probability.")
  var topP: Float = 1
  @Option(name: .customLong("min-p"), help: "Only tokens with this share of the most likely one's probability.")
  var minP: Float = 0
  @Option(name: .customLong("repetition-penalty"), help: "Makes tokens seen before less likely; 1 for none.")
  var repetitionPenalty: Float = 1
  @Option(help: "The same seed draws the same tokens.") var seed: UInt64 = 0

  var options: SamplingOptions {
    SamplingOptions(
      temperature: temperature, topK: topK, topP: topP, minP: minP, repetitionPenalty: repetitionPenalty, seed: seed)
  }
}

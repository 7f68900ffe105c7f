import ArgumentParser
import Foundation
import Quern
import QuernModels

struct GenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Continues a text.",
    discussion: "Prints the text as it comes, and the rates of prompt and new tokens on standard error.")

  @Option(help: "A Hugging Face model directory; with --ids also a GGUF file.") var model: String
  @Option(help: "Token ids in place of a text, separated by spaces; prints ids, and needs no tokenizer.")
  var ids: String?
  @Option(name: .customLong("max-tokens"), help: "Tokens to generate at most.") var maximumTokens = 256
  @Option(help: "Tokens of prompt and text together (default: the prompt's and --max-tokens).") var context: Int?
  @Option(help: "A string that ends the text; repeatable.") var stop: [String] = []
  @Flag(help: "Take the text as a user's message, and put it through the model's chat template.") var chat = false
  @Option(help: "With --chat, the system's message before it.") var system: String?
  @Option(help: "How matrices are stored, unless they are quantised (default: as the files have them).")
  var precision: DataType?
  @Option(name: .customLong("cache-type"), help: "How keys and values are stored.") var cacheType = DataType.f32
  @Flag(name: .customLong("ignore-end"), help: "Go on after the token that ends a text.") var ignoresEnd = false
  @OptionGroup var sampling: SamplingArguments
  @OptionGroup var backend: BackendArguments
  @Option(help: "json: an object with tokens, text and rates, when all is done.") var format = OutputFormat.text
  @Argument(help: "The text to continue (default: standard input).") var prompt: String?

  func validate() throws {
    if ids != nil, prompt != nil || chat { throw ValidationError("give a text or --ids, not both") }
    if system != nil, !chat { throw ValidationError("--system goes with --chat") }
    if maximumTokens < 1 { throw ValidationError("--max-tokens takes a number of tokens, at least 1") }
  }

  func run() throws {
    let options = TextGenerator.Options(
      generation: GenerationOptions(
        maximumTokens: maximumTokens, sampling: sampling.options, stopIDs: ignoresEnd ? [] : nil),
      stopStrings: stop, capacity: context, cacheType: cacheType)
    var report: GenerationReport
    if let ids {
      let decoder = try DecoderModel(path: model, context: backend.context(), precision: precision)
      report = GenerationReport(prompt: try tokens(ids, decoder))
      try continueIDs(decoder, options, &report)
      if format == .text { print(report.tokens.map { "\($0)" }.joined(separator: " ")) }
    } else {
      let generator = try TextGenerator(path: model, context: backend.context(), precision: precision)
      report = GenerationReport(prompt: try generator.encode(conversation(), addSpecialTokens: !chat))
      report.text = ""
      try generator.generate(report.prompt, options: options) { piece in
        report.note(piece.token, piece.finish)
        report.text? += piece.text
        guard format == .text else { return }
        FileHandle.standardOutput.write(Data(piece.text.utf8))
      }
      if format == .text { print() }
    }
    if format == .json { print(try report.json()) }
    StandardError.write("\(report.summary)\n")
  }

  private func continueIDs(
    _ decoder: DecoderModel, _ options: TextGenerator.Options, _ report: inout GenerationReport
  ) throws {
    let capacity =
      context ?? decoder.configuration.capacity(prompt: report.prompt.count, maximumTokens: maximumTokens)
    let generator = try BatchGenerator(model: decoder, capacity: capacity, cacheType: cacheType)
    _ = try generator.add(report.prompt, options: options.generation)
    while !generator.isIdle {
      for event in try generator.step() { report.note(event.token, event.finish) }
    }
  }

  /// The text, or what the chat template makes of it.
  private func conversation() throws -> String {
    guard chat else { return try text() }
    var messages = [ChatMessage(role: "user", content: try text())]
    if let system { messages.insert(ChatMessage(role: "system", content: system), at: 0) }
    return try ChatTemplate.load(directory: model).render(messages: messages, addGenerationPrompt: true)
  }

  private func text() throws -> String {
    if let prompt { return prompt }
    guard let text = String(validating: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self) else {
      throw ModelError(file: "standard input", field: "", reason: "the text is not UTF-8")
    }
    return text
  }

  private func tokens(_ ids: String, _ decoder: DecoderModel) throws -> [Int32] {
    try ids.split(separator: " ").map { field in
      guard let id = Int32(field), id >= 0, Int(id) < decoder.configuration.vocabSize else {
        throw ValidationError("--ids: \(field) is not a token id below \(decoder.configuration.vocabSize)")
      }
      return id
    }
  }
}

/// Tokens and rates of one generation.
private struct GenerationReport {
  let prompt: [Int32]
  private(set) var tokens: [Int32] = []
  var text: String?
  private var finish = FinishReason.length
  private let start = ContinuousClock.now
  private var first, last: ContinuousClock.Instant

  init(prompt: [Int32]) {
    self.prompt = prompt
    (first, last) = (start, start)
  }

  mutating func note(_ token: Int32?, _ reason: FinishReason?) {
    last = .now
    if tokens.isEmpty { first = last }
    if let token { tokens.append(token) }
    if let reason { finish = reason }
  }

  /// Tokens a second of the prompt, and of what follows the first token.
  private var rates: (prefill: Double, decode: Double?) {
    (
      Double(prompt.count) / ((first - start) / .seconds(1)),
      tokens.count > 1 ? Double(tokens.count - 1) / ((last - first) / .seconds(1)) : nil
    )
  }

  var summary: String {
    let decode = rates.decode.map { String(format: ", then %d at %.1f tokens/s", tokens.count, $0) } ?? ""
    return String(format: "%d tokens of prompt at %.1f tokens/s", prompt.count, rates.prefill) + decode
  }

  private struct Row: Encodable {
    let tokens: [Int32]
    let text: String?
    let finish: String
    let promptTokens: Int
    let prefillTokensPerSecond: Double
    let decodeTokensPerSecond: Double?
  }

  func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let row = Row(
      tokens: tokens, text: text, finish: finish.rawValue, promptTokens: prompt.count,
      prefillTokensPerSecond: rates.prefill, decodeTokensPerSecond: rates.decode)
    return String(decoding: try encoder.encode(row), as: UTF8.self)
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

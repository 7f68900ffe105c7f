import ArgumentParser
import Foundation
import Quern
import QuernModels

struct GenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Continues a text, or answers it with T5.",
    discussion:
      "Prints the text as it comes, or with --beams when it is done, and the rates of prompt and new tokens on standard error."
  )

  @Option(help: "A Hugging Face model directory, or a GGUF file.") var model: String
  @Option(help: "Token ids in place of a text, separated by spaces; prints ids, and needs no tokenizer.")
  var ids: String?
  @Option(name: .customLong("max-tokens"), help: "Tokens to generate at most.") var maximumTokens = 256
  @Option(
    help: "Tokens of prompt and text together, of T5's text alone (default: the prompt's and --max-tokens).")
  var context: Int?
  @Option(help: "A string that ends the text; repeatable.") var stop: [String] = []
  @Flag(help: "Take the text as a user's message, and put it through the model's chat template.") var chat = false
  @Option(help: "With --chat, the system's message before it.") var system: String?
  @Option(help: "How matrices are stored, unless they are quantised (default: as the files have them, T5's f32).")
  var precision: DataType?
  @Option(name: .customLong("cache-type"), help: "How keys and values are stored.") var cacheType = CacheType.f32
  @OptionGroup var search: SearchArguments
  @OptionGroup var adapters: AdapterArguments
  @Flag(name: .customLong("ignore-memory"), help: "Begin even where the model needs more memory than there is.")
  var ignoresMemory = false
  @Flag(name: .customLong("ignore-end"), help: "Go on after the token that ends a text.") var ignoresEnd = false
  @OptionGroup var sampling: SamplingArguments
  @OptionGroup var backend: BackendArguments
  @Option(help: "json: an object with tokens, text and rates, when all is done.") var format = OutputFormat.text
  @Argument(help: "The text to continue (default: standard input).") var prompt: String?

  func validate() throws {
    if ids != nil, prompt != nil || chat { throw ValidationError("give a text or --ids, not both") }
    if system != nil, !chat { throw ValidationError("--system goes with --chat") }
    if maximumTokens < 1 { throw ValidationError("--max-tokens takes a number of tokens, at least 1") }
    if search.beams != nil, sampling.isUsed || search.draft != nil || !stop.isEmpty {
      throw ValidationError("--beams goes with neither a draft nor options that draw tokens nor --stop")
    }
  }

  func run() throws {
    let tokenizer = ids == nil ? try TextGenerator.tokenizer(path: model) : nil
    let given =
      try tokenizer.map {
        try $0.encode(
          conversation(), options: EncodingOptions(addSpecialTokens: !chat, length: .unlimited))
      } ?? ids(ids ?? "")
    let hasEncoder = try GenerativeModels.hasEncoder(path: model)
    if hasEncoder, search.beams != nil || search.draft != nil || !adapters.lora.isEmpty {
      throw ValidationError("--beams, --draft and adapters go with decoders; \(model) has an encoder")
    }
    var report = GenerationReport(
      prompt: given, memory: try hasEncoder ? answerNeed(given.count) : memoryNeed(given.count))
    let loaded: any GenerativeModel =
      try hasEncoder
      ? GenerativeModels.load(path: model, context: backend.context(), precision: precision)
      : DecoderModel(
        path: model, context: backend.context(), precision: precision, adapters: adapters.adapters,
        mergingAdapters: adapters.mergesLoRA)
    if let id = given.first(where: { Int($0) >= loaded.vocabSize }) {
      throw ValidationError("--ids: \(id) is not a token id below \(loaded.vocabSize)")
    }
    var options = TextGenerator.Options(
      generation: GenerationOptions(
        maximumTokens: maximumTokens, sampling: sampling.options, stopIDs: ignoresEnd ? [] : nil),
      stopStrings: stop, capacity: context, cacheType: cacheType)
    options.draft = try draft(tokenizer, loaded.context)
    report.begin()
    if let beams = search.beams, let decoder = loaded as? DecoderModel {
      let generator = try tokenizer.map { try TextGenerator(path: model, model: decoder, tokenizer: $0) }
      try searchBeams(decoder, beams, ends: generator?.endOfText, tokenizer, &report)
    } else if let tokenizer {
      try continueText(TextGenerator(path: model, model: loaded, tokenizer: tokenizer), options, &report)
    } else {
      try continueIDs(loaded, options, &report)
    }
    if format == .json { print(try report.json()) }
    StandardError.write("\(report.summary)\n")
  }

  private func continueText(
    _ generator: TextGenerator, _ options: TextGenerator.Options, _ report: inout GenerationReport
  ) throws {
    report.text = ""
    report.acceptance = try generator.generate(report.prompt, options: options) { piece in
      report.note(piece.token, piece.finish)
      report.text? += piece.text
      guard format == .text else { return }
      FileHandle.standardOutput.write(Data(piece.text.utf8))
    }
    if format == .text { print() }
  }

  private func continueIDs(
    _ model: any GenerativeModel, _ options: TextGenerator.Options, _ report: inout GenerationReport
  ) throws {
    let generator = try model.tokenGenerator(prompt: report.prompt.count, options: options)
    _ = try generator.add(report.prompt, options: options.generation)
    while !generator.isIdle {
      for event in try generator.step(proceed: {}) { report.note(event.token, event.finish) }
    }
    report.acceptance = (generator as? SpeculativeGenerator)?.acceptance
    if format == .text { print(report.tokens.map { "\($0)" }.joined(separator: " ")) }
  }

  private func searchBeams(
    _ decoder: DecoderModel, _ beams: Int, ends: [Int32]?, _ tokenizer: HubTokenizer?,
    _ report: inout GenerationReport
  ) throws {
    let options = BeamSearch.Options(
      beams: beams, maximumTokens: maximumTokens, lengthPenalty: search.lengthPenalty,
      stopIDs: ignoresEnd ? [] : ends, cacheType: cacheType)
    guard let best = try BeamSearch(model: decoder, options: options).search(report.prompt).first else { return }
    for token in best.tokens { report.note(token, nil) }
    report.note(nil, best.finish)
    report.score = best.score
    report.text = try tokenizer.map { (tokenizer) throws(TokenizerError) in try tokenizer.decode(best.tokens) }
    if format == .text { print(report.text ?? best.tokens.map { "\($0)" }.joined(separator: " ")) }
  }

  private func memoryNeed(_ prompt: Int) throws -> MemoryNeed {
    let (wanted, overflows) = prompt.addingReportingOverflow(maximumTokens)
    let capacity = context ?? (overflows ? .max : wanted)
    var need = try DecoderModel.memoryNeed(
      path: model, precision: precision, sequences: search.beams ?? 1, capacity: capacity, cacheType: cacheType)
    if let draft = search.draft {
      need += try DecoderModel.memoryNeed(
        path: draft, precision: precision, capacity: capacity, cacheType: cacheType)
    }
    try check(need)
    return need
  }

  private func answerNeed(_ prompt: Int) throws -> MemoryNeed {
    let need = try T5Model.memoryNeed(
      directory: model, precision: precision ?? .f32, prompt: prompt, capacity: min(context ?? .max, maximumTokens),
      cacheType: cacheType)
    try check(need)
    return need
  }

  private func check(_ need: MemoryNeed) throws {
    if !ignoresMemory {
      try need.requireAvailable(
        for: model, remedy: "--precision bf16, a smaller --context or a quantised model",
        also: ", \(MemoryNeed.gigabytes(need.cache)) of keys and values")
    }
  }

  private func draft(_ tokenizer: HubTokenizer?, _ context: Context) throws -> TextGenerator.Draft? {
    guard let path = search.draft else { return nil }
    if let tokenizer {
      try TextGenerator.Draft.check(TextGenerator.tokenizer(path: path), against: tokenizer, file: path)
    }
    let model = try DecoderModel(path: path, context: context, precision: precision)
    return TextGenerator.Draft(model: model, tokens: search.draftTokens)
  }

  /// The text, or what the chat template makes of it.
  private func conversation() throws -> String {
    guard chat else { return try text() }
    var messages = [ChatMessage(role: "user", content: try text())]
    if let system { messages.insert(ChatMessage(role: "system", content: system), at: 0) }
    let template =
      try model.hasSuffix(".gguf") ? ChatTemplate.load(GGUF(path: model)) : ChatTemplate.load(directory: model)
    return try template.render(messages: messages, addGenerationPrompt: true)
  }

  private func text() throws -> String {
    if let prompt { return prompt }
    guard let text = String(validating: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self) else {
      throw ModelError(file: "standard input", field: "", reason: "the text is not UTF-8")
    }
    return text
  }

  private func ids(_ text: String) throws -> [Int32] {
    try text.split(separator: " ").map { field in
      guard let id = Int32(field), id >= 0 else { throw ValidationError("--ids: \(field) is not a token id") }
      return id
    }
  }
}

/// Tokens and rates of one generation.
private struct GenerationReport {
  let prompt: [Int32]
  private(set) var tokens: [Int32] = []
  var text: String?
  private let memory: MemoryNeed
  var acceptance: SpeculativeGenerator.Acceptance?
  /// Of a beam search.
  var score: Double?
  private var finish = FinishReason.length
  private var start, first, last: ContinuousClock.Instant

  init(prompt: [Int32], memory: MemoryNeed) {
    (self.prompt, self.memory) = (prompt, memory)
    start = .now
    (first, last) = (start, start)
  }

  /// The prompt is to be read now.
  mutating func begin() {
    start = .now
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
    let drafted = acceptance.map { "; \($0.accepted) of \($0.drafted) drafted tokens accepted" } ?? ""
    if let score { return String(format: "%d tokens, score %.4f", tokens.count, score) }
    return String(format: "%d tokens of prompt at %.1f tokens/s", prompt.count, rates.prefill) + decode + drafted
  }

  private struct Row: Encodable {
    let tokens: [Int32]
    let text: String?
    let finish: String
    let promptTokens: Int
    let prefillTokensPerSecond: Double?
    let decodeTokensPerSecond: Double?
    let memoryBytes: Memory
    let draftedTokens, acceptedTokens: Int?
    let score: Double?
  }

  private struct Memory: Encodable {
    let weights, loading, cache, workspace, total: Int
  }

  func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let row = Row(
      tokens: tokens, text: text, finish: finish.rawValue, promptTokens: prompt.count,
      prefillTokensPerSecond: score == nil ? rates.prefill : nil,
      decodeTokensPerSecond: score == nil ? rates.decode : nil,
      memoryBytes: Memory(
        weights: memory.weights, loading: memory.loading, cache: memory.cache, workspace: memory.workspace,
        total: memory.total),
      draftedTokens: acceptance?.drafted, acceptedTokens: acceptance?.accepted, score: score)
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

  /// Whether any of them asks for other than the most likely token.
  var isUsed: Bool { options != SamplingOptions(seed: seed) }

  var options: SamplingOptions {
    SamplingOptions(
      temperature: temperature, topK: topK, topP: topP, minP: minP, repetitionPenalty: repetitionPenalty, seed: seed)
  }
}

/// How continuations are looked for, beside one token after another.
struct SearchArguments: ParsableArguments {
  @Option(help: "A smaller model of the same vocabulary, whose tokens the model checks several at a time.")
  var draft: String?
  @Option(name: .customLong("draft-tokens"), help: "With --draft, tokens at a time.") var draftTokens = 4
  @Option(help: "Keep this many beginnings, and print the likeliest whole text.") var beams: Int?
  @Option(name: .customLong("length-penalty"), help: "With --beams, above 0 favours long texts, below 0 short ones.")
  var lengthPenalty = 1.0
}

import Quern

/// Tokens of a T5 model: its encoder reads the prompt once, and its decoder then answers, a token at a time.
///
/// The repetition penalty counts tokens of the answer, as transformers does. Not `Sendable`: one task drives it.
public final class EncoderDecoderGenerator: TokenGenerator {
  public let model: T5Model
  /// Tokens of an answer at most.
  public let capacity: Int
  public let cacheType: CacheType
  private let workspace: T5Model.Workspace
  private let one: Segments
  private var active: Active?
  private var nextRequest = 0

  private struct Active {
    let request: BatchGenerator.RequestID
    let options: GenerationOptions
    let stopIDs: [Int32]
    let prompt: [Int32]
    var sampler: Sampler
    /// What the encoder made of the prompt, and what the decoder holds.
    var state: T5Model.State?
    /// The token that the decoder has not seen yet.
    var next: Int32
    var produced = 0
  }

  /// - Parameters:
  ///   - capacity: tokens of an answer.
  ///   - cacheType: how the decoder's keys and values are stored.
  public init(model: T5Model, capacity: Int, cacheType: CacheType = .f32) throws {
    (self.model, self.capacity, self.cacheType) = (model, capacity, cacheType)
    (workspace, one) = (try T5Model.Workspace(), try Segments(single: 1))
  }

  public var isIdle: Bool { active == nil }

  /// Sets the prompt, which ends in the end token that tokenizers of such models put there.
  ///
  /// - Throws: ``GenerationError``, also where another request is not done.
  public func add(_ prompt: [Int32], options: GenerationOptions = GenerationOptions()) throws(GenerationError)
    -> BatchGenerator.RequestID
  {
    guard !prompt.isEmpty else { throw .emptyPrompt }
    try options.validate()
    guard capacity > 0 else { throw .invalidOption(name: "capacity", value: "\(capacity)", expected: "more than 0") }
    guard active == nil else { throw .busy(sequences: 1) }
    let start = model.configuration.decoderStartTokenID
    var sampler = Sampler(options.sampling)
    sampler.see(start)
    defer { nextRequest += 1 }
    active = Active(
      request: nextRequest, options: options, stopIDs: options.stopIDs ?? model.endOfText, prompt: prompt,
      sampler: sampler, next: start)
    return nextRequest
  }

  public func cancel(_ request: BatchGenerator.RequestID) { if active?.request == request { active = nil } }

  /// Runs the encoder, where it has not read the prompt, then the decoder for one token.
  ///
  /// - Parameter proceed: asked before each of the two; what it throws ends the pass and leaves the request as it was.
  public func step(proceed: () throws -> Void = {}) throws -> [BatchGenerator.Event] {
    guard var request = active else { return [] }
    try proceed()
    let state: T5Model.State
    if let held = request.state {
      state = held
    } else {
      state = try model.start(
        EncoderBatch([request.prompt]), capacity: min(capacity, request.options.maximumTokens), cacheType: cacheType,
        workspace: workspace)
      request.state = state
      active = request
      try proceed()
    }
    let hidden = try model.forward([request.next], segments: one, state: state, workspace: workspace)
    let logits = try model.logits(hidden, rows: [0])
    let token = request.sampler.next(UnsafeMutableBufferPointer(start: logits.base, count: logits.shape[1]))
    if request.stopIDs.contains(token) {
      active = nil
      return [BatchGenerator.Event(request: request.request, token: nil, finish: .endOfText)]
    }
    request.sampler.see(token)
    request.produced += 1
    request.next = token
    let isLast = request.produced == min(capacity, request.options.maximumTokens)
    active = isLast ? nil : request
    return [BatchGenerator.Event(request: request.request, token: token, finish: isLast ? .length : nil)]
  }
}

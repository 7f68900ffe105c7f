import Quern

/// Speculative decoding (Leviathan et al., arXiv 2211.17192): a small model drafts a few tokens, and the large one checks them in one
/// pass.
///
/// A drafted token x is accepted with probability `min(1, p(x) / q(x))`, p and q being what the two models would draw from after
/// temperature, top-k and the rest; in place of the first that is not, one is drawn from `max(0, p - q)`. So tokens are distributed
/// as the large model's alone, and greedy ones are its own where the backend gives a row the same bits in any batch. A seed draws
/// other tokens than without a draft. One sequence; not `Sendable`: one task drives it.
public final class SpeculativeGenerator: TokenGenerator {
  /// How many tokens have been drafted, and how many of them the large model has accepted.
  public struct Acceptance: Sendable, Equatable {
    public internal(set) var drafted = 0
    public internal(set) var accepted = 0
  }

  public let model, draft: DecoderModel
  /// Tokens drafted at a time, at most.
  public let draftTokens: Int
  /// Tokens of prompts in one pass at most.
  public let chunk: Int
  public private(set) var acceptance = Acceptance()

  private let cache, draftCache: KeyValueCache
  private let workspace: DecoderModel.Workspace
  /// Ids that both models have.
  private let vocabulary: Int
  /// By id, q less what has been taken from it; zeros between uses.
  private var scratch: [Float]
  private var active: Active?
  private var nextRequest = 0

  private struct Active {
    let request: BatchGenerator.RequestID
    let options: GenerationOptions
    let stopIDs: [Int32]
    var sampler, drafter: Sampler
    /// The prompt and what has come after it. Caches hold all but the last few.
    var tokens: [Int32]
    var produced = 0
  }

  /// A drafted token and what it was drawn from.
  private struct Proposal {
    let token: Int32
    let candidates: [Sampler.Candidate]
    let total: Float
  }

  /// - Parameters:
  ///   - draft: a model of the same vocabulary; ids that only one of them has are never drafted.
  ///   - draftTokens: tokens drafted at a time.
  ///   - capacity: tokens of the sequence, its prompt included. Beyond the positions that the draft has, nothing is drafted.
  public init(
    model: DecoderModel, draft: DecoderModel, draftTokens: Int = 4, capacity: Int, cacheType: CacheType = .f32,
    chunk: Int = 256
  ) throws {
    guard draftTokens > 0, draftTokens <= 256 else {
      throw GenerationError.invalidOption(name: "draftTokens", value: "\(draftTokens)", expected: "1 to 256")
    }
    (self.model, self.draft, self.draftTokens, self.chunk) = (model, draft, draftTokens, max(chunk, 1))
    cache = try model.makeCache(capacity: capacity, type: cacheType)
    draftCache = try draft.makeCache(
      capacity: min(capacity, draft.configuration.maxPositionEmbeddings), type: cacheType)
    workspace = try DecoderModel.Workspace()
    vocabulary = min(model.configuration.vocabSize, draft.configuration.vocabSize)
    scratch = [Float](repeating: 0, count: model.configuration.vocabSize)
  }

  public var capacity: Int { cache.capacity }
  public var isIdle: Bool { active == nil }

  /// Sets the prompt.
  ///
  /// - Throws: ``GenerationError``, also where another request is not done.
  public func add(_ prompt: [Int32], options: GenerationOptions = GenerationOptions()) throws(GenerationError)
    -> BatchGenerator.RequestID
  {
    try options.validate(prompt: prompt, capacity: capacity)
    guard active == nil else { throw .busy(sequences: 1) }
    cache.truncate(0)
    draftCache.truncate(0)
    var draftOptions = options.sampling
    // What the draft draws must not decide what it is measured by.
    draftOptions.seed = ~options.sampling.seed
    var (sampler, drafter) = (Sampler(options.sampling), Sampler(draftOptions))
    for id in prompt {
      sampler.see(id)
      drafter.see(id)
    }
    defer { nextRequest += 1 }
    active = Active(
      request: nextRequest, options: options, stopIDs: options.stopIDs ?? model.configuration.endOfText,
      sampler: sampler, drafter: drafter, tokens: prompt)
    return nextRequest
  }

  public func cancel(_ request: BatchGenerator.RequestID) { if active?.request == request { active = nil } }

  /// Drafts, and runs the large model once.
  ///
  /// - Parameter proceed: asked before each layer; what it throws ends the pass, of which nothing then is kept.
  /// - Returns: an event for each token that is certain; none while a long prompt is read.
  public func step(proceed: () throws -> Void = {}) throws -> [BatchGenerator.Event] {
    guard var request = active else { return [] }
    let held = Int(cache.lengths[0])
    if request.tokens.count - held > chunk {
      _ = try run(model, cache, Array(request.tokens[held..<held + chunk]), proceed)
      return []
    }
    let room = min(
      request.options.maximumTokens - request.produced - 1, capacity - request.tokens.count,
      draftCache.capacity - request.tokens.count)
    do {
      let proposals = try propose(min(draftTokens, room), &request, proceed)
      let events = try verify(proposals, &request, proceed)
      // A request that has ended is gone.
      if active != nil { active = request }
      return events
    } catch {
      // Its last token is always run, for its logits.
      draftCache.truncate(0, to: min(Int(draftCache.lengths[0]), request.tokens.count - 1))
      throw error
    }
  }

  private func run(
    _ model: DecoderModel, _ cache: KeyValueCache, _ ids: [Int32], _ proceed: () throws -> Void
  ) throws -> MutableTensor {
    try model.forward(
      ids, segments: Segments(single: ids.count), cache: cache, workspace: workspace, proceed: proceed)
  }

  private static func row(_ logits: MutableTensor, _ row: Int, _ count: Int) -> UnsafeMutableBufferPointer<Float> {
    UnsafeMutableBufferPointer(start: logits.base + row * logits.strides[0], count: count)
  }

  /// Up to `count` tokens of the draft, each behind those before it.
  private func propose(
    _ count: Int, _ request: inout Active, _ proceed: () throws -> Void
  ) throws -> [Proposal] {
    var proposals: [Proposal] = []
    while proposals.count < count {
      var pending = request.tokens[min(Int(draftCache.lengths[0]), request.tokens.count)...] + []
      while pending.count > chunk {
        _ = try run(draft, draftCache, Array(pending.prefix(chunk)), proceed)
        pending.removeFirst(chunk)
      }
      let ids = Array(pending) + (proposals.last.map { [$0.token] } ?? [])
      let hidden = try run(draft, draftCache, ids, proceed)
      let logits = try draft.logits(hidden, rows: [Int32(ids.count - 1)], workspace: workspace)
      request.drafter.prepare(Self.row(logits, 0, vocabulary))
      let token = request.drafter.pick(request.drafter.uniform())
      request.drafter.see(token)
      proposals.append(
        Proposal(token: token, candidates: request.drafter.candidates, total: request.drafter.total))
    }
    return proposals
  }

  /// Takes of the proposals what the large model accepts, and a token of its own.
  private func verify(
    _ proposals: [Proposal], _ request: inout Active, _ proceed: () throws -> Void
  ) throws -> [BatchGenerator.Event] {
    let pending = Array(request.tokens[Int(cache.lengths[0])...])
    let hidden = try run(model, cache, pending + proposals.map(\.token), proceed)
    let rows = (pending.count - 1..<pending.count + proposals.count).map { Int32($0) }
    let logits = try model.logits(hidden, rows: rows, workspace: workspace)
    var (accepted, events) = (0, [BatchGenerator.Event]())
    let before = request.tokens.count
    while events.last?.finish == nil {
      request.sampler.prepare(Self.row(logits, accepted, logits.shape[1]))
      guard accepted < proposals.count else {
        take(request.sampler.pick(request.sampler.uniform()), &request, &events)
        break
      }
      let proposal = proposals[accepted]
      let p = request.sampler.probability(of: proposal.token)
      let q = (proposal.candidates.first { $0.id == proposal.token }?.share ?? 0) / proposal.total
      guard request.sampler.uniform() * q < p else {
        take(replacement(for: proposal, &request.sampler), &request, &events)
        break
      }
      accepted += 1
      take(proposal.token, &request, &events)
    }
    acceptance.drafted += proposals.count
    acceptance.accepted += accepted
    // The drafter has seen proposals, and is to have seen what came of them.
    for proposal in proposals { request.drafter.forget(proposal.token) }
    for token in request.tokens[before...] { request.drafter.see(token) }
    cache.truncate(0, to: before + accepted)
    draftCache.truncate(0, to: min(Int(draftCache.lengths[0]), before + accepted))
    return events
  }

  /// A token drawn from `max(0, p - q)`.
  private func replacement(for proposal: Proposal, _ sampler: inout Sampler) -> Int32 {
    for candidate in proposal.candidates { scratch[Int(candidate.id)] = candidate.share / proposal.total }
    defer { for candidate in proposal.candidates { scratch[Int(candidate.id)] = 0 } }
    func excess(_ candidate: Sampler.Candidate) -> Float {
      max(0, candidate.share / sampler.total - scratch[Int(candidate.id)])
    }
    let draw = sampler.uniform()
    var rest = draw * sampler.candidates.reduce(0) { $0 + excess($1) }
    var last: Int32?
    for candidate in sampler.candidates where excess(candidate) > 0 {
      rest -= excess(candidate)
      if rest < 0 { return candidate.id }
      last = candidate.id
    }
    // Where rounding leaves nothing over, p and q are the same.
    return last ?? sampler.pick(draw)
  }

  private func take(_ token: Int32, _ request: inout Active, _ events: inout [BatchGenerator.Event]) {
    if request.stopIDs.contains(token) {
      active = nil
      return events.append(BatchGenerator.Event(request: request.request, token: nil, finish: .endOfText))
    }
    request.sampler.see(token)
    request.tokens.append(token)
    request.produced += 1
    let isLast = request.produced == request.options.maximumTokens || request.tokens.count > capacity
    if isLast { active = nil }
    events.append(BatchGenerator.Event(request: request.request, token: token, finish: isLast ? .length : nil))
  }
}

import Quern

/// What ends a generation, and how its tokens are drawn.
public struct GenerationOptions: Sendable, Equatable {
  /// Tokens to generate at most.
  public var maximumTokens: Int
  public var sampling: SamplingOptions
  /// Ids that end the text, which are not part of it; the model's own where this is `nil`.
  public var stopIDs: [Int32]?

  public init(maximumTokens: Int = 256, sampling: SamplingOptions = .greedy, stopIDs: [Int32]? = nil) {
    (self.maximumTokens, self.sampling, self.stopIDs) = (maximumTokens, sampling, stopIDs)
  }
}

/// Why a generation ended.
public enum FinishReason: String, Sendable {
  /// The model ended the text.
  case endOfText = "end"
  /// A stop string appeared.
  case stopString = "stop"
  /// As many tokens as asked for, or as the context holds.
  case length
}

/// Continuous batching (Yu et al., Orca, OSDI 2022): requests enter and leave while others run, and each pass of the model advances
/// all of them, by a piece of their prompt or by a token.
///
/// A sequence's tokens do not depend on what runs beside it where the backend gives a row the same bits in any batch. A request whose
/// prompt begins like what a free sequence holds reuses those positions. Not `Sendable`: one task drives it.
public final class BatchGenerator {
  /// A request's name within its generator.
  public typealias RequestID = Int

  /// What a pass has brought for one request.
  public struct Event: Sendable, Equatable {
    public let request: RequestID
    /// The new token; `nil` where an end token, or no room, ended the text without one.
    public let token: Int32?
    /// Why it has ended, if it has.
    public let finish: FinishReason?
  }

  public let model: DecoderModel
  /// Tokens of prompts in one pass at most; a long prompt takes several passes.
  public let chunk: Int
  private let cache: KeyValueCache
  private let workspace: DecoderModel.Workspace
  private var slots: [Slot]
  private var nextRequest = 0

  private struct Slot {
    /// What the cache holds of this sequence.
    var held: [Int32] = []
    var active: Active?
  }

  private struct Active {
    let request: RequestID
    let options: GenerationOptions
    let stopIDs: [Int32]
    var sampler: Sampler
    /// Tokens that the cache does not hold yet.
    var pending: [Int32]
    var produced = 0
  }

  /// - Parameters:
  ///   - sequences: requests that run at once.
  ///   - capacity: tokens of each, its prompt included; at most `max_position_embeddings`.
  ///   - cacheType: how keys and values are stored.
  public init(
    model: DecoderModel, sequences: Int = 1, capacity: Int, cacheType: CacheType = .f32, chunk: Int = 256
  ) throws {
    (self.model, self.chunk) = (model, max(chunk, 1))
    cache = try model.makeCache(sequences: sequences, capacity: capacity, type: cacheType)
    workspace = try DecoderModel.Workspace()
    slots = [Slot](repeating: Slot(), count: sequences)
  }

  /// Tokens of a sequence, its prompt included.
  public var capacity: Int { cache.capacity }
  /// Whether nothing is left to do.
  public var isIdle: Bool { slots.allSatisfy { $0.active == nil } }
  /// Whether another request can be added.
  public var hasRoom: Bool { slots.contains { $0.active == nil } }

  /// Queues a prompt for the next pass.
  ///
  /// - Throws: ``GenerationError``, also where every sequence is in use.
  public func add(_ prompt: [Int32], options: GenerationOptions = GenerationOptions()) throws(GenerationError)
    -> RequestID
  {
    try options.validate(prompt: prompt, capacity: capacity)
    var best: (slot: Int, shared: Int)?
    for (index, slot) in slots.enumerated() where slot.active == nil {
      // The last token is always run, for its logits.
      let shared = min(zip(slot.held, prompt).prefix { $0 == $1 }.count, prompt.count - 1)
      if shared > best?.shared ?? -1 { best = (index, shared) }
    }
    guard let (index, shared) = best else { throw .busy(sequences: slots.count) }
    cache.truncate(index, to: shared)
    slots[index].held.removeLast(slots[index].held.count - shared)
    var sampler = Sampler(options.sampling)
    for id in prompt { sampler.see(id) }
    let request = nextRequest
    nextRequest += 1
    slots[index].active = Active(
      request: request, options: options, stopIDs: options.stopIDs ?? model.configuration.endOfText, sampler: sampler,
      pending: Array(prompt[shared...]))
    return request
  }

  /// Ends a request; what its sequence holds stays for prompts that begin alike.
  public func cancel(_ request: RequestID) {
    for index in slots.indices where slots[index].active?.request == request { slots[index].active = nil }
  }

  /// Runs the model once over every active request.
  ///
  /// - Parameter proceed: asked before each layer; what it throws ends the pass and leaves every request as it was.
  /// - Returns: the events of requests whose prompt is through, in the order of their sequences.
  public func step(proceed: () throws -> Void = {}) throws -> [Event] {
    var (ids, lengths, room) = ([Int32](), [Int](), chunk)
    for slot in slots {
      // A request that generates is never held up by another's prompt.
      let pending = slot.active?.pending ?? []
      let count = pending.count == 1 ? 1 : min(pending.count, room)
      if pending.count > 1 { room -= count }
      ids += pending.prefix(count)
      lengths.append(count)
    }
    guard !ids.isEmpty else { return [] }
    let segments = try Segments(lengths: lengths)
    let hidden = try model.forward(
      ids, segments: segments, cache: cache, workspace: workspace, proceed: proceed)
    var (ready, rows) = ([Int](), [Int32]())
    for index in slots.indices where lengths[index] > 0 {
      slots[index].held += ids[segments[index]]
      slots[index].active?.pending.removeFirst(lengths[index])
      if slots[index].active?.pending.isEmpty == true {
        ready.append(index)
        rows.append(Int32(segments[index].upperBound - 1))
      }
    }
    guard !ready.isEmpty else { return [] }
    let logits = try model.logits(hidden, rows: rows, workspace: workspace)
    return ready.enumerated().compactMap { row, slot in
      draw(slot, UnsafeMutableBufferPointer(start: logits.base + row * logits.strides[0], count: logits.shape[1]))
    }
  }

  private func draw(_ index: Int, _ logits: UnsafeMutableBufferPointer<Float>) -> Event? {
    guard var active = slots[index].active else { return nil }
    let token = active.sampler.next(logits)
    if active.stopIDs.contains(token) {
      slots[index].active = nil
      return Event(request: active.request, token: nil, finish: .endOfText)
    }
    active.sampler.see(token)
    active.produced += 1
    active.pending = [token]
    let isLast = active.produced == active.options.maximumTokens || slots[index].held.count == cache.capacity
    slots[index].active = isLast ? nil : active
    return Event(request: active.request, token: token, finish: isLast ? .length : nil)
  }
}

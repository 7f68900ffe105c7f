import Quern

/// Beam search: of all continuations of a prompt, the few whose tokens together are most likely, a token at a time.
///
/// A finished sequence of n tokens, its end among them, scores `Σ log p / n^lengthPenalty`. Sequences and scores are those of the
/// `generate` of transformers 5 with `num_beams` and without sampling. Each beam has a sequence of the cache; where two come of one, only
/// the positions are copied in which the other's memory differs. Not `Sendable`: one task drives it.
public final class BeamSearch {
  /// When a search ends, beside having reached its length: `early_stopping` of transformers.
  public enum EarlyStopping: String, Sendable {
    /// Once there are as many finished sequences as beams.
    case always = "true"
    /// Once the best running beam, divided by its present length, is worse than the worst finished sequence.
    case heuristic = "false"
    /// Once no running beam could become better than the worst finished sequence, were the rest of it certain.
    case never
  }

  public struct Options: Sendable, Equatable {
    public var beams: Int
    /// Tokens of each sequence at most.
    public var maximumTokens: Int
    /// Above 0 it favours long sequences, below 0 short ones.
    public var lengthPenalty: Double
    public var earlyStopping: EarlyStopping
    /// Ids that end a sequence, which are not part of it; the model's own where this is `nil`.
    public var stopIDs: [Int32]?
    /// How keys and values are stored.
    public var cacheType: CacheType

    public init(
      beams: Int = 4, maximumTokens: Int = 256, lengthPenalty: Double = 1, earlyStopping: EarlyStopping = .heuristic,
      stopIDs: [Int32]? = nil, cacheType: CacheType = .f32
    ) {
      (self.beams, self.maximumTokens, self.lengthPenalty) = (beams, maximumTokens, lengthPenalty)
      (self.earlyStopping, self.stopIDs, self.cacheType) = (earlyStopping, stopIDs, cacheType)
    }
  }

  /// A finished sequence.
  public struct Beam: Sendable, Equatable {
    /// What comes after the prompt.
    public let tokens: [Int32]
    public let score: Double
    public let finish: FinishReason
  }

  /// A sequence that may go on: its tokens after the prompt, `Σ log p`, and the sequence of the cache that holds all but the last.
  private struct Running {
    var tokens: [Int32]
    var score: Double
    var slot: Int
  }

  private struct Continuation {
    let parent: Int
    let token: Int32
    let score: Double
  }

  public let model: DecoderModel
  private let options: Options
  private let stopIDs: Set<Int32>
  private let workspace: DecoderModel.Workspace
  /// Tokens that each sequence of the cache holds.
  private var held: [[Int32]]

  private static let (beamLimit, chunk) = (256, 256)

  /// - Throws: ``GenerationError/invalidOption(name:value:expected:)``.
  public init(model: DecoderModel, options: Options = Options()) throws {
    func require(_ condition: Bool, _ name: String, _ value: String, _ expected: String) throws(GenerationError) {
      if !condition { throw .invalidOption(name: name, value: value, expected: expected) }
    }
    try require((1...Self.beamLimit).contains(options.beams), "beams", "\(options.beams)", "1 to \(Self.beamLimit)")
    try require(options.maximumTokens > 0, "maximumTokens", "\(options.maximumTokens)", "more than 0")
    try require(options.lengthPenalty.isFinite, "lengthPenalty", "\(options.lengthPenalty)", "a finite number")
    (self.model, self.options) = (model, options)
    stopIDs = Set(options.stopIDs ?? model.configuration.endOfText)
    workspace = try DecoderModel.Workspace()
    held = [[Int32]](repeating: [], count: options.beams)
  }

  /// The finished sequences, the best first, as many as there are beams.
  ///
  /// - Parameter proceed: asked before each layer; what it throws ends the search.
  /// - Throws: ``GenerationError`` for a prompt without tokens or too long a one.
  public func search(_ prompt: [Int32], proceed: () throws -> Void = {}) throws -> [Beam] {
    let capacity = model.configuration.capacity(prompt: prompt.count, maximumTokens: options.maximumTokens)
    try GenerationOptions(maximumTokens: options.maximumTokens).validate(prompt: prompt, capacity: capacity)
    // The last token of a sequence is never run.
    let length = min(options.maximumTokens, capacity - prompt.count + 1)
    let cache = try model.makeCache(sequences: options.beams, capacity: capacity, type: options.cacheType)
    held = [[Int32]](repeating: [], count: options.beams)
    var running = [Running(tokens: [], score: 0, slot: 0)]
    var finished: [Beam] = []
    while true {
      let next = try continuations(of: running, prompt, cache, proceed)
      let count = running[0].tokens.count + 1
      let isLast = count == length
      func ends(_ continuation: Continuation) -> Bool { isLast || stopIDs.contains(continuation.token) }
      for continuation in next.prefix(options.beams) where ends(continuation) {
        let hasEnd = stopIDs.contains(continuation.token)
        let tokens = running[continuation.parent].tokens + (hasEnd ? [] : [continuation.token])
        insert(
          Beam(
            tokens: tokens, score: continuation.score / penalty(count), finish: hasEnd ? .endOfText : .length),
          &finished)
      }
      let rest = next.filter { !ends($0) }.prefix(options.beams)
      guard let best = rest.first, !isDone(finished, best, count: count, length: length) else { return finished }
      running = advance(running, Array(rest), prompt, cache)
    }
  }

  private func penalty(_ count: Int) -> Double { Real.power(Double(count), options.lengthPenalty) }

  private func insert(_ beam: Beam, _ finished: inout [Beam]) {
    let place = finished.firstIndex { $0.score < beam.score } ?? finished.count
    finished.insert(beam, at: place)
    if finished.count > options.beams { finished.removeLast() }
  }

  private func isDone(_ finished: [Beam], _ best: Continuation, count: Int, length: Int) -> Bool {
    guard finished.count == options.beams, let worst = finished.last else { return false }
    // One beam is a greedy search, which its first end ends.
    if options.earlyStopping == .always || options.beams == 1 { return true }
    let hypothetical = options.earlyStopping == .never && options.lengthPenalty > 0 ? length : count
    return best.score / penalty(hypothetical) <= worst.score
  }

  /// Runs what the cache lacks of each beam; the most likely next tokens of all of them, the best first: enough that as many as there
  /// are beams do not end.
  private func continuations(
    of running: [Running], _ prompt: [Int32], _ cache: KeyValueCache, _ proceed: () throws -> Void
  ) throws -> [Continuation] {
    let count = max(2, 1 + stopIDs.count) * options.beams
    var all: [Continuation] = []
    var rows = [[Int32]](repeating: [], count: options.beams)
    for beam in running { rows[beam.slot] = beam.tokens.last.map { [$0] } ?? prompt }
    // A long prompt, alone in the first sequence, takes several passes.
    while rows[0].count > Self.chunk {
      let piece = Array(rows[0].prefix(Self.chunk))
      _ = try forward(piece, [piece.count] + [Int](repeating: 0, count: options.beams - 1), cache, proceed)
      held[0] += piece
      rows[0].removeFirst(piece.count)
    }
    let hidden = try forward(rows.flatMap { $0 }, rows.map(\.count), cache, proceed)
    let segments = try Segments(lengths: rows.map(\.count))
    for (slot, ids) in rows.enumerated() { held[slot] += ids }
    let logits = try model.logits(
      hidden, rows: running.map { Int32(segments[$0.slot].upperBound - 1) }, workspace: workspace)
    var tops: [[(id: Int32, logit: Float)]] = []
    for row in running.indices {
      let values = UnsafeBufferPointer(start: logits.base + row * logits.strides[0], count: logits.shape[1])
      tops.append(Self.largest(values, count))
    }
    // log p = x - log Σ exp, of which the softmax of the largest gives the last.
    try model.context.softmax(logits.view, into: logits)
    for (parent, top) in tops.enumerated() {
      guard let first = top.first else { continue }
      let total = Double(first.logit) - Real.log(Double(logits[parent, Int(first.id)]))
      for (id, logit) in top {
        all.append(
          Continuation(parent: parent, token: id, score: running[parent].score + Double(logit) - total))
      }
    }
    all.sort { $0.score > $1.score || ($0.score == $1.score && ($0.parent, $0.token) < ($1.parent, $1.token)) }
    return Array(all.prefix(count))
  }

  private func forward(
    _ ids: [Int32], _ lengths: [Int], _ cache: KeyValueCache, _ proceed: () throws -> Void
  ) throws -> MutableTensor {
    try model.forward(
      ids, segments: Segments(lengths: lengths), cache: cache, workspace: workspace, proceed: proceed)
  }

  /// The `count` largest logits, the largest first.
  private static func largest(_ logits: UnsafeBufferPointer<Float>, _ count: Int) -> [(id: Int32, logit: Float)] {
    var top: [(id: Int32, logit: Float)] = []
    for (id, logit) in logits.enumerated() where top.count < count || logit > top[top.count - 1].logit {
      guard !logit.isNaN else { continue }
      let place = top.firstIndex { $0.logit < logit } ?? top.count
      top.insert((Int32(id), logit), at: place)
      if top.count > count { top.removeLast() }
    }
    return top
  }

  /// The beams that go on, each with a sequence of the cache: the first child of a beam keeps its own, others take those that died.
  private func advance(
    _ running: [Running], _ next: [Continuation], _ prompt: [Int32], _ cache: KeyValueCache
  ) -> [Running] {
    var slots = [Int?](repeating: nil, count: next.count)
    var (isTaken, hasChild) = ([Bool](repeating: false, count: options.beams), Set<Int>())
    for (index, continuation) in next.enumerated() where hasChild.insert(continuation.parent).inserted {
      slots[index] = running[continuation.parent].slot
      isTaken[running[continuation.parent].slot] = true
    }
    var free = isTaken.indices.filter { !isTaken[$0] }.makeIterator()
    return next.enumerated().map { index, continuation in
      let parent = running[continuation.parent]
      let slot = slots[index] ?? free.next() ?? parent.slot
      if slot != parent.slot {
        let same = zip(held[slot], held[parent.slot]).prefix { $0 == $1 }.count
        cache.copy(parent.slot, to: slot, from: same)
        held[slot] = held[parent.slot]
      }
      return Running(tokens: parent.tokens + [continuation.token], score: continuation.score, slot: slot)
    }
  }
}

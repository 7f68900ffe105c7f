import Quern

/// The perplexity of a model on a text of any length: `exp(-1/n Σ log p(token | tokens before it in its window))`.
///
/// Windows of `context` tokens begin every `stride` tokens, the last one where it first reaches the end. A window predicts those of its
/// tokens that no window before it had, each from all tokens before it in the window; the first token of the text is predicted by
/// none, nor is the first of a window where `stride` equals `context`. So each token that is predicted counts once, with at least
/// `context - stride` tokens before it but near the beginning: the sliding window of
/// https://huggingface.co/docs/transformers/perplexity. A smaller stride costs more time and gives a lower, truer number.
///
/// Logarithms are natural, and added in f64. Not `Sendable`: one task drives it.
public final class Perplexity {
  /// What has been predicted so far.
  public struct Result: Sendable, Equatable {
    /// Tokens predicted.
    public internal(set) var tokens = 0
    public internal(set) var windows = 0
    /// `-Σ log p`.
    public internal(set) var negativeLogLikelihood = 0.0

    /// NaN where nothing was predicted.
    public var meanNegativeLogLikelihood: Double { negativeLogLikelihood / Double(tokens) }
    public var perplexity: Double { Real.exp(meanNegativeLogLikelihood) }
  }

  public let model: DecoderModel
  /// Tokens of a window.
  public let context: Int
  /// Tokens from the beginning of a window to that of the next.
  public let stride: Int
  public private(set) var result = Result()

  private let cache: KeyValueCache
  private let workspace: DecoderModel.Workspace
  /// The tokens of the next window that have come, and how many of them are done with.
  private var window: [Int32] = []
  private var done = 1

  /// Tokens that run through the model at once, and rows of logits.
  private static let (chunk, rows) = (256, 32)

  /// - Parameters:
  ///   - context: tokens of a window, at most `max_position_embeddings`; where it is `nil`, 512 or what the model has.
  ///   - stride: at most `context`; half of it where it is `nil`.
  /// - Throws: ``GenerationError/invalidOption(name:value:expected:)``, and ``QuernError/outOfMemory(bytes:)``.
  public init(model: DecoderModel, context: Int? = nil, stride: Int? = nil, cacheType: CacheType = .f32) throws {
    let limit = model.configuration.maxPositionEmbeddings
    let context = context ?? min(512, limit)
    guard context >= 2, context <= limit else {
      throw GenerationError.invalidOption(name: "context", value: "\(context)", expected: "2 to \(limit)")
    }
    let stride = stride ?? max(context / 2, 1)
    guard stride >= 1, stride <= context else {
      throw GenerationError.invalidOption(name: "stride", value: "\(stride)", expected: "1 to \(context)")
    }
    (self.model, self.context, self.stride) = (model, context, stride)
    cache = try model.makeCache(capacity: context, type: cacheType)
    workspace = try DecoderModel.Workspace()
  }

  /// Goes on with the text.
  ///
  /// - Parameters:
  ///   - proceed: asked before each layer; what it throws ends the measurement.
  ///   - progress: called after each window with the tokens of `ids` that have been taken.
  public func append(
    _ ids: [Int32], proceed: () throws -> Void = {}, progress: (Int) -> Void = { _ in }
  ) throws {
    var taken = 0
    while taken < ids.count {
      let count = min(context - window.count, ids.count - taken)
      window += ids[taken..<taken + count]
      taken += count
      guard window.count == context else { return }
      try run(proceed)
      window.removeFirst(stride)
      done = max(context - stride, 1)
      progress(taken)
    }
  }

  /// Predicts what no full window has, and begins anew.
  ///
  /// - Returns: of all that came since the last call.
  public func finish(proceed: () throws -> Void = {}) throws -> Result {
    if window.count > done { try run(proceed) }
    defer { (window, done, result) = ([], 1, Result()) }
    return result
  }

  /// Predicts the tokens of the window from `done` on.
  private func run(_ proceed: () throws -> Void) throws {
    cache.truncate(0)
    result.windows += 1
    for start in Swift.stride(from: 0, to: window.count - 1, by: Self.chunk) {
      let end = min(start + Self.chunk, window.count - 1)
      let hidden = try model.forward(
        Array(window[start..<end]), segments: Segments(single: end - start), cache: cache, workspace: workspace,
        proceed: proceed)
      var next = max(start, done - 1)
      while next < end {
        let last = min(next + Self.rows, end)
        try add(hidden, (next..<last).map { Int32($0 - start) }, predicting: window[next + 1...last])
        next = last
      }
    }
  }

  /// Adds `log Σ exp x - x[token]` of each row.
  private func add(_ hidden: MutableTensor, _ rows: [Int32], predicting tokens: ArraySlice<Int32>) throws {
    let logits = try model.logits(hidden, rows: rows, workspace: workspace)
    var scores: [(largest: (id: Int32, logit: Float), token: Float)] = []
    for (row, token) in tokens.enumerated() {
      // A token without a row of embeddings has been refused by `forward`, but for the very last.
      guard token >= 0, Int(token) < logits.shape[1] else {
        throw QuernError.invalidOperand(
          operation: .embedding, reason: "token id \(token) in a vocabulary of \(logits.shape[1])")
      }
      let values = UnsafeBufferPointer(start: logits.base + row * logits.strides[0], count: logits.shape[1])
      scores.append((Sampler.largest(values), values[Int(token)]))
    }
    // The softmax of the largest logit is never too small for f32.
    try model.context.softmax(logits.view, into: logits)
    for (row, score) in scores.enumerated() {
      let share = Double(logits[row, Int(score.largest.id)])
      result.negativeLogLikelihood += Double(score.largest.logit) - Double(score.token) - Real.log(share)
    }
    result.tokens += scores.count
  }
}

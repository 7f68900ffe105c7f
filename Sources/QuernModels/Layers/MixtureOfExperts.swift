import Quern

/// A mixture of experts: a router chooses a few gated feed-forward parts for each token (Shazeer et al., arXiv 1701.06538).
struct MixtureOfExperts: Sendable {
  let router: Linear
  let gateUp, down: [PackedMatrix]
  let perToken: Int
  /// Whether the shares of the chosen experts add up to 1.
  let normalizes: Bool
  let activation: Activation

  /// Memory of a pass, which grows to the most tokens it has met.
  final class Workspace {
    fileprivate var capacity = 0
    fileprivate var scores, chosen, rows, up, out, shares: MutableTensor

    init() throws {
      let empty = try MutableTensor(zeros: Shape(0, 0))
      (scores, chosen, rows, up, out, shares) = (empty, empty, empty, empty, empty, empty)
    }

    func reserve(_ tokens: Int, hiddenSize: Int, _ experts: DecoderConfiguration.Experts) throws(QuernError) {
      let picked = tokens * experts.perToken
      guard tokens > capacity || rows.shape[1] != hiddenSize || up.shape[1] != 2 * experts.intermediateSize else {
        return
      }
      scores = try MutableTensor(zeros: Shape(tokens, experts.count))
      chosen = try MutableTensor(zeros: Shape(tokens, experts.perToken))
      rows = try MutableTensor(zeros: Shape(picked, hiddenSize))
      up = try MutableTensor(zeros: Shape(picked, 2 * experts.intermediateSize))
      out = try MutableTensor(zeros: Shape(picked, hiddenSize))
      shares = try MutableTensor(zeros: Shape(picked))
      capacity = tokens
    }
  }

  /// `y += Σ share_e expert_e(x)` over the experts that the router chooses for each row of x.
  func callAsFunction(
    _ x: TensorView, addingTo y: MutableTensor, _ workspace: Workspace, _ context: Context
  ) throws(QuernError) {
    let tokens = x.shape[0]
    let (scores, chosen) = (workspace.scores.rows(0..<tokens), workspace.chosen.rows(0..<tokens))
    let picked = 0..<tokens * perToken
    let (rows, up, out) = (workspace.rows.rows(picked), workspace.up.rows(picked), workspace.out.rows(picked))
    var indices = [Int32](repeating: 0, count: picked.count)
    try router(x, into: scores, context)
    try context.softmax(scores.view, into: scores)
    try context.topK(scores.view, values: chosen, indices: &indices)

    let order = try order(of: indices)
    let shares = workspace.shares.rows(picked)
    for (place, pick) in order.picks.enumerated() {
      let token = pick / perToken
      let sum = normalizes ? (0..<perToken).reduce(0) { $0 + chosen[token, $1] } : 1
      shares[place] = chosen[token, pick % perToken] / sum
    }
    let sources = order.picks.map { Int32($0 / perToken) }
    try context.embedding(sources, table: x, into: rows)
    try context.expertLinear(rows.view, segments: order.segments, weights: gateUp, into: up)
    let width = up.shape[1] / 2
    let inner = up.columns(0..<width)
    try context.gated(activation, gate: inner.view, value: up.columns(width..<2 * width).view, into: inner)
    try context.expertLinear(inner.view, segments: order.segments, weights: down, into: out)
    try context.scatterAdd(out.view, ids: sources, weights: shares.view, into: y)
  }

  /// The picks sorted by expert, those of one expert in the order of tokens, and the rows of each expert.
  private func order(of indices: [Int32]) throws(QuernError) -> (picks: [Int], segments: Segments) {
    var counts = [Int](repeating: 0, count: gateUp.count)
    for expert in indices { counts[Int(expert)] += 1 }
    let segments = try Segments(lengths: counts)
    var next = segments.offsets.map { Int($0) }
    var picks = [Int](repeating: 0, count: indices.count)
    for (pick, expert) in indices.enumerated() {
      picks[next[Int(expert)]] = pick
      next[Int(expert)] += 1
    }
    return (picks, segments)
  }
}

import Quern

/// A mixture of experts: a router chooses a few gated feed-forward parts for each token (Shazeer et al., arXiv 1701.06538).
struct MixtureOfExperts: Sendable {
  let router: Linear
  /// Added to the scores where experts are chosen, and nowhere else (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
  let correction: Tensor?
  let gateUp, down: [PackedMatrix]
  /// `[experts, outputs]` each.
  let gateUpBias, downBias: Tensor?
  let gate: Gate
  /// A part that every token takes.
  let shared: FeedForward?
  let options: DecoderConfiguration.Experts

  /// Memory of a pass, which grows to the most tokens it has met.
  final class Workspace {
    fileprivate var capacity = 0
    fileprivate var scores, choices, chosen, rows, up, out, shares: MutableTensor
    fileprivate var indices: [Int32] = []
    fileprivate var order = Order()

    init() throws {
      let empty = try MutableTensor(zeros: Shape(0, 0))
      (scores, choices, chosen, rows, up, out, shares) = (empty, empty, empty, empty, empty, empty, empty)
    }

    func reserve(_ tokens: Int, hiddenSize: Int, _ experts: DecoderConfiguration.Experts) throws(QuernError) {
      let picked = tokens * experts.perToken
      guard
        tokens > capacity || rows.shape[1] != hiddenSize || up.shape[1] != 2 * experts.intermediateSize
          || scores.shape[1] != experts.count || chosen.shape[1] != experts.perToken
      else { return }
      scores = try MutableTensor(zeros: Shape(tokens, experts.count))
      choices = try MutableTensor(zeros: Shape(tokens, experts.count))
      chosen = try MutableTensor(zeros: Shape(tokens, experts.perToken))
      rows = try MutableTensor(zeros: Shape(picked, hiddenSize))
      up = try MutableTensor(zeros: Shape(picked, 2 * experts.intermediateSize))
      out = try MutableTensor(zeros: Shape(picked, hiddenSize))
      shares = try MutableTensor(zeros: Shape(picked))
      capacity = tokens
    }
  }

  /// The picks sorted by expert, those of one expert in the order of tokens. Its arrays keep their memory from pass to pass.
  fileprivate struct Order {
    var segments = Segments()
    /// Which pick each row is, and of which token.
    var picks: [Int32] = []
    var tokens: [Int32] = []
    private var counts: [Int] = []

    mutating func sort(_ indices: [Int32], experts: Int, perToken: Int) throws(QuernError) {
      counts.assign(repeating: 0, count: experts)
      for expert in indices { counts[Int(expert)] += 1 }
      try segments.assign(lengths: counts)
      picks.assign(repeating: 0, count: indices.count)
      tokens.assign(repeating: 0, count: indices.count)
      for expert in counts.indices { counts[expert] = segments[expert].lowerBound }
      for (pick, expert) in indices.enumerated() {
        let place = counts[Int(expert)]
        (picks[place], tokens[place]) = (Int32(pick), Int32(pick / perToken))
        counts[Int(expert)] += 1
      }
    }
  }

  /// `y += Σ share_e expert_e(x) + shared(x)` over the experts that the router chooses for each row of x. `up` is memory for the
  /// shared part.
  func callAsFunction(
    _ x: TensorView, addingTo y: MutableTensor, _ workspace: Workspace, up: MutableTensor, _ context: Context
  ) throws(QuernError) {
    let picked = 0..<x.shape[0] * options.perToken
    try choose(x, workspace, context)
    let (rows, inner, out) = (workspace.rows.rows(picked), workspace.up.rows(picked), workspace.out.rows(picked))
    let segments = workspace.order.segments
    try context.embedding(workspace.order.tokens, table: x, into: rows)
    try context.expertLinear(
      rows.view, segments: segments, weights: gateUp, epilogue: Epilogue(bias: gateUpBias), into: inner)
    let gated = try gate(inner, context)
    try context.expertLinear(
      gated.view, segments: segments, weights: down, epilogue: Epilogue(bias: downBias), into: out)
    try context.scatterAdd(
      out.view, ids: workspace.order.tokens, weights: workspace.shares.rows(picked).view, into: y)
    if let shared { try shared.down(shared.inner(x, in: up, context).view, residual: y.view, into: y, context) }
  }

  /// The experts of each row of x and their shares, sorted by expert.
  private func choose(_ x: TensorView, _ workspace: Workspace, _ context: Context) throws(QuernError) {
    let tokens = 0..<x.shape[0]
    let (scores, chosen) = (workspace.scores.rows(tokens), workspace.chosen.rows(tokens))
    try router(x, into: scores, context)
    switch options.scoring {
    case .softmax: try context.softmax(scores.view, into: scores)
    case .sigmoid: try context.activation(.sigmoid, scores.view, into: scores)
    }
    var choices = scores
    if correction != nil || options.groups != nil {
      choices = workspace.choices.rows(tokens)
      try context.copy(scores.view, into: choices)
      if let correction {
        try context.add(choices.view, correction.view.reshaped(Shape(1, options.count)), into: choices)
      }
      if let groups = options.groups { for token in tokens { groups.hide(choices, token) } }
    }
    workspace.indices.assign(repeating: 0, count: tokens.count * options.perToken)
    try context.topK(choices.view, values: chosen, indices: &workspace.indices)
    try workspace.order.sort(workspace.indices, experts: options.count, perToken: options.perToken)
    let indices = workspace.indices
    func score(_ pick: Int) -> Double { scores[pick / options.perToken, Int(indices[pick])] }
    for (place, pick) in workspace.order.picks.enumerated() {
      let first = Int(pick) / options.perToken * options.perToken
      let sum = options.normalizes ? (first..<first + options.perToken).reduce(0) { $0 + score($1) } : 1
      workspace.shares[place] = Double(options.scale) * score(Int(pick)) / sum
    }
  }
}

extension DecoderConfiguration.Experts.Groups {
  /// Hides the experts of a row's groups that are not among its best (DeepSeek-V2, arXiv 2405.04434, section 2.2.2).
  fileprivate func hide(_ scores: MutableTensor, _ row: Int) {
    let size = scores.shape[1] / count
    withUnsafeTemporaryAllocation(of: Double.self, capacity: count) { best in
      for group in 0..<count {
        var (first, second) = (-Double.infinity, -Double.infinity)
        for expert in group * size..<(group + 1) * size {
          let score = scores[row, expert]
          if score > first { (first, second) = (score, first) } else if score > second { second = score }
        }
        best.initializeElement(at: group, to: sumsTwo ? first + second : first)
      }
      for group in 0..<count {
        // Of equal groups the first ones are kept.
        let better = (0..<count).count { best[$0] > best[group] || (best[$0] == best[group] && $0 < group) }
        guard better >= kept else { continue }
        for expert in group * size..<(group + 1) * size { scores[row, expert] = -.infinity }
      }
    }
  }
}

extension Array {
  /// This many times the same element, in the memory that the array has.
  mutating func assign(repeating element: Element, count: Int) {
    removeAll(keepingCapacity: true)
    append(contentsOf: repeatElement(element, count: count))
  }
}

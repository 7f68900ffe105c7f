/// Keys or values, however they are stored.
package enum AttentionRows {
  case tensor(TensorView)
  case int8(Int8Cache)

  /// The largest Euclidean norm of a head's vector in use, which with another bounds Σ|q k| (Cauchy and Schwarz).
  fileprivate func largestNorm(_ layout: AttentionLayout) -> Double {
    (0..<layout.keys.count).reduce(0) { largest, sequence in
      layout.keyRows(sequence).reduce(largest) { max($0, norm(row: $1)) }
    }
  }

  private func norm(row: Int) -> Double {
    switch self {
    case .tensor(let view): return view.largestNorm(row: row)
    case .int8(let cache):
      return (0..<cache.heads).reduce(0) { largest, head in
        let squares = (0..<cache.size).reduce(0.0) { sum, j in
          let value = cache[row / cache.capacity, row % cache.capacity, head, j]
          return sum + value * value
        }
        return max(largest, squares.squareRoot())
      }
    }
  }

  fileprivate func absolute() throws(QuernError) -> AttentionRows {
    switch self {
    case .tensor(let view): return .tensor(try view.absolute())
    case .int8(let cache):
      let copy = try cache.copied()
      for place in 0..<cache.sequences * cache.capacity * cache.heads * cache.size {
        copy.codes.storeBytes(
          of: abs(cache.codes.load(fromByteOffset: place, as: Int8.self)), toByteOffset: place, as: Int8.self)
      }
      return .int8(copy)
    }
  }
}

extension TensorView {
  /// The largest Euclidean norm of a head's vector of a token.
  fileprivate func largestNorm(row: Int) -> Double {
    (0..<shape[1]).reduce(0) { largest, head in
      let vector = line(row * strides[0] + head * strides[1])
      return max(largest, (0..<shape[2]).reduce(0.0) { $0 + vector[$1] * vector[$1] }.squareRoot())
    }
  }
}

/// The operands of one attention.
package struct AttentionOperands {
  let queries: TensorView
  let keys, values: AttentionRows
  let layout: AttentionLayout
  let mask: AttentionMask
  let scale, softCap: Float

  package init(
    queries: TensorView, keys: AttentionRows, values: AttentionRows, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float
  ) {
    (self.queries, self.keys, self.values, self.layout) = (queries, keys, values, layout)
    (self.mask, self.scale, self.softCap) = (mask, scale, softCap)
  }

  fileprivate var isInt8: Bool { if case .int8 = keys { true } else { false } }

  fileprivate var isBF16: Bool {
    guard case .tensor(let keys) = keys, case .tensor(let values) = values else { return false }
    return queries.dataType == .bf16 && keys.dataType == .bf16 && values.dataType == .bf16
  }

  func run(on backend: any Backend, logSumExp: MutableTensor?, into o: MutableTensor) {
    run(on: backend, values: values, logSumExp: logSumExp, into: o)
  }

  fileprivate func run(
    on backend: any Backend, values: AttentionRows, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    switch (keys, values) {
    case (.tensor(let keys), .tensor(let values)):
      backend.attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        logSumExp: logSumExp, into: o)
    case (.int8(let keys), .int8(let values)):
      backend.attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        logSumExp: logSumExp, into: o)
    default: preconditionFailure("keys and values are stored alike")
    }
  }
}

extension ErrorBounds {
  /// Σ p|v| / Σ p times twice the error of a score, exp's and the sums' relative errors. Where everything is bf16, weights may be
  /// rounded to it as well, and what is below the normal range flushed.
  package func attention(_ call: AttentionOperands, into type: DataType) throws(QuernError) -> [Double] {
    let weighted = try MutableTensor(zeros: call.queries.shape)
    call.run(on: ReferenceBackend(), values: try call.values.absolute(), logSumExp: nil, into: weighted)
    let rounds = type == .bf16 && call.isBF16
    let relative = 2 * score(call) + sums(call) + (rounds ? 0x1p-8 : 0)
    let least = rounds ? Double(call.layout.longestKeys + 2) * 0x1p-126 : 0
    return weighted.view.values.map { relative * Double($0) * (1 + relative) + least }
  }

  /// The sum's relative errors become absolute; its logarithm is within an ulp, and is added to the largest score.
  package func logSumExp(_ call: AttentionOperands, expected: [Float]) -> [Double] {
    let (score, sums, keys) = (score(call), sums(call), call.layout.longestKeys)
    return expected.map {
      2 * score + sums * (1 + sums) + 2 * Rounding.unit * (Real.log(Double(max(keys, 2))) + abs(Double($0)))
    }
  }

  /// Products, scale; the cap's quotient and product with tanh (4 u, and its argument's roundings again); codes round once more.
  /// The bias of ALiBi rounds once at the size of the farthest key, as do the sums with it and with a mask. Of bf16, a
  /// score less the largest may become an exponent of 2, by a product more.
  private func score(_ call: AttentionOperands) -> Double {
    let (q, mask, layout) = (call.queries, call.mask, call.layout)
    let norm = (0..<q.shape[0]).reduce(0) { max($0, q.largestNorm(row: $1)) } * call.keys.largestNorm(layout)
    let offset = mask.additive.map { $0.values.filter(\.isFinite).map(abs).max() ?? 0 } ?? 0
    let steepest = mask.slopes.map { $0.elements.map(abs).max() ?? 0 } ?? 0
    let farthest = Double(max(layout.queries.maximumLength, layout.longestKeys)) * Double(steepest)
    let exponent = call.isBF16 ? 6.0 : 0
    let steps = (call.softCap == 0 ? 2.0 : 10) + (call.isInt8 ? 1 : 0) + exponent
    return (rounding.sum(q.shape[2]) + steps * Rounding.unit) * abs(Double(call.scale)) * norm
      + (2 + exponent) * Rounding.unit * (Double(offset) + farthest)
  }

  /// Each tile of keys rescales the sums once; exp is within 2 u. Parts of keys, of 512 at least, are put together
  /// with fewer roundings than that counts. Each run of the blocks of a mask rescales by itself.
  private func sums(_ call: AttentionOperands) -> Double {
    let keys = call.layout.longestKeys
    let runs = call.mask.blocks.map { $0.blockKeys < 32 ? $0.blockColumns : 0 } ?? 0
    return Rounding.gamma(2 * keys + 3 * (keys / 32 + 1 + runs) + (call.isInt8 ? 13 : 12))
  }
}

import Quern

/// A decoder's table of tokens, and what adapters add to its rows.
struct TokenEmbedding: Sendable {
  enum Rows: Sendable {
    case table(Tensor)
    /// The rows of packed weights: a tied head's, or a quantised table.
    case packed(PackedMatrix)
  }

  let rows: Rows
  /// A row of each token, `[vocabulary, r]`, and what makes hidden states of it, `[hidden, r]`.
  let update: (down: PackedMatrix, up: PackedMatrix)?

  /// Elements of a row of the update.
  var rank: Int { update?.up.inputs ?? 0 }

  /// - Parameter low: memory for the rows of the update.
  func callAsFunction(
    _ ids: [Int32], low: MutableTensor, into hidden: MutableTensor, _ context: Context
  ) throws(QuernError) {
    switch rows {
    case .table(let table): try context.embedding(ids, table: table.view, into: hidden)
    case .packed(let rows): try context.embedding(ids, weights: rows, into: hidden)
    }
    guard let update else { return }
    try context.embedding(ids, weights: update.down, into: low)
    try context.linear(low.view, weights: update.up, residual: hidden.view, into: hidden)
  }
}

extension Weights {
  /// The rows of a table, `[vocabulary, hidden]`, with the updates of adapters beside them or added to them.
  ///
  /// - Parameter shared: the same matrix where a tied head has packed it.
  func embedding(
    _ table: LinearLayer, shared: PackedMatrix?, as type: DataType?, context: Context
  ) throws -> TokenEmbedding {
    // Factors go from tokens to hidden states, for which the table is a matrix stored transposed.
    var layer = LinearLayer(parts: [.init(name: table.parts[0].name, outputs: table.inputs)], inputs: table.outputs)
    layer.isTransposed = true
    let update = try adapters?.update(layer)
    if let update, adapters?.merges == true {
      let sum = try merged(layer, update, as: type, context: context)
      return TokenEmbedding(rows: .packed(try context.pack(sum.view.transposed())), update: nil)
    }
    let factors = try update.map {
      (down: try context.pack($0.down.view.transposed()), up: try context.pack($0.up.view))
    }
    let name = table.parts[0].weight
    if let shared { return TokenEmbedding(rows: .packed(shared), update: factors) }
    guard try source.info(full(name)).quantization == nil else {
      return TokenEmbedding(rows: .packed(try packed(table, as: type, context: context)), update: factors)
    }
    return TokenEmbedding(
      rows: .table(try tensor(name, Shape(table.outputs, table.inputs), as: type)), update: factors)
  }
}

extension VerifyingBackend {
  public func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    let call = AttentionOperands(
      queries: queries, keys: .tensor(keys), values: .tensor(values), layout: layout, mask: mask, scale: scale,
      softCap: softCap)
    verify(.attention, call, logSumExp, o)
  }

  public func attention(
    queries: TensorView, keys: Int8Cache, values: Int8Cache, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
  ) {
    let call = AttentionOperands(
      queries: queries, keys: .int8(keys), values: .int8(values), layout: layout, mask: mask, scale: scale,
      softCap: softCap)
    verify(.int8Attention, call, logSumExp, o)
  }

  private func verify(
    _ operation: Operation, _ call: AttentionOperands, _ logSumExp: MutableTensor?, _ o: MutableTensor
  ) {
    let operands: Operands = ["queries": call.queries, "keys": call.keys, "mask": call.mask.additive]
    verify(operation, o, second: logSumExp.map { ("logSumExp", $0) }, operands) {
      call.run(on: $0, logSumExp: $2, into: $1)
    } bound: { bounds, _ throws(QuernError) in
      try bounds.attention(call, into: o.dataType)
    } secondBound: {
      $0.logSumExp(call, expected: $1)
    }
  }

  public func rope(
    _ x: TensorView, table: RotaryTable, positions: [Int32], pairing: RotaryPairing, into y: MutableTensor
  ) {
    verify(.rope, y, ["x": x, "table": table.values]) {
      $0.rope(x, table: table, positions: positions, pairing: pairing, into: $1)
    } bound: { bounds, _ in
      bounds.rope(x, table: table, positions: positions, pairing: pairing)
    }
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: MutableTensor) {
    verify(.appendToCache, cache, ["x": x], isExact: true) {
      $0.appendToCache(x, sequences: sequences, lengths: lengths, cache: $1)
    } bound: {
      $0.exact($1)
    }
  }

  public func appendToCache(_ x: TensorView, sequences: Segments, lengths: [Int32], cache: Int8Cache) {
    var expected: [Float]?
    do throws(QuernError) {
      let scratch = try cache.copied()
      ReferenceBackend().appendToCache(x, sequences: sequences, lengths: lengths, cache: scratch)
      expected = scratch.elements
    } catch {
      record(error)
    }
    wrapped.appendToCache(x, sequences: sequences, lengths: lengths, cache: cache)
    guard let expected else { return }
    compare(
      .appendToInt8Cache, "the cache", [cache.sequences, cache.capacity, cache.heads, cache.size], cache.elements,
      expected, bounds.exact(expected), isExact: true, ["x": x, "cache": cache])
  }
}

extension Int8Cache {
  /// What codes and scales stand for, by sequence, position and head.
  fileprivate var elements: [Float] {
    (0..<sequences * capacity * heads).flatMap { place in
      let (row, head) = (place / heads, place % heads)
      return (0..<size).map { Float(self[row / capacity, row % capacity, head, $0]) }
    }
  }
}

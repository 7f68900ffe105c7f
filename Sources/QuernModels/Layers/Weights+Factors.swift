import Quern

/// Matrices that are stored as two factors, `NAME.up.weight NAME.down.weight` in place of `NAME.weight`.
extension Weights {
  /// How a part of a linear layer is stored.
  enum Storage: Equatable {
    case plain
    case blocks(QuantizedFormat)
    case factors
  }

  /// Whether the files have a part, in whatever storage.
  func contains(_ part: LinearLayer.Part) -> Bool { source.contains(full(part.weight)) || hasFactor(part) }

  private func hasFactor(_ part: LinearLayer.Part) -> Bool {
    source.contains(full(part.down)) || source.contains(full(part.up))
  }

  /// Factors count where the matrix itself is missing.
  func storage(_ part: LinearLayer.Part) throws(ModelError) -> Storage {
    guard source.contains(full(part.weight)) || !hasFactor(part) else { return .factors }
    if let quantization = try source.info(full(part.weight)).quantization { return .blocks(quantization.format) }
    return .plain
  }

  /// The rank of the factors of a part, whose shapes and types are checked.
  func rank(_ part: LinearLayer.Part, inputs: Int) throws(ModelError) -> Int {
    for (name, other) in [(part.down, part.up), (part.up, part.down)] where !source.contains(full(name)) {
      throw ModelError(
        file: file, field: "tensors.\(full(name))", offset: try source.info(full(other)).byteRange.lowerBound,
        reason: "is missing, while \(full(other)) is there: a matrix stored as factors has both")
    }
    let (down, up) = (try source.info(full(part.down)), try source.info(full(part.up)))
    let isDownSound = down.shape.count == 2 && down.shape[1] == inputs && down.shape[0] > 0
    guard isDownSound, up.shape == [part.outputs, down.shape[0]] else {
      let (name, info) = isDownSound ? (part.up, up) : (part.down, down)
      throw ModelError(
        file: file, field: "tensors.\(full(name)).shape", offset: info.byteRange.lowerBound,
        reason: "the tensor has shape \(info.shape); factors of \(full(part.weight)) are [r, \(inputs)] and "
          + "[\(part.outputs), r] with a rank r of at least 1")
    }
    try require(part.down, Shape(down.shape[0], inputs))
    try require(part.up, Shape(part.outputs, down.shape[0]))
    return down.shape[0]
  }

  /// The factors of a layer of one part. Adapters make them higher: `[B U] [A; D]` is `B A + U D`.
  func factors(_ layer: LinearLayer, as type: DataType?, context: Context) throws -> Linear.Matrix {
    let part = layer.parts[0]
    let rank = try rank(part, inputs: layer.inputs)
    let down = try tensor(part.down, Shape(rank, layer.inputs), as: type)
    let up = try tensor(part.up, Shape(part.outputs, rank), as: type)
    guard let adapters, let update = try adapters.update(layer) else {
      return .factors(nil, down: try context.pack(down.view), up: try context.pack(up.view))
    }
    guard !adapters.merges else {
      throw ModelError(
        file: file, field: "tensors.\(full(part.down))",
        offset: try source.info(full(part.down)).byteRange.lowerBound,
        reason: "is a factor of a matrix; an adapter can run beside it, but not be merged into it")
    }
    let all = rank + update.down.shape[0]
    let allDown = try MutableTensor(zeros: Shape(all, layer.inputs))
    let allUp = try MutableTensor(zeros: Shape(part.outputs, all))
    try context.copy(down.view, into: allDown.rows(0..<rank))
    try context.copy(update.down.view, into: allDown.rows(rank..<all))
    try context.copy(up.view, into: allUp.columns(0..<rank))
    try context.copy(update.up.view, into: allUp.columns(rank..<all))
    return .factors(nil, down: try context.pack(allDown.view), up: try context.pack(allUp.view))
  }
}

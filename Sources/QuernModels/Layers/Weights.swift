import Quern

/// Weights by name, checked against the shape that a configuration implies before any memory is taken.
package struct Weights {
  package let source: any TensorSource
  /// The directory, for errors.
  package let file: String
  package let prefix: String
  /// Names that have no prefix.
  private let unprefixed: [String]
  let adapters: AdapterSet?

  /// - Parameters:
  ///   - prefixes: what checkpoints put before the names, tried in turn against `probe`.
  ///   - unprefixed: names that they put nothing before.
  init(
    _ source: any TensorSource, file: String, prefixes: [String] = [""], probe: String, unprefixed: [String] = [],
    adapters: AdapterSet?
  ) throws(ModelError) {
    (self.source, self.file, self.adapters) = (source, file, adapters)
    // The factors of such a matrix go by its name.
    let matrices = unprefixed.filter { $0.hasSuffix(".weight") }.map {
      LinearLayer.Part(name: String($0.dropLast(".weight".count)), outputs: 0)
    }
    self.unprefixed = unprefixed + matrices.flatMap { [$0.down, $0.up] }
    guard let found = prefixes.first(where: { source.contains($0 + probe) }) else {
      throw ModelError(
        file: file, field: "tensors.\(probe)", reason: "no such tensor; this architecture needs one of that name")
    }
    prefix = found
  }

  /// Weights whose names need no prefix.
  package init(_ source: any TensorSource, file: String, probe: String) throws(ModelError) {
    try self.init(source, file: file, probe: probe, adapters: nil)
  }

  init(
    _ source: any TensorSource, file: String, of family: some ModelFamily, adapters: AdapterSet? = nil
  ) throws(ModelError) {
    try self.init(
      source, file: file, prefixes: family.tensorPrefixes, probe: family.probe, unprefixed: family.unprefixed,
      adapters: adapters)
  }

  /// The name that the file has for `name`.
  package func full(_ name: String) -> String { unprefixed.contains(name) ? name : prefix + name }

  /// The tensor `name`, which must have this shape, stored as `type`, or where that is nil as the file has it.
  package func tensor(_ name: String, _ shape: Shape, as type: DataType? = .f32) throws -> Tensor {
    try require(name, shape)
    let type = try type ?? stored(name)
    return try Tensor(uninitialized: shape, dataType: type) { try read(name, as: type, into: $0) }
  }

  /// The tensor `name` as `type`, or in f32 where it is quantised; of blocks, all dimensions but the last count as rows.
  func widened(_ name: String, _ shape: Shape, as type: DataType) throws -> Tensor {
    let info = try source.info(full(name))
    guard let found = info.quantization else { return try tensor(name, shape, as: type) }
    let inputs = shape[shape.rank - 1]
    guard found.inputs == inputs, found.outputs == shape.count / inputs else {
      throw misfit(name, info, found, shape)
    }
    return try Tensor(shape: shape) { try source.readFloat32(full(name), into: $0) }
  }

  /// Tensors of equal widths side by side, of this shape together.
  func columns(_ names: [String], _ shape: Shape) throws -> Tensor {
    let width = shape[1] / names.count
    let parts = try names.map { try tensor($0, Shape(shape[0], width)).elements }
    return try Tensor(shape: shape) { values in
      for place in values.indices {
        let (row, column) = (place / shape[1], place % shape[1])
        values[place] = parts[column / width][row * width + column % width]
      }
    }
  }

  /// The norm `NAME` of rows of `width`.
  package func norm(_ name: String, _ width: Int, _ kind: EncoderStackConfiguration.Norm) throws -> Norm {
    Norm(
      isCentred: kind.isCentred, weight: try tensor("\(name).weight", Shape(width)),
      bias: kind.hasBias ? try tensor("\(name).bias", Shape(width)) : nil, epsilon: kind.epsilon)
  }

  /// The biases `NAME.bias` of a linear layer, end to end.
  package func bias(_ layer: LinearLayer) throws -> Tensor {
    for part in layer.parts { try require("\(part.name).bias", Shape(part.outputs)) }
    return try Tensor(shape: Shape(layer.outputs)) { buffer in
      var done = 0
      for part in layer.parts {
        let slice = UnsafeMutableBufferPointer(rebasing: buffer[done..<done + part.outputs])
        try source.readFloat32(full("\(part.name).bias"), into: slice)
        done += part.outputs
      }
    }
  }

  /// A linear layer with what follows its product: one product for each run of tensors stored alike, and for each that is
  /// stored as factors.
  package func linear(
    _ layer: LinearLayer, as type: DataType?, hasBias: Bool, activation: Activation = .identity, context: Context
  ) throws -> Linear {
    var runs: [(layer: LinearLayer, storage: Storage)] = []
    for part in layer.parts {
      let storage = try storage(part)
      if storage != .factors, runs.last?.storage == storage {
        runs[runs.count - 1].layer.parts.append(part)
      } else {
        var run = layer
        run.parts = [part]
        runs.append((run, storage))
      }
    }
    return Linear(
      parts: try runs.map { run, storage in
        let matrix =
          try storage == .factors
          ? factors(run, as: type, context: context) : adapted(run, as: type, context: context)
        return Linear.Part(
          matrix: matrix, epilogue: Epilogue(bias: hasBias ? try bias(run) : nil, activation: activation))
      })
  }

  /// The matrices of a run that are stored whole, with the updates of adapters.
  ///
  /// - Parameter tied: where the matrix is that of another layer, which is packed already.
  func adapted(
    _ run: LinearLayer, tiedTo tied: (layer: LinearLayer, packed: PackedMatrix)? = nil, as type: DataType?,
    context: Context
  ) throws -> Linear.Matrix {
    func own() throws -> PackedMatrix { try tied?.packed ?? packed(run, as: type, context: context) }
    guard let adapters, let update = try adapters.update(run) else { return .whole(try own()) }
    if adapters.merges {
      return .whole(try context.pack(merged(tied?.layer ?? run, update, as: type, context: context).view))
    }
    return .factors(
      try own(), down: try context.pack(update.down.view), up: try context.pack(update.up.view))
  }

  /// The matrices of a linear layer, packed: quantised ones as they are, others stored as `type`, or where that is nil as the
  /// first of them is.
  package func packed(_ layer: LinearLayer, as type: DataType?, context: Context) throws -> PackedMatrix {
    try matrix(layer, as: type).packed(0..<layer.outputs, context)
  }

  /// The matrices of a linear layer as they are read, `[outputs, inputs]`.
  enum Matrix {
    case plain(TensorView)
    case blocks(QuantizedMatrix)

    /// Some of the outputs.
    func packed(_ rows: Range<Int>, _ context: Context) throws -> PackedMatrix {
      switch self {
      case .plain(let view): try context.pack(view.rows(rows))
      case .blocks(let blocks): try context.pack(blocks.rows(rows))
      }
    }
  }

  /// See ``packed(_:as:context:)``.
  func matrix(_ layer: LinearLayer, as type: DataType?) throws -> Matrix {
    let first = layer.parts[0]
    if let format = try source.info(full(first.weight)).quantization?.format {
      return .blocks(try quantized(layer, format))
    }
    if layer.isTransposed {
      precondition(layer.parts.count == 1, "transposed tensors are not stacked")
      return .plain(try tensor(first.weight, layer.shape(first), as: type).view.transposed())
    }
    return .plain(try stacked(layer, as: type).view)
  }

  /// The matrices of a linear layer with an update added, rounded once.
  func merged(
    _ layer: LinearLayer, _ update: (down: MutableTensor, up: MutableTensor), as type: DataType?, context: Context
  ) throws -> MutableTensor {
    let first = layer.parts[0]
    guard try source.info(full(first.weight)).quantization == nil else {
      throw ModelError(
        file: file, field: "tensors.\(full(first.weight))",
        reason: "is quantised; an adapter can run beside it, but not be merged into it")
    }
    let sum = try MutableTensor(zeros: Shape(layer.outputs, layer.inputs))
    let base =
      layer.isTransposed
      ? try tensor(first.weight, layer.shape(first)).view.transposed() : try stacked(layer, as: .f32).view
    try context.copy(base, into: sum)
    try context.matmul(update.up.view, update.down.view, beta: 1, into: sum)
    let rounded = try MutableTensor(zeros: sum.shape, dataType: type ?? stored(first.weight))
    try context.copy(sum.view, into: rounded)
    return rounded
  }

  /// The tensors of a linear layer one below the other, `[outputs, inputs]`.
  private func stacked(_ layer: LinearLayer, as type: DataType?) throws -> Tensor {
    for part in layer.parts { try require(part.weight, layer.shape(part)) }
    let type = try type ?? stored(layer.parts[0].weight)
    return try Tensor(uninitialized: Shape(layer.outputs, layer.inputs), dataType: type) { bytes in
      var done = 0
      for part in layer.parts {
        let size = part.outputs * layer.inputs * type.size
        try read(part.weight, as: type, into: UnsafeMutableRawBufferPointer(rebasing: bytes[done..<done + size]))
        done += size
      }
    }
  }

  /// The type that keeps a tensor as its file has it; f32 for those that Quern does not compute with, but bf16 for FP8, which
  /// checkpoints have beside tensors in bf16.
  package func stored(_ name: String) throws(ModelError) -> DataType {
    let dtype = try source.info(full(name)).dtype
    return dtype == .f8E4M3 ? .bf16 : dtype.stored ?? .f32
  }

  /// The elements of a tensor as `type`, straight from the file where that is its own.
  private func read(_ name: String, as type: DataType, into bytes: UnsafeMutableRawBufferPointer) throws {
    if try source.info(full(name)).dtype.stored == type {
      return try source.readBytes(full(name), into: bytes)
    }
    if type == .f32 { return try source.readFloat32(full(name), into: bytes.bindMemory(to: Float.self)) }
    try source.forEachFloat32(full(name)) { values, first in
      let place = first * type.size..<(first + values.count) * type.size
      try type.narrow(values, into: UnsafeMutableRawBufferPointer(rebasing: bytes[place]))
    }
  }

  private func quantized(_ layer: LinearLayer, _ format: QuantizedFormat) throws -> QuantizedMatrix {
    var size = 0
    for part in layer.parts {
      let name = part.weight
      let info = try source.info(full(name))
      func error(_ reason: String) -> ModelError {
        ModelError(file: file, field: "tensors.\(full(name))", offset: info.byteRange.lowerBound, reason: reason)
      }
      guard let found = info.quantization, found.format == format else {
        throw error(
          "is stored as \(info.quantization?.format.rawValue ?? info.dtype.rawValue), while \(full(layer.parts[0].weight)) of the "
            + "same product is \(format.rawValue)")
      }
      guard found.outputs == part.outputs, found.inputs == layer.inputs, !layer.isTransposed else {
        throw misfit(name, info, found, layer.shape(part))
      }
      size = try Checked.add(size, info.byteCount, orThrow: error("is too large"))
    }
    let blocks = try FileBytes(count: size, file: file, field: "tensors.\(full(layer.parts[0].weight))")
    var done = 0
    for part in layer.parts {
      let bytes = try source.info(full(part.weight)).byteCount
      let slice = UnsafeMutableRawBufferPointer(rebasing: blocks.mutableBytes[done..<done + bytes])
      try source.readBytes(full(part.weight), into: slice)
      done += bytes
    }
    return try blocks.withUnsafeBytes {
      try QuantizedMatrix(
        blocks: $0, outputs: layer.outputs, inputs: layer.inputs, format: format)
    }
  }

  /// Blocks of a matrix of another size than `shape`.
  private func misfit(
    _ name: String, _ info: TensorInfo, _ found: TensorInfo.Quantization, _ shape: Shape
  ) -> ModelError {
    ModelError(
      file: file, field: "tensors.\(full(name)).shape", offset: info.byteRange.lowerBound,
      reason:
        "the tensor is \(found.format.rawValue) of [\(found.outputs), \(found.inputs)], config.json implies \(shape)")
  }

  /// Refuses a tensor that is quantised or of another shape.
  package func require(_ name: String, _ shape: Shape) throws(ModelError) {
    let info = try source.info(full(name))
    func error(_ field: String, _ reason: String) -> ModelError {
      ModelError(
        file: file, field: "tensors.\(full(name))\(field)", offset: info.byteRange.lowerBound, reason: reason)
    }
    if let quantization = info.quantization {
      throw error(
        "",
        "is quantised as \(quantization.format.rawValue), which is for matrices of linear layers"
      )
    }
    guard info.dtype != .u8 else {
      throw error(
        ".dtype", "is U8, and the metadata of its file does not say that it is quantised; docs/quantized-models.md")
    }
    guard info.shape == shape.array else {
      throw error(".shape", "the tensor has shape \(info.shape), config.json implies \(shape)")
    }
  }
}

extension SafetensorsDType {
  /// The type of a tensor that keeps these elements as they are, if there is one.
  package var stored: DataType? {
    switch self {
    case .f32: .f32
    case .bf16: .bf16
    case .f16: .f16
    default: nil
    }
  }
}

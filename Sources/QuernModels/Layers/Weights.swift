import Quern

/// Weights by name, checked against the shape that a configuration implies before any memory is taken.
struct Weights {
  let source: any TensorSource
  /// The directory, for errors.
  let file: String
  let prefix: String

  /// - Parameter prefixes: what checkpoints put before the names, tried in turn against `probe`.
  init(_ source: any TensorSource, file: String, prefixes: [String] = [""], probe: String) throws(ModelError) {
    (self.source, self.file) = (source, file)
    guard let found = prefixes.first(where: { source.contains($0 + probe) }) else {
      throw ModelError(
        file: file, field: "tensors.\(probe)", reason: "no such tensor; this architecture needs one of that name")
    }
    prefix = found
  }

  init(_ source: any TensorSource, file: String, of family: some ModelFamily) throws(ModelError) {
    try self.init(source, file: file, prefixes: type(of: family).tensorPrefixes, probe: type(of: family).probe)
  }

  /// The tensor `name`, which must have this shape, stored as `type`.
  func tensor(_ name: String, _ shape: Shape, as type: DataType = .f32) throws -> Tensor {
    try stacked([name], shape, as: type)
  }

  /// Several tensors stacked along the first axis, as a joint projection takes them.
  func stacked(_ names: [String], _ shape: Shape, as type: DataType = .f32) throws -> Tensor {
    for name in names { try require(name, shape) }
    var whole = shape
    whole[0] *= names.count
    let tensor = try Tensor(shape: whole) { buffer in
      for (index, name) in names.enumerated() {
        let part = UnsafeMutableBufferPointer(rebasing: buffer[index * shape.count..<(index + 1) * shape.count])
        try source.readFloat32(prefix + name, into: part)
      }
    }
    return type == .f32 ? tensor : try tensor.converted(to: type)
  }

  /// The matrices of a linear layer, packed: quantised ones as they are, others stored as `type`.
  func packed(_ layer: LinearLayer, as type: DataType, context: Context) throws -> PackedMatrix {
    let formats = try layer.weights.map { (name) throws(ModelError) in
      try source.info(prefix + name).quantization?.format
    }
    guard let format = formats.first ?? nil else {
      return try context.pack(stacked(layer.weights, Shape(layer.outputs, layer.inputs), as: type).view)
    }
    return try context.pack(quantized(layer, format))
  }

  private func quantized(_ layer: LinearLayer, _ format: QuantizedFormat) throws -> QuantizedMatrix {
    var size = 0
    for name in layer.weights {
      let info = try source.info(prefix + name)
      func error(_ field: String, _ reason: String) -> ModelError {
        ModelError(
          file: file, field: "tensors.\(prefix + name)\(field)", offset: info.byteRange.lowerBound, reason: reason)
      }
      guard let found = info.quantization, found.format == format else {
        throw error(
          "",
          "is stored as \(info.quantization?.format.rawValue ?? info.dtype.rawValue), while \(prefix + layer.weights[0]) of the "
            + "same product is \(format.rawValue)")
      }
      guard found.outputs == layer.outputs, found.inputs == layer.inputs else {
        throw error(
          ".shape",
          "the tensor is \(format.rawValue) of [\(found.outputs), \(found.inputs)], config.json implies "
            + "[\(layer.outputs), \(layer.inputs)]")
      }
      size = try Checked.add(size, info.byteRange.count, orThrow: error("", "is too large"))
    }
    let blocks = try FileBytes(count: size, file: file, field: "tensors.\(prefix + layer.weights[0])")
    let bytes = size / layer.weights.count
    for (index, name) in layer.weights.enumerated() {
      let part = UnsafeMutableRawBufferPointer(rebasing: blocks.mutableBytes[index * bytes..<(index + 1) * bytes])
      try source.readBytes(prefix + name, into: part)
    }
    return try blocks.withUnsafeBytes {
      try QuantizedMatrix(
        blocks: $0, outputs: layer.outputs * layer.weights.count, inputs: layer.inputs, format: format)
    }
  }

  /// Refuses a tensor that is quantised or of another shape.
  func require(_ name: String, _ shape: Shape) throws(ModelError) {
    let info = try source.info(prefix + name)
    func error(_ field: String, _ reason: String) -> ModelError {
      ModelError(
        file: file, field: "tensors.\(prefix + name)\(field)", offset: info.byteRange.lowerBound, reason: reason)
    }
    if let quantization = info.quantization {
      throw error(
        "",
        "is quantised as \(quantization.format.rawValue), which is for matrices of linear layers, all of a product alike"
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

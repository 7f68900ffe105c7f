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

  private func require(_ name: String, _ shape: Shape) throws(ModelError) {
    let info = try source.info(prefix + name)
    guard info.shape == shape.array else {
      throw ModelError(
        file: file, field: "tensors.\(prefix + name).shape", offset: info.byteRange.lowerBound,
        reason: "the tensor has shape \(info.shape), config.json implies \(shape)")
    }
  }
}

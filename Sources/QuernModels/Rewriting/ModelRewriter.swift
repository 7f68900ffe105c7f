import Quern

/// Writes a copy of a model directory in which matrices of linear layers have another form: what ``ModelQuantizer`` and
/// ``ModelCompressor`` share.
///
/// Shards stay shards, and `config.json` comes last, so that a directory that is not complete does not load. One matrix is in memory
/// at a time, with what becomes of it.
struct ModelRewriter: Sendable {
  /// A matrix of a linear layer, in the shape and one of the types that can be converted.
  struct Matrix: Sendable {
    /// As the file has it.
    let name: String
    let part: LinearLayer.Part
    let layer: LinearLayer
    let info: TensorInfo

    var outputs: Int { part.outputs }
    var inputs: Int { layer.inputs }
    /// The type of its elements once they are read: F64 and FP8 become f32.
    var dataType: DataType { info.dtype.stored ?? .f32 }
  }

  enum Decision: Sendable {
    case keep(reason: String)
    /// The tensors that take its place, in the order that `convert` gives them, and what the metadata says about the first.
    case replace([SafetensorsWriter.Entry], TensorInfo.Quantization? = nil)
  }

  /// The content of a tensor that is written.
  enum Content {
    case tensor(Tensor)
    case blocks(QuantizedMatrix)

    fileprivate func withBytes(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
      switch self {
      case .blocks(let matrix): try matrix.withBlocks(body)
      case .tensor(let tensor):
        let view = tensor.view
        try body(UnsafeRawBufferPointer(start: view.address, count: tensor.shape.count * tensor.dataType.size))
        withExtendedLifetime(view) {}
      }
    }
  }

  /// What a run wrote.
  struct Outcome {
    /// Tensors that are the same bytes as before, and bytes of all files with weights.
    var (otherTensors, bytes) = (0, 0)
    fileprivate var dataSize = 0
    /// The lines of the index.
    fileprivate var places: [String] = []
  }

  private struct Replacement: Sendable {
    let matrix: Matrix
    let entries: [SafetensorsWriter.Entry]
    let quantization: TensorInfo.Quantization?
  }

  let directory: String
  /// Bytes of the files with weights.
  let bytesBefore: Int
  /// Matrices of linear layers that stay as they are.
  let kept: [KeptMatrix]
  private let source: SafetensorsDirectory
  /// Its tensors as the model reads them.
  private let tensors: any TensorSource
  private let replacements: [UTF8Key: Replacement]
  /// Scales of matrices in FP8 that are replaced.
  private let droppedScales: Set<UTF8Key>

  /// Reads the configuration and the headers, and asks about each matrix. Nothing is written.
  ///
  /// - Throws: ``ModelError`` naming file, field and offset, for a directory that the model would not load and for matrices that are
  ///   quantised already.
  init(model directory: String, decide: (Matrix) -> Decision) throws(ModelError) {
    self.directory = directory
    let family = try ModelFamilies.read(directory: directory)
    source = try SafetensorsDirectory(path: directory)
    let scaled = try FP8Tensors(source)
    tensors = scaled ?? source
    let weights = try Self.weights(tensors, directory, family)
    var replacements: [UTF8Key: Replacement] = [:]
    var droppedScales: Set<UTF8Key> = []
    var kept: [KeptMatrix] = []
    for layer in family.linearLayers {
      for part in layer.parts where !layer.isOptional || weights.contains(part) {
        let name = weights.full(part.weight)
        if try weights.storage(part) == .factors {
          let rank = try weights.rank(part, inputs: layer.inputs)
          kept.append(KeptMatrix(name: name, reason: "is stored as factors of rank \(rank) already"))
          continue
        }
        let matrix = Matrix(name: name, part: part, layer: layer, info: try tensors.info(name))
        let scale = try scaled?.scaleName(name)
        try Self.check(matrix, weights, isScaled: scale != nil)
        switch decide(matrix) {
        case .keep(let reason): kept.append(KeptMatrix(name: name, reason: reason))
        case .replace(let entries, let quantization):
          replacements[UTF8Key(name)] = Replacement(matrix: matrix, entries: entries, quantization: quantization)
          if let scale { droppedScales.insert(UTF8Key(scale)) }
        }
      }
    }
    (self.replacements, self.kept, self.droppedScales) = (replacements, kept, droppedScales)
    var bytes = 0
    for shard in source.shards { bytes += try ModelFile(path: shard.path).size }
    bytesBefore = bytes
  }

  private static func weights(
    _ source: any TensorSource, _ file: String, _ family: some ModelFamily
  ) throws(ModelError) -> Weights {
    try Weights(source, file: file, of: family)
  }

  private static func check(_ matrix: Matrix, _ weights: Weights, isScaled: Bool) throws(ModelError) {
    let info = matrix.info
    func error(_ field: String, _ reason: String) -> ModelError {
      ModelError(
        file: weights.file, field: "tensors.\(matrix.name)\(field)", offset: info.byteRange.lowerBound, reason: reason)
    }
    if let quantization = info.quantization {
      throw error("", "is \(quantization.format.rawValue) already; start from the model that it was made from")
    }
    try weights.require(matrix.part.weight, matrix.layer.shape(matrix.part))
    guard isScaled || [.f32, .f16, .bf16, .f64].contains(info.dtype) else {
      throw error(
        ".dtype",
        "\(info.dtype.rawValue) cannot be converted; F32, F16, BF16, F64 and, with a quantization_config, F8_E4M3 can")
    }
  }

  /// Writes the directory.
  ///
  /// - Parameters:
  ///   - output: a folder that is empty or not there; neither the model's own nor inside it.
  ///   - replacing: take a folder that is not empty, and replace the model in it.
  ///   - progress: called after each tensor with the bytes read so far; what it throws ends the run.
  ///   - convert: what a matrix becomes, for each tensor that was decided on. Its ``QuernError`` about operands are told as the file's.
  /// - Throws: ``ModelError``; ``QuernError`` for memory that cannot be had. A folder that was empty or not there is so again.
  func write(
    to output: String, replacing: Bool, progress: (Int) throws -> Void, convert: (Matrix, Tensor) throws -> [Content]
  ) throws -> Outcome {
    let folder = try OutputFolder(path: output, input: directory, replacing: replacing)
    do {
      // A model that is half replaced must not load.
      try folder.remove("config.json")
      var outcome = Outcome()
      var done = 0
      for (shard, name) in zip(source.shards, source.shardNames) {
        try write(shard, named: name, to: folder.place(name), &outcome, convert) { bytes in
          done += bytes
          try progress(done)
        }
      }
      if let name = source.indexName { try writeIndex(folder.place(name), outcome) }
      for name in CompanionFiles.names(in: directory) where name != "config.json" { try copy(name, to: folder) }
      for name in CompanionFiles.read where !folder.has(name) { try folder.remove(name) }
      try copy("config.json", to: folder)
      return outcome
    } catch {
      folder.undo()
      throw error
    }
  }

  private func write(
    _ shard: Safetensors, named file: String, to path: String, _ outcome: inout Outcome,
    _ convert: (Matrix, Tensor) throws -> [Content], progress: (Int) throws -> Void
  ) throws {
    var quantized: [(name: String, quantization: TensorInfo.Quantization)] = []
    var entries: [SafetensorsWriter.Entry] = []
    var origins: [UTF8Key: (replacement: Replacement, index: Int)] = [:]
    for name in shard.tensorNames {
      guard !droppedScales.contains(UTF8Key(name)) else {
        try progress(shard.info(name).byteRange.count)
        continue
      }
      guard let replacement = replacements[UTF8Key(name)] else {
        let info = try shard.info(name)
        entries.append((name, info.dtype, info.shape))
        continue
      }
      entries += replacement.entries
      for (index, entry) in replacement.entries.enumerated() { origins[UTF8Key(entry.name)] = (replacement, index) }
      if let quantization = replacement.quantization { quantized.append((name, quantization)) }
    }
    let metadata = shard.metadata.merging(QuantizationMetadata.entries(quantized)) { $1 }
    let writer = try SafetensorsWriter(path: path, entries: entries, metadata: metadata)
    // What became of a matrix lies in the file in the order of names, maybe with other tensors between.
    var waiting: [UTF8Key: [Content?]] = [:]
    for entry in writer.entries {
      guard let (replacement, index) = origins[UTF8Key(entry.name)] else {
        try shard.forEachPiece(entry.name) { (bytes) throws(ModelError) in try writer.write(bytes) }
        outcome.otherTensors += 1
        try progress(shard.info(entry.name).byteRange.count)
        continue
      }
      let key = UTF8Key(replacement.matrix.name)
      var contents = try waiting[key] ?? converted(replacement.matrix, shard, convert)
      try contents[index]?.withBytes { try writer.write($0) }
      contents[index] = nil
      let isDone = contents.allSatisfy { $0 == nil }
      waiting[key] = isDone ? nil : contents
      if isDone { try progress(replacement.matrix.info.byteRange.count) }
    }
    try writer.commit()
    outcome.bytes += writer.size
    outcome.dataSize += writer.dataSize
    outcome.places += writer.entries.map {
      "    \(SafetensorsWriter.quoted($0.name)): \(SafetensorsWriter.quoted(file))"
    }
  }

  private func converted(
    _ matrix: Matrix, _ shard: Safetensors, _ convert: (Matrix, Tensor) throws -> [Content]
  ) throws -> [Content?] {
    func error(_ reason: String) -> ModelError {
      ModelError(
        file: shard.path, field: "tensors.\(matrix.name)", offset: matrix.info.byteRange.lowerBound, reason: reason)
    }
    do {
      return try convert(matrix, read(matrix))
    } catch QuernError.invalidOperand(_, let reason) {
      throw error(reason)
    } catch QuernError.linearAlgebra(_, let failure) {
      throw error("\(failure)")
    }
  }

  private func read(_ matrix: Matrix) throws -> Tensor {
    let shape = try Shape(checking: matrix.info.shape)
    guard let type = matrix.info.dtype.stored else {
      return try Tensor(shape: shape) { try tensors.readFloat32(matrix.name, into: $0) }
    }
    return try Tensor(shape: shape, dataType: type) { try tensors.readBytes(matrix.name, into: $0) }
  }

  private func writeIndex(_ path: String, _ outcome: Outcome) throws(ModelError) {
    let places = outcome.places.sorted { UTF8Key($0) < UTF8Key($1) }
    let text = """
      {
        "metadata": {
          "total_size": \(outcome.dataSize)
        },
        "weight_map": {
      \(places.joined(separator: ",\n"))
        }
      }

      """
    let file = try AtomicFile(path: path)
    try Array(text.utf8).withUnsafeBufferPointer { (bytes) throws(ModelError) in
      try file.write(UnsafeRawBufferPointer(bytes))
    }
    try file.commit()
  }

  private func copy(_ name: String, to folder: OutputFolder) throws(ModelError) {
    let source = try ModelFile(path: "\(directory)/\(name)")
    let copy = try AtomicFile(path: folder.place(name))
    try source.forEachPiece(of: 0..<source.size) { (bytes, _) throws(ModelError) in try copy.write(bytes) }
    try copy.commit()
  }
}

/// A matrix of a linear layer that a rewritten model has as it was.
public struct KeptMatrix: Sendable, Encodable {
  public var name: String
  public var reason: String
}

import Quern

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// Writes a copy of a model directory in which the matrices of linear layers are stored in fewer bits.
///
/// Which those are is what the model's family says; embeddings, norms, biases and tensors that the model does not read stay as
/// they are. `docs/quantized-models.md` describes the files. One tensor is in memory at a time.
///
/// ```swift
/// let quantizer = try ModelQuantizer(model: ".model/all-MiniLM-L6-v2", as: .blocks(.q8))
/// let report = try quantizer.write(to: "minilm-q8")
/// ```
public final class ModelQuantizer: Sendable {
  public let directory: String
  public let storage: WeightStorage
  /// Bytes of the files with weights.
  public let bytesBefore: Int
  private let source: SafetensorsDirectory
  private let matrices: [UTF8Key: TensorInfo.Quantization?]
  private let kept: [QuantizationReport.Kept]

  /// Reads the configuration and the headers, and decides what is to be done. Nothing is written.
  ///
  /// - Throws: ``ModelError`` naming file, field and offset, for a directory that the model would not load and for one that
  ///   is quantised already.
  public init(model directory: String, as storage: WeightStorage) throws(ModelError) {
    (self.directory, self.storage) = (directory, storage)
    let family = try ModelFamilies.read(directory: directory)
    source = try SafetensorsDirectory(path: directory)
    let weights = try Self.weights(source, directory, family)
    var matrices: [UTF8Key: TensorInfo.Quantization?] = [:]
    var kept: [QuantizationReport.Kept] = []
    for layer in family.linearLayers {
      for part in layer.parts {
        let name = weights.full(part.weight)
        if layer.isOptional, !source.contains(name) { continue }
        let info = try source.info(name)
        func error(_ field: String, _ reason: String) -> ModelError {
          ModelError(
            file: directory, field: "tensors.\(name)\(field)", offset: info.byteRange.lowerBound, reason: reason)
        }
        if let quantization = info.quantization {
          throw error("", "is \(quantization.format.rawValue) already; quantise the model that it was made from")
        }
        try weights.require(part.weight, layer.shape(part))
        guard [.f32, .f16, .bf16, .f64].contains(info.dtype) else {
          throw error(".dtype", "\(info.dtype.rawValue) cannot be quantised; F32, F16, BF16 and F64 can")
        }
        guard !layer.isTransposed || storage == .bf16 else {
          kept.append(QuantizationReport.Kept(name: name, reason: "its rows are inputs; blocks lie along the inputs"))
          continue
        }
        guard layer.inputs % storage.granularity == 0 else {
          let reason = "\(layer.inputs) inputs are no multiple of \(storage.granularity)"
          kept.append(QuantizationReport.Kept(name: name, reason: reason))
          continue
        }
        matrices[UTF8Key(name)] =
          switch storage {
          case .blocks(let format):
            .some(TensorInfo.Quantization(format: format, outputs: part.outputs, inputs: layer.inputs))
          case .bf16: .some(nil)
          }
      }
    }
    (self.matrices, self.kept) = (matrices, kept)
    var bytes = 0
    for shard in source.shards { bytes += try ModelFile(path: shard.path).size }
    bytesBefore = bytes
  }

  private static func weights(
    _ source: SafetensorsDirectory, _ file: String, _ family: some ModelFamily
  ) throws(ModelError) -> Weights {
    try Weights(source, file: file, of: family)
  }

  /// Writes the directory. Its `config.json` comes last, so that a directory that is not complete does not load.
  ///
  /// - Parameters:
  ///   - output: a folder that is empty or not there; neither the model's own nor inside it.
  ///   - replacing: take a folder that is not empty, and replace the model in it.
  ///   - progress: called after each tensor with the bytes read so far; what it throws ends the run.
  /// - Throws: ``ModelError``, also for weights that are not finite; ``QuernError`` for memory that cannot be had. A folder that
  ///   was empty or not there is so again.
  public func write(
    to output: String, replacing: Bool = false, progress: (Int) throws -> Void = { _ in }
  ) throws -> QuantizationReport {
    let folder = try OutputFolder(path: output, input: directory, replacing: replacing)
    do {
      // A model that is half replaced must not load.
      try folder.remove("config.json")
      var report = QuantizationReport(storage: storage.name)
      report.kept = kept
      var (done, dataSize) = (0, 0)
      for (shard, name) in zip(source.shards, source.shardNames) {
        dataSize += try write(shard, to: folder.place(name), &report) { bytes in
          done += bytes
          try progress(done)
        }
      }
      if let name = source.indexName { try writeIndex(folder.place(name), totalSize: dataSize) }
      for name in CompanionFiles.names(in: directory) where name != "config.json" { try copy(name, to: folder) }
      for name in CompanionFiles.read where !folder.has(name) { try folder.remove(name) }
      try copy("config.json", to: folder)
      report.bytesBefore = bytesBefore
      return report
    } catch {
      folder.undo()
      throw error
    }
  }

  /// Writes one file; the bytes of its tensors.
  private func write(
    _ shard: Safetensors, to path: String, _ report: inout QuantizationReport, progress: (Int) throws -> Void
  ) throws -> Int {
    var quantized: [(name: String, quantization: TensorInfo.Quantization)] = []
    let entries = try shard.tensorNames.map { name throws(ModelError) -> SafetensorsWriter.Entry in
      let info = try shard.info(name)
      switch matrices[UTF8Key(name)] {
      case .some(.some(let matrix)):
        quantized.append((name, matrix))
        let blocks = matrix.inputs / matrix.format.blockSize
        return (name, .u8, [matrix.outputs, blocks * matrix.format.blockBytes])
      case .some(.none): return (name, .bf16, info.shape)
      case .none: return (name, info.dtype, info.shape)
      }
    }
    let metadata = shard.metadata.merging(QuantizationMetadata.entries(quantized)) { $1 }
    let writer = try SafetensorsWriter(path: path, entries: entries, metadata: metadata)
    for entry in writer.entries {
      let info = try shard.info(entry.name)
      if matrices[UTF8Key(entry.name)] != nil {
        let (error, size) = try convert(entry.name, info, shard, writer)
        report.matrices.append(
          QuantizationReport.Matrix(
            name: entry.name, outputs: info.shape[0], inputs: info.shape[1], bytesBefore: info.byteRange.count,
            bytesAfter: size, largestError: error.largestShare, relativeError: error.relative))
      } else {
        try shard.forEachPiece(entry.name) { (bytes) throws(ModelError) in try writer.write(bytes) }
        report.otherTensors += 1
      }
      try progress(info.byteRange.count)
    }
    try writer.commit()
    report.bytesAfter += writer.size
    return writer.dataSize
  }

  /// Writes one matrix in its new storage; what was lost, and its size.
  private func convert(
    _ name: String, _ info: TensorInfo, _ shard: Safetensors, _ writer: SafetensorsWriter
  ) throws -> (RoundingError, Int) {
    do {
      let weights = try Self.read(name, info, shard)
      switch storage {
      case .blocks(let format):
        let matrix = try QuantizedMatrix(quantizing: weights.view, as: format)
        return try matrix.withBlocks { blocks in
          try writer.write(blocks)
          return (try matrix.roundingError(of: weights.view), blocks.count)
        }
      case .bf16:
        let (rounded, error) = try weights.view.roundedToBFloat16()
        let size = rounded.shape.count * rounded.dataType.size
        let view = rounded.view
        try writer.write(UnsafeRawBufferPointer(start: view.address, count: size))
        return (error, size)
      }
    } catch QuernError.invalidOperand(_, let reason) {
      throw ModelError(
        file: shard.path, field: "tensors.\(name)", offset: info.byteRange.lowerBound, reason: reason)
    }
  }

  /// A matrix in the type that the file has; F64 becomes f32.
  private static func read(_ name: String, _ info: TensorInfo, _ shard: Safetensors) throws -> Tensor {
    let shape = try Shape(checking: info.shape)
    guard let type = info.dtype.stored else {
      return try Tensor(shape: shape) { try shard.readFloat32(name, into: $0) }
    }
    return try Tensor(shape: shape, dataType: type) { try shard.readBytes(name, into: $0) }
  }

  private func writeIndex(_ path: String, totalSize: Int) throws(ModelError) {
    var places: [String] = []
    for (shard, file) in zip(source.shards, source.shardNames) {
      for name in shard.tensorNames {
        places.append("    \(SafetensorsWriter.quoted(name)): \(SafetensorsWriter.quoted(file))")
      }
    }
    places.sort { UTF8Key($0) < UTF8Key($1) }
    let text = """
      {
        "metadata": {
          "total_size": \(totalSize)
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

/// The files of a model directory beside its weights.
enum CompanionFiles {
  /// Those that loaders read, under fixed names.
  static let read = [
    "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
  ]
  private static let endings = [".json", ".txt", ".model", ".jinja", ".md"]

  /// Configurations, vocabularies and texts in a folder and two levels below it; hidden files and linked folders are left.
  static func names(in folder: String, depth: Int = 2) -> [String] {
    var found: [String] = []
    for name in OutputFolder.names(folder) ?? [] where !name.hasPrefix(".") {
      var info = stat()
      let path = "\(folder)/\(name)"
      guard lstat(path, &info) == 0 else { continue }
      if info.st_mode & S_IFMT == S_IFDIR {
        if depth > 0 { found += names(in: path, depth: depth - 1).map { "\(name)/\($0)" } }
      } else if isCompanion(name) {
        found.append(name)
      }
    }
    return found
  }

  private static func isCompanion(_ name: String) -> Bool {
    if name.hasSuffix(".safetensors.index.json") { return false }
    return endings.contains { name.hasSuffix($0) } || name.hasPrefix("LICENSE") || name.hasPrefix("NOTICE")
  }
}

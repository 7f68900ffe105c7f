import Quern

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// Bytes that a model takes, known before any of its weights are read.
///
/// Packing pads a matrix to whole panels, and the program, its tokenizer and its stacks come on top: a few percent.
public struct MemoryNeed: Sendable, Equatable {
  /// The matrices as they are stored, embeddings, norms and biases.
  public package(set) var weights = 0
  /// What is in memory beside them while a model is loaded: the largest matrix as the file has it.
  public package(set) var loading = 0
  /// Keys and values.
  public package(set) var cache = 0
  /// Hidden states of a pass, and its results.
  public package(set) var workspace = 0

  package init() {}

  /// The most at any time.
  public var total: Int { weights.saturatingAdd(max(loading, cache.saturatingAdd(workspace))) }

  /// Of two models, loaded one after the other.
  public static func += (need: inout MemoryNeed, other: MemoryNeed) {
    need.weights = need.weights.saturatingAdd(other.weights)
    need.loading = max(need.loading, other.loading)
    need.cache = need.cache.saturatingAdd(other.cache)
    need.workspace = need.workspace.saturatingAdd(other.workspace)
  }

  /// What the system could give without swapping: `MemAvailable` of Linux; `nil` where that is not known.
  public static func available() -> Int? {
    guard let file = fopen("/proc/meminfo", "r") else { return nil }
    defer { fclose(file) }
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = fread(&buffer, 1, buffer.count, file)
    let text = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
    return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0.saturatingMultiply(1024) }
  }
}

extension DecoderModel {
  /// The memory that a model takes with a cache, from the headers of its files alone.
  ///
  /// - Parameters:
  ///   - path: as for ``init(path:context:precision:)``, and `precision` too.
  ///   - sequences: sequences of the cache; beams of a search.
  ///   - capacity: tokens of each, of which the model's positions are the most that count.
  ///   - chunk: tokens of prompts in one pass at most.
  /// - Throws: ``ModelError``, also for a matrix that is missing.
  public static func memoryNeed(
    path: String, precision: DataType? = nil, sequences: Int = 1, capacity: Int, cacheType: CacheType = .f32,
    chunk: Int = 256
  ) throws(ModelError) -> MemoryNeed {
    let (configuration, source) = try open(path)
    var need = MemoryNeed()
    let weights = try Weights(source, file: path, of: configuration)
    try configuration.addWeights(to: &need, weights, precision)
    let capacity = min(max(capacity, 0), configuration.maxPositionEmbeddings)
    need.cache = KeyValueCache.byteCount(
      configuration, sequences: sequences, capacity: capacity, type: cacheType)
    // A pass has a piece of a prompt, and a token of each other sequence.
    let tokens = min(chunk.saturatingAdd(sequences), sequences.saturatingMultiply(capacity))
    need.workspace = configuration.workspaceBytes(
      tokens: tokens, rows: sequences,
      innerWidth: try configuration.innerWidth(weights))
    return need
  }
}

extension MemoryNeed {
  /// Counts a matrix as it is stored.
  fileprivate mutating func add(
    _ matrix: LinearLayer, of weights: Weights, as precision: DataType?
  ) throws(ModelError) {
    var bytes = 0
    for part in matrix.parts {
      func size(_ name: String, _ elements: Int) throws(ModelError) -> Int {
        let stored = try weights.stored(name)
        return elements.saturatingMultiply((precision ?? stored).size)
      }
      switch try weights.storage(part) {
      case .plain:
        bytes = bytes.saturatingAdd(try size(part.weight, part.outputs.saturatingMultiply(matrix.inputs)))
      case .blocks:
        bytes = bytes.saturatingAdd(try weights.source.info(weights.full(part.weight)).byteCount)
      case .factors:
        let rank = try weights.rank(part, inputs: matrix.inputs)
        bytes = bytes.saturatingAdd(try size(part.down, rank.saturatingMultiply(matrix.inputs)))
          .saturatingAdd(try size(part.up, rank.saturatingMultiply(part.outputs)))
      }
    }
    self.weights = self.weights.saturatingAdd(bytes)
    loading = max(loading, bytes)
  }
}

extension T5Model {
  /// The memory that a model takes for one answer, from the headers of its files alone.
  ///
  /// - Parameters:
  ///   - directory: as for ``init(directory:context:precision:)``, and `precision` too.
  ///   - prompt: tokens that the encoder reads.
  ///   - capacity: tokens of the answer.
  /// - Throws: ``ModelError``, also for a matrix that is missing.
  public static func memoryNeed(
    directory: String, precision: DataType = .f32, prompt: Int, capacity: Int, cacheType: CacheType = .f32
  ) throws(ModelError) -> MemoryNeed {
    let configuration = try T5Configuration(HubConfig(directory: directory))
    let weights = try Weights(SafetensorsDirectory.weights(of: directory), file: directory, of: configuration)
    let (encoder, decoder) = (configuration.encoder.stack, configuration.decoder)
    var need = MemoryNeed()
    for matrix in configuration.linearLayers where !matrix.isOptional || weights.contains(matrix.parts[0]) {
      try need.add(matrix, of: weights, as: precision)
    }
    let vocabulary = configuration.encoder.vocabSize
    let table = vocabulary.saturatingMultiply(encoder.hiddenSize).saturatingMultiply(precision.size)
    // A head that is the table is packed beside it.
    let tables = weights.contains(configuration.head.parts[0]) ? table : table.saturatingMultiply(2)
    need.weights = need.weights.saturatingAdd(tables)
    let (prompt, capacity) = (max(prompt, 0), max(capacity, 0))
    // The decoder's own, and those of the prompt.
    need.cache = KeyValueCache.byteCount(
      vectors: 2 * decoder.numHiddenLayers * decoder.numAttentionHeads, size: decoder.headDim, sequences: 1,
      capacity: capacity, type: cacheType
    ).saturatingAdd(
      prompt.saturatingMultiply(2 * decoder.numHiddenLayers * decoder.attentionWidth).saturatingMultiply(precision.size)
    )
    let inner = try weights.isStacked(encoder.gateUp(0)) ? encoder.gateUp(0).outputs : encoder.intermediateSize
    let width = 2 * encoder.hiddenSize + 4 * encoder.attentionWidth + inner
    let biases = prompt.saturatingMultiply(prompt).saturatingAdd(capacity).saturatingMultiply(encoder.numAttentionHeads)
    need.workspace = prompt.saturatingAdd(1).saturatingMultiply(width).saturatingMultiply(precision.size)
      .saturatingAdd(biases.saturatingAdd(vocabulary).saturatingMultiply(4))
    return need
  }
}

extension DecoderConfiguration {
  fileprivate func addWeights(
    to need: inout MemoryNeed, _ weights: Weights, _ precision: DataType?
  ) throws(ModelError) {
    func add(_ matrix: LinearLayer) throws(ModelError) { try need.add(matrix, of: weights, as: precision) }
    for matrix in linearLayers where !matrix.isOptional || weights.contains(matrix.parts[0]) {
      try add(matrix)
    }
    for (index, layer) in layers.enumerated() where layer.isSparse { try add(router(index)) }
    try add(embeddings)
    if let latent {
      // The two products of each head that keys and values become.
      let product = latent.cacheWidth.saturatingMultiply(latent.queryHeadDim + latent.vHeadDim)
      let all = layers.count.saturatingMultiply(numAttentionHeads).saturatingMultiply(product)
      let stored = try layers.isEmpty ? .bf16 : weights.stored("\(layerName(0)).\(names.latentHeads[0]).weight")
      need.weights = need.weights.saturatingAdd(all.saturatingMultiply((precision ?? stored).size))
    }
    // Norms and biases, at most, and learned positions.
    let vectors = layers.count * (8 * hiddenSize + attentionWidth + 2 * intermediateSize + 2 * headDim)
    let positions = names.positions.isEmpty ? 0 : maxPositionEmbeddings.saturatingMultiply(hiddenSize)
    need.weights = need.weights.saturatingAdd(vectors.saturatingAdd(positions).saturatingMultiply(4))
  }

  /// Columns of memory of the widest feed-forward part that every token takes.
  fileprivate func innerWidth(_ weights: Weights) throws(ModelError) -> Int {
    var widest = 0
    for (index, layer) in layers.enumerated() {
      guard let first = layer.isSparse ? sharedExperts(index)?.gateUp : gateUp(index) else { continue }
      let isStacked = try weights.isStacked(first)
      widest = max(widest, isGated && !isStacked ? first.outputs / 2 : first.outputs)
    }
    return widest
  }

  /// Bytes of the f32 rows that ``DecoderModel/Workspace`` holds for such a pass.
  fileprivate func workspaceBytes(tokens: Int, rows: Int, innerWidth: Int) -> Int {
    var width = 2 * hiddenSize + attentionWidth + mixedWidth + innerWidth
    if let latent { width += numAttentionHeads * (latent.queryHeadDim + 2 * latent.cacheWidth) }
    if let experts {
      width += 2 * experts.count + experts.perToken * (2 * hiddenSize + 2 * experts.intermediateSize + 2)
    }
    return tokens.saturatingMultiply(width).saturatingAdd(rows.saturatingMultiply(hiddenSize + vocabSize))
      .saturatingMultiply(4)
  }
}

extension Int {
  /// The sum or product of numbers that are not negative, or the largest that there is.
  package func saturatingAdd(_ other: Int) -> Int {
    let (sum, overflows) = addingReportingOverflow(other)
    return overflows ? .max : sum
  }

  package func saturatingMultiply(_ other: Int) -> Int {
    let (product, overflows) = multipliedReportingOverflow(by: other)
    return overflows ? .max : product
  }
}

import Quern

/// How a ``KeyValueCache`` stores keys and values.
public enum CacheType: String, Sendable, CaseIterable {
  case f32, bf16, f16
  /// Signed 8-bit codes and one f32 scale for each head's vector, 3.8 times as many positions in a byte as f32 with heads of 64: an
  /// element is off by at most 0.4 % of the largest of its vector (``Int8Cache``), by which logits change a little.
  case int8

  init(_ type: DataType) {
    switch type {
    case .f32: self = .f32
    case .bf16: self = .bf16
    case .f16: self = .f16
    }
  }

  /// Bytes of vectors of so many elements.
  func bytes(vectors: Int, size: Int) -> Int {
    let vector =
      switch self {
      case .f32: size.saturatingMultiply(4)
      case .bf16, .f16: size.saturatingMultiply(2)
      case .int8: size.saturatingAdd(4)
      }
    return vectors.saturatingMultiply(vector)
  }
}

/// The keys and values of every layer of a decoder, for several sequences of their own lengths.
///
/// Belongs to the model that made it; not `Sendable`, so that the compiler keeps it within one task at a time.
public final class KeyValueCache {
  /// Sequences that it holds.
  public let sequences: Int
  /// Positions of each.
  public let capacity: Int
  public let type: CacheType
  /// Positions in use, by sequence.
  public private(set) var lengths: [Int32]

  private let layers: [Layer]
  let segments: Segments
  let rotary: RotaryTables

  /// `[sequences, capacity, kvHeads, headDim]`, or `[sequences, capacity, 1, cacheWidth]` and no values where attention is latent and keys
  /// are values too. In memory the positions of a head lie one after the other, so that a decoding step reads each as one stream.
  private enum Layer {
    case tensors(keys: MutableTensor, values: MutableTensor?)
    case int8(keys: Int8Cache, values: Int8Cache?)
  }

  /// Bytes of the keys and values of such a cache.
  public static func byteCount(
    _ configuration: DecoderConfiguration, sequences: Int, capacity: Int, type: CacheType = .f32
  ) -> Int {
    let latent = configuration.latent?.cacheWidth
    return byteCount(
      vectors: configuration.numHiddenLayers.saturatingMultiply(latent == nil ? 2 * configuration.numKeyValueHeads : 1),
      size: latent ?? configuration.headDim, sequences: sequences, capacity: capacity, type: type)
  }

  /// - Parameter vectors: of a position in all layers.
  static func byteCount(vectors: Int, size: Int, sequences: Int, capacity: Int, type: CacheType) -> Int {
    type.bytes(vectors: sequences.saturatingMultiply(capacity).saturatingMultiply(vectors), size: size)
  }

  /// - Parameters:
  ///   - capacity: positions of each sequence; at most `max_position_embeddings`.
  ///   - type: how keys and values are stored.
  /// - Throws: ``QuernError/invalidShape(_:)``, and ``QuernError/outOfMemory(bytes:)``.
  public convenience init(
    _ configuration: DecoderConfiguration, sequences: Int = 1, capacity: Int, type: CacheType = .f32
  ) throws {
    guard sequences > 0, capacity > 0, capacity <= configuration.maxPositionEmbeddings else {
      throw QuernError.invalidShape(
        "a cache of \(sequences) sequences and \(capacity) positions; the model has "
          + "\(configuration.maxPositionEmbeddings) positions")
    }
    var rotary = RotaryTables()
    try rotary.reserve(capacity, global: configuration.rotary, local: configuration.localRotary)
    let latent = configuration.latent
    try self.init(
      layers: configuration.numHiddenLayers, heads: latent == nil ? configuration.numKeyValueHeads : 1,
      headDim: latent?.cacheWidth ?? configuration.headDim, sequences: sequences, capacity: capacity,
      type: type, rotary: rotary, hasValues: latent == nil)
  }

  /// - Parameter hasValues: false where keys are values too.
  init(
    layers: Int, heads: Int, headDim: Int, sequences: Int, capacity: Int, type: CacheType,
    rotary: RotaryTables = RotaryTables(), hasValues: Bool = true
  ) throws {
    func tensors(_ type: DataType) throws -> Layer {
      let shape = try Shape(checking: [heads, sequences, capacity, headDim])
      func tensor() throws -> MutableTensor {
        try MutableTensor(zeros: shape, dataType: type).permuted(Shape(1, 2, 0, 3))
      }
      return .tensors(keys: try tensor(), values: hasValues ? try tensor() : nil)
    }
    func int8() throws -> Int8Cache {
      try Int8Cache(sequences: sequences, capacity: capacity, heads: heads, size: headDim)
    }
    (self.sequences, self.capacity, self.type) = (sequences, capacity, type)
    self.layers = try (0..<layers).map { _ in
      switch type {
      case .f32: try tensors(.f32)
      case .bf16: try tensors(.bf16)
      case .f16: try tensors(.f16)
      case .int8: .int8(keys: try int8(), values: hasValues ? try int8() : nil)
      }
    }
    segments = try Segments(lengths: [Int](repeating: capacity, count: sequences))
    lengths = [Int32](repeating: 0, count: sequences)
    self.rotary = rotary
  }

  /// Forgets what lies behind the first `length` positions of a sequence: 0 makes room for another one.
  ///
  /// - Precondition: the sequence exists and holds as many.
  public func truncate(_ sequence: Int, to length: Int = 0) {
    precondition(length >= 0 && length <= Int(lengths[sequence]), "a cache forgets positions, it does not make them up")
    lengths[sequence] = Int32(length)
  }

  /// Makes a sequence hold what another holds, of which it has the first `start` positions already.
  ///
  /// - Precondition: both exist and hold as many.
  func copy(_ source: Int, to destination: Int, from start: Int) {
    precondition(
      start >= 0 && start <= min(lengths[source], lengths[destination]), "a cache copies what is not there already")
    let positions = start..<Int(lengths[source])
    for layer in layers {
      switch layer {
      case .int8(let keys, let values):
        keys.copy(source, to: destination, positions: positions)
        values?.copy(source, to: destination, positions: positions)
      case .tensors(let keys, let values):
        copy(keys, source, to: destination, positions)
        if let values { copy(values, source, to: destination, positions) }
      }
    }
    lengths[destination] = lengths[source]
  }

  private func copy(_ tensor: MutableTensor, _ source: Int, to destination: Int, _ positions: Range<Int>) {
    let (strides, size) = (tensor.strides, tensor.dataType.size)
    for head in 0..<tensor.shape[2] {
      let place = positions.lowerBound * strides[1] + head * strides[2]
      (tensor.address + (destination * strides[0] + place) * size)
        .copyMemory(
          from: tensor.address + (source * strides[0] + place) * size, byteCount: positions.count * strides[1] * size)
    }
  }

  /// Counts the new positions of a pass.
  func grow(_ new: Segments) { for sequence in lengths.indices { lengths[sequence] += Int32(new[sequence].count) } }

  /// Writes a layer's new keys and values behind those it holds; all of them as the rows of every sequence. Keys are values too
  /// where there are none.
  func append(
    _ keys: TensorView, _ values: TensorView?, _ sequences: Segments, layer: Int, _ context: Context
  ) throws(QuernError) -> KeysValues {
    switch layers[layer] {
    case .tensors(let heldKeys, let heldValues):
      try context.appendToCache(keys, sequences: sequences, lengths: lengths, cache: heldKeys)
      guard let values, let heldValues else { return .tensors(keys: rows(heldKeys), values: rows(heldKeys)) }
      try context.appendToCache(values, sequences: sequences, lengths: lengths, cache: heldValues)
      return .tensors(keys: rows(heldKeys), values: rows(heldValues))
    case .int8(let heldKeys, let heldValues):
      try context.appendToCache(keys, sequences: sequences, lengths: lengths, cache: heldKeys)
      guard let values, let heldValues else { return .int8(keys: heldKeys, values: heldKeys) }
      try context.appendToCache(values, sequences: sequences, lengths: lengths, cache: heldValues)
      return .int8(keys: heldKeys, values: heldValues)
    }
  }

  /// A layer's keys or values as the rows of every sequence, `[sequences * capacity, kvHeads, headDim]`.
  private func rows(_ tensor: MutableTensor) -> TensorView {
    tensor.view.reinterpreted(
      offset: 0, shape: Shape(sequences * capacity, tensor.shape[2], tensor.shape[3]),
      strides: Shape(tensor.strides[1], tensor.strides[2], 1))
  }
}

/// What attention reads: rows of every sequence, as a cache or a pass has them.
enum KeysValues {
  /// `[rows, kvHeads, headDim]`.
  case tensors(keys: TensorView, values: TensorView)
  case int8(keys: Int8Cache, values: Int8Cache)
}

extension Context {
  /// See ``attention(queries:keys:values:layout:mask:scale:softCap:logSumExp:into:)``.
  func attention(
    queries: TensorView, _ seen: KeysValues, layout: AttentionLayout, mask: AttentionMask, scale: Float,
    softCap: Float = 0, into o: MutableTensor
  ) throws(QuernError) {
    switch seen {
    case .tensors(let keys, let values):
      try attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        into: o)
    case .int8(let keys, let values):
      try attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        into: o)
    }
  }
}

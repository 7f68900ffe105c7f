import Quern

/// The keys and values of every layer of a decoder, for several sequences of their own lengths.
///
/// Belongs to the model that made it; not `Sendable`, so that the compiler keeps it within one task at a time.
public final class KeyValueCache {
  /// Sequences that it holds.
  public let sequences: Int
  /// Positions of each.
  public let capacity: Int
  public let dataType: DataType
  /// Positions in use, by sequence.
  public private(set) var lengths: [Int32]

  /// Of each layer, `[sequences, capacity, kvHeads, headDim]`, or `[sequences, capacity, 1, cacheWidth]` and no values where attention is
  /// latent; in memory the positions of a head lie one after the other, so that
  /// a decoding step reads each as one stream.
  private let keys, values: [MutableTensor]
  let segments: Segments
  let rotary: RotaryTables

  /// Bytes of the keys and values of such a cache.
  public static func byteCount(
    _ configuration: DecoderConfiguration, sequences: Int, capacity: Int, dataType: DataType = .f32
  ) -> Int {
    let (rows, overflows) = sequences.multipliedReportingOverflow(by: capacity)
    let (elements, overflow) = rows.multipliedReportingOverflow(
      by: configuration.numHiddenLayers * configuration.cacheWidth * dataType.size)
    return overflows || overflow ? Int.max : elements
  }

  /// - Parameters:
  ///   - capacity: positions of each sequence; at most `max_position_embeddings`.
  ///   - dataType: how keys and values are stored.
  /// - Throws: ``QuernError/invalidShape(_:)``, and ``QuernError/outOfMemory(bytes:)``.
  public convenience init(
    _ configuration: DecoderConfiguration, sequences: Int = 1, capacity: Int, dataType: DataType = .f32
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
      dataType: dataType, rotary: rotary, hasValues: latent == nil)
  }

  /// - Parameter hasValues: false where keys are values too.
  init(
    layers: Int, heads: Int, headDim: Int, sequences: Int, capacity: Int, dataType: DataType,
    rotary: RotaryTables = RotaryTables(), hasValues: Bool = true
  ) throws {
    let shape = try Shape(checking: [heads, sequences, capacity, headDim])
    func tensors() throws -> [MutableTensor] {
      try (0..<layers).map { _ in try MutableTensor(zeros: shape, dataType: dataType).permuted(Shape(1, 2, 0, 3)) }
    }
    (self.sequences, self.capacity, self.dataType) = (sequences, capacity, dataType)
    (keys, values) = (try tensors(), hasValues ? try tensors() : [])
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
    for tensor in keys + values {
      let (strides, size) = (tensor.strides, dataType.size)
      let bytes = (Int(lengths[source]) - start) * strides[1] * size
      for head in 0..<tensor.shape[2] {
        let place = start * strides[1] + head * strides[2]
        (tensor.address + (destination * strides[0] + place) * size)
          .copyMemory(from: tensor.address + (source * strides[0] + place) * size, byteCount: bytes)
      }
    }
    lengths[destination] = lengths[source]
  }

  /// Counts the new positions of a pass.
  func grow(_ new: Segments) { for sequence in lengths.indices { lengths[sequence] += Int32(new[sequence].count) } }

  /// Writes a layer's new keys and values behind those it holds; all of them as the rows of every sequence. Keys are values too
  /// where there are none.
  func append(
    _ keys: TensorView, _ values: TensorView?, _ sequences: Segments, layer: Int, _ context: Context
  ) throws(QuernError) -> (keys: TensorView, values: TensorView) {
    try context.appendToCache(keys, sequences: sequences, lengths: lengths, cache: self.keys[layer])
    guard let values else { return (rows(self.keys[layer]), rows(self.keys[layer])) }
    try context.appendToCache(values, sequences: sequences, lengths: lengths, cache: self.values[layer])
    return (rows(self.keys[layer]), rows(self.values[layer]))
  }

  /// A layer's keys or values as the rows of every sequence, `[sequences * capacity, kvHeads, headDim]`.
  private func rows(_ tensor: MutableTensor) -> TensorView {
    tensor.view.reinterpreted(
      offset: 0, shape: Shape(sequences * capacity, tensor.shape[2], tensor.shape[3]),
      strides: Shape(tensor.strides[1], tensor.strides[2], 1))
  }
}

import Quern

/// What adapters call the layers of a model, and how the rows of its files lie.
struct AdapterModules {
  /// What adapters put before the names.
  var prefixes: [String]
  /// Their names for layers that the model's files call something else.
  var names: [String: String] = [:]
  /// Of layers whose rows the files have in another order: the heads, in each of which two halves lie row by row in turn.
  var interleavedHeads: [String: Int] = [:]

  /// The names that a layer may go by.
  func names(of part: LinearLayer.Part) -> [String] { prefixes.map { $0 + (names[part.name] ?? part.name) } }

  /// The rows `[outputs, r]` of an adapter in the order of the files.
  func ordered(_ rows: Tensor, of part: LinearLayer.Part, _ context: Context) throws(QuernError) -> TensorView {
    guard let heads = interleavedHeads[part.name] else { return rows.view }
    let (half, rank) = (rows.shape[0] / (2 * heads), rows.shape[1])
    let ordered = try MutableTensor(zeros: Shape(heads, half, 2, rank))
    try context.copy(rows.view.reshaped(Shape(heads, 2, half, rank)).permuted([0, 2, 1, 3]), into: ordered)
    return ordered.view.reshaped(rows.shape)
  }
}

extension DecoderConfiguration {
  /// The names of Hugging Face directories, whatever the files are.
  var adapterModules: AdapterModules {
    guard let hubNames else { return AdapterModules(prefixes: names.prefixes) }
    var hub = self
    hub.names = hubNames
    var modules = AdapterModules(prefixes: hubNames.prefixes)
    for (own, other) in zip(adaptedParts, hub.adaptedParts) { modules.names[own.name] = other.name }
    // The one architecture whose queries and keys llama.cpp's converter reorders.
    guard modelType == "llama", headDim % 2 == 0 else { return modules }
    for index in layers.indices {
      let parts = queriesKeysValues(index).parts
      modules.interleavedHeads[parts[0].name] = numAttentionHeads
      modules.interleavedHeads[parts[1].name] = numKeyValueHeads
    }
    return modules
  }

  /// The layers that adapters reach.
  private var adaptedParts: [LinearLayer.Part] {
    let routers = layers.indices.filter { layers[$0].isSparse }.map(router)
    return (linearLayers.filter(\.takesFactors) + routers + [head, embeddings]).flatMap(\.parts)
  }
}

import Quern

/// The linear layers of a decoder, under the names and in the shapes that its checkpoints have.
extension DecoderConfiguration: ModelFamily {
  var tensorPrefixes: [String] { names.prefixes }
  var probe: String { "\(names.embedding).weight" }
  var unprefixed: [String] { ["\(names.head).weight"] }

  var linearLayers: [LinearLayer] {
    var all: [LinearLayer] = []
    for (index, layer) in layers.enumerated() {
      all +=
        latent == nil ? [queriesKeysValues(index)] : [latentDown(index)] + (latentQueries(index).map { [$0] } ?? [])
      all.append(attentionOutput(index))
      if layer.isSparse {
        if let shared = sharedExperts(index) { all += [shared.gateUp, shared.down] }
        for expert in 0..<(experts?.count ?? 0) { all += [gateUp(index, expert: expert), down(index, expert: expert)] }
      } else {
        all += [gateUp(index), down(index)]
      }
    }
    return tieWordEmbeddings ? all : all + [head]
  }

  /// The product with every token's output embedding.
  var head: LinearLayer {
    LinearLayer(
      parts: [.init(name: names.head, outputs: vocabSize)], inputs: hiddenSize, isOptional: true, takesFactors: false)
  }

  /// The table of tokens as the product that a tied head makes of it.
  var embeddings: LinearLayer {
    LinearLayer(parts: [.init(name: names.embedding, outputs: vocabSize)], inputs: hiddenSize, takesFactors: false)
  }

  func layerName(_ index: Int) -> String { "\(names.layers).\(index)" }

  var queryWidth: Int { numAttentionHeads * headDim }
  /// Of the heads' values end to end.
  var mixedWidth: Int { numAttentionHeads * (latent?.vHeadDim ?? headDim) }
  var keyWidth: Int { numKeyValueHeads * headDim }

  func queriesKeysValues(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", names.queriesKeysValues, [queryWidth, keyWidth, keyWidth], hiddenSize)
  }

  /// What queries are made of, or queries themselves, and the row of the cache.
  func latentDown(_ index: Int) -> LinearLayer {
    guard let latent else { return queriesKeysValues(index) }
    let first = latent.qLoraRank == nil ? names.queriesKeysValues[0] : names.latentQueries[0]
    return layer(
      "\(layerName(index)).", [first, names.latent[0]], [latent.qLoraRank ?? queryWidth, latent.cacheWidth], hiddenSize)
  }

  /// Queries from the vector that they are made of.
  func latentQueries(_ index: Int) -> LinearLayer? {
    latent?.qLoraRank.map { layer("\(layerName(index)).", [names.latentQueries[2]], [queryWidth], $0) }
  }

  /// Elements that a layer's cache holds of a token.
  var cacheWidth: Int { latent?.cacheWidth ?? 2 * keyWidth }

  /// Elements of a token's product that attention begins with.
  var attentionWidth: Int {
    latent.map { ($0.qLoraRank ?? queryWidth) + $0.cacheWidth } ?? queryWidth + 2 * keyWidth
  }

  func attentionOutput(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", [names.attentionOutput], [hiddenSize], mixedWidth)
  }

  func gateUp(_ index: Int) -> LinearLayer {
    layer(
      "\(layerName(index)).", names.gateUp, [Int](repeating: intermediateSize, count: isGated ? 2 : 1), hiddenSize)
  }

  func down(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", [names.down], [hiddenSize], intermediateSize)
  }

  /// The part of a mixture that every token takes.
  func sharedExperts(_ index: Int) -> (gateUp: LinearLayer, down: LinearLayer)? {
    guard let width = experts?.sharedIntermediateSize, width > 0 else { return nil }
    let place = "\(layerName(index)).\(names.sharedExperts)."
    return (
      layer(place, names.sharedGateUp, [width, width], hiddenSize),
      layer(place, [names.expertDown], [hiddenSize], width)
    )
  }

  func router(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", [names.router], [experts?.count ?? 0], hiddenSize)
  }

  func gateUp(_ index: Int, expert: Int) -> LinearLayer {
    let width = experts?.intermediateSize ?? 0
    return layer(
      "\(layerName(index)).\(names.experts).\(expert).", names.expertGateUp, [width, width], hiddenSize,
      takesFactors: false)
  }

  func down(_ index: Int, expert: Int) -> LinearLayer {
    let width = experts?.intermediateSize ?? 0
    return layer(
      "\(layerName(index)).\(names.experts).\(expert).", [names.expertDown], [hiddenSize], width, takesFactors: false)
  }

  /// Parts of these heights, or, under a single name, their sum.
  private func layer(
    _ place: String, _ parts: [String], _ outputs: [Int], _ inputs: Int, takesFactors: Bool = true
  ) -> LinearLayer {
    let heights = parts.count == 1 ? [outputs.reduce(0, +)] : outputs
    return LinearLayer(
      parts: zip(parts, heights).map { .init(name: place + $0, outputs: $1) }, inputs: inputs,
      isTransposed: names.isTransposed, takesFactors: takesFactors)
  }
}

import Quern

/// The linear layers of a decoder, under the names and in the shapes that its checkpoints have.
extension DecoderConfiguration: ModelFamily {
  var tensorPrefixes: [String] { names.prefixes }
  var probe: String { "\(names.embedding).weight" }
  var unprefixed: [String] { ["\(names.head).weight"] }

  var linearLayers: [LinearLayer] {
    var all: [LinearLayer] = []
    for (index, layer) in layers.enumerated() {
      all += [queriesKeysValues(index), attentionOutput(index)]
      if layer.isSparse {
        for expert in 0..<(experts?.count ?? 0) { all += [gateUp(index, expert: expert), down(index, expert: expert)] }
      } else {
        all += [gateUp(index), down(index)]
      }
    }
    return tieWordEmbeddings ? all : all + [head]
  }

  /// The product with every token's output embedding.
  var head: LinearLayer {
    LinearLayer(parts: [.init(name: names.head, outputs: vocabSize)], inputs: hiddenSize, isOptional: true)
  }

  func layerName(_ index: Int) -> String { "\(names.layers).\(index)" }

  var queryWidth: Int { numAttentionHeads * headDim }
  var keyWidth: Int { numKeyValueHeads * headDim }

  func queriesKeysValues(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", names.queriesKeysValues, [queryWidth, keyWidth, keyWidth], hiddenSize)
  }

  func attentionOutput(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", [names.attentionOutput], [hiddenSize], queryWidth)
  }

  func gateUp(_ index: Int) -> LinearLayer {
    layer(
      "\(layerName(index)).", names.gateUp, [Int](repeating: intermediateSize, count: isGated ? 2 : 1), hiddenSize)
  }

  func down(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", [names.down], [hiddenSize], intermediateSize)
  }

  func router(_ index: Int) -> LinearLayer {
    layer("\(layerName(index)).", [names.router], [experts?.count ?? 0], hiddenSize)
  }

  func gateUp(_ index: Int, expert: Int) -> LinearLayer {
    let width = experts?.intermediateSize ?? 0
    return layer("\(layerName(index)).\(names.experts).\(expert).", names.expertGateUp, [width, width], hiddenSize)
  }

  func down(_ index: Int, expert: Int) -> LinearLayer {
    let width = experts?.intermediateSize ?? 0
    return layer("\(layerName(index)).\(names.experts).\(expert).", [names.expertDown], [hiddenSize], width)
  }

  /// Parts of these heights, or, under a single name, their sum.
  private func layer(_ place: String, _ parts: [String], _ outputs: [Int], _ inputs: Int) -> LinearLayer {
    let heights = parts.count == 1 ? [outputs.reduce(0, +)] : outputs
    return LinearLayer(
      parts: zip(parts, heights).map { .init(name: place + $0, outputs: $1) }, inputs: inputs,
      isTransposed: names.isTransposed)
  }
}

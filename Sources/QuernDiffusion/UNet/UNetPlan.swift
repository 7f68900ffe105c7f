import Quern
import QuernModels

/// The layers of a U-Net in the order in which they run, by name and size: what its model is built from, and its memory counted from.
struct UNetPlan {
  struct Layer {
    var resnet: ResnetBlock2D.Configuration
    var attention: Attention?
  }

  enum Attention {
    case transformer(Transformer2D.Configuration)
    case spatial(SpatialAttention.Configuration)
  }

  struct Block {
    var name: String
    /// Channels of its result.
    var channels: Int
    var layers: [Layer]
    /// Whether height and width change behind the layers.
    var resamples: Bool
  }

  let down: [Block]
  let middle: [Layer]
  let up: [Block]

  init(_ c: UNetConfiguration) {
    let (channels, last) = (c.blockOutChannels, c.blocks - 1)
    let norm = GroupNorm.Kind(groups: c.normNumGroups, epsilon: c.normEps)
    func resnet(_ name: String, _ inputs: Int, _ outputs: Int, divisor: Float = 1) -> ResnetBlock2D.Configuration {
      ResnetBlock2D.Configuration(
        name: name, inputs: inputs, outputs: outputs, norm: norm, scalesByTime: c.scalesByTime, divisor: divisor)
    }
    func transformer(_ name: String, level: Int, layers: Int, isOnlyCross: Bool) -> Attention {
      .transformer(
        Transformer2D.Configuration(
          name: name, channels: channels[level], heads: c.attentionHeadDim[level], layers: layers,
          promptWidth: c.crossAttentionDim[level], groups: c.normNumGroups,
          hasLinearProjections: c.useLinearProjection, attendsOnlyToPrompt: isOnlyCross))
    }
    func spatial(_ name: String, level: Int, headSize: Int) -> Attention {
      .spatial(
        SpatialAttention.Configuration(
          name: name, channels: channels[level], heads: channels[level] / headSize, norm: norm))
    }

    down = (0...last).map { level in
      let name = "down_blocks.\(level)"
      let layers = (0..<c.layersPerBlock[level]).map { index in
        let inputs = index > 0 ? channels[level] : channels[max(level - 1, 0)]
        let attention = "\(name).attentions.\(index)"
        let behind: Attention? =
          switch c.downBlockTypes[level] {
          case .plain: nil
          case .crossAttention:
            transformer(
              attention, level: level, layers: c.transformerLayersPerBlock[level][index],
              isOnlyCross: c.onlyCrossAttention[level])
          case .attention: spatial(attention, level: level, headSize: c.attentionHeadDim[level])
          }
        return Layer(resnet: resnet("\(name).resnets.\(index)", inputs, channels[level]), attention: behind)
      }
      return Block(name: name, channels: channels[level], layers: layers, resamples: level < last)
    }

    let ends = (0...1).map {
      resnet("mid_block.resnets.\($0)", channels[last], channels[last], divisor: c.midBlockScaleFactor)
    }
    middle =
      switch c.midBlockType {
      case nil: []
      case .plain: [Layer(resnet: ends[0])]
      case .crossAttention:
        [
          Layer(
            resnet: ends[0],
            attention: transformer(
              "mid_block.attentions.0", level: last, layers: c.midBlockTransformerLayers, isOnlyCross: false)),
          Layer(resnet: ends[1]),
        ]
      }

    up = (0...last).map { index in
      let level = last - index
      let (name, count) = ("up_blocks.\(index)", c.layersPerBlock[level] + 1)
      let layers = (0..<count).map { layer in
        let below = layer > 0 ? channels[level] : channels[min(level + 1, last)]
        let skip = layer < count - 1 ? channels[level] : channels[max(level - 1, 0)]
        let attention = "\(name).attentions.\(layer)"
        let behind: Attention? =
          switch c.upBlockTypes[index] {
          case .plain: nil
          case .crossAttention:
            transformer(
              attention, level: level, layers: c.upTransformerLayersPerBlock[index][layer],
              isOnlyCross: c.onlyCrossAttention[level])
          case .attention: spatial(attention, level: level, headSize: c.attentionHeadDim[index])
          }
        return Layer(resnet: resnet("\(name).resnets.\(layer)", below + skip, channels[level]), attention: behind)
      }
      return Block(name: name, channels: channels[level], layers: layers, resamples: level > 0)
    }
  }

  /// Every layer, in the order in which they run.
  var layers: [Layer] { down.flatMap(\.layers) + middle + up.flatMap(\.layers) }
}

extension UNetPlan.Attention {
  /// Elements of an arena that a call takes.
  func scratch(pixels: Int) -> Int {
    switch self {
    case .transformer(let transformer): transformer.scratch(pixels: pixels)
    case .spatial(let attention): attention.scratch(pixels: pixels)
    }
  }
}

extension UNetPlan {
  /// Elements of the hidden states of prompts that each transformer takes.
  var promptWidths: [Int] {
    layers.compactMap {
      guard case .transformer(let transformer) = $0.attention else { return nil }
      return transformer.promptWidth
    }
  }
}

import Foundation
import QuernModels

/// A part of Stable Diffusion 1.5 with random weights, which are made as they are asked for.
struct RandomDiffusionModel: TensorSource {
  let path = "random weights"
  /// Its `config.json`; the rest are the defaults of diffusers.
  let config: String
  var tensorNames: [String] { shapes.keys.sorted() }
  private var shapes: [String: [Int]] = [:]

  private mutating func add(_ name: String, _ shape: [Int], hasBias: Bool = true) {
    shapes["\(name).weight"] = shape
    if hasBias { shapes["\(name).bias"] = [shape[0]] }
  }

  private mutating func addResnet(_ name: String, _ inputs: Int, _ outputs: Int, time: Int? = nil) {
    add("\(name).norm1", [inputs])
    add("\(name).conv1", [outputs, inputs, 3, 3])
    if let time { add("\(name).time_emb_proj", [outputs, time]) }
    add("\(name).norm2", [outputs])
    add("\(name).conv2", [outputs, outputs, 3, 3])
    if inputs != outputs { add("\(name).conv_shortcut", [outputs, inputs, 1, 1]) }
  }

  private mutating func addTransformer(_ name: String, _ width: Int, prompt: Int) {
    add("\(name).norm", [width])
    for side in ["proj_in", "proj_out"] { add("\(name).\(side)", [width, width, 1, 1]) }
    let block = "\(name).transformer_blocks.0"
    for norm in 1...3 { add("\(block).norm\(norm)", [width]) }
    for (attention, inputs) in [("attn1", width), ("attn2", prompt)] {
      add("\(block).\(attention).to_q", [width, width], hasBias: false)
      for part in ["to_k", "to_v"] { add("\(block).\(attention).\(part)", [width, inputs], hasBias: false) }
      add("\(block).\(attention).to_out.0", [width, width])
    }
    add("\(block).ff.net.0.proj", [8 * width, width])
    add("\(block).ff.net.2", [width, 4 * width])
  }

  static let unet: Self = {
    var model = Self(
      config: """
        {"_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
         "attention_head_dim": 8, "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 64}
        """)
    model.addUNet()
    return model
  }()

  static let autoencoder: Self = {
    var model = Self(
      config: """
        {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
         "norm_num_groups": 32, "sample_size": 512,
         "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
         "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}
        """)
    model.addAutoencoder()
    return model
  }()

  private mutating func addAutoencoder() {
    let (channels, latents) = ([128, 256, 512, 512], 4)
    for (side, inputs) in [("encoder", 3), ("decoder", latents)] {
      let isEncoder = side == "encoder"
      let widths = isEncoder ? channels : channels.reversed()
      let (blocks, outputs) = (isEncoder ? "down_blocks" : "up_blocks", isEncoder ? 2 * latents : 3)
      add("\(side).conv_in", [widths[0], inputs, 3, 3])
      for (level, width) in widths.enumerated() {
        let block = "\(side).\(blocks).\(level)"
        for layer in 0..<(isEncoder ? 2 : 3) {
          addResnet("\(block).resnets.\(layer)", layer == 0 ? widths[max(level - 1, 0)] : width, width)
        }
        if level < 3 { add("\(block).\(isEncoder ? "downsamplers" : "upsamplers").0.conv", [width, width, 3, 3]) }
      }
      for layer in 0..<2 { addResnet("\(side).mid_block.resnets.\(layer)", 512, 512) }
      let attention = "\(side).mid_block.attentions.0"
      add("\(attention).group_norm", [512])
      for part in ["to_q", "to_k", "to_v", "to_out.0"] { add("\(attention).\(part)", [512, 512]) }
      add("\(side).conv_norm_out", [widths[3]])
      add("\(side).conv_out", [outputs, widths[3], 3, 3])
    }
    add("quant_conv", [2 * latents, 2 * latents, 1, 1])
    add("post_quant_conv", [latents, latents, 1, 1])
  }

  private mutating func addUNet() {
    let channels = [320, 640, 1280, 1280]
    let (time, prompt) = (1280, 768)
    add("conv_in", [channels[0], 4, 3, 3])
    add("time_embedding.linear_1", [time, channels[0]])
    add("time_embedding.linear_2", [time, time])
    for level in 0..<4 {
      let (down, up, width) = ("down_blocks.\(level)", "up_blocks.\(3 - level)", channels[level])
      for layer in 0..<2 {
        addResnet("\(down).resnets.\(layer)", layer == 0 ? channels[max(level - 1, 0)] : width, width, time: time)
      }
      for layer in 0..<3 {
        let below = layer == 0 ? channels[min(level + 1, 3)] : width
        addResnet(
          "\(up).resnets.\(layer)", below + (layer == 2 ? channels[max(level - 1, 0)] : width), width, time: time)
      }
      if level < 3 {
        for layer in 0..<2 { addTransformer("\(down).attentions.\(layer)", width, prompt: prompt) }
        for layer in 0..<3 { addTransformer("\(up).attentions.\(layer)", width, prompt: prompt) }
        add("\(down).downsamplers.0.conv", [width, width, 3, 3])
      }
      if level > 0 { add("\(up).upsamplers.0.conv", [width, width, 3, 3]) }
    }
    for layer in 0..<2 { addResnet("mid_block.resnets.\(layer)", 1280, 1280, time: time) }
    addTransformer("mid_block.attentions.0", 1280, prompt: prompt)
    add("conv_norm_out", [channels[0]])
    add("conv_out", [4, channels[0], 3, 3])
  }

  /// Operations of the autoencoder's products for a square of latents, two for each product.
  func decodingOperations(latents: Int) -> Double {
    var sum = Double(2 * latents * latents) * Double(latents * latents * 512)
    for (name, shape) in shapes where name.hasPrefix("decoder.") && shape.count > 1 {
      let parts = name.split(separator: ".")
      let level = parts[1] == "up_blocks" ? (Int(parts[2]) ?? 0) + (parts[3] == "upsamplers" ? 1 : 0) : 0
      let side = latents << (name.contains("conv_out") ? 3 : level)
      sum += Double(side * side) * Double(shape.reduce(1, *))
    }
    return 2 * sum
  }

  func contains(_ name: String) -> Bool { shapes[name] != nil }

  func info(_ name: String) throws(ModelError) -> TensorInfo {
    guard let shape = shapes[name] else {
      throw ModelError(file: path, field: "tensors.\(name)", reason: "there is no such tensor")
    }
    let count = shape.reduce(1, *)
    return TensorInfo(dtype: .f32, shape: shape, byteRange: 0..<4 * count, elementCount: count)
  }

  /// Matrices keep the size of what they multiply; norms leave it alone.
  func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    let shape = try info(name).shape
    guard shape.count > 1 else {
      return destination.update(repeating: name.hasSuffix(".weight") ? 1 : 0)
    }
    let spread = (3 / Float(shape.dropFirst().reduce(1, *))).squareRoot()
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    for index in destination.indices {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      destination[index] = spread * Float(Int32(truncatingIfNeeded: state >> 32)) * 0x1p-31
    }
  }

  func readInt64(_ name: String) throws(ModelError) -> [Int64] { throw unread(name) }

  func readBytes(_ name: String) throws(ModelError) -> FileBytes { throw unread(name) }

  func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    try readFloat32(name, into: destination.bindMemory(to: Float.self))
  }

  private func unread(_ name: String) -> ModelError {
    ModelError(file: path, field: "tensors.\(name)", reason: "is not read this way")
  }
}

import Foundation
import QuernModels

/// The U-Net of Stable Diffusion 1.5 with random weights, which are made as they are asked for.
struct RandomUNet: TensorSource {
  let path = "random weights"
  /// Its `config.json`; the rest are the defaults of diffusers.
  static let config = """
    {"_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
     "attention_head_dim": 8, "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 64}
    """

  let tensorNames: [String]
  private let shapes: [String: [Int]]

  init() {
    let channels = [320, 640, 1280, 1280]
    let (time, prompt) = (1280, 768)
    var shapes: [String: [Int]] = [:]
    func add(_ name: String, _ shape: [Int], hasBias: Bool = true) {
      shapes["\(name).weight"] = shape
      if hasBias { shapes["\(name).bias"] = [shape[0]] }
    }
    func addResnet(_ name: String, _ inputs: Int, _ outputs: Int) {
      add("\(name).norm1", [inputs])
      add("\(name).conv1", [outputs, inputs, 3, 3])
      add("\(name).time_emb_proj", [outputs, time])
      add("\(name).norm2", [outputs])
      add("\(name).conv2", [outputs, outputs, 3, 3])
      if inputs != outputs { add("\(name).conv_shortcut", [outputs, inputs, 1, 1]) }
    }
    func addTransformer(_ name: String, _ width: Int) {
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
    add("conv_in", [channels[0], 4, 3, 3])
    add("time_embedding.linear_1", [time, channels[0]])
    add("time_embedding.linear_2", [time, time])
    for level in 0..<4 {
      let (down, up, width) = ("down_blocks.\(level)", "up_blocks.\(3 - level)", channels[level])
      for layer in 0..<2 {
        addResnet("\(down).resnets.\(layer)", layer == 0 ? channels[max(level - 1, 0)] : width, width)
      }
      for layer in 0..<3 {
        let below = layer == 0 ? channels[min(level + 1, 3)] : width
        addResnet("\(up).resnets.\(layer)", below + (layer == 2 ? channels[max(level - 1, 0)] : width), width)
      }
      if level < 3 {
        for layer in 0..<2 { addTransformer("\(down).attentions.\(layer)", width) }
        for layer in 0..<3 { addTransformer("\(up).attentions.\(layer)", width) }
        add("\(down).downsamplers.0.conv", [width, width, 3, 3])
      }
      if level > 0 { add("\(up).upsamplers.0.conv", [width, width, 3, 3]) }
    }
    for layer in 0..<2 { addResnet("mid_block.resnets.\(layer)", 1280, 1280) }
    addTransformer("mid_block.attentions.0", 1280)
    add("conv_norm_out", [channels[0]])
    add("conv_out", [4, channels[0], 3, 3])
    (self.shapes, tensorNames) = (shapes, shapes.keys.sorted())
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

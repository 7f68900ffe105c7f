import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// Adapters of U-Nets against diffusers with merged weights (tools/fixtures/tiny_unet_loras.py), and what is said to those that do not fit.
@Suite struct DiffusionLoRATests {
  private static func path(_ name: String) -> String { Fixture.path("loras/\(name).safetensors") }

  private static func unet(_ base: String, _ adapters: [DiffusionLoRA]) throws -> UNetTests.Case {
    var unet = try UNetTests.Case(base, Context())
    unet.model = try UNet2DConditionModel(
      directory: UNetTests.directory(base), context: Context(), adapters: adapters)
    return unet
  }

  @Test(arguments: ["sd1-peft", "sd1-diffusers-old", "sd1-kohya", "sdxl-kohya"])
  func agreesWithDiffusers(_ name: String) throws {
    let base = String(name.prefix { $0 != "-" })
    let lora = try DiffusionLoRA(path: Self.path(name), weight: 0.5)
    #expect(lora.parts == [.unet])
    let expected = try Safetensors(path: Self.path("\(base)-expected")).readFloat32("sample")
    let difference = try Parity.difference(Self.unet(base, [lora]).run(), expected)
    print("unet \(name): largest difference \(difference) of the largest value")
    #expect(difference <= 1e-5)
    // Two halves are a whole, and it is not what the model says alone.
    let halves = [lora, lora].map {
      var half = $0
      half.weight /= 2
      return half
    }
    #expect(try Parity.difference(Self.unet(base, halves).run(), expected) <= 1e-5)
    #expect(try Parity.difference(UNetTests.Case(base, Context()).run(), expected) > 0.01)
  }

  /// A file with one pair of a module of sd1, `[8, 8]`, and what else is given.
  private func adapter(
    _ folder: TemporaryFolder, _ module: String = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    down: [Int] = [2, 8], up: [Int] = [8, 2], more: [String: [Int]] = [:], half: String? = nil
  ) throws -> DiffusionLoRA {
    var shapes = ["\(module).lora_A.weight": down, "\(module).lora_B.weight": up]
    shapes.merge(more) { $1 }
    if let half { shapes["\(module).lora_\(half).weight"] = nil }
    let path = "\(folder.path)/lora.safetensors"
    try Safetensors.write(
      path: path,
      tensors: shapes.sorted { $0.key < $1.key }.map { name, shape in
        Safetensors.NewTensor(
          name: name, shape: shape, values: .float32([Float](repeating: 0.1, count: shape.reduce(1, *))))
      })
    return try DiffusionLoRA(path: path)
  }

  @Test func whatDoesNotFitIsNamed() throws {
    let folder = try TemporaryFolder()
    func field(_ make: () throws -> DiffusionLoRA) -> String? {
      let error: ModelError? = thrown { _ = try Self.unet("sd1", [make()]) }
      return error?.file == "\(folder.path)/lora.safetensors" ? error?.field : error.map { "\($0)" }
    }
    let module = "tensors.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    #expect(field { try adapter(folder) } == nil)
    #expect(field { try adapter(folder, "unet.down_blocks.9.conv") } == "tensors.unet.down_blocks.9.conv.lora_A.weight")
    #expect(field { try adapter(folder, down: [2, 9]) } == "\(module).lora_A.weight.shape")
    #expect(field { try adapter(folder, down: [0, 8], up: [8, 0]) } == "\(module).lora_A.weight.shape")
    #expect(field { try adapter(folder, up: [8, 3]) } == "\(module).lora_B.weight.shape")
    #expect(field { try adapter(folder, up: [9, 2]) } == "\(module).lora_B.weight.shape")
    #expect(field { try adapter(folder, half: "B") } == "\(module).lora_A.weight")
    #expect(field { try adapter(folder, half: "A") } == "\(module).lora_B.weight")
    for name in [
      "lora_unet_conv_in.dora_scale", "lora_unet_conv_in.hada_w1_a", "unet.conv_in.lora_magnitude_vector", "other",
    ] {
      #expect(field { try adapter(folder, more: [name: [1]]) } == "tensors.\(name)")
    }
    #expect(field { try adapter(folder, more: ["unet.conv_in.alpha": [1]]) } == "tensors.unet.conv_in.alpha")
    let alpha = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha"
    #expect(field { try adapter(folder, more: [alpha: [2]]) } == "tensors.\(alpha).shape")
    #expect(field { try adapter(folder, more: [alpha: []]) } == nil)
    // The same layer under two spellings.
    let twice = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"
    #expect(field { try adapter(folder, more: [twice: [2, 8]]) }?.hasPrefix("tensors.") == true)
    let error: ModelError? = thrown { _ = try DiffusionLoRA(path: "\(folder.path)/none.safetensors") }
    #expect(error?.file == "\(folder.path)/none.safetensors")
  }

  /// The parts of a file are read apart: a U-Net takes its own, and the rest is said to be there.
  @Test func partsAreApart() throws {
    let folder = try TemporaryFolder()
    let more = [
      "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": [1, 4],
      "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight": [4, 1],
      "text_encoder_2.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight": [1, 4],
      "text_encoder_2.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight": [4, 1],
    ]
    let lora = try adapter(folder, more: more)
    #expect(lora.parts == [.unet, .textEncoder, .textEncoder2])
    _ = try Self.unet("sd1", [lora])
    let weights = try TemporaryFolder()
    let names = ["self_attn.q_proj", "self_attn.out_proj"].map { "text_model.encoder.layers.0.\($0).weight" }
    try Safetensors.write(
      path: "\(weights.path)/model.safetensors",
      tensors: names.map { .init(name: $0, shape: [4, 4], values: .float32([Float](repeating: 1, count: 16))) })
    let base = try SafetensorsDirectory(path: weights.path)
    let context = Context(backend: ReferenceBackend())
    let first = try AdaptedSource(base, [lora], part: .textEncoder, context: context)
    #expect(try first.readFloat32(names[0]).allSatisfy { abs($0 - 1.01) < 1e-6 })
    #expect(try first.readFloat32(names[1]).allSatisfy { $0 == 1 })
    let second = try AdaptedSource(base, [lora], part: .textEncoder2, context: context)
    #expect(try second.readFloat32(names[0]).allSatisfy { $0 == 1 })
    #expect(try second.readFloat32(names[1]).allSatisfy { abs($0 - 1.01) < 1e-6 })
  }
}

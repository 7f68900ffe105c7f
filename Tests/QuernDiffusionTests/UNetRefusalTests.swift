import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// What a U-Net says to files and operands that do not fit.
@Suite struct UNetRefusalTests {
  private static let files = ["config.json", "diffusion_pytorch_model.safetensors"]

  private static func error(in folder: TemporaryFolder) -> ModelError? {
    thrown { _ = try UNet2DConditionModel(directory: folder.path, context: Context()) }
  }

  /// Each field of config.json with a value that is not read, and what the error must name beside it.
  @Test(arguments: [
    ("down_block_types", "[\"CrossAttnDownBlock2D\", \"KDownBlock2D\"]", "KDownBlock2D"),
    ("down_block_types", "[\"DownBlock2D\"]", "1"), ("down_block_types", "[]", "0"),
    ("up_block_types", "[\"SimpleCrossAttnUpBlock2D\", \"UpBlock2D\"]", "SimpleCrossAttnUpBlock2D"),
    ("mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", "UNetMidBlock2DSimpleCrossAttn"),
    ("block_out_channels", "[8, 15]", "norm_num_groups"), ("block_out_channels", "[8]", "1"),
    ("block_out_channels", "[8, 1e9]", "block_out_channels"), ("layers_per_block", "[1, 0]", "0"),
    ("layers_per_block", "100000", "100000"), ("attention_head_dim", "[2, 3]", "3"),
    ("attention_head_dim", "[2, 0]", "0"), ("num_attention_heads", "2", "attention_head_dim"),
    ("cross_attention_dim", "[20]", "1"), ("cross_attention_dim", "0", "0"), ("only_cross_attention", "[true]", "1"),
    ("transformer_layers_per_block", "[[1, 2], 1]", "reverse_transformer_layers_per_block"),
    ("transformer_layers_per_block", "[1]", "1"), ("reverse_transformer_layers_per_block", "[[1], [1]]", "2"),
    ("act_fn", "\"mish\"", "mish"), ("time_embedding_type", "\"fourier\"", "fourier"),
    ("time_embedding_act_fn", "\"silu\"", "not supported"), ("timestep_post_act", "\"silu\"", "not supported"),
    ("class_embed_type", "\"other\"", "other"), ("addition_embed_type", "\"text_image\"", "text_image"),
    ("encoder_hid_dim_type", "\"image_proj\"", "image_proj"),
    ("encoder_hid_dim_type", "\"text_proj\"", "encoder_hid_dim"),
    ("dual_cross_attention", "true", "true"), ("class_embeddings_concat", "true", "true"),
    ("center_input_sample", "true", "true"), ("cross_attention_norm", "\"layer_norm\"", "not supported"),
    ("attention_type", "\"gated\"", "gated"), ("resnet_time_scale_shift", "\"ada_group\"", "ada_group"),
    ("downsample_padding", "2", "2"), ("mid_block_scale_factor", "0", "0"), ("norm_num_groups", "3", "3"),
    ("norm_eps", "-1", "-1"), ("freq_shift", "4", "4"), ("conv_in_kernel", "2", "2"), ("in_channels", "-1", "-1"),
    ("_class_name", "\"UNet3DConditionModel\"", "UNet3DConditionModel"), ("sample_size", "[1, 2, 3]", "3"),
  ])
  func valuesThatAreNotReadAreNamed(_ field: String, _ value: String, _ named: String) throws {
    let folder = try TemporaryFolder(copying: Self.files, of: UNetTests.directory("sd2"))
    let path = "\(folder.path)/config.json"
    // The replaced field goes first: a second one of the same name is what is refused, so the old one is renamed.
    let text = try String(contentsOfFile: path, encoding: .utf8)
      .replacingOccurrences(of: "\"\(field)\":", with: "\"old \(field)\":")
    try folder.write("config.json", text.replacing("{", with: "{\"\(field)\": \(value),", maxReplacements: 1).utf8)
    let error = try #require(Self.error(in: folder))
    #expect(error.file == path, "\(error)")
    #expect("\(error.field) \(error.reason)".contains(field), "\(error)")
    #expect("\(error.field) \(error.reason)".contains(named), "\(error)")
  }

  /// A type of embedding without the size that it needs.
  @Test(arguments: [
    ("class_embed_type", "projection", "projection_class_embeddings_input_dim"),
    ("class_embed_type", "simple_projection", "projection_class_embeddings_input_dim"),
    ("addition_embed_type", "text_time", "addition_time_embed_dim"),
  ])
  func sizesThatAreMissingAreNamed(_ field: String, _ value: String, _ missing: String) throws {
    let folder = try TemporaryFolder(copying: Self.files, of: UNetTests.directory("sd2"))
    try folder.replace("\"\(field)\": null", with: "\"\(field)\": \"\(value)\"", in: "config.json")
    #expect(Self.error(in: folder)?.field == missing)
  }

  /// A change to config.json that its tensors do not fit, and the tensor that the error must name.
  @Test(arguments: [
    ("sd1", "\"in_channels\": 4", "\"in_channels\": 5", "conv_in.weight"),
    ("sd1", "\"out_channels\": 4", "\"out_channels\": 5", "conv_out.weight"),
    ("sd1", "\"cross_attention_dim\": 12", "\"cross_attention_dim\": 13", "attn2.to_k.weight"),
    ("sd1", "\"use_linear_projection\": false", "\"use_linear_projection\": true", "proj_in.weight"),
    ("sd1", "\"layers_per_block\": 1", "\"layers_per_block\": 2", "resnets.1"),
    (
      "sd1", "\"resnet_time_scale_shift\": \"default\"", "\"resnet_time_scale_shift\": \"scale_shift\"", "time_emb_proj"
    ),
    ("sd1", "\"time_cond_proj_dim\": null", "\"time_cond_proj_dim\": 8", "time_embedding.cond_proj.weight"),
    ("sd1", "\"num_class_embeds\": null", "\"num_class_embeds\": 8", "class_embedding.weight"),
    (
      "sdxl", "\"projection_class_embeddings_input_dim\": 58", "\"projection_class_embeddings_input_dim\": 59",
      "add_embedding"
    ),
    ("classes", "\"AttnDownBlock2D\"", "\"CrossAttnDownBlock2D\"", "attentions.0"),
  ])
  func tensorsThatDoNotFitAreNamed(_ name: String, _ old: String, _ new: String, _ tensor: String) throws {
    let folder = try TemporaryFolder(copying: Self.files, of: UNetTests.directory(name))
    try folder.replace(old, with: new, in: "config.json")
    let error = try #require(Self.error(in: folder))
    #expect(error.field.contains(tensor), "\(error)")
  }

  @Test func filesThatAreMissingAreNamed() throws {
    let folder = try TemporaryFolder(copying: ["config.json"], of: UNetTests.directory("sd1"))
    #expect(Self.error(in: folder)?.reason.contains("diffusion_pytorch_model.safetensors") == true)
    let empty = try TemporaryFolder()
    #expect(Self.error(in: empty)?.file == "\(empty.path)/config.json")
    let other = try TemporaryFolder(copying: ["config.json"], of: UNetTests.directory("sd1"))
    try other.write(
      "diffusion_pytorch_model.safetensors",
      Data(contentsOf: URL(fileURLWithPath: "\(UNetTests.directory("sd1"))/expected.safetensors")))
    #expect(Self.error(in: other)?.field == "tensors.conv_in.weight")
  }

  /// The weights of half precision, where there are no others.
  @Test func theVariantOfHalfPrecisionIsRead() throws {
    let (directory, folder) = (UNetTests.directory("class-identity"), try TemporaryFolder())
    for (old, new) in [("config.json", "config.json"), (Self.files[1], "diffusion_pytorch_model.fp16.safetensors")] {
      try folder.write(new, Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(old)")))
    }
    #expect(Self.error(in: folder) == nil)
  }

  @Test func latentsThatDoNotFitAreRefused() throws {
    let unet = try UNetTests.Case("sd1", Context())
    let conditioning = try unet.conditioning()
    func refuses(_ shape: Shape, _ result: Shape, layout: ImageLayout = .channelsFirst) throws {
      let (sample, y) = (try MutableTensor(zeros: shape), try MutableTensor(zeros: result))
      #expect(throws: QuernError.self, "\(shape) \(result)") {
        try unet.model.forward(
          sample.view, timestep: 1, conditioning: conditioning, layout: layout, workspace: UNetWorkspace(), into: y)
      }
    }
    try refuses(Shape(2, 5, 8, 8), Shape(2, 4, 8, 8))
    try refuses(Shape(2, 4, 8, 8), Shape(2, 4, 8, 9))
    try refuses(Shape(2, 4, 8, 8), Shape(1, 4, 8, 8))
    try refuses(Shape(2, 4, 8, 8), Shape(2, 4, 8, 8), layout: .channelsLast)
    try refuses(Shape(3, 4, 8, 8), Shape(2, 4, 8, 8))
    try refuses(Shape(0, 4, 8, 8), Shape(2, 4, 8, 8))
    try refuses(Shape(2, 4, 0, 8), Shape(2, 4, 0, 8))
    try refuses(Shape(4, 8, 8), Shape(2, 4, 8, 8))
    try refuses(Shape(2, 4, 8, 8), Shape(8, 8))
    // Of another model, though one of the same kind.
    let other = try UNetTests.Case("sd1", Context())
    #expect(throws: QuernError.self) { try other.run(unet.sample.view, conditioning) }
    // A row and a column of 1 cannot be halved where nothing is added on both sides.
    let narrow = try UNetTests.Case("classes", Context())
    let sample = try MutableTensor(zeros: Shape(2, 3, 1, 8))
    #expect(throws: QuernError.self) { try narrow.run(sample.view, narrow.conditioning()) }
    #expect(throws: QuernError.self) {
      try UNet2DConditionModel.memoryNeed(
        directory: UNetTests.directory("sd1"), images: 2, height: 1 << 40, width: 8)
    }
  }

  @Test func conditionsThatDoNotFitAreRefused() throws {
    func refuses(_ name: String, _ body: (UNet2DConditionModel) throws -> Void) throws {
      let model = try UNetTests.Case(name, Context()).model
      #expect(throws: QuernError.self, "\(name)") { try body(model) }
    }
    func zeros(_ shape: Shape) throws -> TensorView { try MutableTensor(zeros: shape).view }
    try refuses("sd1") { _ = try $0.conditioning() }
    try refuses("sd1") { _ = try $0.conditioning(images: 2) }
    try refuses("sd1") { _ = try $0.conditioning(prompt: zeros(Shape(2, 7, 13))) }
    try refuses("sd1") { _ = try $0.conditioning(prompt: zeros(Shape(7, 12))) }
    try refuses("sd1") { _ = try $0.conditioning(prompt: zeros(Shape(2, 0, 12))) }
    try refuses("sd1") { _ = try $0.conditioning(prompt: zeros(Shape(2, 7, 12)), guidanceScale: 7.5) }
    let (prompt, embeds, ids) = (Shape(2, 6, 18), Shape(2, 10), Shape(2, 6))
    try refuses("sdxl") { _ = try $0.conditioning(prompt: zeros(prompt)) }
    try refuses("sdxl") { _ = try $0.conditioning(prompt: zeros(prompt), textEmbeds: zeros(embeds)) }
    try refuses("sdxl") {
      _ = try $0.conditioning(prompt: zeros(prompt), textEmbeds: zeros(embeds), timeIDs: zeros(Shape(1, 6)))
    }
    try refuses("sdxl") {
      _ = try $0.conditioning(prompt: zeros(prompt), textEmbeds: zeros(Shape(2, 11)), timeIDs: zeros(ids))
    }
    try refuses("classes") { _ = try $0.conditioning(images: 2) }
    try refuses("classes") { _ = try $0.conditioning(classes: .indices([0, 1])) }
    try refuses("classes") { _ = try $0.conditioning(classes: .indices([0]), images: 2) }
    try refuses("classes") { _ = try $0.conditioning(classes: .indices([0, 5]), images: 2) }
    try refuses("classes") { _ = try $0.conditioning(classes: .numbers([0, 1]), images: 2) }
    try refuses("class-projection") { _ = try $0.conditioning(classes: .vectors(zeros(Shape(2, 7))), images: 2) }
    try refuses("class-identity") { _ = try $0.conditioning(classes: .vectors(zeros(Shape(2, 6))), images: 2) }
    try refuses("class-timestep") { _ = try $0.conditioning(classes: .indices([1, 2]), images: 2) }
    try refuses("class-timestep") { _ = try $0.conditioning(classes: .numbers([1, 2]), images: 0) }
  }
}

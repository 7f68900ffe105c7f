import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// Autoencoders against diffusers (tools/fixtures/tiny_autoencoders.py), and what they say to files that do not fit.
@Suite struct AutoencoderTests {
  static let names = ["kl", "kl-old-names", "kl-plain", "tiny"]
  private static let files = ["config.json", "diffusion_pytorch_model.safetensors"]

  private static func directory(_ name: String) -> String { Fixture.path("autoencoders/\(name)") }

  private struct Values {
    let file: Safetensors
    let prefix: String

    init(_ name: String, tiled: Bool = false) throws {
      file = try Safetensors(path: "\(directory(name))/values.safetensors")
      prefix = tiled ? "tiled." : ""
    }

    /// With channels last.
    func callAsFunction(_ name: String) throws -> MutableTensor {
      let tensor = try file.tensor(prefix + name)
      let shape = tensor.shape
      let last = try MutableTensor(zeros: Shape(shape[0], shape[2], shape[3], shape[1]))
      try Context("reference").copy(tensor.view.permuted([0, 2, 3, 1]), into: last)
      return last
    }
  }

  /// The largest differences of what encoder and decoder make.
  private static func differences(
    _ model: any LatentAutoencoder, _ values: Values, tiling: Tiling? = nil,
    _ workspace: AutoencoderWorkspace? = nil
  ) throws -> (encoded: Float, decoded: Float) {
    let workspace = try workspace ?? AutoencoderWorkspace()
    let (encoded, decoded) = (try values("encoded"), try values("decoded"))
    let (latents, picture) = (try MutableTensor(zeros: encoded.shape), try MutableTensor(zeros: decoded.shape))
    // What a destination held before has no part in the result.
    for index in 0..<picture.shape.count { picture.base[index] = .nan }
    let noise = model is AutoencoderKL ? try values("noise") : nil
    try model.encode(
      values("picture").view, noise: noise?.view, tiling: tiling, into: latents, workspace: workspace) {}
    try model.decode(values("latents").view, tiling: tiling, into: picture, workspace: workspace) {}
    return (
      try Parity.difference(latents.elements, encoded.elements),
      try Parity.difference(picture.elements, decoded.elements)
    )
  }

  @Test(arguments: names, Parity.backends) func encoderAndDecoder(_ name: String, _ backend: String) throws {
    let model = try LatentAutoencoders.open(directory: Self.directory(name), context: Context(backend))
    let values = try Values(name)
    let found = try Self.differences(model, values)
    #expect(found.encoded < 1e-5 && found.decoded < 1e-5, "\(found)")
    guard let model = model as? AutoencoderKL else { return }
    let moments = try model.moments(of: values("picture").view, workspace: AutoencoderWorkspace())
    #expect(try Parity.difference(moments.elements, values("moments").elements) < 1e-5)
    // Without noise the means.
    let means = try MutableTensor(zeros: values("latents").shape)
    try model.encode(values("picture").view, into: means, workspace: AutoencoderWorkspace())
    #expect(means.elements == moments.columns(0..<model.latentChannels).elements)
  }

  @Test(arguments: [("kl", Tiling(sampleSize: 16)), ("tiny", Tiling(sampleSize: 64, overlap: 0.25))], Parity.backends)
  func piecesOfALargePicture(_ test: (name: String, tiling: Tiling), _ backend: String) throws {
    let model = try LatentAutoencoders.open(directory: Self.directory(test.name), context: Context(backend))
    let values = try Values(test.name, tiled: true)
    let found = try Self.differences(model, values, tiling: test.tiling)
    #expect(found.encoded < 1e-5 && found.decoded < 1e-5, "\(found)")
    // In one piece the result is another.
    let whole = try Self.differences(model, values)
    #expect(whole.encoded > 1e-3 && whole.decoded > 1e-3, "\(whole)")
  }

  @Test(arguments: ["kl", "tiny"]) func aWorkspaceServesManySizes(_ name: String) throws {
    let model = try LatentAutoencoders.open(directory: Self.directory(name), context: Context())
    let workspace = try AutoencoderWorkspace()
    let tiling = Tiling(sampleSize: name == "kl" ? 16 : 64, overlap: 0.25)
    for tiled in [false, true, false] {
      let found = try Self.differences(model, Values(name, tiled: tiled), tiling: tiled ? tiling : nil, workspace)
      #expect(found.encoded < 1e-5 && found.decoded < 1e-5, "\(found)")
    }
  }

  @Test(arguments: names) func narrowStorageStaysClose(_ name: String) throws {
    let model = try LatentAutoencoders.open(directory: Self.directory(name), context: Context(), precision: .bf16)
    let found = try Self.differences(model, Values(name))
    #expect(found.decoded > 1e-6 && found.decoded < 0.05 && found.encoded < 0.05, "\(found)")
  }

  @Test func piecesCanBeStopped() throws {
    struct Stop: Error {}
    let model = try AutoencoderKL(directory: Self.directory("kl"), context: Context())
    let values = try Values("kl", tiled: true)
    let picture = try MutableTensor(zeros: values("decoded").shape)
    var pieces = 0
    #expect(throws: Stop.self) {
      try model.decode(
        values("latents").view, tiling: Tiling(sampleSize: 16), into: picture, workspace: AutoencoderWorkspace()
      ) {
        pieces += 1
        if pieces == 3 { throw Stop() }
      }
    }
    #expect(pieces == 3)
  }

  @Test func latentsAreScaled() throws {
    let model = try AutoencoderKL(directory: Self.directory("kl-old-names"), context: Context())
    #expect(model.latentScale == LatentScale(scalingFactor: 0.3611, shiftFactor: 0.1159))
    #expect(model.factor == 4 && model.defaultTiling == Tiling(sampleSize: 16))
    let latents = try MutableTensor(zeros: Shape(1, 1, 1, 2))
    (latents.base[0], latents.base[1]) = (1, -2)
    try model.latentScale.scale(latents.view, into: latents)
    #expect(abs(latents.base[0] - 0.3192485) < 1e-6)
    try model.latentScale.unscale(latents.view, into: latents)
    #expect(abs(latents.base[0] - 1) < 1e-6 && abs(latents.base[1] + 2) < 1e-6)
  }

  @Test func shapesThatDoNotFitAreRefused() throws {
    let model = try AutoencoderKL(directory: Self.directory("kl"), context: Context())
    let workspace = try AutoencoderWorkspace()
    func tensor(_ shape: Shape) throws -> MutableTensor { try MutableTensor(zeros: shape) }
    for (picture, latents) in [
      (Shape(1, 4, 4, 3), Shape(1, 2, 2, 3)), (Shape(1, 4, 4, 4), Shape(1, 2, 2, 4)),
      (Shape(1, 5, 4, 3), Shape(1, 2, 2, 4)), (Shape(2, 4, 4, 3), Shape(1, 2, 2, 4)),
      (Shape(0, 4, 4, 3), Shape(0, 2, 2, 4)), (Shape(4, 4, 3), Shape(2, 2, 4)), (Shape(1, 0, 4, 3), Shape(1, 0, 2, 4)),
    ] {
      #expect(throws: QuernError.self) {
        try model.decode(tensor(latents).view, into: tensor(picture), workspace: workspace)
      }
      #expect(throws: QuernError.self) {
        try model.encode(tensor(picture).view, into: tensor(latents), workspace: workspace)
      }
    }
    #expect(throws: QuernError.self) {
      try model.encode(
        tensor(Shape(1, 4, 4, 3)).view, noise: tensor(Shape(1, 2, 2, 3)).view, into: tensor(Shape(1, 2, 2, 4)),
        workspace: workspace)
    }
    for tiling in [Tiling(sampleSize: 0), Tiling(sampleSize: 15), Tiling(sampleSize: 10), Tiling(sampleSize: 16, overlap: 0.6)] {
      #expect(throws: QuernError.self) {
        try model.decode(
          tensor(Shape(1, 20, 20, 4)).view, tiling: tiling, into: tensor(Shape(1, 40, 40, 3)), workspace: workspace) {}
      }
    }
  }

  @Test(arguments: [
    ("kl", "\"AutoencoderKL\"", "\"AutoencoderKLWan\"", "_class_name"),
    ("kl", "\"act_fn\": \"silu\"", "\"act_fn\": \"mish\"", "act_fn"),
    ("kl", "\"norm_num_groups\": 4", "\"norm_num_groups\": 3", "norm_num_groups"),
    ("kl", "\"norm_num_groups\": 4", "\"norm_num_groups\": 0", "norm_num_groups"),
    ("kl", "\"latents_mean\": null", "\"latents_mean\": [0, 0, 0, 0]", "latents_mean"),
    ("kl", "\"latents_std\": null", "\"latents_std\": [1, 1, 1, 1]", "latents_std"),
    ("kl", "\"scaling_factor\": 0.18215", "\"scaling_factor\": 0", "scaling_factor"),
    ("kl", "\"sample_size\": 16", "\"sample_size\": [16, 8]", "sample_size"),
    ("kl", "    \"DownEncoderBlock2D\",\n", "    \"AttnDownEncoderBlock2D\",\n", "down_block_types[0]"),
    ("kl", "    \"UpDecoderBlock2D\",\n", "", "up_block_types"),
    ("kl", "    8,\n", "    -8,\n", "block_out_channels[0]"),
    ("kl", "\"latent_channels\": 4", "\"latent_channels\": 5", "tensors.encoder.conv_out.weight.shape"),
    ("kl", "\"layers_per_block\": 1", "\"layers_per_block\": 2", "tensors.encoder.down_blocks.0.resnets.1.norm1.weight"),
    ("kl-plain", "\"mid_block_add_attention\": false", "\"mid_block_add_attention\": true", "tensors.encoder.mid_block.attentions.0.group_norm.weight"),
    ("tiny", "\"act_fn\": \"relu\"", "\"act_fn\": \"silu\"", "act_fn"),
    ("tiny", "\"upsample_fn\": \"nearest\"", "\"upsample_fn\": \"bilinear\"", "upsample_fn"),
    ("tiny", "\"upsampling_scaling_factor\": 2", "\"upsampling_scaling_factor\": 3", "upsampling_scaling_factor"),
    ("tiny", "\"num_decoder_blocks\": [\n    1,\n", "\"num_decoder_blocks\": [\n", "num_decoder_blocks"),
    ("tiny", "\"encoder_block_out_channels\": [\n    8,\n", "\"encoder_block_out_channels\": [\n    9,\n", "encoder_block_out_channels"),
  ])
  func whatIsNotImplementedIsNamed(_ name: String, _ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(copying: Self.files, of: Self.directory(name))
    try folder.replace(old, with: new, in: "config.json")
    let error = try #require(
      thrown(ModelError.self) { _ = try LatentAutoencoders.open(directory: folder.path, context: Context()) })
    #expect(error.field == field, "\(error)")
  }

  @Test(arguments: ["kl", "tiny"]) func changedConfigurationsNeverTrap(_ name: String) throws {
    let folder = try TemporaryFolder(copying: Self.files, of: Self.directory(name))
    let original = try Data(contentsOf: URL(fileURLWithPath: "\(Self.directory(name))/config.json"))
    var random = SeededRandom()
    for _ in 0..<(ProcessInfo.processInfo.environment["QUERN_SANITIZE"] == nil ? 500 : 50) {
      var bytes = [UInt8](original)
      for _ in 0..<Int.random(in: 1...3, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] =
          Array("0123456789-.e\"{}[],".utf8).randomElement(using: &random) ?? 0
      }
      try folder.write("config.json", bytes)
      do {
        _ = try LatentAutoencoders.open(directory: folder.path, context: Context("reference"))
      } catch {
        #expect(error is ModelError, "\(error)")
      }
    }
  }
}

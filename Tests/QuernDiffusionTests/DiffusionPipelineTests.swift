import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// Pipelines against diffusers' own, made by tools/fixtures/tiny_pipelines.py.
@Suite struct DiffusionPipelineTests {
  struct Family: Decodable, Sendable {
    let prompt: String
    let cases: [Case]
    /// By the tokenizer's folder.
    let lines: [String: [Line]]
  }

  struct Line: Decodable, Sendable {
    let text: String
    let ids: [Int32]
  }

  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let steps: Int
    let guidance: Double
    let negative: String?
    let rescale: Double?
    let width, height: Int?
    let strength: Double?
    let `init`: Bool?
    let mask: Bool?

    var testDescription: String { name }
  }

  static let names = ["sd", "sdxl", "lcm", "inpainting", "sdxl-inpainting"]
  static let sd = Fixture.path("pipelines/sd")
  static let inpainting = Fixture.path("pipelines/inpainting")

  static func family(_ name: String) throws -> Family {
    try Fixture.decode(Family.self, "pipelines/\(name)/cases.json")
  }

  static let cases: [(family: String, test: Case)] = names.flatMap { name in
    ((try? family(name))?.cases ?? []).map { (name, $0) }
  }

  private static func image(_ tensor: Tensor, channels: Int) throws -> RGBImage {
    let bytes = tensor.elements.flatMap { [UInt8](repeating: UInt8($0), count: 3 / channels) }
    return try RGBImage(width: tensor.shape[1], height: tensor.shape[0], bytes: bytes)
  }

  static func request(_ family: String, _ test: Case) throws -> DiffusionRequest {
    let expected = try Safetensors(path: Fixture.path("pipelines/\(family)/expected.safetensors"))
    var request = DiffusionRequest(prompt: try Self.family(family).prompt)
    (request.steps, request.guidanceScale, request.negativePrompt) = (test.steps, test.guidance, test.negative)
    (request.guidanceRescale, request.strength) = (test.rescale ?? 0, test.strength)
    if let width = test.width, let height = test.height { request.size = ImageSize(height, width) }
    if test.`init` == true { request.initialImage = try image(expected.tensor("init"), channels: 3) }
    if test.mask == true { request.mask = try image(expected.tensor("mask"), channels: 1) }
    request.latents = try expected.tensor("\(test.name).noise")
    return request
  }

  @Test func theFixturesAreThere() { #expect(Self.cases.count == 16) }

  @Test(arguments: cases, Parity.backends)
  func picturesAreThoseOfDiffusers(_ item: (family: String, test: Case), backend: String) throws {
    let pipeline = try DiffusionPipeline(
      directory: Fixture.path("pipelines/\(item.family)"), context: Context(backend))
    let result = try pipeline.generate(Self.request(item.family, item.test))
    let expected = try Safetensors(path: Fixture.path("pipelines/\(item.family)/expected.safetensors"))
    let latents = try expected.tensor("\(item.test.name).latents")
    #expect(result.latents.shape == latents.shape)
    let difference = try Parity.difference(result.latents.elements, latents.elements)
    #expect(difference < 1e-4, "latents differ by \(difference)")
    let picture = try expected.tensor("\(item.test.name).picture").elements
    #expect(picture.count == result.image.bytes.count)
    let sum = zip(result.image.bytes, picture).reduce(0) { $0 + abs(Float($1.0) - $1.1.rounded(.toNearestOrEven)) }
    let mean = sum / Float(picture.count)
    #expect(mean < 0.1, "of 255, the picture differs by \(mean) on average")
    print("\(backend), \(item.family) \(item.test.name): latents \(difference), picture \(mean) of 255")
  }

  private static func square(_ value: UInt8) throws -> RGBImage {
    try RGBImage(width: 16, height: 16, bytes: [UInt8](repeating: value, count: 768))
  }

  /// What a mask covers is nowhere in what the U-Net sees; what it leaves is.
  @Test func inpaintingUNetsSeeTheImageBesideItsMask() throws {
    let pipeline = try DiffusionPipeline(directory: Self.inpainting, context: Context())
    #expect(pipeline.hasInpaintingUNet)
    func latents(_ image: UInt8, _ mask: UInt8, strength: Double = 1) throws -> [Float] {
      var request = small()
      (request.initialImage, request.mask) = (try Self.square(image), try Self.square(mask))
      request.strength = strength
      return try pipeline.generate(request).latents.elements
    }
    #expect(try latents(10, 255) == latents(200, 255))
    #expect(try latents(10, 128) == latents(10, 255) && latents(10, 127) == latents(10, 0))
    #expect(try latents(10, 0) != latents(200, 0) && latents(10, 0) != latents(10, 255))
    #expect(try latents(10, 255, strength: 0.7) != latents(200, 255, strength: 0.7))
  }

  @Test func inpaintingUNetsNameWhatIsMissing() throws {
    let pipeline = try DiffusionPipeline(directory: Self.inpainting, context: Context())
    var request = small()
    for missing in ["initialImage", "mask"] {
      let error = thrown(QuernError.self) { [request] in _ = try pipeline.generate(request) }
      guard case .invalidSetting(missing, "none", let expected) = error else {
        Issue.record("\(missing): \(String(describing: error))")
        continue
      }
      #expect(expected.contains("in_channels") && expected.contains("9"), "\(expected)")
      request.initialImage = try Self.square(128)
    }
  }

  @Test(arguments: names)
  func tokensAreThoseOfTransformers(_ name: String) throws {
    let family = try Self.family(name)
    #expect(family.lines.count == (name.hasPrefix("sdxl") ? 2 : 1))
    for (folder, lines) in family.lines {
      let tokenizer = try CLIPTokenizer(directory: Fixture.path("pipelines/\(name)/\(folder)"), positions: 77)
      #expect(tokenizer.maximumLength == 16)
      for line in lines { #expect(try tokenizer.encode(line.text) == line.ids, "\(line.text)") }
    }
  }

  private func small(_ seed: UInt64 = 3) -> DiffusionRequest {
    var request = DiffusionRequest(prompt: "a red circle", seed: seed)
    (request.steps, request.guidanceScale) = (3, 3)
    return request
  }

  @Test func aSeedGivesTheSamePictureForAnyThreadCount() throws {
    let pictures = try [1, 2, 3].map { threads in
      let context = try Context("multithreaded", options: BackendOptions(threads: threads))
      return try DiffusionPipeline(directory: Self.sd, context: context).generate(small()).latents.elements
    }
    #expect(pictures[0] == pictures[1] && pictures[0] == pictures[2])
  }

  @Test func seedsAndLatentsDecideThePicture() throws {
    let pipeline = try DiffusionPipeline(directory: Self.sd, context: Context())
    let workspace = try DiffusionPipeline.Workspace()
    let first = try pipeline.generate(small(), workspace: workspace)
    #expect(try pipeline.generate(small(), workspace: workspace).latents.elements == first.latents.elements)
    #expect(try pipeline.generate(small(4), workspace: workspace).latents.elements != first.latents.elements)
    var turned = small(4)
    turned.noise.variation = (seed: 3, fraction: 1)
    let other = try pipeline.generate(turned, workspace: workspace).latents.elements
    #expect(try Parity.difference(other, first.latents.elements) < 1e-4)
    turned.noise.variation = (seed: 3, fraction: 0.5)
    let between = try pipeline.generate(turned, workspace: workspace).latents.elements
    #expect(try Parity.difference(between, first.latents.elements) > 1e-2)
  }

  @Test func samplersTakeThePlaceOfTheModels() throws {
    let pipeline = try DiffusionPipeline(directory: Self.sd, context: Context())
    var pictures: Set<[Float]> = []
    for name in ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"] {
      var request = small()
      request.scheduler = try SchedulerConfiguration(directory: "\(Self.sd)/scheduler", as: name)
      pictures.insert(try pipeline.generate(request).latents.elements)
    }
    #expect(pictures.count == 3)
  }

  @Test func callbacksSeeStepsAndStopThem() throws {
    struct Halt: Error {}
    let pipeline = try DiffusionPipeline(directory: Self.sd, context: Context())
    var seen: [Int] = []
    let result = try pipeline.generate(small()) { step in
      seen.append(step.index)
      let preview = try step.preview()
      #expect(preview.width == 16 && preview.height == 16)
      #expect(step.count == 3 && step.latents.shape == Shape(1, 8, 8, 4))
      return step.index == 1 ? .stop : .proceed
    }
    #expect(seen == [0, 1] && result.steps == 2)
    #expect(throws: Halt.self) { try pipeline.generate(small()) { _ in throw Halt() } }
  }

  @Test func adaptersOfTextEncoderAndUNetChangeThePicture() throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/lora.safetensors"
    func pair(_ module: String, _ width: Int) -> [Safetensors.NewTensor] {
      func values(_ count: Int) -> Safetensors.NewTensor.Values {
        .float32((0..<count).map { Float($0 % 7) / 7 - 0.4 })
      }
      return [
        .init(name: "\(module).lora_A.weight", shape: [2, width], values: values(2 * width)),
        .init(name: "\(module).lora_B.weight", shape: [width, 2], values: values(2 * width)),
      ]
    }
    func latents(_ adapters: [DiffusionLoRA]) throws -> [Float] {
      try DiffusionPipeline(directory: Self.sd, context: Context(), adapters: adapters).generate(small()).latents
        .elements
    }
    let plain = try latents([])
    for module in [
      "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
      "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    ] {
      try Safetensors.write(path: path, tensors: pair(module, module.hasPrefix("text") ? 24 : 8))
      #expect(try latents([DiffusionLoRA(path: path)]) != plain, "\(module)")
      #expect(try latents([DiffusionLoRA(path: path, weight: 0)]) == plain, "\(module)")
    }
    try Safetensors.write(path: path, tensors: pair("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", 24))
    let error = thrown(ModelError.self) { _ = try latents([DiffusionLoRA(path: path)]) }
    #expect(error?.file == path, "\(String(describing: error))")
  }

  @Test(arguments: names)
  func memoryIsStatedBeforeAnythingIsRead(_ name: String) throws {
    let directory = Fixture.path("pipelines/\(name)")
    var elements = 0
    for part in [
      "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model", "text_encoder_2/model",
    ] {
      let path = "\(directory)/\(part).safetensors"
      guard FileManager.default.fileExists(atPath: path) else { continue }
      let file = try Safetensors(path: path)
      for tensor in file.tensorNames { elements += try file.info(tensor).elementCount }
    }
    let need = try DiffusionPipeline.memoryNeed(directory: directory)
    #expect(need.weights == 4 * elements)
    let half = try DiffusionPipeline.memoryNeed(directory: directory, precision: .bf16)
    #expect(half.weights < 3 * elements && half.workspace < need.workspace)
    let large = try DiffusionPipeline.memoryNeed(directory: directory, size: ImageSize(64, 64))
    #expect(large.workspace > 8 * need.workspace && large.weights == need.weights)
    let single = try DiffusionPipeline.memoryNeed(directory: directory, isGuided: false)
    #expect(single.workspace < need.workspace)
    // The smallest is one piece, the largest many.
    let (small, huge) = (ImageSize(8, 8), ImageSize(2048, 2048))
    func workspace(_ size: ImageSize, isTiled: Bool) throws -> Int {
      try DiffusionPipeline.memoryNeed(directory: directory, size: size, isTiled: isTiled).workspace
    }
    #expect(try workspace(small, isTiled: true) == workspace(small, isTiled: false))
    #expect(try workspace(huge, isTiled: true) < workspace(huge, isTiled: false))
  }

  // MARK: Refusals

  @Test(arguments: [
    ("a part is missing", #""vae": [\#n    "diffusers",\#n    "AutoencoderKL"\#n  ]"#, #""vae": [null, null]"#, "vae"),
    ("an unknown pipeline", "\"StableDiffusionPipeline\"", "\"KandinskyPipeline\"", "_class_name"),
    ("an unknown scheduler", "\"DDIMScheduler\"", "\"HeunDiscreteScheduler\"", "scheduler"),
    ("an unknown text encoder", "\"CLIPTextModel\"", "\"T5EncoderModel\"", "text_encoder"),
    (
      "an unknown part", "\"safety_checker\": [\n    null,\n    null",
      "\"motion_adapter\": [\"diffusers\", \"MotionAdapter\"",
      "motion_adapter"
    ),
  ])
  func indicesThatAreNotUnderstoodAreRefused(_ what: String, _ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(copying: ["model_index.json"], of: Self.sd)
    try folder.replace(old, with: new, in: "model_index.json")
    let error = thrown(ModelError.self) { _ = try PipelineConfiguration(directory: folder.path) }
    let refusal = try #require(error, "\(what)")
    #expect(refusal.file.hasSuffix("model_index.json") && refusal.field.hasPrefix(field), "\(refusal)")
  }

  @Test(arguments: [
    ("width", ImageSize(16, 17)), ("height", ImageSize(15, 16)), ("height", ImageSize(0, 16)),
    ("width", ImageSize(16, 1 << 20)),
  ])
  func sizesThatDoNotFitAreRefused(_ name: String, _ size: ImageSize) throws {
    let pipeline = try DiffusionPipeline(directory: Self.sd, context: Context())
    var request = small()
    request.size = size
    let error = thrown(QuernError.self) { _ = try pipeline.generate(request) }
    guard case .invalidSetting(name, _, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func settingsThatContradictAreRefused() throws {
    let pipeline = try DiffusionPipeline(directory: Self.sd, context: Context())
    let grey = try RGBImage(width: 16, height: 16, bytes: [UInt8](repeating: 128, count: 768))
    let changes: [(String, (inout DiffusionRequest) throws -> Void)] = [
      ("strength", { $0.strength = 0.5 }), ("mask", { $0.mask = grey }), ("steps", { $0.steps = 0 }),
      ("latents", { $0.latents = try Tensor([Float](repeating: 0, count: 4), shape: Shape(1, 4, 1, 1)) }),
      ("guidance_scale", { $0.guidanceScale = .nan }),
      ("strength", { ($0.initialImage, $0.strength) = (grey, 1.5) }),
    ]
    for (name, change) in changes {
      var request = small()
      try change(&request)
      let error = thrown(QuernError.self) { [request] in _ = try pipeline.generate(request) }
      guard case .invalidSetting(name, _, _) = error else {
        Issue.record("\(name): \(String(describing: error))")
        continue
      }
    }
  }
}

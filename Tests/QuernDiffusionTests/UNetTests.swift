import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// U-Nets against `diffusers` (tools/fixtures/tiny_unets.py), and what they say to files and operands that do not fit.
@Suite struct UNetTests {
  static let names = [
    "sd1", "sd2", "sdxl", "lcm", "classes", "odd", "class-timestep", "class-identity", "class-projection",
    "class-simple_projection",
  ]

  static func directory(_ name: String) -> String { Fixture.path("unets/\(name)") }

  /// A model and the inputs of its fixture.
  struct Case {
    var model: UNet2DConditionModel
    let inputs, expected: Safetensors

    init(_ name: String, _ context: Context, precision: DataType = .f32) throws {
      let directory = UNetTests.directory(name)
      model = try UNet2DConditionModel(directory: directory, context: context, precision: precision)
      inputs = try Safetensors(path: "\(directory)/inputs.safetensors")
      expected = try Safetensors(path: "\(directory)/expected.safetensors")
    }

    var sample: Tensor { get throws { try inputs.tensor("sample") } }

    /// Of some of the images.
    func conditioning(_ images: Range<Int> = 0..<2) throws -> UNetConditioning {
      func rows(_ name: String) throws -> TensorView? {
        inputs.contains(name) ? try inputs.tensor(name).view.rows(images) : nil
      }
      var classes: UNetClasses?
      if let labels = try rows("class_labels") {
        classes =
          switch model.configuration.classEmbedding {
          case .table: .indices(labels.elements.map { Int32($0) })
          case .timestep: .numbers(labels.elements)
          default: .vectors(labels)
          }
      }
      let scale = inputs.contains("guidance_scale") ? try inputs.readFloat32("guidance_scale")[0] : nil
      return try model.conditioning(
        prompt: rows("encoder_hidden_states"), textEmbeds: rows("text_embeds"), timeIDs: rows("time_ids"),
        classes: classes, guidanceScale: scale.map { Double($0) }, images: images.count)
    }

    func run(
      _ sample: TensorView, _ conditioning: UNetConditioning, layout: ImageLayout = .channelsFirst,
      workspace: UNetWorkspace? = nil
    ) throws -> MutableTensor {
      var shape = sample.shape
      shape[0] = conditioning.images
      shape[layout == .channelsFirst ? 1 : 3] = model.configuration.outChannels
      let y = try MutableTensor(zeros: shape)
      let timestep = Double(try inputs.readFloat32("timestep")[0])
      try model.forward(
        sample, timestep: timestep, conditioning: conditioning, layout: layout,
        workspace: workspace ?? UNetWorkspace(), into: y)
      return y
    }

    func run() throws -> [Float] { try run(sample.view, conditioning()).elements }
  }

  @Test(arguments: Parity.backends, names) func agreesWithDiffusers(_ backend: String, _ name: String) throws {
    let unet = try Case(name, Context(backend))
    let difference = try Parity.difference(unet.run(), unet.expected.readFloat32("sample"))
    print("\(backend), unet \(name): largest difference \(difference) of the largest value")
    #expect(difference <= 1e-5)
  }

  @Test(arguments: ["sd1", "sdxl", "odd"]) func everyOperationPassesVerification(_ name: String) throws {
    _ = try Case(name, Context("multithreaded", options: BackendOptions(verifies: true))).run()
  }

  @Test func theWrongConvolutionIsNamed() throws {
    let wrong = SpoilingBackend(try MultithreadedBackend(), only: .conv2d)
    let error = thrown(QuernError.self) { _ = try Case("sd1", Context(backend: VerifyingBackend(wrong))).run() }
    #expect("\(String(describing: error))".contains("conv2d"))
  }

  @Test(arguments: [(DataType.bf16, Float(0.05)), (.f16, 0.01)], ["sd1", "sdxl", "classes"])
  func narrowStorageStaysClose(_ storage: (type: DataType, bound: Float), _ name: String) throws {
    let unet = try Case(name, Context(), precision: storage.type)
    let difference = try Parity.difference(unet.run(), unet.expected.readFloat32("sample"))
    print("unet \(name), \(storage.type.rawValue): largest difference \(difference) of the largest value")
    #expect(difference > 0 && difference < storage.bound)
  }

  @Test(arguments: names) func oneImageIsWhatItIsAmongOthers(_ name: String) throws {
    let unet = try Case(name, Context())
    let both = try unet.run()
    let workspace = try UNetWorkspace()
    let alone = try (0..<2).flatMap {
      try unet.run(unet.sample.view.rows($0..<$0 + 1), unet.conditioning($0..<$0 + 1), workspace: workspace).elements
    }
    #expect(try Parity.difference(alone, both) <= 1e-6)
  }

  /// The images of a conditioning share the latents of a smaller batch: both halves of guidance in one pass.
  @Test(arguments: ["sd1", "sdxl"]) func latentsAreShared(_ name: String) throws {
    let unet = try Case(name, Context())
    let one = try unet.sample.view.rows(0..<1)
    let doubled = try MutableTensor(zeros: unet.sample.shape)
    for image in 0..<2 { try unet.model.context.copy(one, into: doubled.rows(image..<image + 1)) }
    let shared = try unet.run(one, unet.conditioning()).elements
    #expect(try shared == unet.run(doubled.view, unet.conditioning()).elements)
    #expect(Array(shared.prefix(shared.count / 2)) != Array(shared.suffix(shared.count / 2)))
  }

  @Test(arguments: names) func threadsDoNotChangeBits(_ name: String) throws {
    let runs = try [1, 2].map {
      try Case(name, Context("multithreaded", options: BackendOptions(threads: $0))).run()
    }
    #expect(runs[0] == runs[1])
  }

  @Test(arguments: ["sd1", "classes"]) func layoutsAgree(_ name: String) throws {
    let unet = try Case(name, Context())
    let sample = try unet.sample.view
    let shape = sample.shape
    let last = try MutableTensor(zeros: Shape(shape[0], shape[2], shape[3], shape[1]))
    try unet.model.context.copy(sample.permuted([0, 2, 3, 1]), into: last)
    let y = try unet.run(last.view, unet.conditioning(), layout: .channelsLast)
    #expect(try y.view.permuted([0, 3, 1, 2]).elements == unet.run())
  }

  /// A workspace and a conditioning serve any number of steps, at any size.
  @Test func aWorkspaceIsReused() throws {
    let unet = try Case("sd1", Context())
    let (workspace, conditioning) = (try UNetWorkspace(), try unet.conditioning())
    let first = try unet.run()
    let larger = try MutableTensor(zeros: Shape(2, 4, 16, 11))
    for position in 0..<larger.shape.count { larger.store(Float(position % 7), at: position) }
    for _ in 0..<2 {
      _ = try unet.run(larger.view, conditioning, workspace: workspace)
      #expect(try unet.run(unet.sample.view, conditioning, workspace: workspace).elements == first)
    }
  }

  /// What a pass takes is what was said before it.
  @Test(arguments: names, [DataType.f32, .bf16]) func memoryIsWhatIsStated(_ name: String, _ type: DataType) throws {
    let unet = try Case(name, Context(), precision: type)
    let workspace = try UNetWorkspace()
    let shape = try unet.sample.shape
    _ = try unet.run(unet.sample.view, unet.conditioning(), workspace: workspace)
    let tokens =
      unet.inputs.contains("encoder_hidden_states") ? try unet.inputs.info("encoder_hidden_states").shape[1] : 0
    let need = try UNet2DConditionModel.memoryNeed(
      directory: Self.directory(name), precision: type, images: 2, height: shape[2], width: shape[3], tokens: tokens)
    #expect(workspace.byteCount == need.workspace)
    #expect(workspace.peakByteCount <= need.workspace)
    #expect(Double(workspace.peakByteCount) > 0.95 * Double(need.workspace), "\(workspace.peakByteCount) of \(need)")
    #expect(try unet.conditioning().keysValuesByteCount == need.cache)
    let file = try Safetensors(path: "\(Self.directory(name))/diffusion_pytorch_model.safetensors")
    #expect(need.weights >= (try file.tensorNames.reduce(0) { try $0 + file.info($1).elementCount }) * type.size)
    #expect(need.loading > 0)
    let own = try unet.model.workspaceNeed(images: 2, height: shape[2], width: shape[3], tokens: tokens)
    #expect(own.workspace == need.workspace && own.cache == need.cache && own.weights == 0)
  }
}

/// Steps allocate nothing: counted in a process of its own, whose allocator counts.
@Suite struct UNetAllocationTests {
  private struct Counts: Decodable {
    let works: Bool
    let steps, inpainting: Int?
  }

  private static let isSanitized = ProcessInfo.processInfo.environment["QUERN_SANITIZE"] != nil

  @Test(.disabled(if: isSanitized, "a sanitizer has an allocator of its own"), arguments: ["multithreaded", "blas"])
  func stepsAllocateNothing(_ backend: String) throws {
    if let reason = Backends.unavailability(of: backend) {
      return print("not run: allocations of \(backend): \(reason)")
    }
    let output = try BuiltProgram("AllocationProbe").run(
      [backend, "--unets=" + Fixture.path("unets"), "--inpainting=" + DiffusionPipelineTests.inpainting],
      environment: ["QUERN_NUM_THREADS": ""])
    try #require(output.status == 0, "\(output.standardError)")
    let counts = try JSONDecoder().decode(Counts.self, from: Data(output.standardOutput.utf8))
    guard counts.works else { return print("not run: allocations of \(backend): this C library cannot be counted") }
    #expect(
      counts.steps == 0 && counts.inpainting == 0,
      "\(output.standardOutput): `AllocationProbe \(backend) --trace --unets=DIR --inpainting=DIR` shows where")
  }
}

/// What a step costs, counted.
@Suite struct UNetWorkTests {
  /// PyTorch's `FlopCounterMode` counts 1,606,546,882,560 for Stable Diffusion 1.5, with the keys and values of 2 prompts of 77 tokens.
  @Test func aStepOfStableDiffusionIsWhatPyTorchCounts() throws {
    let folder = try TemporaryFolder()
    try folder.write("config.json", #"{"cross_attention_dim": 768, "attention_head_dim": 8}"#.utf8)
    let configuration = try UNetConfiguration(HubConfig(directory: folder.path))
    let operations = configuration.operations(images: 2, height: 64, width: 64, tokens: 77)
    let keysValues = 2 * (2 * 77) * 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280)
    #expect(operations == Double(1_606_546_882_560 - keysValues))
  }
}

import Foundation
import Quern
import QuernDiffusion
import QuernModels

/// Parts of Stable Diffusion 1.5 at 512x512 with random weights: seconds, the share of the machine's peak, and memory.
enum DiffusionPart {
  /// A guided step.
  case unet
  /// A picture of latents.
  case autoencoder

  private static let size = 64
  private static let tokens = 77
  private static let steps = 3

  struct Row: Encodable {
    /// How matrices and activations are stored.
    var storage: String
    var seconds, gigaflops: Double
    /// Of the FMA rate.
    var share: Double
    /// What the process holds more than before the model was made, once it has run, and what was to be expected, in bytes.
    var resident, expected: Int
  }

  func run(context: Context, machine: Machine, filter: [String], asJSON: Bool) throws {
    var rows: [Row] = []
    for type in [DataType.f32, .bf16] {
      guard filter.isEmpty || filter.contains(where: { type.rawValue.localizedCaseInsensitiveContains($0) }) else {
        continue
      }
      StandardError.writeLine("benchmarks: \(self) \(type.rawValue)")
      rows.append(try measure(type, context, machine))
    }
    guard !rows.isEmpty else { throw Failure("no storage matches --filter \(filter.joined(separator: ", "))") }
    if asJSON {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      return print(String(decoding: try encoder.encode(rows), as: UTF8.self))
    }
    let cells = rows.map { row in
      [
        row.storage, String(format: "%.2f", row.seconds), String(format: "%.1f", row.gigaflops),
        String(format: "%.2f", row.share),
        String(format: "%.2f of %.2f GB", Double(row.resident) / 1e9, Double(row.expected) / 1e9),
      ]
    }
    for line in [["storage", self == .unet ? "s/step" : "s/picture", "GFLOP/s", "of FMA", "memory"]] + cells {
      print(line.enumerated().map { $1.padding(toLength: $0 == 4 ? 18 : 11, withPad: " ", startingAt: 0) }.joined())
    }
  }

  private func measure(_ type: DataType, _ context: Context, _ machine: Machine) throws -> Row {
    let before = Generation.residentBytes()
    let part = try self == .unet ? Self.unet(type, context) : Self.autoencoder(type, context)
    var seconds: [Double] = []
    // The first meets cold memory.
    for step in 0...Self.steps {
      let time = try Stopwatch.time { try part.run(step) }
      if step > 0 { seconds.append(time) }
    }
    guard part.result.elements.allSatisfy(\.isFinite) else { throw Failure("the result is not finite") }
    let resident = Generation.residentBytes() - before
    machine.measure(trials: 4)
    let median = seconds.sorted()[seconds.count / 2]
    return Row(
      storage: type.rawValue, seconds: median, gigaflops: part.operations / median / 1e9,
      share: part.operations / median / machine.peakFlops, resident: resident, expected: part.expected)
  }

  /// What runs, into which tensor, how many operations of products it takes, and the bytes that are to be expected.
  private typealias Part = (run: (Int) throws -> Void, result: MutableTensor, operations: Double, expected: Int)

  private static func unet(_ type: DataType, _ context: Context) throws -> Part {
    let source = RandomDiffusionModel.unet
    let config = try UNetConfiguration(HubConfig(text: source.config))
    let unet = try UNet2DConditionModel(config, source: source, file: source.path, context: context, precision: type)
    var need = try unet.workspaceNeed(images: 2, height: size, width: size, tokens: tokens)
    try need.addWeights(of: source, precision: type)
    let conditioning = try unet.conditioning(prompt: try random(Shape(2, tokens, 768), context, seed: 1).view)
    let sample = try random(Shape(1, 4, size, size), context, seed: 2)
    let (y, workspace) = (try MutableTensor(zeros: Shape(2, 4, size, size)), try UNetWorkspace())
    let run = { (step: Int) in
      try unet.forward(
        sample.view, timestep: Double(981 - 20 * step), conditioning: conditioning, workspace: workspace, into: y)
    }
    let operations = config.operations(images: 2, height: size, width: size, tokens: tokens)
    return (run, y, operations, need.weights + need.cache + need.workspace)
  }

  private static func autoencoder(_ type: DataType, _ context: Context) throws -> Part {
    let source = RandomDiffusionModel.autoencoder
    let config = try AutoencoderKLConfiguration(HubConfig(text: source.config))
    let model = try AutoencoderKL(config, source: source, file: source.path, context: context, precision: type)
    var need = MemoryNeed()
    try need.addWeights(of: source, precision: type)
    let (latents, workspace) = (try random(Shape(1, size, size, 4), context, seed: 1), try AutoencoderWorkspace())
    let picture = try MutableTensor(zeros: Shape(1, 8 * size, 8 * size, 3))
    let run = { (_: Int) in try model.decode(latents.view, into: picture, workspace: workspace) }
    let workspaceNeed = DiffusionPipeline.autoencoderWorkspace(
      size: ImageSize(8 * size, 8 * size), width: 256, precision: type)
    return (run, picture, source.decodingOperations(latents: size), need.weights + workspaceNeed)
  }

  private static func random(_ shape: Shape, _ context: Context, seed: UInt64) throws -> MutableTensor {
    let tensor = try MutableTensor(zeros: shape)
    try context.random(.normal, key: RandomKey(seed: seed), into: tensor)
    return tensor
  }
}

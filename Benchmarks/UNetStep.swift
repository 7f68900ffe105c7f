import Foundation
import Quern
import QuernDiffusion
import QuernModels

/// A guided step of Stable Diffusion 1.5 at 512x512 with random weights: seconds, the share of the machine's peak, and memory.
enum UNetStep {
  static let size = 64
  static let tokens = 77
  static let steps = 3

  struct Row: Encodable {
    /// How matrices and activations are stored.
    var storage: String
    var seconds, gigaflops: Double
    /// Of the FMA rate.
    var share: Double
    /// What the process holds more than before the model was made, once it has run, and what was to be expected, in bytes.
    var resident, expected: Int
  }

  static func run(context: Context, machine: Machine, filter: [String], asJSON: Bool) throws {
    var rows: [Row] = []
    for type in [DataType.f32, .bf16] {
      guard filter.isEmpty || filter.contains(where: { type.rawValue.localizedCaseInsensitiveContains($0) }) else {
        continue
      }
      StandardError.writeLine("benchmarks: U-Net \(type.rawValue)")
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
    for line in [["storage", "s/step", "GFLOP/s", "of FMA", "memory"]] + cells {
      print(line.map { $0.padding(toLength: 11, withPad: " ", startingAt: 0) }.joined())
    }
  }

  private static func measure(_ type: DataType, _ context: Context, _ machine: Machine) throws -> Row {
    let before = Generation.residentBytes()
    let (source, config) = (RandomUNet(), try config())
    let unet = try UNet2DConditionModel(config, source: source, file: source.path, context: context, precision: type)
    var need = try unet.workspaceNeed(images: 2, height: size, width: size, tokens: tokens)
    try need.addWeights(of: source, precision: type)
    let (latents, prompt) = (Shape(1, 4, size, size), Shape(2, tokens, 768))
    let conditioning = try unet.conditioning(prompt: try random(prompt, context, seed: 1).view)
    let (sample, y) = (try random(latents, context, seed: 2), try MutableTensor(zeros: Shape(2, 4, size, size)))
    let workspace = try UNetWorkspace()
    var seconds: [Double] = []
    // The first meets cold memory.
    for step in 0...steps {
      let time = try Stopwatch.time {
        try unet.forward(
          sample.view, timestep: Double(981 - 20 * step), conditioning: conditioning, workspace: workspace, into: y)
      }
      if step > 0 { seconds.append(time) }
    }
    guard y.elements.allSatisfy(\.isFinite) else { throw Failure("the U-Net's result is not finite") }
    let resident = Generation.residentBytes() - before
    machine.measure(trials: 4)
    let median = seconds.sorted()[seconds.count / 2]
    let operations = config.operations(images: 2, height: size, width: size, tokens: tokens)
    return Row(
      storage: type.rawValue, seconds: median, gigaflops: operations / median / 1e9,
      share: operations / median / machine.peakFlops, resident: resident,
      expected: need.weights + need.cache + need.workspace)
  }

  private static func config() throws -> UNetConfiguration {
    let folder = NSTemporaryDirectory() + "/quern-benchmark-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try Data(RandomUNet.config.utf8).write(to: URL(fileURLWithPath: folder + "/config.json"))
    return try UNetConfiguration(HubConfig(directory: folder))
  }

  private static func random(_ shape: Shape, _ context: Context, seed: UInt64) throws -> MutableTensor {
    let tensor = try MutableTensor(zeros: shape)
    try context.random(.normal, key: RandomKey(seed: seed), into: tensor)
    return tensor
  }
}

import ArgumentParser
import Foundation
import Quern
import QuernDiffusion
import QuernModels

struct DiffuseCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "diffuse", abstract: "Makes a picture of a text.",
    discussion: "Writes a PNG with its settings in a text chunk, and the time of a step on standard error. "
      + "A seed gives the same picture for any number of threads. A model trained to inpaint needs --init and --mask.")

  @Option(help: "A diffusers directory.") var model: String
  @Option(help: "What the picture shows.") var prompt: String
  @Option(name: .customLong("negative-prompt"), help: "What guidance leads away from (default: the empty prompt).")
  var negativePrompt: String?
  @Option(help: "The PNG to be written.") var output: String
  @Option(help: "Steps from noise to picture (default: 50; 4 of a latent consistency model).") var steps: Int?
  @Option(help: "Guidance scale; none up to 1 (default: 7.5, SDXL 5, latent consistency models 8.5).")
  var guidance: Double?
  @Option(name: .customLong("guidance-rescale"), help: "Share of the guided prediction scaled back, 0 to 1.")
  var guidanceRescale = 0.0
  @Option(help: "The number that the noise follows from.") var seed: UInt64 = 0
  @Option(help: "Pixels of a row (default: the model's, or those of --init).") var width: Int?
  @Option(help: "Rows of pixels (likewise).") var height: Int?
  @Option(help: "In place of the model's scheduler: \(SamplerName.allCases.map(\.rawValue).joined(separator: ", ")).")
  var sampler: SamplerName?
  @Option(name: .customLong("init"), help: "A PNG or JPEG to start from.") var initial: String?
  @Option(help: "With --init, the share of the steps that is run: how much is changed (default: 0.8; 1 with --mask).")
  var strength: Double?
  @Option(help: "With --init, a PNG or JPEG: what is white is made anew.") var mask: String?
  @Option(help: "A safetensors file with the first noise, [1, channels, height, width], as latents.")
  var latents: String?
  @Option(name: .customLong("save-latents"), help: "A safetensors file for the last latents.") var savedLatents: String?
  @Option(help: "Write the picture as the model sees it after every so many steps, to OUTPUT-STEP.png.")
  var preview: Int?
  @Option(
    help: ArgumentHelp(
      "A LoRA adapter, with the names of diffusers or kohya, perhaps with a weight; repeatable.",
      valueName: "path[=weight]"))
  var lora: [String] = []
  @Option(help: "How matrices and activations are stored; arithmetic is in f32.") var precision = DataType.f32
  @Flag(help: "Encode and decode the picture piece by piece, in less memory.") var tiled = false
  @Flag(name: .customLong("ignore-memory"), help: "Begin even where the model needs more memory than there is.")
  var ignoresMemory = false
  @OptionGroup var backend: BackendArguments
  @Option(help: "json: an object with settings and times on standard output.") var format = OutputFormat.text

  func validate() throws {
    if let preview, preview < 1 { throw ValidationError("--preview takes a number of steps, at least 1") }
    if initial == nil, strength != nil || mask != nil { throw ValidationError("--strength and --mask go with --init") }
    if (width == nil) != (height == nil) { throw ValidationError("--width and --height go together") }
  }

  func run() throws {
    // Before the steps, which may take minutes.
    for path in [output, savedLatents].compactMap({ $0 }) { try requireFolder(of: path) }
    var request = DiffusionRequest(prompt: prompt, seed: seed)
    (request.negativePrompt, request.steps) = (negativePrompt, steps)
    (request.guidanceScale, request.guidanceRescale) = (guidance, guidanceRescale)
    (request.strength, request.scheduler, request.isTiled) = (strength, try scheduler(), tiled)
    if let width, let height { request.size = ImageSize(height, width) }
    request.initialImage = try initial.map { try PictureFile(path: $0).image }
    request.mask = try mask.map { try PictureFile(path: $0).image }
    request.latents = try latents.map { try LatentFile.read(path: $0) }
    let memory = try memoryNeed(request)
    let adapters = try lora.map {
      let (path, weight) = AdapterArguments.pathAndWeight($0)
      return try DiffusionLoRA(path: path, weight: weight)
    }
    let pipeline = try DiffusionPipeline(
      directory: model, context: backend.context(), precision: precision, adapters: adapters)
    let progress = StepProgress()
    let result: DiffusionResult
    do {
      result = try pipeline.generate(request) { step in
        progress.update(step)
        if let preview, (step.index + 1) % preview == 0, step.index + 1 < step.count {
          try PictureFile.writePNG(step.preview(), to: previewPath(step.index + 1))
        }
        return .proceed
      }
    } catch let error as QuernError {
      throw named(error)
    }
    progress.finish()
    let report = DiffusionReport(self, result, memory)
    try PictureFile.writePNG(
      result.image, texts: [.init(key: "parameters", value: report.parameters)], to: output)
    if let savedLatents { try LatentFile.write(result.latents, path: savedLatents) }
    if format == .json { print(try report.json()) }
    StandardError.write("\(report.summary)\n")
  }

  private func requireFolder(of path: String) throws(ModelError) {
    let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
    guard FileManager.default.isWritableFile(atPath: folder) else {
      throw ModelError(file: path, field: "", reason: "cannot be written: \(folder) is not a folder that takes files")
    }
  }

  private func memoryNeed(_ request: DiffusionRequest) throws -> MemoryNeed {
    let size = request.size ?? request.initialImage.map { ImageSize($0.height, $0.width) }
    let need = try DiffusionPipeline.memoryNeed(directory: model, precision: precision, size: size, isTiled: tiled)
    if !ignoresMemory {
      let pieces = tiled ? "" : "--tiled, "
      try need.requireAvailable(for: model, remedy: "--precision bf16, \(pieces)a smaller picture")
    }
    return need
  }

  private func scheduler() throws -> SchedulerConfiguration? {
    guard let sampler else { return nil }
    var configuration = try SchedulerConfiguration(directory: "\(model)/scheduler", as: sampler.className)
    if let usesKarrasSigmas = sampler.usesKarrasSigmas { configuration.useKarrasSigmas = usesKarrasSigmas }
    return configuration
  }

  private func previewPath(_ step: Int) -> String {
    let stem = output.lowercased().hasSuffix(".png") ? String(output.dropLast(4)) : output
    return "\(stem)-\(step).png"
  }

  /// With the option's name in place of the setting's.
  private func named(_ error: QuernError) -> any Error {
    guard case .invalidSetting(let name, let value, let expected) = error else { return error }
    let options = ["guidance_scale": "guidance", "guidance_rescale": "guidance-rescale", "initialImage": "init"]
    return ValidationError("--\(options[name] ?? name): \(value) where \(expected) is expected")
  }
}

/// The schedulers of diffusers by short names.
enum SamplerName: String, ExpressibleByArgument, CaseIterable {
  case ddpm, ddim, pndm, euler
  case eulerAncestral = "euler-ancestral"
  case dpmSolver = "dpm++-2m"
  case dpmSolverKarras = "dpm++-2m-karras"
  case lcm
  case flowMatchEuler = "flow-euler"

  var className: String {
    switch self {
    case .ddpm: "DDPMScheduler"
    case .ddim: "DDIMScheduler"
    case .pndm: "PNDMScheduler"
    case .euler: "EulerDiscreteScheduler"
    case .eulerAncestral: "EulerAncestralDiscreteScheduler"
    case .dpmSolver, .dpmSolverKarras: "DPMSolverMultistepScheduler"
    case .lcm: "LCMScheduler"
    case .flowMatchEuler: "FlowMatchEulerDiscreteScheduler"
    }
  }

  /// `nil` where the file says.
  var usesKarrasSigmas: Bool? {
    switch self {
    case .dpmSolver: false
    case .dpmSolverKarras: true
    default: nil
    }
  }
}

/// A line on standard error for each step, over the one before; nothing where no person is watching.
private final class StepProgress {
  private var shown = false

  func update(_ step: DiffusionStep) {
    guard StandardError.isTerminal else { return }
    let seconds = step.duration / .seconds(1)
    let left = seconds * Double(step.count - step.index - 1)
    StandardError.write(
      "\rstep \(step.index + 1)/\(step.count), \(String(format: "%.2f", seconds)) s each, "
        + "about \(Int(left.rounded(.up))) s left \u{1B}[K")
    shown = true
  }

  func finish() { if shown { StandardError.write("\r\u{1B}[K") } }
}

/// Settings and times of a run.
private struct DiffusionReport: Encodable {
  let prompt: String
  let negativePrompt: String?
  let seed: UInt64
  let steps: Int
  let guidance: Double?
  let sampler: String?
  let width, height: Int
  let model, output: String
  let secondsPerStep: Double
  /// Bytes, known before the run.
  let memoryNeed: Int

  init(_ command: DiffuseCommand, _ result: DiffusionResult, _ memory: MemoryNeed) {
    memoryNeed = memory.total
    (prompt, negativePrompt, seed) = (command.prompt, command.negativePrompt, command.seed)
    (steps, guidance, sampler) = (result.steps, command.guidance, command.sampler?.rawValue)
    (width, height) = (result.image.width, result.image.height)
    (model, output) = (URL(fileURLWithPath: command.model).lastPathComponent, command.output)
    secondsPerStep = result.stepDuration / .seconds(1) / Double(max(result.steps, 1))
  }

  /// In the form that pictures of diffusion models commonly carry.
  var parameters: String {
    var fields = ["Steps: \(steps)"]
    if let sampler { fields.append("Sampler: \(sampler)") }
    if let guidance { fields.append("CFG scale: \(guidance)") }
    fields += ["Seed: \(seed)", "Size: \(width)x\(height)", "Model: \(model)"]
    let negative = negativePrompt.map { "\nNegative prompt: \($0)" } ?? ""
    return "\(prompt)\(negative)\n\(fields.joined(separator: ", "))"
  }

  var summary: String {
    "\(width)x\(height), \(steps) steps, \(String(format: "%.3f", secondsPerStep)) s each, "
      + "\(String(format: "%.2f", Double(memoryNeed) / 1e9)) GB of memory stated"
  }

  func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }
}

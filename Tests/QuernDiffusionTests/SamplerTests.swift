import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// Samplers against runs of diffusers' schedulers, made by tools/fixtures/samplers.py.
@Suite struct SamplerTests {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let steps: Int
    let strength: Double
    let arguments: [String: Double]
    let timesteps: [Double]
    let config: String

    var testDescription: String { name }

    func sampler() throws -> DiffusionSampler {
      let folder = try TemporaryFolder()
      try folder.write("scheduler_config.json", config.utf8)
      return try DiffusionSampler(
        SchedulerConfiguration(directory: folder.path), steps: steps, strength: strength, eta: arguments["eta"] ?? 0,
        tokens: arguments["tokens"].map { Int($0) })
    }
  }

  static let cases = (try? Fixture.decode([Case].self, "samplers/cases.json")) ?? []

  private static func tensor(_ name: String) throws -> MutableTensor {
    let file = try Safetensors(path: Fixture.path("samplers/runs.safetensors"))
    let elements = try file.readFloat32(name)
    // The noise of all steps has a rank of 5.
    let shape = try file.info(name).shape
    let tensor = try MutableTensor(zeros: Shape(checking: shape.count > 4 ? [shape[0], elements.count / shape[0]] : shape))
    for (index, element) in elements.enumerated() { tensor.base[index] = element }
    return tensor
  }

  /// The stand-in for a model.
  private static func model(_ input: MutableTensor, _ timestep: Double, into output: MutableTensor) {
    for index in 0..<input.shape.count {
      let x = Double(input.base[index])
      output.base[index] = Float(0.6 * tanh(0.7 * x + 0.002 * timestep - 0.4) + 0.3 * x)
    }
  }

  private static func run(_ sampler: DiffusionSampler, from sample: MutableTensor, noise: MutableTensor) throws {
    let (input, output) = (try MutableTensor(zeros: sample.shape), try MutableTensor(zeros: sample.shape))
    for step in 0..<sampler.count {
      try sampler.scaleModelInput(sample.view, step: step, into: input)
      model(input, sampler.timesteps[step], into: output)
      let fresh = noise.rows(step..<step + 1).reshaped(sample.shape)
      try sampler.step(step, output: output.view, sample: sample, noise: sampler.needsNoise(step) ? fresh.view : nil)
    }
  }

  private static func start(_ test: Case, _ sampler: DiffusionSampler) throws -> MutableTensor {
    let noise = try tensor("start")
    let sample = try MutableTensor(zeros: noise.shape)
    if test.strength == 1 {
      for index in 0..<sample.shape.count { sample.base[index] = Float(sampler.initialNoiseScale) * noise.base[index] }
    } else {
      // The original is half of the noise, the columns the other way round.
      let original = try MutableTensor(zeros: noise.shape)
      for index in 0..<sample.shape.count { original.base[index] = noise.base[index ^ 1] / 2 }
      try sampler.addNoise(noise.view, to: original.view, into: sample)
    }
    return sample
  }

  @Test func everyRunIsHere() { #expect(Self.cases.count == 108) }

  @Test(arguments: cases) func timestepsAndSamples(_ test: Case) throws {
    let sampler = try test.sampler()
    #expect(sampler.count == test.timesteps.count)
    for (own, expected) in zip(sampler.timesteps, test.timesteps) {
      #expect(abs(own - expected) <= 1e-6 * max(expected, 1), "\(sampler.timesteps) \(test.timesteps)")
    }
    let sample = try Self.start(test, sampler)
    try Self.run(sampler, from: sample, noise: Self.tensor("noise"))
    let difference = try Parity.difference(sample.elements, Self.tensor(test.name).elements)
    #expect(difference < 1e-5, "\(difference)")
  }

  /// What a run keeps does not reach into the next.
  @Test(arguments: ["pndm-epsilon", "dpm-epsilon"]) func aSamplerRunsAgain(_ name: String) throws {
    let test = try #require(Self.cases.first { $0.name == name })
    let sampler = try test.sampler()
    let noise = try Self.tensor("noise")
    let first = try Self.start(test, sampler)
    let other = try Self.tensor("noise").rows(3..<4).reshaped(first.shape)
    try Self.run(sampler, from: other, noise: noise)
    try Self.run(sampler, from: first, noise: noise)
    let difference = try Parity.difference(first.elements, Self.tensor(name).elements)
    #expect(difference < 1e-5)
  }

  @Test func stepsComeInOrderAndOfOneShape() throws {
    let sampler = try DiffusionSampler(SchedulerConfiguration(.dpmSolver(.init())), steps: 5)
    let (sample, other) = (try MutableTensor(zeros: Shape(1, 2, 2, 4)), try MutableTensor(zeros: Shape(1, 2, 4, 2)))
    try sampler.step(0, output: sample.copied().view, sample: sample)
    #expect(throws: QuernError.self) { try sampler.step(2, output: sample.copied().view, sample: sample) }
    #expect(throws: QuernError.self) { try sampler.step(1, output: other.view, sample: sample) }
    #expect(throws: QuernError.self) { try sampler.step(1, output: other.copied().view, sample: other) }
    #expect(throws: QuernError.self) { try sampler.step(5, output: sample.copied().view, sample: sample) }
    try sampler.step(1, output: sample.copied().view, sample: sample)
    let noisy = try DiffusionSampler(SchedulerConfiguration(.eulerAncestral), steps: 5)
    #expect(throws: QuernError.self) { try noisy.step(0, output: sample.copied().view, sample: sample) }
  }

  @Test func numbersWithoutStepsAreRefused() throws {
    let euler = SchedulerConfiguration(.euler)
    for steps in [0, -1, 1001, Int.max] { #expect(throws: QuernError.self) { try DiffusionSampler(euler, steps: steps) } }
    for strength in [0, -0.5, 1.5, 0.01, .nan] {
      #expect(throws: QuernError.self) { try DiffusionSampler(euler, steps: 10, strength: strength) }
    }
    #expect(throws: QuernError.self) { try DiffusionSampler(euler, steps: 10, eta: 2) }
    #expect(throws: QuernError.self) { try DiffusionSampler(.init(.lcm(originalInferenceSteps: 4, timestepScaling: 10)), steps: 5) }
    var flow = SchedulerConfiguration.FlowShift()
    flow.useDynamicShifting = true
    #expect(throws: QuernError.self) { try DiffusionSampler(.init(.flowMatchEuler(flow)), steps: 5) }
    // Without signal at the first timestep noise says nothing about the original.
    var silent = SchedulerConfiguration(.ddim)
    (silent.rescaleBetasZeroSNR, silent.timestepSpacing) = (true, .trailing)
    #expect(throws: QuernError.self) { try DiffusionSampler(silent, steps: 10) }
    silent.predictionType = .velocity
    #expect(throws: Never.self) { try DiffusionSampler(silent, steps: 10) }
    var late = SchedulerConfiguration(.pndm)
    late.stepsOffset = 500
    #expect(throws: QuernError.self) { try DiffusionSampler(late, steps: 10) }
  }

  @Test func theOriginalIsSeenThroughTheNoise() throws {
    for method in [SchedulerConfiguration.Method.ddim, .pndm, .euler, .dpmSolver(.init()), .flowMatchEuler(.init())] {
      let sampler = try DiffusionSampler(SchedulerConfiguration(method), steps: 10)
      let original = try MutableTensor(zeros: Shape(1, 1, 1, 4))
      let noise = try MutableTensor(zeros: original.shape)
      for index in 0..<4 { (original.base[index], noise.base[index]) = (Float(index) - 2, 1 - Float(index) * 0.3) }
      let (sample, seen) = (try MutableTensor(zeros: original.shape), try MutableTensor(zeros: original.shape))
      try sampler.addNoise(noise.view, to: original.view, step: 4, into: sample)
      // A model that is right: it knows the noise, or what leads from original to noise.
      let output = try MutableTensor(zeros: original.shape)
      for index in 0..<4 {
        let isFlow = method == .flowMatchEuler(.init())
        output.base[index] = noise.base[index] - (isFlow ? original.base[index] : 0)
      }
      let input = try MutableTensor(zeros: original.shape)
      try sampler.scaleModelInput(sample.view, step: 4, into: input)
      try sampler.predictedOriginal(4, output: output.view, sample: sample.view, into: seen)
      #expect(try Parity.difference(seen.elements, original.elements) < 1e-5, "\(method)")
      try sampler.addNoise(noise.view, to: original.view, step: sampler.count, into: sample)
      #expect(sample.elements == original.elements)
    }
  }
}

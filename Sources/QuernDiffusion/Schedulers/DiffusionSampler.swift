import Quern

/// One run of a scheduler: its timesteps, and the way from noise to a sample.
///
/// ```swift
/// let sampler = try DiffusionSampler(SchedulerConfiguration(directory: "model/scheduler"), steps: 20)
/// try noise.fill(latents, .initial, scale: sampler.initialNoiseScale, context: context)
/// for step in 0..<sampler.count {
///   try sampler.scaleModelInput(latents.view, step: step, into: input)
///   ... the model on input and sampler.timesteps[step] ...
///   if sampler.needsNoise(step) { try noise.fill(fresh, .step(step), context: context) }
///   try sampler.step(step, output: output.view, sample: latents, noise: fresh.view)
/// }
/// ```
///
/// Each element is computed in Double, on one thread, and rounded once a step: numbers do not depend on backend or threads. Layouts do
/// not matter as long as all tensors have the same. Not `Sendable`; a configuration serves any number of samplers.
public final class DiffusionSampler {
  public let configuration: SchedulerConfiguration
  /// What the model is given, step by step.
  public let timesteps: [Double]
  /// What noise of variance 1 is multiplied by to be the first sample.
  public let initialNoiseScale: Double
  private let plans: [StepPlan]
  /// Predictions of the steps before, and a sample of one.
  private var kept: [MutableTensor] = []
  private let places: Int
  private var position = 0

  /// - Parameters:
  ///   - steps: how many steps lead from noise alone to the end; PNDM repeats the second.
  ///   - strength: the share of them that is run, the last ones: less than 1 keeps some of an original, to which
  ///     ``addNoise(_:to:step:into:)`` adds noise.
  ///   - eta: DDIM's noise, from 0, none, to 1, that of DDPM (Song et al., equation 16).
  ///   - tokens: image tokens that the model works on, where the configuration shifts by them.
  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` for numbers that this schedule has no steps for.
  public init(
    _ configuration: SchedulerConfiguration, steps: Int, strength: Double = 1, eta: Double = 0, tokens: Int? = nil
  ) throws(QuernError) {
    let total = configuration.numTrainTimesteps
    guard (1...total).contains(steps) else {
      throw .invalidSetting(
        name: "steps", value: "\(steps)", expected: "1 to \(total), the timesteps of the training")
    }
    guard strength > 0, strength <= 1, Int(Double(steps) * strength) > 0 else {
      throw .invalidSetting(
        name: "strength", value: "\(strength)", expected: "at most 1, and enough for one of \(steps) steps")
    }
    guard eta >= 0, eta <= 1 else {
      throw .invalidSetting(name: "eta", value: "\(eta)", expected: "0 to 1")
    }
    let first = steps - Int(Double(steps) * strength)
    var scale = 1.0
    switch configuration.method {
    case .ddpm, .ddim, .pndm, .lcm: plans = try configuration.discretePlans(steps, from: first, eta: eta)
    case .euler, .eulerAncestral: (plans, scale) = try configuration.eulerPlans(steps, from: first)
    case .dpmSolver(let solver): plans = try configuration.solverPlans(solver, steps, from: first)
    case .flowMatchEuler(let flow): plans = try configuration.flowPlans(flow, steps, from: first, tokens: tokens)
    }
    // Noise cannot be told from a sample that is noise alone.
    if let broken = plans.first(where: { !$0.isFinite }) {
      throw .invalidSetting(
        name: "prediction_type", value: configuration.predictionType.rawValue,
        expected: "v_prediction or sample: no signal is left at timestep \(broken.timestep)")
    }
    (self.configuration, initialNoiseScale, timesteps) = (configuration, scale, plans.map(\.timestep))
    let predictions = plans.compactMap(\.keepsPredictionAt).max().map { $0 + 1 } ?? 0
    places = plans.contains(where: \.keepsSample) ? StepPlan.places : predictions
  }

  /// The number of steps that are run.
  public var count: Int { plans.count }

  /// Whether ``step(_:output:sample:noise:)`` takes noise at a step.
  public func needsNoise(_ step: Int) -> Bool { plans.indices.contains(step) && plans[step].ofNoise != 0 }

  /// What the model is given at a step. `input` may be `sample`.
  public func scaleModelInput(_ sample: TensorView, step: Int, into input: MutableTensor) throws(QuernError) {
    let plan = try plan(step)
    try Self.check(sample, "sample", like: input)
    let (x, y) = (sample.pointer, input.pointer)
    for index in 0..<input.shape.count { y[index] = Float(plan.inputScale * Double(x[index])) }
  }

  /// Takes the sample one step further, in place.
  ///
  /// Steps come in order; step 0 begins a new run. The first one of a run, and the first of another size, takes memory for what a
  /// multistep method keeps; no other does.
  ///
  /// - Parameters:
  ///   - step: from 0.
  ///   - output: what the model made of the input at this step; f32.
  ///   - sample: f32 without gaps.
  ///   - noise: of mean 0 and variance 1, where ``needsNoise(_:)``.
  /// - Throws: ``QuernError/invalidShape(_:)`` for tensors of different shapes or none; ``QuernError/invalidSetting(name:value:expected:)``
  ///   for a step out of turn.
  public func step(
    _ step: Int, output: TensorView, sample: MutableTensor, noise: TensorView? = nil
  ) throws(QuernError) {
    let plan = try plan(step)
    guard step == 0 || step == position else {
      throw .invalidSetting(name: "step", value: "\(step)", expected: "0, or \(position), the next")
    }
    try Self.check(output, "output", like: sample)
    if plan.ofNoise != 0 {
      guard let noise else { throw .invalidShape("step \(step) takes noise of shape \(sample.shape)") }
      try Self.check(noise, "noise", like: sample)
    }
    try reserve(sample.shape)
    let (x, e) = (sample.pointer, output.pointer)
    let n = plan.ofNoise == 0 ? output.pointer : noise?.pointer ?? output.pointer
    for index in 0..<sample.shape.count {
      let (from, made) = (Double(x[index]), Double(e[index]))
      let raw = plan.predicted.sample * from + plan.predicted.output * made
      let predicted = min(max(raw, -plan.limit), plan.limit)
      var next = plan.ofPredicted * predicted + plan.ofSample * from + plan.ofOutput * made
      next += plan.ofNoise * Double(n[index])
      for place in kept.indices where plan.ofKept[place] != 0 {
        next += plan.ofKept[place] * Double(kept[place].pointer[index])
      }
      if let place = plan.keepsPredictionAt { kept[place].pointer[index] = Float(predicted) }
      if plan.keepsSample { kept[StepPlan.samplePlace].pointer[index] = x[index] }
      x[index] = Float(next)
    }
    position = step + 1
  }

  /// The original as the model sees it from a step's sample and output: a picture to look at before the end. `original` may be either.
  public func predictedOriginal(
    _ step: Int, output: TensorView, sample: TensorView, into original: MutableTensor
  ) throws(QuernError) {
    let blend = try plan(step).original
    try Self.check(output, "output", like: original)
    try Self.check(sample, "sample", like: original)
    let (x, e, y) = (sample.pointer, output.pointer, original.pointer)
    for index in 0..<original.shape.count {
      y[index] = Float(blend.sample * Double(x[index]) + blend.output * Double(e[index]))
    }
  }

  /// An original with as much noise as samples have before a step: where a run of less than full strength starts, and what inpainting
  /// puts where the original stays. At the step behind the last it is the original. `sample` may be either.
  public func addNoise(
    _ noise: TensorView, to original: TensorView, step: Int = 0, into sample: MutableTensor
  ) throws(QuernError) {
    let level = step == count ? NoiseLevel(alpha: 1, sigma: 0) : try plan(step).level
    try Self.check(noise, "noise", like: sample)
    try Self.check(original, "original", like: sample)
    let (x, n, y) = (original.pointer, noise.pointer, sample.pointer)
    for index in 0..<sample.shape.count {
      y[index] = Float(level.alpha * Double(x[index]) + level.sigma * Double(n[index]))
    }
  }

  private func plan(_ step: Int) throws(QuernError) -> StepPlan {
    guard plans.indices.contains(step) else {
      throw .invalidSetting(name: "step", value: "\(step)", expected: "one of \(count), counted from 0")
    }
    return plans[step]
  }

  private func reserve(_ shape: Shape) throws(QuernError) {
    guard places > 0, kept.first?.shape != shape else { return }
    guard position == 0 || kept.isEmpty else {
      throw .invalidShape("a sample of \(shape) after one of \(kept[0].shape); step 0 begins a new run")
    }
    kept = []
    for _ in 0..<places { kept.append(try MutableTensor(zeros: shape)) }
  }

  private static func check(_ tensor: TensorView, _ name: String, like other: MutableTensor) throws(QuernError) {
    guard other.dataType == .f32, other.isContiguous, other.shape.count > 0 else {
      throw .invalidShape("a sample of shape \(other.shape): f32 elements without gaps are expected")
    }
    guard tensor.shape == other.shape, tensor.dataType == .f32, tensor.isContiguous else {
      throw .invalidShape(
        "\(name) has shape \(tensor.shape), \(other.shape) is expected; f32 elements without gaps")
    }
  }
}

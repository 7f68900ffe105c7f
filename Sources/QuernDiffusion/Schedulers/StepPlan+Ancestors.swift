import Quern

/// The steps of the samplers that walk the training's own timesteps: DDPM, DDIM, PNDM and LCM.
extension SchedulerConfiguration {
  /// Plans of the steps from `first` on, of `count` in all.
  func discretePlans(_ count: Int, from first: Int, eta: Double) throws(QuernError) -> [StepPlan] {
    let schedule = NoiseSchedule(self)
    switch method {
    case .ddpm(let isLarge): return try ddpmPlans(schedule, count, first, isLarge: isLarge)
    case .ddim: return try ddimPlans(schedule, count, first, eta: eta)
    case .pndm: return try pndmPlans(schedule, count, first)
    case .lcm(let original, let scaling): return try lcmPlans(schedule, count, first, original, scaling)
    case .euler, .eulerAncestral, .dpmSolver, .flowMatchEuler: return []
    }
  }

  private func timesteps(_ count: Int) -> [Int] {
    spaced(count, of: numTrainTimesteps).map { Int($0.rounded(.toNearestOrEven)) }
  }

  /// The noise level of a timestep; one below 0 is the end.
  private func alphaBar(_ timestep: Int, _ schedule: NoiseSchedule) throws(QuernError) -> Double {
    guard timestep < 0 else { return try schedule.alphaBar(timestep) }
    if case .ddpm = method { return 1 }
    return setAlphaToOne ? 1 : try schedule.alphaBar(0)
  }

  /// A plan with what all of these share.
  private func plan(_ timestep: Int, _ schedule: NoiseSchedule) throws(QuernError) -> StepPlan {
    let level = NoiseLevel(alphaBar: try schedule.alphaBar(timestep))
    let original = level.original(predictionType)
    return StepPlan(
      timestep: Double(timestep), predicted: original, limit: clipSampleRange ?? .infinity, original: original,
      level: level)
  }

  private func ddpmPlans(
    _ schedule: NoiseSchedule, _ count: Int, _ first: Int, isLarge: Bool
  ) throws(QuernError) -> [StepPlan] {
    let timesteps = timesteps(count)
    var plans: [StepPlan] = []
    for index in first..<count {
      var plan = try plan(timesteps[index], schedule)
      let current = try schedule.alphaBar(timesteps[index])
      let previous = try alphaBar(index + 1 < count ? timesteps[index + 1] : -1, schedule)
      let (alpha, beta) = (current / previous, 1 - current / previous)
      plan.ofPredicted = previous.squareRoot() * beta / (1 - current)
      plan.ofSample = alpha.squareRoot() * (1 - previous) / (1 - current)
      if timesteps[index] > 0 {
        let variance = isLarge ? beta : (1 - previous) / (1 - current) * beta
        plan.ofNoise = max(variance, 0).squareRoot()
      }
      plans.append(plan)
    }
    return plans
  }

  private func ddimPlans(
    _ schedule: NoiseSchedule, _ count: Int, _ first: Int, eta: Double
  ) throws(QuernError) -> [StepPlan] {
    var plans: [StepPlan] = []
    for timestep in timesteps(count)[first...] {
      var plan = try plan(timestep, schedule)
      let current = try schedule.alphaBar(timestep)
      let previous = try alphaBar(timestep - numTrainTimesteps / count, schedule)
      let variance = (1 - previous) / (1 - current) * (1 - current / previous)
      let deviation = eta * max(variance, 0).squareRoot()
      let direction = max(1 - previous - deviation * deviation, 0).squareRoot() * plan.level.noise(predictionType)
      plan.ofPredicted = previous.squareRoot()
      (plan.ofSample, plan.ofOutput, plan.ofNoise) = (direction.sample, direction.output, deviation)
      plans.append(plan)
    }
    return plans
  }

  /// Kept are the last outputs. The second step does the first one's way again, with the mean of both outputs.
  private func pndmPlans(_ schedule: NoiseSchedule, _ count: Int, _ first: Int) throws(QuernError) -> [StepPlan] {
    var timesteps = timesteps(count)
    if count > 1 { timesteps.insert(timesteps[1], at: 1) }
    let stride = numTrainTimesteps / count
    var plans: [StepPlan] = []
    for (place, timestep) in timesteps[first...].enumerated() {
      var plan = try plan(timestep, schedule)
      let repeats = place == 1
      let (from, to) = repeats ? (timestep + stride, timestep) : (timestep, timestep - stride)
      let (current, previous) = (try schedule.alphaBar(from), try alphaBar(to, schedule))
      let level = NoiseLevel(alphaBar: current)
      let denominator =
        current * (1 - previous).squareRoot() + (current * (1 - current) * previous).squareRoot()
      let change = -(previous - current) / denominator
      let noise = change * level.noise(predictionType)
      let ofSample = (previous / current).squareRoot() + noise.sample
      let weights: [Double] =
        switch place {
        case 0: [1]
        case 1: [1 / 2, 1 / 2]
        case 2: [3 / 2, -1 / 2]
        case 3: [23 / 12, -16 / 12, 5 / 12]
        default: [55 / 24, -59 / 24, 37 / 24, -9 / 24]
        }
      // The repeated step keeps nothing, so those after it count one less.
      let kept = place == 0 ? 0 : place - 1
      plan.predicted = Blend(sample: 0, output: 1)
      plan.limit = .infinity
      plan.ofPredicted = noise.output * weights[0]
      for (age, weight) in weights.enumerated().dropFirst() {
        let from = repeats ? 0 : (kept - age) % StepPlan.samplePlace
        plan.ofKept[from] = noise.output * weight
      }
      if repeats {
        plan.ofKept[StepPlan.samplePlace] = ofSample
      } else {
        plan.ofSample = ofSample
        plan.keepsPredictionAt = kept % StepPlan.samplePlace
      }
      plan.keepsSample = place == 0
      plans.append(plan)
    }
    return plans
  }

  private func lcmPlans(
    _ schedule: NoiseSchedule, _ count: Int, _ first: Int, _ original: Int, _ scaling: Double
  ) throws(QuernError) -> [StepPlan] {
    guard count <= original else {
      throw .invalidSetting(
        name: "steps", value: "\(count)", expected: "at most original_inference_steps, \(original)")
    }
    let stride = numTrainTimesteps / original
    let distilled = (1...original).reversed().map { $0 * stride - 1 }
    let timesteps = (0..<count).map { distilled[Int(Double($0) * (Double(original) / Double(count)))] }
    var plans: [StepPlan] = []
    for index in first..<count {
      var plan = try plan(timesteps[index], schedule)
      let (data, scaled) = (0.5 * 0.5, Double(timesteps[index]) * scaling)
      let ofSample = data / (scaled * scaled + data)
      let ofOriginal = scaled / (scaled * scaled + data).squareRoot()
      let isLast = index == count - 1
      let next = isLast ? NoiseLevel(alpha: 1, sigma: 0) : NoiseLevel(alphaBar: try schedule.alphaBar(timesteps[index + 1]))
      plan.ofPredicted = next.alpha * ofOriginal
      plan.ofSample = next.alpha * ofSample
      plan.ofNoise = next.sigma
      plans.append(plan)
    }
    return plans
  }
}

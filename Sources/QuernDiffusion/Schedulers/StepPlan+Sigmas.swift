import Foundation
import Quern

/// The steps of the samplers that walk noise levels: Euler, ancestral Euler, DPM-Solver++ and flow matching.
extension SchedulerConfiguration {
  /// Timesteps and the levels sigma / alpha of `count` steps, and the level behind the last.
  private func ratios(_ count: Int) throws(QuernError) -> (timesteps: [Double], ratios: [Double]) {
    let schedule = NoiseSchedule(self)
    let table = schedule.ratios
    let logarithms = table.map { log($0) }
    var (timesteps, levels): ([Double], [Double])
    if case .dpmSolver(let solver) = method {
      // log alpha - log sigma falls with the timesteps; those below the limit are left out.
      let last = logarithms.count { -$0 >= solver.lambdaMinClipped }
      timesteps = solverTimesteps(count, of: max(last, 1))
      levels = timesteps.map { NoiseSchedule.interpolate(table, at: $0) }
      if useKarrasSigmas {
        levels = karras(from: table[table.count - 1], to: table[0], count)
        timesteps = levels.map { NoiseSchedule.place(of: $0, in: logarithms) }
        if betaSchedule != .squaredCosine { timesteps = timesteps.map { $0.rounded(.toNearestOrEven) } }
        timesteps = timesteps.map { $0.rounded(.towardZero) }
      }
    } else {
      // The levels follow from timesteps that the model is given in f32.
      timesteps = spaced(count, of: numTrainTimesteps).map { Double(Float($0)) }
      levels = timesteps.map { NoiseSchedule.interpolate(table, at: $0) }
      if useKarrasSigmas {
        levels = karras(from: levels[0], to: levels[count - 1], count)
        timesteps = levels.map { Double(Float(NoiseSchedule.place(of: $0, in: logarithms))) }
      }
    }
    for timestep in timesteps where timestep >= Double(numTrainTimesteps) {
      _ = try schedule.alphaBar(Int(timestep))
    }
    return (timesteps, levels + [endsAtSigmaMin ? table[0] : 0])
  }

  private func karras(from most: Double, to least: Double, _ count: Int) -> [Double] {
    NoiseSchedule.karras(from: sigmaMax ?? most, to: sigmaMin ?? least, count: count)
  }

  /// One more than is walked, and not that one: the last step would have no noise left.
  private func solverTimesteps(_ count: Int, of total: Int) -> [Double] {
    guard timestepSpacing != .trailing else { return spaced(count, of: total) }
    return spaced(count + 1, of: total).dropLast().map { $0.rounded(.toNearestOrEven) }
  }

  /// Plans of the steps from `first` on, of `count` in all, and what the first noise is multiplied by.
  func eulerPlans(_ count: Int, from first: Int) throws(QuernError) -> (plans: [StepPlan], noiseScale: Double) {
    let (timesteps, levels) = try ratios(count)
    let plans = (first..<count).map { index -> StepPlan in
      let (sigma, next) = (levels[index], levels[index + 1])
      let level = NoiseLevel(ratio: sigma)
      // The sample is original + sigma noise: 1 / alpha times that of variance 1.
      let predicted = level.original(predictionType)
      let original = Blend(sample: level.alpha * predicted.sample, output: predicted.output)
      var (target, noise) = (next, 0.0)
      if method == .eulerAncestral {
        noise = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).squareRoot()
        target = (next * next - noise * noise).squareRoot()
      }
      let change = (target - sigma) / sigma
      return StepPlan(
        timestep: timesteps[index], inputScale: level.alpha, predicted: original, ofPredicted: -change,
        ofSample: 1 + change, ofNoise: noise, original: original, level: NoiseLevel(alpha: 1, sigma: sigma))
    }
    let most = levels.max() ?? 1
    return (plans, timestepSpacing == .leading ? (most * most + 1).squareRoot() : most)
  }

  func solverPlans(_ solver: DPMSolver, _ count: Int, from first: Int) throws(QuernError) -> [StepPlan] {
    let (timesteps, levels) = try ratios(count)
    return (first..<count).map { index in
      let level = NoiseLevel(ratio: levels[index])
      let next = NoiseLevel(ratio: levels[index + 1])
      let original = level.original(predictionType)
      let isLast = index == count - 1
      let isFew = solver.lowerOrderFinal && count < 15
      let isFirstOrder =
        solver.order == 1 || index == first || isLast && (solver.eulerAtFinal || isFew || !endsAtSigmaMin)
      var plan = StepPlan(timestep: timesteps[index], predicted: original, original: original, level: level)
      // e^-h for the step h in log alpha - log sigma.
      let decay = levels[index + 1] / levels[index]
      let h = -log(decay)
      let gain = solver.isStochastic ? 1 - decay * decay : 1 - decay
      plan.ofSample = next.sigma / level.sigma * (solver.isStochastic ? decay : 1)
      plan.ofPredicted = next.alpha * gain
      if solver.isStochastic { plan.ofNoise = next.sigma * gain.squareRoot() }
      if !isFirstOrder {
        let ratio = log(levels[index - 1] / levels[index]) / h
        let slope: Double
        if solver.isHeun {
          slope = next.alpha * (1 - gain / (solver.isStochastic ? 2 * h : h))
        } else {
          slope = next.alpha * gain / 2
        }
        plan.ofPredicted += slope / ratio
        plan.ofKept[(index - 1) % 2] = -slope / ratio
      }
      if solver.order == 2 { plan.keepsPredictionAt = index % 2 }
      return plan
    }
  }

  /// - Parameter tokens: image tokens, for dynamic shifting.
  func flowPlans(
    _ flow: FlowShift, _ count: Int, from first: Int, tokens: Int?
  ) throws(QuernError) -> [StepPlan] {
    let total = Double(numTrainTimesteps)
    func shifted(_ sigma: Double) -> Double { flow.shift * sigma / (1 + (flow.shift - 1) * sigma) }
    // The end of the range is shifted once by itself and once with the others, as diffusers has it.
    let least = flow.useDynamicShifting ? 1 / total : shifted(1 / total)
    var levels = NoiseSchedule.linspace(1, least, count)
    if flow.useDynamicShifting {
      guard let tokens, tokens > 0 else {
        throw .invalidSetting(
          name: "tokens", value: tokens.map { "\($0)" } ?? "nil",
          expected: "the number of image tokens, which use_dynamic_shifting goes by")
      }
      let slope = (flow.maxShift - flow.baseShift) / Double(flow.maxImageSeqLen - flow.baseImageSeqLen)
      let mu = flow.baseShift + slope * Double(tokens - flow.baseImageSeqLen)
      let shift = flow.isExponential ? exp(mu) : mu
      levels = levels.map { shift / (shift + (1 / $0 - 1)) }
    } else {
      levels = levels.map(shifted)
    }
    if let terminal = flow.shiftTerminal {
      let scale = (1 - levels[count - 1]) / (1 - terminal)
      // A single step is the whole way already.
      if scale > 0 { levels = levels.map { 1 - (1 - $0) / scale } }
    }
    return (first..<count).map { index in
      let (sigma, next) = (levels[index], index + 1 < count ? levels[index + 1] : 0)
      let original = Blend(sample: 1, output: -sigma)
      var plan = StepPlan(
        timestep: Double(Float(sigma * total)), predicted: original, original: original,
        level: NoiseLevel(alpha: 1 - sigma, sigma: sigma))
      if flow.stochasticSampling {
        (plan.ofPredicted, plan.ofNoise) = (1 - next, next)
      } else {
        (plan.ofSample, plan.ofOutput) = (1, next - sigma)
      }
      return plan
    }
  }
}

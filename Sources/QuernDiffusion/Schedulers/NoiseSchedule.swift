import Foundation
import Quern

/// How much of the original and of the noise a sample holds: `alpha original + sigma noise`.
struct NoiseLevel: Sendable {
  var alpha, sigma: Double

  init(alpha: Double, sigma: Double) { (self.alpha, self.sigma) = (alpha, sigma) }

  /// Of variance 1, where the original has it.
  init(alphaBar: Double) { self.init(alpha: alphaBar.squareRoot(), sigma: (1 - alphaBar).squareRoot()) }

  /// The same from sigma / alpha.
  init(ratio: Double) {
    let alpha = 1 / (ratio * ratio + 1).squareRoot()
    self.init(alpha: alpha, sigma: ratio * alpha)
  }

  /// The original in terms of sample and output.
  func original(_ prediction: SchedulerConfiguration.PredictionType) -> Blend {
    switch prediction {
    case .epsilon: Blend(sample: 1 / alpha, output: -sigma / alpha)
    case .velocity: Blend(sample: alpha, output: -sigma)
    case .sample: Blend(sample: 0, output: 1)
    }
  }

  /// The noise in terms of sample and output.
  func noise(_ prediction: SchedulerConfiguration.PredictionType) -> Blend {
    switch prediction {
    case .epsilon: Blend(sample: 0, output: 1)
    case .velocity: Blend(sample: sigma, output: alpha)
    case .sample: Blend(sample: 1 / sigma, output: -alpha / sigma)
    }
  }
}

/// The table behind a schedule: for each timestep of the training the share of the original's variance that is left.
///
/// Rounded to f32 where diffusers does, which matters where little noise is: the first shares differ from 1 by a thousandth.
struct NoiseSchedule: Sendable {
  let alphaBars: [Double]

  init(_ configuration: SchedulerConfiguration) {
    let count = configuration.numTrainTimesteps
    let (start, end) = (configuration.betaStart, configuration.betaEnd)
    let betas: [Float]
    switch configuration.betaSchedule {
    case .linear: betas = Self.linspace(Float(start), Float(end), count)
    case .scaledLinear:
      betas = Self.linspace(Float(start.squareRoot()), Float(end.squareRoot()), count).map { $0 * $0 }
    case .squaredCosine:
      func left(_ step: Int) -> Double {
        let angle = (Double(step) / Double(count) + 0.008) / 1.008 * .pi / 2
        return cos(angle) * cos(angle)
      }
      betas = (0..<count).map { Float(min(1 - left($0 + 1) / left($0), 0.999)) }
    }
    var product = 1.0
    var bars = betas.map { beta -> Double in
      product *= Double(1 - beta)
      return Double(Float(product))
    }
    if configuration.rescaleBetasZeroSNR {
      let roots = bars.map { $0.squareRoot() }
      let (first, last) = (roots[0], roots[count - 1])
      // A schedule of one step has nothing to stretch.
      if first > last {
        bars = roots.map {
          let root = ($0 - last) * (first / (first - last))
          return root * root
        }
      }
      // Where levels are given as ratios, the last is large in place of infinite.
      if configuration.walksRatios { bars[count - 1] = 0x1p-24 }
    }
    alphaBars = bars
  }

  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` for a timestep that the training did not have.
  func alphaBar(_ timestep: Int) throws(QuernError) -> Double {
    guard alphaBars.indices.contains(timestep) else {
      throw .invalidSetting(
        name: "timestep", value: "\(timestep)",
        expected: "one below \(alphaBars.count), the timesteps of the training; fewer steps, or another steps_offset")
    }
    return alphaBars[timestep]
  }

  /// sigma / alpha of each timestep, growing.
  var ratios: [Double] { alphaBars.map { Double(((1 - Float($0)) / Float($0)).squareRoot()) } }

  /// As PyTorch's: from both ends to the middle.
  private static func linspace(_ first: Float, _ last: Float, _ count: Int) -> [Float] {
    let step = (last - first) / Float(max(count - 1, 1))
    return (0..<count).map { $0 < (count + 1) / 2 ? first + step * Float($0) : last - step * Float(count - 1 - $0) }
  }

  static func linspace(_ first: Double, _ last: Double, _ count: Int) -> [Double] {
    guard count > 1 else { return [Double](repeating: first, count: count) }
    let step = (last - first) / Double(count - 1)
    return (0..<count).map { $0 == count - 1 ? last : first + Double($0) * step }
  }

  /// The value of a table between its entries.
  static func interpolate(_ table: [Double], at place: Double) -> Double {
    let low = min(max(Int(place), 0), table.count - 1)
    let high = min(low + 1, table.count - 1)
    return table[low] + (table[high] - table[low]) * min(max(place - Double(low), 0), 1)
  }

  /// The place of a ratio between the entries of a table of logarithms.
  static func place(of ratio: Double, in logarithms: [Double]) -> Double {
    guard logarithms.count > 1 else { return 0 }
    let value = log(max(ratio, 1e-10))
    let low = min(logarithms.lastIndex { value >= $0 } ?? 0, logarithms.count - 2)
    let weight = (logarithms[low] - value) / (logarithms[low] - logarithms[low + 1])
    return Double(low) + min(max(weight, 0), 1)
  }

  /// Levels evenly spaced in their seventh roots, from the most noise down.
  static func karras(from most: Double, to least: Double, count: Int) -> [Double] {
    let (first, last) = (pow(most, 1 / 7), pow(least, 1 / 7))
    return linspace(0, 1, count).map { pow(first + $0 * (last - first), 7) }
  }
}

extension SchedulerConfiguration {
  /// Whether the sampler works on sigma / alpha in place of a timestep's two shares.
  var walksRatios: Bool {
    switch method {
    case .euler, .eulerAncestral, .dpmSolver: true
    case .ddpm, .ddim, .pndm, .lcm, .flowMatchEuler: false
    }
  }

  /// `count` of `total` timesteps, from the last down. Those of `linspace` are not yet rounded.
  func spaced(_ count: Int, of total: Int) -> [Double] {
    switch timestepSpacing {
    case .linspace: return NoiseSchedule.linspace(0, Double(total - 1), count).reversed()
    case .leading:
      let ratio = total / count
      return (0..<count).reversed().map { Double($0 * ratio + stepsOffset) }
    case .trailing:
      let ratio = Double(numTrainTimesteps) / Double(count)
      return (0..<count).map { (Double(total) - Double($0) * ratio).rounded(.toNearestOrEven) - 1 }
    }
  }
}

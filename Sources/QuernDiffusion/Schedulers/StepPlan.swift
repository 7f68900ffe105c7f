import Quern

/// `sample x + output e`: what a sampler makes of the sample and the model's output.
struct Blend: Sendable {
  var sample, output: Double

  static func * (factor: Double, blend: Blend) -> Blend {
    Blend(sample: factor * blend.sample, output: factor * blend.output)
  }
}

/// One step of a sampler as numbers. Every method is a case of
///
///     predicted = clamp(a sample + b output, ±limit)
///     next = p predicted + s sample + o output + n noise + Σ wᵢ keptᵢ
///
/// where what is kept are predictions of the steps before, and a sample of one.
struct StepPlan: Sendable {
  /// Places for predictions, and behind them one for a sample.
  static let places = 4
  static let samplePlace = 3

  /// As the model is given it.
  var timestep: Double
  /// What the model's input is multiplied by.
  var inputScale = 1.0
  var predicted: Blend
  var limit = Double.infinity
  /// Weights of the next sample.
  var ofPredicted = 0.0
  var ofSample = 0.0
  var ofOutput = 0.0
  var ofNoise = 0.0
  var ofKept = SIMD4<Double>.zero
  /// Where the prediction is kept.
  var keepsPredictionAt: Int?
  var keepsSample = false
  /// The original, for previews.
  var original: Blend
  /// Of original and noise in a sample that starts here.
  var level: NoiseLevel

  var isFinite: Bool {
    let numbers = [
      timestep, inputScale, predicted.sample, predicted.output, ofPredicted, ofSample, ofOutput, ofNoise, ofKept.sum(),
      level.alpha, level.sigma,
    ]
    return numbers.allSatisfy(\.isFinite)
  }
}

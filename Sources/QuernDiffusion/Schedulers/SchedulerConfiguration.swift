import QuernModels

/// A noise schedule and the way a sampler walks down it: `scheduler/scheduler_config.json` of a diffusers directory.
///
/// The fields have the names of the `diffusers` package. Classes and values that are not implemented are refused by name.
public struct SchedulerConfiguration: Sendable, Equatable {
  /// The class of the file, with what only that class has.
  public enum Method: Sendable, Equatable {
    /// Ho et al., arXiv 2006.11239.
    case ddpm(hasLargeVariance: Bool)
    /// Song et al., arXiv 2010.02502.
    case ddim
    /// Pseudo linear multistep (Liu et al., arXiv 2202.09778), without Runge-Kutta steps in front.
    case pndm
    /// Euler's method on the variance-exploding ODE (Karras et al., arXiv 2206.00364, algorithm 2 without churn).
    case euler
    /// The same with noise added back after each step.
    case eulerAncestral
    /// DPM-Solver++ multistep (Lu et al., arXiv 2211.01095).
    case dpmSolver(DPMSolver)
    /// Latent consistency (Luo et al., arXiv 2310.04378).
    case lcm(originalInferenceSteps: Int, timestepScaling: Double)
    /// Euler's method on a rectified flow (Esser et al., arXiv 2403.03206).
    case flowMatchEuler(FlowShift)
  }

  /// The switches of `DPMSolverMultistepScheduler`.
  public struct DPMSolver: Sendable, Equatable {
    /// 1 or 2.
    public var order = 2
    /// `sde-dpmsolver++`: noise with each step.
    public var isStochastic = false
    /// `heun` in place of `midpoint`.
    public var isHeun = false
    public var lowerOrderFinal = true
    public var eulerAtFinal = false
    public var lambdaMinClipped = -Double.infinity

    public init() {}
  }

  /// How `FlowMatchEulerDiscreteScheduler` moves its noise levels towards more noise.
  public struct FlowShift: Sendable, Equatable {
    public var shift = 1.0
    /// By the number of image tokens in place of `shift`.
    public var useDynamicShifting = false
    public var isExponential = true
    public var baseShift = 0.5
    public var maxShift = 1.15
    public var baseImageSeqLen = 256
    public var maxImageSeqLen = 4096
    /// The last noise level, to which the others are stretched.
    public var shiftTerminal: Double?
    public var stochasticSampling = false

    public init() {}
  }

  /// How the variances of the forward process grow.
  public enum BetaSchedule: String, Sendable, CaseIterable {
    case linear
    /// Linear in the square roots.
    case scaledLinear = "scaled_linear"
    /// Nichol and Dhariwal, arXiv 2102.09672.
    case squaredCosine = "squaredcos_cap_v2"
  }

  /// What the model's output is.
  public enum PredictionType: String, Sendable, CaseIterable {
    /// The noise.
    case epsilon
    /// `alpha noise - sigma original` (Salimans and Ho, arXiv 2202.00512).
    case velocity = "v_prediction"
    /// The original.
    case sample
  }

  /// Which of the training's steps are walked: table 2 of Lin et al., arXiv 2305.08891.
  public enum TimestepSpacing: String, Sendable, CaseIterable { case leading, linspace, trailing }

  public var method: Method
  public var numTrainTimesteps = 1000
  public var betaStart = 0.0001
  public var betaEnd = 0.02
  public var betaSchedule = BetaSchedule.linear
  public var predictionType = PredictionType.epsilon
  public var timestepSpacing = TimestepSpacing.leading
  public var stepsOffset = 0
  /// The predicted original is kept within ± this; nil for no limit.
  public var clipSampleRange: Double?
  /// The noise level below the first: none at all, or that of timestep 0.
  public var setAlphaToOne = true
  /// No signal is left at the last timestep (Lin et al., arXiv 2305.08891, algorithm 1).
  public var rescaleBetasZeroSNR = false
  /// Noise levels evenly spaced in their seventh roots (Karras et al., arXiv 2206.00364, equation 5).
  public var useKarrasSigmas = false
  /// The ends of those, where they are not those of the schedule.
  public var sigmaMin: Double?
  public var sigmaMax: Double?
  /// The last noise level is that of timestep 0 in place of none.
  public var endsAtSigmaMin = false

  public init(_ method: Method) { self.method = method }

  /// Reads `scheduler_config.json` of a folder.
  ///
  /// - Parameter className: the class that reads it, of ``classNames``, in place of the one that the file names: as `from_config` of
  ///   diffusers, fields of another class are passed over.
  /// - Throws: ``ModelError`` naming file, field and offset.
  public init(directory: String, as className: String? = nil) throws(ModelError) {
    try self.init(HubConfig(directory: directory, name: "scheduler_config.json", allowsInfinity: true), as: className)
  }

  private static let readers:
    [(name: String, read: @Sendable (HubConfig) throws(ModelError) -> SchedulerConfiguration)] =
      [
        ("DDPMScheduler", ddpm), ("DDIMScheduler", ddim), ("PNDMScheduler", pndm), ("EulerDiscreteScheduler", euler),
        ("EulerAncestralDiscreteScheduler", eulerAncestral), ("DPMSolverMultistepScheduler", dpmSolver),
        ("LCMScheduler", lcm), ("FlowMatchEulerDiscreteScheduler", flowMatchEuler),
      ]

  /// The classes that are read.
  public static var classNames: [String] { readers.map(\.name) }

  /// Reads the fields of a `scheduler_config.json`; see ``init(directory:as:)``.
  public init(_ config: HubConfig, as className: String? = nil) throws(ModelError) {
    let name = if let className { className } else { try config.string("_class_name", oneOf: Self.classNames) }
    guard let reader = Self.readers.first(where: { $0.name == name }) else {
      throw try config.root.required("_class_name").error("\(name) is not supported")
    }
    self = try reader.read(config)
  }
}

extension SchedulerConfiguration {
  private static func ddpm(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    let variance = try config.string(
      "variance_type", oneOf: ["fixed_small", "fixed_small_log", "fixed_large"], default: "fixed_small")
    var scheduler = SchedulerConfiguration(.ddpm(hasLargeVariance: variance == "fixed_large"))
    try scheduler.readBetas(config)
    try scheduler.readSpacing(config, default: .leading)
    try scheduler.readClip(config, default: true)
    return scheduler
  }

  private static func ddim(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    var scheduler = SchedulerConfiguration(.ddim)
    try scheduler.readBetas(config)
    try scheduler.readSpacing(config, default: .leading)
    try scheduler.readClip(config, default: true)
    scheduler.setAlphaToOne = try config.bool("set_alpha_to_one", default: true)
    return scheduler
  }

  private static func pndm(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    var scheduler = SchedulerConfiguration(.pndm)
    try scheduler.readBetas(config, predictions: [.epsilon, .velocity])
    try scheduler.readSpacing(config, default: .leading)
    scheduler.setAlphaToOne = try config.bool("set_alpha_to_one", default: false)
    guard try config.bool("skip_prk_steps", default: false) else {
      throw (try config.root.optional("skip_prk_steps") ?? config.root).error(
        "skip_prk_steps is false: Runge-Kutta steps are not supported; true is")
    }
    try config.refuse("rescale_betas_zero_snr")
    return scheduler
  }

  private static func euler(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    var scheduler = SchedulerConfiguration(.euler)
    try scheduler.readBetas(config)
    try scheduler.readSpacing(config, default: .linspace)
    try scheduler.readSigmas(config)
    _ = try config.string("interpolation_type", oneOf: ["linear"], default: "linear")
    _ = try config.string("timestep_type", oneOf: ["discrete"], default: "discrete")
    return scheduler
  }

  private static func eulerAncestral(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    var scheduler = SchedulerConfiguration(.eulerAncestral)
    try scheduler.readBetas(config, predictions: [.epsilon, .velocity])
    try scheduler.readSpacing(config, default: .linspace)
    return scheduler
  }

  private static func dpmSolver(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    var solver = DPMSolver()
    solver.order = try config.int("solver_order", in: 1...2, default: 2)
    // deis, logrho, bh1 and bh2 are the names that other solvers' files have for the same.
    let algorithm = try config.string(
      "algorithm_type", oneOf: ["dpmsolver++", "sde-dpmsolver++", "deis"], default: "dpmsolver++")
    solver.isStochastic = algorithm == "sde-dpmsolver++"
    let kind = try config.string(
      "solver_type", oneOf: ["midpoint", "heun", "logrho", "bh1", "bh2"], default: "midpoint")
    solver.isHeun = kind == "heun"
    solver.lowerOrderFinal = try config.bool("lower_order_final", default: true)
    solver.eulerAtFinal = try config.bool("euler_at_final", default: false)
    if let limit = try config.root.optional("lambda_min_clipped") {
      solver.lambdaMinClipped = try limit.isNegativeInfinity ? -.infinity : limit.double()
    }
    var scheduler = SchedulerConfiguration(.dpmSolver(solver))
    try scheduler.readBetas(config)
    try scheduler.readSpacing(config, default: .linspace)
    try scheduler.readSigmas(config)
    for switched in ["use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"] { try config.refuse(switched) }
    try config.refuse("variance_type")
    if solver.lambdaMinClipped > -.infinity, scheduler.timestepSpacing == .trailing {
      throw try config.root.required("lambda_min_clipped").error("is not supported with timestep_spacing trailing")
    }
    return scheduler
  }

  private static func lcm(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    let steps = try config.int("original_inference_steps", in: 1...timestepLimit, default: 50)
    var scheduler = SchedulerConfiguration(
      .lcm(originalInferenceSteps: steps, timestepScaling: try config.double("timestep_scaling", default: 10)))
    try scheduler.readBetas(config, from: 0.00085, to: 0.012, default: .scaledLinear)
    try scheduler.readSpacing(config, default: .leading)
    try scheduler.readClip(config, default: false)
    scheduler.setAlphaToOne = try config.bool("set_alpha_to_one", default: true)
    guard steps <= scheduler.numTrainTimesteps else {
      throw (try config.root.optional("original_inference_steps") ?? config.root).error(
        "\(steps) original steps of \(scheduler.numTrainTimesteps)")
    }
    return scheduler
  }

  private static func flowMatchEuler(_ config: HubConfig) throws(ModelError) -> SchedulerConfiguration {
    var flow = FlowShift()
    flow.shift = try config.positive("shift", default: 1)
    flow.useDynamicShifting = try config.bool("use_dynamic_shifting", default: false)
    flow.isExponential =
      try config.string("time_shift_type", oneOf: ["exponential", "linear"], default: "exponential") == "exponential"
    flow.baseShift = try config.double("base_shift", default: 0.5)
    flow.maxShift = try config.double("max_shift", default: 1.15)
    flow.baseImageSeqLen = try config.int("base_image_seq_len", in: 1...1 << 30, default: 256)
    flow.maxImageSeqLen = try config.int("max_image_seq_len", in: 1...1 << 30, default: 4096)
    guard flow.maxImageSeqLen > flow.baseImageSeqLen else {
      throw (try config.root.optional("max_image_seq_len") ?? config.root).error(
        "\(flow.maxImageSeqLen) is not above base_image_seq_len, \(flow.baseImageSeqLen)")
    }
    if let terminal = try config.root.optional("shift_terminal") {
      let value = try terminal.double()
      guard value >= 0, value < 1 else { throw terminal.error("is \(value), outside 0..<1") }
      // As in diffusers, 0 stands for none.
      flow.shiftTerminal = value == 0 ? nil : value
    }
    flow.stochasticSampling = try config.bool("stochastic_sampling", default: false)
    var scheduler = SchedulerConfiguration(.flowMatchEuler(flow))
    scheduler.numTrainTimesteps = try config.int("num_train_timesteps", in: 1...timestepLimit, default: 1000)
    for switched in ["invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
      try config.refuse(switched)
    }
    return scheduler
  }
}

extension SchedulerConfiguration {
  /// Tables have an entry for each timestep; no published model comes near this.
  private static let timestepLimit = 1 << 17

  private mutating func readBetas(
    _ config: HubConfig, from start: Double = 0.0001, to end: Double = 0.02, default schedule: BetaSchedule = .linear,
    predictions: [PredictionType] = PredictionType.allCases
  ) throws(ModelError) {
    numTrainTimesteps = try config.int("num_train_timesteps", in: 1...Self.timestepLimit, default: 1000)
    (betaStart, betaEnd) = (try config.beta("beta_start", default: start), try config.beta("beta_end", default: end))
    betaSchedule = try config.choice("beta_schedule", of: BetaSchedule.allCases, default: schedule)
    predictionType = try config.choice("prediction_type", of: predictions, default: .epsilon)
    rescaleBetasZeroSNR = try config.bool("rescale_betas_zero_snr", default: false)
    try config.refuse("trained_betas")
    try config.refuse("thresholding")
  }

  private mutating func readSpacing(_ config: HubConfig, default spacing: TimestepSpacing) throws(ModelError) {
    timestepSpacing = try config.choice("timestep_spacing", of: TimestepSpacing.allCases, default: spacing)
    stepsOffset = try config.int("steps_offset", in: 0...numTrainTimesteps, default: 0)
  }

  private mutating func readClip(_ config: HubConfig, default clips: Bool) throws(ModelError) {
    let range = try config.positive("clip_sample_range", default: 1)
    clipSampleRange = try config.bool("clip_sample", default: clips) ? range : nil
  }

  private mutating func readSigmas(_ config: HubConfig) throws(ModelError) {
    useKarrasSigmas = try config.bool("use_karras_sigmas", default: false)
    for switched in ["use_exponential_sigmas", "use_beta_sigmas"] { try config.refuse(switched) }
    endsAtSigmaMin =
      try config.string("final_sigmas_type", oneOf: ["zero", "sigma_min"], default: "zero") == "sigma_min"
    if try config.root.optional("sigma_min") != nil { sigmaMin = try config.positive("sigma_min", default: 1) }
    if try config.root.optional("sigma_max") != nil { sigmaMax = try config.positive("sigma_max", default: 1) }
  }
}

extension HubConfig {
  fileprivate func choice<Choice: RawRepresentable<String>>(
    _ key: String, of choices: [Choice], default value: Choice
  ) throws(ModelError) -> Choice {
    let text = try string(key, oneOf: choices.map(\.rawValue), default: value.rawValue)
    return choices.first { $0.rawValue == text } ?? value
  }

  /// A variance, between 0 and 1.
  fileprivate func beta(_ key: String, default value: Double) throws(ModelError) -> Double {
    guard let number = try root.optional(key) else { return value }
    let read = try number.double()
    guard read > 0, read < 1 else { throw number.error("is \(read), outside 0..<1") }
    return read
  }

  /// Refuses a field that is anything but null or false.
  fileprivate func refuse(_ key: String) throws(ModelError) {
    guard let value = try root.optional(key) else { return }
    if value.kind == .bool, try !value.bool() { return }
    throw value.error("is not supported; null or false is")
  }
}

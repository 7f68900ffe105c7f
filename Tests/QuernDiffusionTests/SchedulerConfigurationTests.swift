import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

@Suite struct SchedulerConfigurationTests {
  private func read(_ fields: String) throws -> SchedulerConfiguration {
    let folder = try TemporaryFolder()
    try folder.write("scheduler_config.json", "{\(fields)}".utf8)
    return try SchedulerConfiguration(directory: folder.path)
  }

  @Test func fieldsAndDefaults() throws {
    let pndm = try read(
      #""_class_name": "PNDMScheduler", "skip_prk_steps": true, "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "#
        + #""beta_schedule": "scaled_linear", "trained_betas": null, "clip_sample": false"#)
    #expect(pndm.method == .pndm && pndm.betaSchedule == .scaledLinear && pndm.stepsOffset == 1)
    #expect(!pndm.setAlphaToOne && pndm.clipSampleRange == nil && pndm.timestepSpacing == .leading)
    let ddpm = try read(#""_class_name": "DDPMScheduler", "clip_sample_range": 2"#)
    #expect(ddpm.clipSampleRange == 2 && ddpm.predictionType == .epsilon)
    let lcm = try read(#""_class_name": "LCMScheduler""#)
    #expect(lcm.betaEnd == 0.012 && lcm.method == .lcm(originalInferenceSteps: 50, timestepScaling: 10))
    let solver = try read(#""_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity"#)
    #expect(solver.method == .dpmSolver(.init()) && solver.timestepSpacing == .linspace)
    #expect(SchedulerConfiguration.classNames.count == 8)
  }

  @Test(arguments: [
    (#""_class_name": "HeunDiscreteScheduler""#, "_class_name"), (#""beta_start": 1"#, "_class_name"),
    (#""_class_name": "DDIMScheduler", "beta_schedule": "sigmoid""#, "beta_schedule"),
    (#""_class_name": "DDIMScheduler", "prediction_type": "flow_prediction""#, "prediction_type"),
    (#""_class_name": "DDIMScheduler", "timestep_spacing": "even""#, "timestep_spacing"),
    (#""_class_name": "DDIMScheduler", "thresholding": true"#, "thresholding"),
    (#""_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2]"#, "trained_betas"),
    (#""_class_name": "DDIMScheduler", "num_train_timesteps": 0"#, "num_train_timesteps"),
    (#""_class_name": "DDIMScheduler", "num_train_timesteps": 99999999999"#, "num_train_timesteps"),
    (#""_class_name": "DDIMScheduler", "beta_end": 1.5"#, "beta_end"),
    (#""_class_name": "DDIMScheduler", "beta_start": -Infinity"#, "beta_start"),
    (#""_class_name": "DDIMScheduler", "steps_offset": -Infinity"#, "steps_offset"),
    (#""_class_name": "DDIMScheduler", "steps_offset": -1"#, "steps_offset"),
    (#""_class_name": "DDIMScheduler", "clip_sample_range": 0"#, "clip_sample_range"),
    (#""_class_name": "DDPMScheduler", "variance_type": "learned_range""#, "variance_type"),
    (#""_class_name": "PNDMScheduler""#, ""), (#""_class_name": "PNDMScheduler", "skip_prk_steps": false"#, "skip_prk_steps"),
    (#""_class_name": "PNDMScheduler", "skip_prk_steps": true, "prediction_type": "sample""#, "prediction_type"),
    (#""_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true"#, "use_beta_sigmas"),
    (#""_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear""#, "interpolation_type"),
    (#""_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous""#, "timestep_type"),
    (#""_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "one""#, "final_sigmas_type"),
    (#""_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "sample""#, "prediction_type"),
    (#""_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver""#, "algorithm_type"),
    (#""_class_name": "DPMSolverMultistepScheduler", "solver_order": 3"#, "solver_order"),
    (#""_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": true"#, "use_lu_lambdas"),
    (
      #""_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -5, "timestep_spacing": "trailing""#,
      "lambda_min_clipped"
    ),
    (#""_class_name": "LCMScheduler", "original_inference_steps": 2000"#, "original_inference_steps"),
    (#""_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0"#, "shift"),
    (#""_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 1"#, "shift_terminal"),
    (#""_class_name": "FlowMatchEulerDiscreteScheduler", "use_karras_sigmas": true"#, "use_karras_sigmas"),
    (#""_class_name": "FlowMatchEulerDiscreteScheduler", "max_image_seq_len": 256"#, "max_image_seq_len"),
  ])
  func whatIsNotImplementedIsNamed(_ fields: String, _ field: String) throws {
    let error = try #require(thrown(ModelError.self) { _ = try read(fields) })
    #expect(error.field == field && error.file.hasSuffix("scheduler_config.json"), "\(error)")
  }

  @Test func infinityIsTakenForANumberOnlyHere() throws {
    let folder = try TemporaryFolder()
    try folder.write("config.json", #"{"a": -Infinity}"#.utf8)
    #expect(thrown(ModelError.self) { _ = try HubConfig(directory: folder.path) } != nil)
    try folder.write("scheduler_config.json", #"{"_class_name": "DDIMScheduler", "x": -Infinit}"#.utf8)
    #expect(thrown(ModelError.self) { _ = try SchedulerConfiguration(directory: folder.path) } != nil)
  }

  /// Bytes changed at random end in a configuration, or in a typed error.
  @Test func changedFilesNeverTrap() throws {
    let folder = try TemporaryFolder()
    var random = SeededRandom()
    for test in SamplerTests.cases where test.steps == 10 {
      for _ in 0..<(ProcessInfo.processInfo.environment["QUERN_SANITIZE"] == nil ? 40 : 4) {
        var bytes = Array(test.config.utf8)
        for _ in 0..<3 {
          bytes[Int.random(in: 0..<bytes.count, using: &random)] =
            Array("0123456789-.eE\"{}[],".utf8).randomElement(using: &random) ?? 0
        }
        try folder.write("scheduler_config.json", bytes)
        do {
          let configuration = try SchedulerConfiguration(directory: folder.path)
          guard configuration.numTrainTimesteps <= 10000 else { continue }
          _ = try DiffusionSampler(configuration, steps: 7, strength: 0.8, tokens: 64)
        } catch {
          #expect(error is ModelError || error is QuernError, "\(error)")
        }
      }
    }
  }
}

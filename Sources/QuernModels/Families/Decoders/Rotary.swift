import Foundation
import Quern

extension DecoderConfiguration.Rotary {
  /// Reads `rope_parameters` (`transformers` 5), for one kind of layer where it tells kinds apart, or `rope_theta` and `rope_scaling`.
  ///
  /// Dynamic NTK scaling changes nothing up to `max_position_embeddings`, which no cache exceeds.
  init(_ config: HubConfig, headDim: Int, layerType: String = "full_attention") throws(ModelError) {
    var parameters = try config.root.optional("rope_parameters")
    if let own = try parameters?.optional(layerType) { parameters = own }
    let scaling = if let parameters { parameters } else { try config.root.optional("rope_scaling") }
    let share = try Self.number("partial_rotary_factor", scaling, config.root, default: 1)
    guard share > 0, share <= 1 else {
      throw config.root.error("partial_rotary_factor is \(share); it is more than 0 and at most 1")
    }
    size = Int(Double(headDim) * share)
    guard size % 2 == 0, size > 0 else { throw config.root.error("\(size) rotary elements of a head; an even number") }
    theta = try Self.number("rope_theta", scaling, config.root, default: 10000)
    guard theta > 1, theta.isFinite else { throw config.root.error("rope_theta is \(theta); it is more than 1") }
    if let scaling { self.scaling = try Self.scaling(scaling, config) }
    if case .longrope(let short, let long, _, _) = self.scaling, short.count != size / 2 || long.count != size / 2 {
      throw (scaling ?? config.root).error(
        "\(short.count) short and \(long.count) long factors for \(size / 2) pairs of rotary elements")
    }
  }

  private static func number(
    _ key: String, _ own: JSONValue?, _ root: JSONValue, default value: Double
  ) throws(ModelError) -> Double {
    if let number = try own?.optional(key) { return try number.double() }
    return try root.optional(key)?.double() ?? value
  }

  private static func scaling(_ value: JSONValue, _ config: HubConfig) throws(ModelError) -> RotaryScaling {
    let name = try value.optional("rope_type") == nil ? "type" : "rope_type"
    guard let type = try value.optional(name) else { return .none }
    func positive(_ key: String) throws(ModelError) -> Double {
      let number = try value.required(key)
      let double = try number.double()
      guard double > 0, double.isFinite else { throw number.error("\(double) is not a positive number") }
      return double
    }
    func optional(_ key: String) throws(ModelError) -> Double? {
      try value.optional(key) == nil ? nil : positive(key)
    }
    func context() throws(ModelError) -> Int {
      if let own = try value.optional("original_max_position_embeddings") { return try own.int(in: 1...(1 << 24)) }
      return try config.int("max_position_embeddings", in: 1...(1 << 24))
    }
    let scaling: RotaryScaling
    switch try type.string() {
    case "default", "dynamic": return .none
    case "linear": scaling = .linear(factor: try positive("factor"))
    case "llama3":
      scaling = .llama3(
        factor: try positive("factor"), lowFrequencyFactor: try positive("low_freq_factor"),
        highFrequencyFactor: try positive("high_freq_factor"), originalContext: try context())
    case "yarn":
      let factor = try positive("factor")
      scaling = .yarn(
        factor: factor, betaFast: try optional("beta_fast") ?? 32, betaSlow: try optional("beta_slow") ?? 1,
        originalContext: try context(), attentionFactor: try yarnMagnitude(factor, optional),
        truncates: try value.optional("truncate")?.bool() ?? true)
    case "longrope", "su": scaling = try longrope(value, config, optional)
    case let other:
      throw type.error("\(other) is not supported; supported: default, linear, dynamic, llama3, yarn, longrope")
    }
    guard scaling.isValid else { throw value.error("the numbers of this scaling do not fit together") }
    return scaling
  }

  private static func longrope(
    _ value: JSONValue, _ config: HubConfig, _ optional: (String) throws(ModelError) -> Double?
  ) throws(ModelError) -> RotaryScaling {
    func factors(_ key: String) throws(ModelError) -> [Double] {
      var factors: [Double] = []
      try value.required(key).forEachElement { (factor) throws(ModelError) in factors.append(try factor.double()) }
      return factors
    }
    let original = "original_max_position_embeddings"
    let own = try value.optional(original)
    let place = if let own { own } else { try config.root.required(original) }
    let context = try place.int(in: 2...(1 << 24))
    let most = Double(try config.int("max_position_embeddings", in: 1...(1 << 24)))
    let factor = try optional("factor") ?? most / Double(context)
    let magnitude = factor <= 1 ? 1 : (1 + log(factor) / log(Double(context))).squareRoot()
    return .longrope(
      short: try factors("short_factor"), long: try factors("long_factor"), originalContext: context,
      attentionFactor: try optional("attention_factor") ?? magnitude)
  }

  private static func yarnMagnitude(
    _ factor: Double, _ optional: (String) throws(ModelError) -> Double?
  ) throws(ModelError) -> Double {
    if let given = try optional("attention_factor") { return given }
    guard let scale = try optional("mscale"), let all = try optional("mscale_all_dim") else {
      return RotaryScaling.yarnAttentionFactor(factor)
    }
    func magnitude(_ scale: Double) -> Double { 1 + scale * (RotaryScaling.yarnAttentionFactor(factor) - 1) }
    return magnitude(scale) / magnitude(all)
  }
}

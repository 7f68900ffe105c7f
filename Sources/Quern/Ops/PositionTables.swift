#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

private func _log(_ x: Double) -> Double { log(x) }
private func _log(_ x: Float) -> Float { logf(x) }
private func _exp(_ x: Double) -> Double { exp(x) }

/// The C library's functions, by names that no method of a tensor hides.
package enum Real {
  static func cosine(_ x: Double) -> Double { cos(x) }
  static func sine(_ x: Double) -> Double { sin(x) }
  package static func exponential(_ x: Float) -> Float { expf(x) }
  package static func exp(_ x: Double) -> Double { _exp(x) }
  package static func log(_ x: Double) -> Double { _log(x) }
  package static func log(_ x: Float) -> Float { _log(x) }
  package static func power(_ x: Double, _ y: Double) -> Double { pow(x, y) }
}

extension Tensor {
  /// The slopes of ALiBi (Press et al., arXiv 2108.12409), `[heads]`: `2^(-8h/n)`, h = 1, 2, ..., for n = heads a power of
  /// two; else those of the power of two below, followed by every other slope of the one above.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for a negative count, ``QuernError/outOfMemory(bytes:)``.
  public static func alibiSlopes(heads: Int) throws(QuernError) -> Tensor {
    let slopes = try MutableTensor(zeros: try Shape(checking: [heads]))
    var whole = 1
    while 2 * whole <= heads { whole *= 2 }
    for head in 0..<heads {
      let exponent =
        head < whole ? -8 * Double(head + 1) / Double(whole) : -4 * Double(2 * (head - whole) + 1) / Double(whole)
      slopes[head] = Real.power(2, exponent)
    }
    return try slopes.moved()
  }

  /// The positions of Vaswani et al. (arXiv 1706.03762), `[positions, size]`: `sin(p / maxPeriod^(2i/size))` at 2i and the
  /// cosine of it at 2i + 1. Computed in Double and rounded once.
  ///
  /// A table of positions, this one or a learned one, is added with ``Context/embedding(_:table:accumulate:into:)``: its ids
  /// are the tokens' positions, and `accumulate` is true.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for a negative extent, ``QuernError/outOfMemory(bytes:)``.
  public static func sinusoidalPositions(
    _ positions: Int, size: Int, maxPeriod: Double = 10000
  ) throws(QuernError) -> Tensor {
    let table = try MutableTensor(zeros: try Shape(checking: [positions, size]))
    for j in 0..<size {
      let frequency = Real.power(maxPeriod, -Double(j / 2 * 2) / Double(size))
      for p in 0..<positions {
        table[p, j] = j % 2 == 0 ? Real.sine(Double(p) * frequency) : Real.cosine(Double(p) * frequency)
      }
    }
    return try table.moved()
  }
}

/// The embedding of diffusion timesteps (Ho et al., arXiv 2006.11239), with the parameters of diffusers'
/// `get_timestep_embedding`: with h = size / 2 and `f(i) = maxPeriod^(-i / (h - downscaleFreqShift))`, the first h elements
/// are `sin(scale t f(i))` and the next h the cosines; an odd size ends in a 0. Computed in Double and rounded once.
public struct TimestepEmbedding: Sendable {
  public var size: Int
  /// Cosines first: `flip_sin_to_cos` in a `config.json`.
  public var flipSinToCos: Bool
  /// `freq_shift` in a `config.json`: 1 for DDPM, 0 for Stable Diffusion.
  public var downscaleFreqShift: Double
  public var scale: Double
  public var maxPeriod: Double

  public init(
    size: Int, flipSinToCos: Bool = false, downscaleFreqShift: Double = 1, scale: Double = 1, maxPeriod: Double = 10000
  ) {
    (self.size, self.flipSinToCos, self.downscaleFreqShift) = (size, flipSinToCos, downscaleFreqShift)
    (self.scale, self.maxPeriod) = (scale, maxPeriod)
  }

  /// Row i of y, `[timesteps, size]` of any data type, becomes the embedding of timestep i.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` where y has another shape, or the shift leaves no frequencies.
  public func write(_ timesteps: [Float], into y: MutableTensor) throws(QuernError) {
    guard y.shape == Shape(timesteps.count, size) else {
      throw .invalidShape("\(timesteps.count) timesteps of size \(size) do not fit y \(y.shape)")
    }
    let half = size / 2
    guard half == 0 || Double(half) > downscaleFreqShift else {
      throw .invalidShape("a timestep embedding of size \(size) with downscaleFreqShift \(downscaleFreqShift)")
    }
    for j in 0..<half {
      let frequency = scale * Real.power(maxPeriod, -Double(j) / (Double(half) - downscaleFreqShift))
      for (i, timestep) in timesteps.enumerated() {
        let angle = Double(timestep) * frequency
        y[i, flipSinToCos ? half + j : j] = Real.sine(angle)
        y[i, flipSinToCos ? j : half + j] = Real.cosine(angle)
      }
    }
    for i in timesteps.indices where size % 2 == 1 { y[i, size - 1] = 0 }
  }
}

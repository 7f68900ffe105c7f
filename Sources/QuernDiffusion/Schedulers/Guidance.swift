import Quern

/// Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): away from what the model makes without a prompt, towards what it makes
/// of one.
///
///     guided = unconditional + scale (conditional - unconditional)
///
/// With a `rescale` of r the result is r parts of `guided std(conditional) / std(guided)`, picture by picture, and 1 - r parts of
/// guided (Lin et al., arXiv 2305.08891, equations 15 and 16).
public struct Guidance: Sendable, Equatable {
  public var scale: Double
  public var rescale: Double

  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` for a scale that is not finite, or a rescale outside 0 to 1.
  public init(scale: Double, rescale: Double = 0) throws(QuernError) {
    guard scale.isFinite else {
      throw .invalidSetting(name: "guidance_scale", value: "\(scale)", expected: "a finite number")
    }
    guard rescale >= 0, rescale <= 1 else {
      throw .invalidSetting(name: "guidance_rescale", value: "\(rescale)", expected: "0 to 1")
    }
    (self.scale, self.rescale) = (scale, rescale)
  }

  /// Whether the model has to be run without a prompt too.
  public var isNeeded: Bool { scale > 1 }

  /// The two outputs of a batch become one.
  ///
  /// - Parameters:
  ///   - outputs: `[2 pictures, ...]`, those without prompts in front, f32 without gaps.
  ///   - guided: `[pictures, ...]`, f32 without gaps; may be either half.
  /// - Throws: ``QuernError/invalidShape(_:)``.
  public func callAsFunction(_ outputs: TensorView, into guided: MutableTensor) throws(QuernError) {
    let (count, pictures) = (guided.shape.count, guided.shape.rank > 0 ? guided.shape[0] : 0)
    var expected = guided.shape
    if expected.rank > 0 { expected[0] = 2 * pictures }
    guard outputs.shape == expected, count > 0, outputs.isContiguous, guided.isContiguous, outputs.dataType == .f32,
      guided.dataType == .f32
    else {
      throw .invalidShape(
        "outputs \(outputs.shape) for \(guided.shape); f32 without gaps, twice as many pictures, is expected")
    }
    let size = count / pictures
    for picture in 0..<pictures {
      let without = outputs.pointer + picture * size
      let with = without + count
      let target = guided.pointer + picture * size
      let spread = rescale > 0 ? Self.deviation(with, size) : 0
      for index in 0..<size {
        let (base, prompted) = (Double(without[index]), Double(with[index]))
        target[index] = Float(base + scale * (prompted - base))
      }
      guard rescale > 0 else { continue }
      let own = Self.deviation(target, size)
      // A constant output has nothing to scale.
      let factor = own > 0 ? rescale * spread / own + 1 - rescale : 1
      for index in 0..<size { target[index] = Float(factor * Double(target[index])) }
    }
  }

  private static func deviation(_ elements: UnsafePointer<Float>, _ count: Int) -> Double {
    var sum = 0.0
    for index in 0..<count { sum += Double(elements[index]) }
    let mean = sum / Double(count)
    var squares = 0.0
    for index in 0..<count {
      let distance = Double(elements[index]) - mean
      squares += distance * distance
    }
    return (squares / Double(count)).squareRoot()
  }
}

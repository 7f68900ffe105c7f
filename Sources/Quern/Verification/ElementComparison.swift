/// One element of a result beside the reference's.
package struct ElementComparison {
  /// Why an element is wrong.
  package enum Fault: CustomStringConvertible {
    case newNaN, lostNaN, infinity, inexact
    case error(Double, bound: Double)

    package var description: String {
      switch self {
      case .newNaN: "a NaN on one side only"
      case .lostNaN: "a NaN was lost"
      case .infinity: "an infinity on one side only"
      case .inexact: "it must be exact"
      case .error(let error, let bound): "error \(error) exceeds the bound \(bound)"
      }
    }
  }

  /// How the result is stored.
  private let dataType: DataType
  /// Whether the element must equal the reference's.
  private let isExact: Bool
  /// Whether a NaN may stand where the reference has none: of operands that are not finite an infinity may cancel in one order of
  /// summation and not in another.
  private let allowsNewNaN: Bool

  package init(_ dataType: DataType, isExact: Bool, allowsNewNaN: Bool) {
    (self.dataType, self.isExact, self.allowsNewNaN) = (dataType, isExact, allowsNewNaN)
  }

  /// The largest error of a stored element: f32 is rounded in the reference alone, narrower types in both and to different sides.
  package func stored(_ bound: Double, at truth: Float) -> Double {
    let magnitude = abs(Double(truth)) + bound
    return bound + (dataType == .f32 ? 1 : 2) * (dataType.unitRoundoff * magnitude + dataType.leastNonzeroMagnitude)
  }

  /// What is wrong with `y`, where the reference has `truth` and the arithmetic may be off by `bound`.
  package func fault(of y: Float, truth: Float, bound: Double) -> Fault? {
    if truth.isNaN || y.isNaN {
      if truth.isNaN && !y.isNaN { return .lostNaN }
      return truth.isNaN || allowsNewNaN ? nil : .newNaN
    }
    if truth.isInfinite || y.isInfinite { return truth == y ? nil : .infinity }
    if isExact { return truth == y ? nil : .inexact }
    let (error, most) = (abs(Double(y) - Double(truth)), stored(bound, at: truth))
    // No error exceeds the NaN that operands which are not finite make of a bound.
    return error > most ? .error(error, bound: most) : nil
  }
}

import Quern

/// How a large result can be checked by some of its rows, at a share of the reference's time.
struct Sampling {
  /// Rows of the result, every axis but the width of a row folded.
  let rows: Int
  /// Steps of about a nanosecond that the reference takes for one row.
  let work: Double
  /// The same operation, for these rows alone.
  let part: ([Int]) throws -> Workload
}

/// What a workload's result must be: every row of it, or a sample of the rows.
public final class Expectation {
  /// The rows looked at, ascending; `nil` for all.
  public let rows: [Int]?
  /// Seconds that the reference takes for the whole: measured, or inferred from the sample.
  public let referenceSeconds: Double
  let values: [Float]
  private let bound: (Rounding) throws -> [Double]
  private var bounds: [Rounding: [Double]] = [:]

  init(rows: [Int]?, referenceSeconds: Double, values: [Float], bound: @escaping (Rounding) throws -> [Double]) {
    (self.rows, self.referenceSeconds, self.values, self.bound) = (rows, referenceSeconds, values, bound)
  }

  /// The largest error of each value, worked out once for each kind of sum.
  func bounds(_ rounding: Rounding) throws -> [Double] {
    let result = try bounds[rounding] ?? bound(rounding)
    bounds[rounding] = result
    return result
  }
}

/// What a workload showed on one backend.
public struct Verification: Sendable {
  /// The largest error as a share of its bound; at most 1 where the backend is correct.
  public var errorOverBound = 0.0
  /// What is wrong, in words; `nil` where nothing is.
  public var failure: String?

  public var isVerified: Bool { failure == nil }

  public init() {}
}

extension Workload {
  /// Runs on `context` and compares every element with the reference.
  public func verify(on context: Context, rounding: Rounding = .anyOrder) throws -> Verification {
    try verifier()(context, rounding)
  }

  /// A comparison with the reference, which runs once for all the contexts it is then given.
  public func verifier() throws -> (Context, Rounding) throws -> Verification {
    let expectation = try expectation()
    return { context, rounding in
      try self.verify(
        try self.ready(on: context), against: expectation, rounding: rounding.of(context.backend))
    }
  }

  /// What the result must be, from the reference. A workload that would take it more than `work` steps of about a
  /// nanosecond is judged by a seeded sample of its rows, spread evenly and with the first and the last among them.
  public func expectation(work: Double = .infinity) throws -> Expectation {
    guard let sampling, Double(sampling.rows) * sampling.work > work else { return try wholeExpectation() }
    let count = min(max(Int(work / sampling.work), 2), sampling.rows)
    var random = SeededRandom()
    var rows = (0..<count).map { part in
      Int.random(in: part * sampling.rows / count..<(part + 1) * sampling.rows / count, using: &random)
    }
    (rows[0], rows[count - 1]) = (0, sampling.rows - 1)
    let sample = try sampling.part(rows).wholeExpectation()
    return Expectation(
      rows: rows, referenceSeconds: sample.referenceSeconds * Double(sampling.rows) / Double(count),
      values: sample.values, bound: sample.bounds)
  }

  private func wholeExpectation() throws -> Expectation {
    let fresh = try MutableTensor(zeros: output.shape, dataType: output.dataType)
    reset(fresh)  // memory of its own, so that a stray write of the kernel under test cannot hide
    let call = try prepare(Context(backend: ReferenceBackend()))
    let seconds = try ContinuousClock().measure { try call(fresh) } / .seconds(1)
    let values = fresh.view.values
    return Expectation(rows: nil, referenceSeconds: seconds, values: values) { rounding in
      self.reset(self.output)  // bounds may read what the destination held
      return try self.bound(ErrorBounds(rounding), values)
    }
  }

  /// Runs a call made by ``ready(on:)`` from a fresh destination, and compares what it wrote.
  ///
  /// Where only a sample of rows is compared the destination starts as NaN, and no element may still be one.
  public func verify(
    _ call: () throws -> Void, against expectation: Expectation, rounding: Rounding = .anyOrder
  ) throws -> Verification {
    let bounds = try expectation.bounds(rounding)
    guard let rows = expectation.rows, let sampling else {
      reset(output)
      try call()
      return checked(compare(output.view.values, expectation.values, bounds) { $0 })
    }
    for position in 0..<output.shape.count { output.store(.nan, at: offset(position)) }
    try call()
    let width = output.shape.count / sampling.rows
    func position(_ sample: Int) -> Int { rows[sample / width] * width + sample % width }
    let sampled = expectation.values.indices.map { output.view.load(offset(position($0))) }
    var verification = compare(sampled, expectation.values, bounds, position)
    if operands.fill != .special, verification.failure == nil,
      let hole = (0..<output.shape.count).first(where: { output.view.load(offset($0)).isNaN })
    {
      verification.failure = "element \(hole) of \(output.shape) was not written, or is a NaN"
    }
    return checked(verification)
  }

  private func offset(_ position: Int) -> Int { isContiguous ? position : output.offset(of: position) }

  private func checked(_ verification: Verification) -> Verification {
    var verification = verification
    if !operands.areIntact { verification.failure = "wrote outside an operand" }
    return verification
  }

  /// - Parameter position: where an expected element lies in the whole result.
  private func compare(
    _ result: [Float], _ expected: [Float], _ bounds: [Double], _ position: (Int) -> Int
  ) -> Verification {
    var verification = Verification()
    let comparison = ElementComparison(
      output.dataType, isExact: isExactOnIntegers && operands.fill == .integers,
      allowsNewNaN: operands.fill == .special)
    for (index, (y, truth)) in zip(result, expected).enumerated() {
      if let fault = comparison.fault(of: y, truth: truth, bound: bounds[index]), verification.failure == nil {
        verification.failure =
          "element \(position(index)) of \(output.shape) is \(y), the reference has \(truth): \(fault)"
      }
      let share = abs(Double(y) - Double(truth)) / comparison.stored(bounds[index], at: truth)
      if share.isFinite { verification.errorOverBound = max(verification.errorOverBound, share) }
    }
    return verification
  }
}

/// These rows of a matrix, one after the other, as f32.
func gather(_ rows: [Int], of view: TensorView) throws -> TensorView {
  let n = view.shape[1]
  return try Tensor(shape: Shape(rows.count, n)) { target in
    for (index, row) in rows.enumerated() {
      for column in 0..<n { target[index * n + column] = Float(view[row, column]) }
    }
  }.view
}

/// These slices along the first of three axes, one after the other, as f32.
func gatherSlices(_ slices: [Int], of view: TensorView) throws -> TensorView {
  let (rows, n) = (view.shape[1], view.shape[2])
  return try Tensor(shape: Shape(slices.count, rows, n)) { target in
    for (index, slice) in slices.enumerated() {
      for row in 0..<rows {
        for column in 0..<n { target[(index * rows + row) * n + column] = Float(view[slice, row, column]) }
      }
    }
  }.view
}

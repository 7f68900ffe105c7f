import Quern

/// One call of one operation on operands of its own: what the tests verify and the benchmarks time.
///
/// A file under `Workloads/` describes an operation once; from it follow its test cases, its error bound and its
/// benchmarks.
public final class Workload {
  /// A call that is ready to run: weights packed, nothing left to allocate.
  public typealias Call = (MutableTensor) throws -> Void

  public let operation: Quern.Operation
  /// The shapes in words, such as `m=128 n=384 k=1536`.
  public let name: String
  /// The lines of `CKernels/kernels.inc` that it exercises.
  public let kernels: [String]
  /// Arithmetic in one call, with an FMA counted as two.
  public let flops: Double
  /// Bytes of operands read and results written once.
  public let bytes: Double
  /// Whether integer operands make every partial result exact, so that backends must agree bit for bit.
  public let isExactOnIntegers: Bool

  let operands: Operands
  let output: MutableTensor
  let prepare: (Context) throws -> Call
  let bound: (Rounding, [Float]) throws -> [Double]
  private let initial: [Float]

  /// - Parameters:
  ///   - output: the destination; what it holds now is what every run starts from.
  ///   - prepare: packs weights and returns the call.
  ///   - bound: the largest error of each element, given the exact result.
  init(
    _ operation: Quern.Operation, _ name: String, kernels: [String], flops: Double, bytes: Double,
    isExactOnIntegers: Bool = false, operands: Operands, output: MutableTensor,
    prepare: @escaping (Context) throws -> Call, bound: @escaping (Rounding, [Float]) throws -> [Double]
  ) {
    (self.operation, self.name, self.kernels) = (operation, name, kernels)
    (self.flops, self.bytes, self.isExactOnIntegers) = (flops, bytes, isExactOnIntegers)
    (self.operands, self.output, self.prepare, self.bound) = (operands, output, prepare, bound)
    initial = output.elements
  }

  /// The call on a context, bound to this workload's destination: what a benchmark times.
  public func ready(on context: Context) throws -> () throws -> Void {
    let call = try prepare(context)
    return { try call(self.output) }
  }

  /// The result on a context, from a fresh destination.
  public func result(on context: Context) throws -> [Float] {
    reset(output)
    try prepare(context)(output)
    return output.elements
  }

  /// The reference's result, in memory of its own so that a stray write of the kernel under test cannot hide.
  func expected() throws -> [Float] {
    let fresh = try MutableTensor(zeros: output.shape)
    reset(fresh)
    try prepare(Context(backend: ReferenceBackend()))(fresh)
    return fresh.elements
  }

  private func reset(_ tensor: MutableTensor) {
    for (position, value) in initial.enumerated() { tensor.base[tensor.offset(of: position)] = value }
  }
}

/// What a workload showed on one backend.
public struct Verification: Sendable {
  /// The largest error as a share of its bound; at most 1 where the backend is correct.
  public var errorOverBound = 0.0
  /// What is wrong, in words; `nil` where nothing is.
  public var failure: String?

  public var isVerified: Bool { failure == nil }
}

extension Workload {
  /// Runs on `context` and compares every element with the reference.
  public func verify(on context: Context, rounding: Rounding = .anyOrder) throws -> Verification {
    try verifier()(context, rounding)
  }

  /// A comparison with the reference, which runs once for all the contexts it is then given.
  public func verifier() throws -> (Context, Rounding) throws -> Verification {
    let expected = try expected()
    var bounds: [Rounding: [Double]] = [:]
    return { context, rounding in
      let result = try self.result(on: context)
      let bound = try bounds[rounding] ?? self.bound(rounding, expected)
      bounds[rounding] = bound
      var verification = self.compare(result, expected, bound)
      if !self.operands.areIntact { verification.failure = "wrote outside an operand" }
      return verification
    }
  }

  private func compare(_ result: [Float], _ expected: [Float], _ bounds: [Double]) -> Verification {
    var verification = Verification()
    let exact = isExactOnIntegers && operands.fill == .integers
    for (position, (y, truth)) in zip(result, expected).enumerated() {
      func fail(_ reason: String) {
        if verification.failure == nil {
          verification.failure = "element \(position) of \(output.shape) is \(y), the reference has \(truth): \(reason)"
        }
      }
      if truth.isNaN || y.isNaN {
        // An infinity may cancel in one order and not in another; a NaN where no special value went in is a fault.
        if truth.isNaN != y.isNaN && operands.fill != .special { fail("a NaN on one side only") }
        if truth.isNaN && !y.isNaN { fail("a NaN was lost") }
        continue
      }
      if truth.isInfinite || y.isInfinite {
        if truth != y { fail("an infinity on one side only") }
        continue
      }
      if exact {
        if y != truth { fail("integers must be exact") }
        continue
      }
      let error = abs(Double(y) - Double(truth))
      // The reference itself is rounded once.
      let bound = bounds[position] + Rounding.unit * abs(Double(truth)) + Rounding.smallest
      if bound.isNaN { continue }
      verification.errorOverBound = max(verification.errorOverBound, error / bound)
      if error > bound { fail("error \(error) exceeds the bound \(bound)") }
    }
    return verification
  }
}

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
  let bound: (ErrorBounds, [Float]) throws -> [Double]
  let isContiguous: Bool
  private let initial: [Float]

  /// How to check a large result by some of its rows; `nil` where only the whole will do.
  var sampling: Sampling?
  /// The product of its operands without anything added, for a library that does only that; `nil` for other operations.
  public internal(set) var plainProduct: (() throws -> PlainProduct)?

  /// - Parameters:
  ///   - output: the destination; what it holds now is what every run starts from.
  ///   - prepare: packs weights and returns the call.
  ///   - bound: the largest error of each element, given the exact result.
  init(
    _ operation: Quern.Operation, _ name: String, kernels: [String], flops: Double, bytes: Double,
    isExactOnIntegers: Bool = false, operands: Operands, output: MutableTensor,
    prepare: @escaping (Context) throws -> Call, bound: @escaping (ErrorBounds, [Float]) throws -> [Double]
  ) {
    (self.operation, self.name, self.kernels) = (operation, name, kernels)
    (self.flops, self.bytes, self.isExactOnIntegers) = (flops, bytes, isExactOnIntegers)
    (self.operands, self.output, self.prepare, self.bound) = (operands, output, prepare, bound)
    isContiguous = output.isContiguous
    initial = output.view.values
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
    return output.view.values
  }

  func reset(_ tensor: MutableTensor) {
    let isContiguous = tensor.isContiguous
    for (position, value) in initial.enumerated() {
      tensor.store(value, at: isContiguous ? position : tensor.offset(of: position))
    }
  }
}

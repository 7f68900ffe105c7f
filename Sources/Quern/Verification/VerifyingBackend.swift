import Synchronization

/// Runs every operation on another backend and on the reference, from the same operands, and looks for results outside their derived
/// error bounds: what tells which kernel is wrong when a model's output is off. Slow, and it allocates: for debugging.
///
/// ``Backends/make(_:options:)`` wraps what it makes where `QUERN_VERIFY=1` or ``BackendOptions/verifies`` asks for it. A ``Context`` on
/// such a backend throws ``QuernError/verification(_:)`` from the call whose result is wrong; results stay in their destinations, and
/// the next call runs as ever. Called without a context, the first failure stays in ``failure``.
///
/// Packed weights are compared with what they were made from. These have nothing to be compared with and are not looked at:
/// - weights that are opaque to a backend: packing them, and products by them, throw
///   ``QuernError/foreignPacking(operation:layout:backend:)`` instead;
/// - ``Context/embedding(_:weights:into:)``, which no backend does: it copies what the packed weights stand for;
/// - ``LinearAlgebra``, which is LAPACK's whatever the backend;
/// - memory outside the destinations.
public final class VerifyingBackend: Backend {
  public static let name = "verifying"

  /// What runs the operations.
  public let wrapped: any Backend
  /// How deep its sums are.
  let rounding: Rounding
  private let first = Mutex<QuernError?>(nil)

  /// - Parameter rounding: bounds sums of any order unless the backend states a smaller depth.
  public init(_ wrapped: any Backend, rounding: Rounding = .anyOrder) {
    (self.wrapped, self.rounding) = (wrapped, rounding)
  }

  public var fallback: any Backend { wrapped.fallback }
  public var isa: ISA? { wrapped.isa }
  public var threads: Int { wrapped.threads }
  public var dataTypes: DataTypes { wrapped.dataTypes }

  /// The first result that was wrong, or why results could not be compared.
  public var failure: QuernError? { first.withLock { $0 } }

  func record(_ error: QuernError) { first.withLock { $0 = $0 ?? error } }

  var bounds: ErrorBounds {
    ErrorBounds(rounding.of(wrapped))
  }

  /// A call's operands by name.
  typealias Operands = KeyValuePairs<String, (any VerifiedOperand)?>

  /// What the reference makes of a call, and how far off a result may be.
  private struct Expectation {
    let values: [Float]
    let bounds: [Double]
  }

  /// Runs `call` on the reference, into a copy of y, then on the wrapped backend, and compares. The reference goes first: operands may
  /// be y, and y may be an operand.
  func verify(
    _ operation: Operation, _ y: MutableTensor, _ operands: Operands, weights: [PackedMatrix] = [],
    isExact: Bool = false, call: (any Backend, MutableTensor) -> Void,
    bound: (ErrorBounds, [Float]) throws(QuernError) -> [Double]
  ) {
    verify(
      operation, y, second: nil, operands, weights: weights, isExact: isExact,
      call: { backend, y, _ in call(backend, y) }, bound: bound, secondBound: { $0.exact($1) })
  }

  /// The same for calls that may have a second result.
  func verify(
    _ operation: Operation, _ y: MutableTensor, second: (name: String, tensor: MutableTensor)?, _ operands: Operands,
    weights: [PackedMatrix] = [], isExact: Bool = false, call: (any Backend, MutableTensor, MutableTensor?) -> Void,
    bound: (ErrorBounds, [Float]) throws(QuernError) -> [Double],
    secondBound: (ErrorBounds, [Float]) throws(QuernError) -> [Double]
  ) {
    var expected: (Expectation, Expectation?)?
    do throws(QuernError) {
      for matrix in weights { try readable(matrix, operation) }
      let scratch = try MutableTensor(copying: y)
      var other: MutableTensor?
      if let second { other = try MutableTensor(copying: second.tensor) }
      call(ReferenceBackend(), scratch, other)
      let (values, others) = (scratch.view.values, other?.view.values)
      expected = (Expectation(values: values, bounds: try bound(bounds, values)), nil)
      if let others { expected?.1 = Expectation(values: others, bounds: try secondBound(bounds, others)) }
    } catch {
      record(error)
    }
    call(wrapped, y, second?.tensor)
    guard let expected else { return }
    compare(operation, "y", y, expected.0, isExact: isExact, operands)
    if let second, let other = expected.1 {
      compare(operation, second.name, second.tensor, other, isExact: isExact, operands)
    }
  }

  private func compare(
    _ operation: Operation, _ result: String, _ y: MutableTensor, _ expected: Expectation, isExact: Bool,
    _ operands: Operands
  ) {
    let values = y.view.values
    let shape = y.shape.array
    compare(
      operation, result, shape, values, expected.values, expected.bounds, as: y.dataType, isExact: isExact,
      operands)
  }

  /// Records the first element that is wrong.
  func compare(
    _ operation: Operation, _ result: String, _ shape: [Int], _ values: [Float], _ expected: [Float],
    _ bounds: [Double], as dataType: DataType = .f32, isExact: Bool, _ operands: Operands
  ) {
    // Operands that are not finite show in a NaN, or in a bound that is not finite; operands themselves may be overwritten by now.
    let isSpecial = expected.contains(where: \.isNaN) || bounds.contains { !$0.isFinite }
    let comparison = ElementComparison(dataType, isExact: isExact, allowsNewNaN: isSpecial)
    for (position, value) in values.enumerated() {
      let (truth, bound) = (expected[position], bounds[position])
      guard let fault = comparison.fault(of: value, truth: truth, bound: bound) else { continue }
      var (index, rest) = ([Int](), position)
      for extent in shape.reversed() {
        index.insert(rest % extent, at: 0)
        rest /= extent
      }
      return record(
        .verification(
          VerificationFailure(
            operation: operation, backend: type(of: wrapped).name,
            operands: operands.compactMap { name, operand in operand.map { "\(name) \($0.summary)" } }.joined(
              separator: ", "),
            result: result, shape: shape, index: index, value: value, expected: truth,
            bound: isExact ? 0 : comparison.stored(bound, at: truth), reason: "\(fault)")))
    }
  }

  /// The reference can read every layout but an opaque one.
  func readable(_ matrix: PackedMatrix, _ operation: Operation) throws(QuernError) {
    guard case .opaque = matrix.layout else { return }
    throw .foreignPacking(operation: operation, layout: "\(matrix.layout)", backend: ReferenceBackend.name)
  }
}

extension MutableTensor {
  /// Elements in memory of their own, without gaps.
  init(copying other: MutableTensor) throws(QuernError) {
    try self.init(zeros: other.shape, dataType: other.dataType)
    if other.isContiguous {
      address.copyMemory(from: other.address, byteCount: other.shape.count * other.dataType.size)
    } else {
      ReferenceBackend().copy(other.view, into: self)
    }
  }
}

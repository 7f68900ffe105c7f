/// The entry point: holds a backend, checks operands once, and runs operations on it.
///
/// Every operation writes into a destination the caller owns, so a steady state allocates nothing. All throw
/// ``QuernError/invalidOperand(operation:reason:)`` for operands that do not fit, and then write nothing.
///
/// ```swift
/// let context = try Context()                       // QUERN_BACKEND, else multithreaded
/// let weights = try context.pack(w.view)            // once
/// try context.linear(x.view, weights: weights, into: y)
/// ```
public struct Context: Sendable {
  public let backend: any Backend
  /// The backend, where it compares results.
  private let verifier: VerifyingBackend?

  /// A context on this backend. The API beats the environment.
  public init(backend: any Backend) { (self.backend, verifier) = (backend, backend as? VerifyingBackend) }

  /// A context on the backend of this name, else of `QUERN_BACKEND`, else `multithreaded`.
  ///
  /// - Throws: what ``Backends/make(_:options:)`` throws.
  public init(_ name: String? = nil, options: BackendOptions = BackendOptions()) throws {
    self.init(backend: try Backends.make(name, options: options))
  }

  /// The backend that runs `operation` on operands of these types: this context's, or the first of its fallbacks that
  /// reads them all, with each step recorded.
  func runner(
    _ operation: Operation, _ first: DataTypes, _ second: DataTypes = [], _ third: DataTypes = [],
    _ fourth: DataTypes = [], _ fifth: DataTypes = []
  ) -> any Backend {
    let types = first.union(second).union(third).union(fourth).union(fifth)
    var candidate = verifier?.wrapped ?? backend
    while !candidate.dataTypes.isSuperset(of: types) { candidate = candidate.handOn(operation) }
    return candidate
  }

  /// Makes a call on the backend that ``runner(_:_:_:_:_:_:)`` found, and throws what verification finds.
  @inline(__always)
  func run(_ runner: any Backend, _ call: (any Backend) -> Void) throws(QuernError) {
    guard let verifier else { return call(runner) }
    // One for each call, so that concurrent calls throw their own failures.
    let verifying = VerifyingBackend(runner, rounding: verifier.rounding)
    call(verifying)
    if let failure = verifying.failure { throw failure }
  }

  /// The backend to pack weights with, which throws what verification finds.
  func packer(_ types: DataTypes) -> any Backend {
    let runner = runner(.pack, types)
    return verifier == nil ? runner : VerifyingBackend(runner)
  }
}

/// A way to run the operations. Conform to plug one in from any package; `QuernTesting` checks it.
///
/// ``Context`` is what callers use: it checks operands once, in one place, and throws. By the time a requirement here is
/// called its operands are valid, so a requirement cannot fail and holds no checks. Every requirement but
/// ``name`` has a default that records the event in ``Trace`` and calls ``fallback``, or, for a fused form, calls the requirements it is
/// made of: a backend may implement one operation and be complete.
///
/// The requirements are in one protocol a family, each beside its defaults and its checks in `Ops/`.
///
/// Guarantees for every requirement:
/// - every operand has one of the backend's ``dataTypes``;
/// - views are rank 2 (`[rows, n]`) with unit stride along the last axis, unless stated otherwise;
/// - a destination overlaps no input, except that the residual, or the input of a row operation, may *be* the
///   destination (same memory, same strides) where stated;
/// - operands may own no memory and are valid during the call: what a backend keeps for later it copies;
/// - any extent may be zero.
public protocol Backend: Sendable, LinearOperations, AttentionOperations, NormOperations, ElementwiseOperations,
  GatherOperations, ConvolutionOperations, ImageOperations, PositionOperations, SparseOperations, RoutingOperations,
  DataOperations, ReductionOperations, RandomOperations
{
  /// The name `QUERN_BACKEND` selects it by.
  static var name: String { get }

  /// What runs the operations this backend leaves out.
  var fallback: any Backend { get }

  /// The instruction set of its own kernels, `nil` where that is another library's choice.
  var isa: ISA? { get }

  /// The threads an operation uses, the caller included.
  var threads: Int { get }

  /// The storage types it reads and writes. ``Context`` hands an operation on other types to ``fallback``.
  var dataTypes: DataTypes { get }
}

extension Backend {
  public var fallback: any Backend { ReferenceBackend() }
  public var isa: ISA? { nil }
  public var threads: Int { 1 }
  public var dataTypes: DataTypes { .f32 }

  /// The fallback, with the event recorded: the first half of every default, and of declining a call.
  func handOn(_ operation: Operation) -> any Backend {
    let next = fallback
    Trace.recordFallback(of: operation, from: Self.name, to: type(of: next).name)
    return next
  }
}

/// A way to run the operations. Conform to plug one in from any package; `QuernTesting` checks it.
///
/// ``Context`` is what callers use: it checks operands once, in one place, and throws. By the time a requirement here is
/// called its operands are valid, so a requirement cannot fail and holds no checks. Every requirement but
/// ``name`` has a default that records the event in ``Trace`` and calls ``fallback``: a backend may implement one operation
/// and be complete.
///
/// Guarantees for every requirement:
/// - views are rank 2 (`[rows, n]`) with unit stride along the last axis, unless stated otherwise;
/// - a destination overlaps no input, except that the residual, or the input of a row operation, may *be* the
///   destination (same memory, same strides) where stated;
/// - any extent may be zero.
public protocol Backend: Sendable {
  /// The name `QUERN_BACKEND` selects it by.
  static var name: String { get }

  /// What runs the operations this backend leaves out.
  var fallback: any Backend { get }

  /// The instruction set of its own kernels, `nil` where that is another library's choice.
  var isa: ISA? { get }

  /// The threads an operation uses, the caller included.
  var threads: Int { get }

  /// Lays out `weights` (`[outputs, inputs]`, any strides) for this backend's ``linear(_:weights:epilogue:residual:into:)``.
  /// A backend whose layout is opaque implements linear itself: no fallback could read the weights.
  func pack(_ weights: TensorView) throws -> PackedMatrix

  /// `y = activation(scale x Wᵀ + bias) + residual`, with x `[m, inputs]` and y `[m, outputs]`. The residual may be y.
  func linear(
    _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor)

  /// `c = activation(scale a b + beta c + bias) + residual` for every batch: a `[batch, m, k]`, b `[batch, k, n]`, any
  /// strides (0 repeats a batch); c `[batch, m, n]` with unit stride along the last axis. The residual may be c.
  func matmul(
    _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor)

  /// `o = softmax(scale q kᵀ + mask) v` for each head of each sequence: queries `[tokens, heads, size]`, keys and
  /// values `[tokens, kvHeads, size]`, unit stride along the last axis. A query that sees no key becomes zeros.
  func attention(
    queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
    scale: Float, into o: MutableTensor)

  /// `y = softmax(scale x + mask)` along rows; row i sees columns up to `i + diagonal`. y may be x.
  func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor)

  /// `y = (z - mean z) / sqrt(var z + epsilon) weight + bias`, z = x + residual. y may be x or the residual.
  func layerNorm(
    _ x: TensorView, residual: TensorView?, weight: Tensor?, bias: Tensor?, epsilon: Float, into y: MutableTensor)

  /// `y = z / sqrt(mean z² + epsilon) weight`, z = x + residual. y may be x or the residual.
  func rmsNorm(_ x: TensorView, residual: TensorView?, weight: Tensor?, epsilon: Float, into y: MutableTensor)

  /// `y = activation(x)`. y may be x.
  func activation(_ activation: Activation, _ x: TensorView, into y: MutableTensor)

  /// `y[i] = table[ids[i]]`, added to what y holds where `accumulate` says so.
  func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor)

  /// `y = a + b`; b may have one row for all. y may be a or b.
  func add(_ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = a b`, element by element; b may have one row for all. y may be a or b.
  func multiply(_ a: TensorView, _ b: TensorView, into y: MutableTensor)

  /// `y = factor x`. y may be x.
  func scale(_ x: TensorView, by factor: Float, into y: MutableTensor)

  /// `y[s] = mean of the rows of segment s`; zeros for an empty segment.
  func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor)

  /// `y = x / max(‖x‖₂, epsilon)` along rows. y may be x.
  func l2Normalize(_ x: TensorView, epsilon: Float, into y: MutableTensor)
}

/// Which rows of the packed queries and keys belong together.
public struct AttentionLayout: Sendable {
  public let queries: Segments
  public let keys: Segments

  /// Cross-attention: sequence s of the queries reads sequence s of the keys.
  public init(queries: Segments, keys: Segments) { (self.queries, self.keys) = (queries, keys) }

  /// Self-attention.
  public init(_ segments: Segments) { self.init(queries: segments, keys: segments) }
}

/// What a query may see.
public struct AttentionMask {
  /// Query i of a sequence sees keys up to `i + (keys - queries)`.
  public var isCausal: Bool
  /// Added to the scores: `[queries, keys]`, `[sequences, queries, keys]` or `[sequences, heads, queries, keys]`, where an
  /// extent of 1 serves all. Rows and columns count from the start of each sequence. Use `-infinity` to hide a key.
  public var additive: TensorView?

  public init(isCausal: Bool = false, additive: TensorView? = nil) {
    (self.isCausal, self.additive) = (isCausal, additive)
  }

  public static var none: AttentionMask { AttentionMask() }
  public static var causal: AttentionMask { AttentionMask(isCausal: true) }
}

extension AttentionMask {
  /// The first element for a sequence and head, and the row stride, of a mask that ``Context`` has checked.
  func addressing() -> (base: UnsafePointer<Float>, sequence: Int, head: Int, row: Int)? {
    guard let additive else { return nil }
    func stride(fromLast position: Int) -> Int {
      let axis = additive.shape.rank - 1 - position
      return axis < 0 || additive.shape[axis] == 1 ? 0 : additive.strides[axis]
    }
    let headed = additive.shape.rank == 4
    return (
      additive.base, stride(fromLast: headed ? 3 : 2), headed ? stride(fromLast: 2) : 0, stride(fromLast: 1)
    )
  }
}

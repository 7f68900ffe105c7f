/// Reductions of rows and columns, sums from the left, positions of extremes. See ``Backend`` for what every requirement may
/// rely on.
public protocol ReductionOperations {
  /// The reduction of each row of x into `y[rows]`, or of each column into `y[n]`; y has no gaps.
  func reduce(_ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, into y: MutableTensor)

  /// `y[i][j] = x[i][0] + ... + x[i][j]`. y may be x.
  func cumulativeSum(_ x: TensorView, into y: MutableTensor)

  /// The first column of each row that holds its largest element, or its least; the first NaN where there is one. Rows have
  /// at least one element.
  func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32])
}

/// What many elements become.
public enum Reduction: String, Sendable, CaseIterable {
  /// The sum; 0 of no elements.
  case sum
  /// The sum divided by the count; NaN of no elements.
  case mean
  /// `Σ x²`; 0 of no elements.
  case sumOfSquares
  /// The largest, NaN where any is; -infinity of no elements.
  case maximum
  /// The least, NaN where any is; infinity of no elements.
  case minimum
  /// `log Σ e^x`, without overflow; -infinity of no elements.
  case logSumExp

  /// The result without elements.
  package var ofNothing: Float {
    switch self {
    case .sum, .sumOfSquares: 0
    case .mean: .nan
    case .maximum, .logSumExp: -.infinity
    case .minimum: .infinity
    }
  }
}

/// Which elements a reduction takes together.
public enum ReductionDirection: String, Sendable, CaseIterable {
  /// Those of a row: one result a row.
  case rows
  /// Those of a column: one result a column.
  case columns
}

/// An end of the order of elements.
public enum Extreme: String, Sendable, CaseIterable {
  case largest, least
}

extension Backend {
  public func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, into y: MutableTensor
  ) {
    handOn(.reduce).reduce(reduction, x, along: direction, into: y)
  }

  public func cumulativeSum(_ x: TensorView, into y: MutableTensor) {
    handOn(.cumulativeSum).cumulativeSum(x, into: y)
  }

  public func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32]) {
    handOn(.argmax).position(of: extreme, x, into: &indices)
  }
}

extension Context {
  /// The reduction of each row of x, or of each column.
  ///
  /// A sum of n terms is within γ(n) Σ|x|; `multithreaded` adds up in blocks, within γ(21 + log₂ n) Σ|x|. Maximum and minimum
  /// are exact. The bits are the same for any number of threads.
  ///
  /// - Parameters:
  ///   - x: `[..., n]`, unit stride along the last axis; leading axes are rows.
  ///   - y: along rows, as many elements as there are rows, in any shape; along columns, n elements. Without gaps; does not
  ///     overlap x.
  public func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection = .rows, into y: MutableTensor
  ) throws(QuernError) {
    let check = Check(operation: .reduce)
    let rows = try check.rows(x, "x")
    let count = direction == .rows ? rows.shape[0] : rows.shape[1]
    try check.require(
      y.shape.count == count && y.isContiguous,
      "y has shape \(y.shape); \(count) elements without gaps are expected for the \(direction.rawValue) of x \(x.shape)"
    )
    try check.disjoint(rows, "x", from: y)
    try run(runner(.reduce, x.types, y.types)) {
      $0.reduce(
        reduction, rows, along: direction, into: y.reinterpreted(offset: 0, shape: Shape(count), strides: Shape(1)))
    }
  }

  /// `y[j] = x[0] + ... + x[j]` along the last axis, as PyTorch's `cumsum`. y may be x.
  ///
  /// Within γ(j + 1) Σ|x| up to j; `multithreaded` adds up runs of 64 columns and groups of 64 runs: within
  /// γ(128 + n / 4096) Σ|x|.
  public func cumulativeSum(_ x: TensorView, into y: MutableTensor) throws(QuernError) {
    let (x, y) = try Check(operation: .cumulativeSum).pair(x, y)
    try run(runner(.cumulativeSum, x.types, y.types)) { $0.cumulativeSum(x, into: y) }
  }

  /// The column of each row's largest element: the first of equal ones, the first NaN where there is one, as PyTorch's
  /// `argmax`. Exact; -0 equals 0.
  ///
  /// - Parameters:
  ///   - x: `[..., n]`, unit stride along the last axis, n at least 1.
  ///   - indices: one entry a row. An array that nothing else holds is written in place, so a caller that keeps one allocates
  ///     nothing.
  public func argmax(_ x: TensorView, into indices: inout [Int32]) throws(QuernError) {
    try position(of: .largest, x, into: &indices)
  }

  /// The column of each row's least element, as ``argmax(_:into:)`` has it.
  public func argmin(_ x: TensorView, into indices: inout [Int32]) throws(QuernError) {
    try position(of: .least, x, into: &indices)
  }

  private func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32]) throws(QuernError) {
    let check = Check(operation: .argmax)
    let rows = try check.rows(x, "x")
    try check.require(rows.shape[0] == 0 || rows.shape[1] > 0, "x has shape \(x.shape); empty rows have no extreme")
    try check.require(
      rows.shape[1] <= Int(Int32.max), "rows of \(rows.shape[1]) elements have indices beyond Int32")
    try check.require(indices.count == rows.shape[0], "\(indices.count) indices for the rows of x \(x.shape)")
    try run(runner(.argmax, x.types)) { $0.position(of: extreme, rows, into: &indices) }
  }
}

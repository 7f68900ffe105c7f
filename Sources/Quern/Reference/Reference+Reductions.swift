#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension ReferenceBackend {
  public func reduce(
    _ reduction: Reduction, _ x: TensorView, along direction: ReductionDirection, into y: MutableTensor
  ) {
    let (rows, columns) = (x.shape[0], x.shape[1])
    switch direction {
    case .rows:
      for i in 0..<rows { y[i] = reduction.exact((0..<columns).lazy.map { x[i, $0] }) }
    case .columns:
      for j in 0..<columns { y[j] = reduction.exact((0..<rows).lazy.map { x[$0, j] }) }
    }
  }

  public func cumulativeSum(_ x: TensorView, into y: MutableTensor) {
    for i in 0..<x.shape[0] {
      var sum = 0.0
      for j in 0..<x.shape[1] {
        sum += x[i, j]
        y[i, j] = sum
      }
    }
  }

  public func position(of extreme: Extreme, _ x: TensorView, into indices: inout [Int32]) {
    for i in 0..<x.shape[0] {
      var best = 0
      for j in 1..<max(x.shape[1], 1) where !x[i, best].isNaN {
        let (candidate, held) = (x[i, j], x[i, best])
        if candidate.isNaN || (extreme == .largest ? candidate > held : candidate < held) { best = j }
      }
      indices[i] = Int32(best)
    }
  }
}

extension Reduction {
  /// The reduction in Double.
  fileprivate func exact(_ x: some Collection<Double>) -> Double {
    switch self {
    case .sum: return x.reduce(0, +)
    case .mean: return x.reduce(0, +) / Double(x.count)
    case .sumOfSquares: return x.reduce(0) { $0 + $1 * $1 }
    case .maximum: return x.reduce(-.infinity) { $0.isNaN || $1.isNaN ? .nan : max($0, $1) }
    case .minimum: return x.reduce(.infinity) { $0.isNaN || $1.isNaN ? .nan : min($0, $1) }
    case .logSumExp:
      let top = Reduction.maximum.exact(x)
      return top.isFinite ? top + log(x.reduce(0) { $0 + exp($1 - top) }) : top
    }
  }
}

import Quern
import QuernTesting
import Testing

/// Backends with one fault each. A harness that passes any of them is decoration.
@Suite struct MutantTests {
  /// Kernels with a fault that a real one could have.
  struct FaultyBackend: Backend {
    enum Fault: String, CaseIterable, Sendable {
      case dropsLastProduct, dropsTailColumn, dropsLastRow, forgetsBias, forgetsResidual, activatesAfterResidual
      case readsBetaZero, forgetsBeta, transposesNothing, ignoresCausal, ignoresAdditiveMask, wrongKeyHead, wrongScale
      case skipsLastKey, softmaxWithoutMaximum, softmaxIgnoresDiagonal, normForgetsEpsilon, normSampleVariance
      case normForgetsResidual, rmsSubtractsMean, poolsOneRowLess, gatherOverwrites, tanhGeluForErf, losesNaN

      /// What is wrong.
      var operation: Quern.Operation {
        switch self {
        case .dropsLastProduct, .dropsTailColumn, .dropsLastRow, .forgetsBias, .forgetsResidual,
          .activatesAfterResidual, .wrongScale, .tanhGeluForErf, .losesNaN:
          .linear
        case .readsBetaZero, .forgetsBeta, .transposesNothing: .matmul
        case .ignoresCausal, .ignoresAdditiveMask, .wrongKeyHead, .skipsLastKey: .attention
        case .softmaxWithoutMaximum, .softmaxIgnoresDiagonal: .softmax
        case .normForgetsEpsilon, .normSampleVariance, .normForgetsResidual: .layerNorm
        case .rmsSubtractsMean: .rmsNorm
        case .poolsOneRowLess: .meanPool
        case .gatherOverwrites: .embedding
        }
      }
    }

    static let name = "mutant"
    let fault: Fault
    let good: MultithreadedBackend
    var fallback: any Backend { good }

    func pack(_ weights: TensorView) throws -> PackedMatrix { try good.pack(weights) }

    func linear(
      _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
    ) {
      var epilogue = epilogue
      var residual = residual
      if fault == .forgetsBias { epilogue.bias = nil }
      if fault == .forgetsResidual { residual = nil }
      if fault == .wrongScale { epilogue.scale *= 1 + 0x1p-12 }
      if fault == .tanhGeluForErf, epilogue.activation == .gelu { epilogue.activation = .geluTanh }
      if fault == .activatesAfterResidual, epilogue.activation != .identity {
        let activation = epilogue.activation
        epilogue.activation = .identity
        good.linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
        return good.activation(activation, y.view, into: y)
      }
      good.linear(x, weights: weights, epilogue: epilogue, residual: residual, into: y)
      let (rows, columns) = (y.shape[0], y.shape[1])
      if fault == .dropsLastProduct, weights.inputs > 0, epilogue.activation == .identity {
        for i in 0..<rows {
          for j in 0..<columns {
            guard let weight = weights.row(j) else { continue }
            let last = weights.inputs - 1
            y.base[i * y.strides[0] + j] -=
              epilogue.scale * x.base[i * x.strides[0] + last] * Float(weight[last])
          }
        }
      }
      if fault == .dropsTailColumn, columns % 8 != 0 {
        for i in 0..<rows { y.base[i * y.strides[0] + columns - 1] = 0 }
      }
      if fault == .dropsLastRow, rows > 0 { for j in 0..<columns { y.base[(rows - 1) * y.strides[0] + j] = 0 } }
      if fault == .losesNaN { for p in 0..<y.shape.count { clear(y, p) } }
    }

    private func clear(_ y: MutableTensor, _ position: Int) {
      let (i, j) = (position / y.shape[1], position % y.shape[1])
      if y.base[i * y.strides[0] + j].isNaN { y.base[i * y.strides[0] + j] = 0 }
    }

    func matmul(
      _ a: TensorView, _ b: TensorView, beta: Float, epilogue: Epilogue, residual: TensorView?, into c: MutableTensor
    ) {
      var (a, beta) = (a, beta)
      if fault == .forgetsBeta { beta = 0 }
      if fault == .readsBetaZero, beta == 0 { beta = 0x1p-140 }
      if fault == .transposesNothing, a.shape[1] == a.shape[2] {
        a = a.reinterpreted(offset: 0, shape: a.shape, strides: Shape(a.strides[0], a.strides[2], a.strides[1]))
      }
      good.matmul(a, b, beta: beta, epilogue: epilogue, residual: residual, into: c)
    }

    func attention(
      queries: TensorView, keys: TensorView, values: TensorView, layout: AttentionLayout, mask: AttentionMask,
      scale: Float, softCap: Float, logSumExp: MutableTensor?, into o: MutableTensor
    ) {
      var (keys, values, mask) = (keys, values, mask)
      if fault == .ignoresCausal { mask.isCausal = false }
      if fault == .ignoresAdditiveMask { mask.additive = nil }
      if fault == .wrongKeyHead, keys.shape[1] > 1 {
        keys = keys.reinterpreted(
          offset: 0, shape: keys.shape, strides: Shape(keys.strides[0], 0, keys.strides[2]))
        values = values.reinterpreted(
          offset: 0, shape: values.shape, strides: Shape(values.strides[0], 0, values.strides[2]))
      }
      if fault == .skipsLastKey, layout.queries.count == 1, layout.keys.total > 1, mask.additive == nil, !mask.isCausal,
        let fewer = try? Segments(single: layout.keys.total - 1)
      {
        let layout = AttentionLayout(queries: layout.queries, keys: fewer)
        return good.attention(
          queries: queries, keys: keys.rows(0..<fewer.total), values: values.rows(0..<fewer.total), layout: layout,
          mask: mask, scale: scale, softCap: softCap, logSumExp: logSumExp, into: o)
      }
      good.attention(
        queries: queries, keys: keys, values: values, layout: layout, mask: mask, scale: scale, softCap: softCap,
        logSumExp: logSumExp, into: o)
    }

    func softmax(_ x: TensorView, scale: Float, mask: TensorView?, diagonal: Int?, into y: MutableTensor) {
      guard fault == .softmaxWithoutMaximum else {
        return good.softmax(
          x, scale: scale, mask: mask, diagonal: fault == .softmaxIgnoresDiagonal ? nil : diagonal, into: y)
      }
      // Shifts one element by hand instead of the largest: rounds differently and overflows.
      good.softmax(x, scale: scale, mask: mask, diagonal: diagonal, into: y)
      for p in 0..<y.shape.count { y.base[y.strides[0] * (p / y.shape[1]) + p % y.shape[1]] *= 1 + 0x1p-10 }
    }

    func layerNorm(
      _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, bias: Tensor?, epsilon: Float,
      into y: MutableTensor
    ) {
      let residual = fault == .normForgetsResidual ? nil : residual
      let epsilon = fault == .normForgetsEpsilon ? 0 : epsilon
      good.layerNorm(x, residual: residual, sum: sum, weight: weight, bias: bias, epsilon: epsilon, into: y)
      if fault == .normSampleVariance, y.shape[1] > 1, bias == nil {
        let factor = (1 - 1 / Float(y.shape[1])).squareRoot()
        good.scale(y.view, by: factor, into: y)
      }
    }

    func rmsNorm(
      _ x: TensorView, residual: TensorView?, sum: MutableTensor?, weight: Tensor?, epsilon: Float,
      into y: MutableTensor
    ) {
      if fault == .rmsSubtractsMean {
        return good.layerNorm(x, residual: residual, sum: sum, weight: weight, bias: nil, epsilon: epsilon, into: y)
      }
      good.rmsNorm(x, residual: residual, sum: sum, weight: weight, epsilon: epsilon, into: y)
    }

    func meanPool(_ x: TensorView, segments: Segments, into y: MutableTensor) {
      good.meanPool(x, segments: segments, into: y)
      if fault == .poolsOneRowLess, segments.maximumLength > 1 { y.base[0] += x.base[0] }
    }

    func embedding(_ ids: [Int32], table: TensorView, accumulate: Bool, into y: MutableTensor) {
      good.embedding(ids, table: table, accumulate: accumulate && fault != .gatherOverwrites, into: y)
    }
  }

  /// The operations that the faults touch.
  private static let operations = [Quern.Operation](Set(FaultyBackend.Fault.allCases.map(\.operation)))

  @Test func everyMutantIsCaught() throws {
    let good = try MultithreadedBackend(options: BackendOptions(threads: 1))
    let mutants = FaultyBackend.Fault.allCases.map {
      Conformance.Subject(FaultyBackend(fault: $0, good: good), label: $0.rawValue)
    }
    let report = try Conformance.check(mutants, operations: Self.operations)
    for fault in FaultyBackend.Fault.allCases {
      #expect(report.failures.contains { $0.hasPrefix(fault.rawValue + " ") }, "\(fault.rawValue) survived")
    }
  }

  @Test(arguments: Mutant.all.indices) func everyFaultOfASuiteIsCaught(_ index: Int) throws {
    let mutant = Mutant.all[index]
    let good = try MultithreadedBackend(options: BackendOptions(threads: 1))
    #expect(try mutant.isCaught(on: Context(backend: good)), "\(mutant.operation.rawValue): \(mutant.fault) survived")
  }

  @Test func everyOperationHasAMutant() {
    let covered = Set(Mutant.all.map(\.operation)).union(Self.operations)
    let without = Set(Operation.allCases).subtracting(covered).subtracting([.pack])
    #expect(without.isEmpty, "operations without a mutant: \(without.map(\.rawValue).sorted())")
  }
}

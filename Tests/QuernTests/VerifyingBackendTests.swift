import Dispatch
import Quern
import QuernTesting
import Synchronization
import Testing

/// `QUERN_VERIFY`: what is right passes, and what is wrong is named.
@Suite struct VerifyingBackendTests {
  private static func multithreaded() throws -> MultithreadedBackend {
    try MultithreadedBackend(options: BackendOptions(threads: 2))
  }

  private func failure(_ body: () throws -> Void) -> VerificationFailure? {
    guard case .verification(let failure) = thrown(QuernError.self, by: body) else { return nil }
    return failure
  }

  @Test(arguments: Operation.allCases) func whatIsRightPasses(_ operation: Quern.Operation) throws {
    let backend = VerifyingBackend(try Self.multithreaded())
    let cases = try Conformance.run(backend, operations: [operation], fills: [.normal, .special])
    #expect(cases > 10 || operation == .pack)
    // It hands nothing on, which would not be compared.
    #expect(!Trace.fallbacks.keys.contains { $0.backend == VerifyingBackend.name })
  }

  /// What `blas` does not hand on; nothing where it is not built in.
  private static let operationsOfBLAS: Set<Quern.Operation> = {
    guard let blas = try? BLASBackend(), let handedOn = try? Coverage.handedOn(by: blas) else { return [] }
    return Set(Operation.allCases).subtracting(handedOn.keys)
  }()

  @Test(arguments: operationsOfBLAS) func whatBLASDoesPasses(_ operation: Quern.Operation) throws {
    _ = try Conformance.run(VerifyingBackend(try BLASBackend()), operations: [operation], fills: [.normal])
  }

  @Test(arguments: Operation.allCases.filter { $0 != .pack })
  func everyWrongResultIsNamed(_ operation: Quern.Operation) throws {
    let wrong = VerifyingBackend(SpoilingBackend(try Self.multithreaded(), only: operation))
    let failure = try #require(failure { _ = try Conformance.check(wrong, operations: [operation]) })
    #expect(failure.operation == operation && failure.backend == SpoilingBackend.name)
    #expect(failure.value != failure.expected && failure.index.count == failure.shape.count)
  }

  @Test(arguments: MutantTests.FaultyBackend.Fault.allCases)
  func mutantsAreCaught(_ fault: MutantTests.FaultyBackend.Fault) throws {
    let mutant = MutantTests.FaultyBackend(fault: fault, good: try Self.multithreaded())
    let failure = try #require(
      failure { _ = try Conformance.check(VerifyingBackend(mutant), operations: [fault.operation]) })
    #expect(failure.backend == "mutant" && failure.operation == fault.operation)
  }

  @Test func secondResultsAreCompared() throws {
    let context = Context(backend: VerifyingBackend(SpoilingBackend(try Self.multithreaded(), .second)))
    let x = try MutableTensor.normal(Shape(4, 8), seed: 1)
    let (sum, y) = (try MutableTensor(zeros: x.shape), try MutableTensor(zeros: x.shape))
    #expect(failure { try context.layerNorm(x.view, residual: x.view, sum: sum, into: y) }?.result == "sum")
    #expect(failure { try context.rmsNorm(x.view, residual: x.view, sum: sum, into: y) }?.result == "sum")
    let (heads, result) = (x.view.heads(2), y.heads(2))
    let logSumExp = try MutableTensor(zeros: Shape(4, 2))
    let layout = AttentionLayout(try Segments(single: 4))
    let attention = failure {
      try context.attention(
        queries: heads, keys: heads, values: heads, layout: layout, logSumExp: logSumExp, into: result)
    }
    #expect(attention?.result == "logSumExp" && attention?.index == [3, 1])
    var indices = [Int32](repeating: 0, count: 8)
    let values = try MutableTensor(zeros: Shape(4, 2))
    let topK = failure { try context.topK(x.view, values: values, indices: &indices) }
    #expect(topK?.operation == .topK && topK?.result == "the positions" && topK?.index == [3, 1])
  }

  /// Operands that the destination is, or that it already holds, are read before it is written.
  @Test func destinationsMayBeOperands() throws {
    func run(_ context: Context) throws {
      let shape = Shape(5, 5)
      let (x, w) = (try MutableTensor.normal(shape, seed: 1), try MutableTensor.normal(shape, seed: 2))
      let y = try MutableTensor.normal(shape, seed: 3)
      try context.linear(x.view, weights: context.pack(w.view), residual: y.view, into: y)
      try context.matmul(x.view, w.view, beta: 0.5, residual: y.view, into: y)
      try context.softmax(y.view, into: y)
      try context.rmsNorm(y.view, residual: x.view, sum: x, into: y)
      try context.embedding([4, 0, 1, 1, 2], table: w.view, accumulate: true, into: y)
      try context.scatterAdd(w.view, ids: [0, 0, 3, 1, 0], into: y)
      try context.select(x.view, mask: w.view, into: y)
      try context.cumulativeSum(y.view, into: y)
      let table = try RotaryTable(positions: 5, size: 4)
      try context.rope(y.view.heads(1), table: table, positions: [4, 3, 2, 1, 0], into: y.heads(1))
    }
    try run(Context(backend: VerifyingBackend(try Self.multithreaded())))
    let operations: [Quern.Operation] = [
      .linear, .matmul, .softmax, .rmsNorm, .embedding, .scatterAdd, .select, .cumulativeSum, .rope,
    ]
    for operation in operations {
      let wrong = SpoilingBackend(try Self.multithreaded(), only: operation)
      #expect(failure { try run(Context(backend: VerifyingBackend(wrong))) }?.operation == operation)
    }
  }

  @Test func theErrorSaysWhatWhereAndByHowMuch() throws {
    let wrong = VerifyingBackend(SpoilingBackend(try Self.multithreaded(), only: .linear))
    let context = Context(backend: wrong)
    let x = try Tensor([1, 2, 3, 4, 5, 6], shape: Shape(2, 3))
    let y = try MutableTensor(zeros: Shape(2, 2))
    let weights = try context.pack(Tensor([1, 0, 0, 0, 1, 0], shape: Shape(2, 3)).view)
    let error = try #require(
      thrown(QuernError.self) { try context.linear(x.view, weights: weights, into: y) })
    guard case .verification(let failure) = error else {
      Issue.record("\(error)")
      return
    }
    #expect(failure.index == [1, 1] && failure.shape == [2, 2] && failure.value == 6 && failure.expected == 5)
    #expect(failure.bound > 0 && failure.bound < 1e-5)
    #expect(failure.operands == "x f32 [2, 3], weights f32 [2, 3]")
    for part in ["linear: spoiling has 6.0 at [1, 1] of y [2, 2]", "the reference 5.0", "x f32 [2, 3]", "bound"] {
      #expect("\(error)".contains(part), "\(error)")
    }
    #expect(!"\(error)".contains("\n"))
    // The result is there, and what follows runs and is compared.
    #expect(y.elements == [1, 2, 4, 6])
    try context.scale(y.view, by: 2, into: y)
    #expect(y.elements == [2, 4, 8, 12])
    #expect(self.failure { try context.linear(x.view, weights: weights, into: y) }?.value == 6)
  }

  @Test func withoutAContextTheFirstFailureStays() throws {
    let wrong = VerifyingBackend(SpoilingBackend(try Self.multithreaded(), only: .scale))
    let y = try MutableTensor(zeros: Shape(2, 2))
    wrong.add(y.view, y.view, into: y)
    #expect(wrong.failure == nil)
    wrong.scale(y.view, by: 2, into: y)
    let first = wrong.failure
    wrong.scale(y.view, by: 3, into: y)
    #expect(first != nil && wrong.failure == first)
  }

  @Test func concurrentCallsThrowTheirOwnFailures() throws {
    let context = Context(backend: VerifyingBackend(SpoilingBackend(try Self.multithreaded(), only: .scale)))
    let misplaced = Mutex(0)
    DispatchQueue.concurrentPerform(iterations: 64) { index in
      let error = thrown(QuernError.self) {
        let y = try MutableTensor(zeros: Shape(9, 9))
        if index % 2 == 0 {
          try context.scale(y.view, by: 2, into: y)
        } else {
          try context.add(y.view, y.view, into: y)
        }
      }
      if (error != nil) != (index % 2 == 0) { misplaced.withLock { $0 += 1 } }
    }
    #expect(misplaced.withLock { $0 } == 0)
  }

  @Test func packedWeightsAreComparedWithWhatTheyWereMadeFrom() throws {
    let context = Context(backend: VerifyingBackend(SpoilingBackend(try Self.multithreaded(), only: .pack)))
    let weights = try MutableTensor.normal(Shape(3, 4), seed: 1)
    let failure = try #require(failure { _ = try context.pack(weights.view) })
    #expect(failure.operation == .pack && failure.index == [3] && failure.result.contains("output 2"))
  }

  @Test func everyKindOfPackingPasses() throws {
    for backend: any Backend in [ReferenceBackend(), try Self.multithreaded()] {
      let context = Context(backend: VerifyingBackend(backend))
      let weights = try MutableTensor.normal(Shape(35, 512), seed: 1)
      for type in DataType.allCases {
        let narrow = try MutableTensor(zeros: weights.shape, dataType: type)
        try context.copy(weights.view, into: narrow)
        _ = try context.pack(narrow.view)
        _ = try context.packInt8(narrow.view)
      }
      for format in QuantizedFormat.allCases {
        _ = try context.pack(QuantizedMatrix(quantizing: weights.view, as: format))
      }
      _ = try context.pack(BlockSparseMatrix(weights.view, blockOutputs: 8, blockInputs: 12, threshold: 2.5))
      let kernel = weights.view.reshaped(Shape(35, 512, 1, 1))
      for convolution in [Convolution(), Convolution(groups: 5), Convolution(isTransposed: true)] {
        _ = try context.packConvolution(
          convolution.groups == 1 ? kernel : weights.view.reshaped(Shape(35, 128, 2, 2)), convolution)
      }
    }
  }

  /// Packs where no other backend can read.
  private struct Opaque: Backend {
    static let name = "opaque"

    func pack(_ weights: TensorView) throws -> PackedMatrix {
      PackedMatrix(
        outputs: weights.shape[0], inputs: weights.shape[1], layout: .opaque(backend: Self.name),
        storage: try Tensor([0]))
    }

    func linear(
      _ x: TensorView, weights: PackedMatrix, epilogue: Epilogue, residual: TensorView?, into y: MutableTensor
    ) { for position in 0..<y.shape.count { y.base[position] = 7 } }
  }

  @Test func opaqueWeightsAreRefusedNotPassedOver() throws {
    let x = try MutableTensor.normal(Shape(2, 2), seed: 1)
    let y = try MutableTensor(zeros: x.shape)
    let verified = Context(backend: VerifyingBackend(Opaque()))
    let packed = try Context(backend: Opaque()).pack(x.view)
    for (operation, call) in [
      (Quern.Operation.pack, { _ = try verified.pack(x.view) }),
      (.linear, { try verified.linear(x.view, weights: packed, into: y) }),
    ] as [(Quern.Operation, () throws -> Void)] {
      guard case .foreignPacking(operation, _, "reference") = thrown(QuernError.self, by: call) else {
        Issue.record("\(operation) was not refused")
        continue
      }
    }
    #expect(y.elements == [7, 7, 7, 7], "the backend ran all the same")
  }

  @Test(arguments: ISA.available.filter { $0 == .avx512bf16 || $0 == .amx })
  func productsRoundedToBF16Pass(_ isa: ISA) throws {
    let options = BackendOptions(threads: 2, isa: isa, f32: .bf16)
    let backend = VerifyingBackend(try MultithreadedBackend(options: options))
    for operation in [Quern.Operation.linear, .matmul, .gatedLinear, .lowRankLinear, .expertLinear, .conv2d] {
      for (index, entry) in TestCases.all.enumerated() where entry.operation == operation {
        _ = try entry.workload(seed: UInt64(index)).result(on: Context(backend: backend))
      }
    }
  }

  @Test(arguments: ISA.available) func productsOfShortCodesPass(_ isa: ISA) throws {
    let options = BackendOptions(threads: 2, isa: isa, activationBits: .eight)
    let backend = VerifyingBackend(try MultithreadedBackend(options: options))
    for operation in [Quern.Operation.linear, .gatedLinear, .lowRankLinear, .expertLinear] {
      for (index, entry) in TestCases.all.enumerated() where entry.operation == operation {
        _ = try entry.workload(seed: UInt64(index)).result(on: Context(backend: backend))
      }
    }
  }

  @Test func theOptionsAndTheVariableWrap() throws {
    #expect(try Backends.make("reference", options: BackendOptions(verifies: false)) is ReferenceBackend)
    let verifying = try Backends.make("multithreaded", options: BackendOptions(threads: 2, verifies: true))
    let wrapped = try #require(verifying as? VerifyingBackend).wrapped
    #expect(wrapped is MultithreadedBackend && verifying.threads == 2 && verifying.isa == wrapped.isa)
    #expect(try Context("reference", options: BackendOptions(verifies: true)).backend is VerifyingBackend)
  }
}

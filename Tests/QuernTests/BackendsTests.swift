import Quern
import QuernTesting
import Synchronization
import Testing

/// Choosing a backend by name, adding one from outside, and saying what it left to another.
@Suite struct BackendsTests {
  /// As another package would write it: one operation of its own, which adds a mark to show that it ran.
  struct OneOperation: Backend {
    static let name = "one-operation"
    let mark: Float

    func scale(_ x: TensorView, by factor: Float, into y: MutableTensor) {
      for row in 0..<y.shape[0] {
        for column in 0..<y.shape[1] {
          y.base[row * y.strides[0] + column] = x.base[row * x.strides[0] + column] * factor + mark
        }
      }
    }
  }

  /// Leaves everything to its fallback.
  struct NoOperation: Backend {
    static let name = "no-operation"
  }

  @Test func theDefaultIsMultithreaded() throws {
    #expect(Backends.defaultName == "multithreaded")
    #expect(Array(Backends.names.prefix(3)) == ["reference", "blas", "multithreaded"])
    for name in ["reference", "multithreaded"] {
      #expect(Backends.unavailability(of: name) == nil)
      #expect(type(of: try Backends.make(name)).name == name)
    }
  }

  @Test(arguments: ["", "cuda", "Reference", "multi threaded"]) func anUnknownNameListsTheValidOnes(_ name: String)
    throws
  {
    let error = try #require(throws: QuernError.self) { _ = try Context(name) }
    guard case .unknownBackend(name, let valid) = error else {
      Issue.record("\(error)")
      return
    }
    #expect(Array(valid.prefix(3)) == ["reference", "blas", "multithreaded"])
    #expect("\(error)".contains("\"\(name)\"") && "\(error)".contains("reference, blas, multithreaded"))
    #expect(!"\(error)".contains("\n"))
    #expect(Backends.unavailability(of: name) == "no such backend")
  }

  @Test func anUnavailableBackendSaysWhyAndWhatThereIs() throws {
    Backends.register("not-here") { _ in
      throw QuernError.unavailableBackend(name: "not-here", reason: "the machine has no abacus", valid: [])
    }
    let error = try #require(throws: QuernError.self) { _ = try Backends.make("not-here") }
    guard case .unavailableBackend("not-here", "the machine has no abacus", let valid) = error else {
      Issue.record("\(error)")
      return
    }
    #expect(valid.contains("reference") && valid.contains("multithreaded") && !valid.contains("not-here"))
    #expect("\(error)".contains("the machine has no abacus") && !"\(error)".contains("\n"))
    #expect(Backends.unavailability(of: "not-here") == "the machine has no abacus")
  }

  @Test func aRegisteredBackendIsSelectedByName() throws {
    Backends.register(OneOperation.name) { _ in OneOperation(mark: 1) }
    #expect(Backends.names.contains(OneOperation.name))
    #expect(Backends.unavailability(of: OneOperation.name) == nil)
    let y = try MutableTensor(zeros: Shape(2, 3))
    let x = try Tensor([1, 2, 3, 4, 5, 6], shape: Shape(2, 3))
    try Context(OneOperation.name).scale(x.view, by: 2, into: y)
    #expect(y.elements == [3, 5, 7, 9, 11, 13])

    Backends.register(OneOperation.name) { _ in OneOperation(mark: -1) }
    #expect(Backends.names.filter { $0 == OneOperation.name }.count == 1, "a later one replaces an earlier one")
    try Context(OneOperation.name).scale(x.view, by: 2, into: y)
    #expect(y.elements == [1, 3, 5, 7, 9, 11])
  }

  private static let echoed = Mutex<[BackendOptions]>([])

  @Test func optionsReachTheMaker() throws {
    // Other tests may ask whether every registered backend can be made, with options of their own.
    Backends.register("echo") { options in
      Self.echoed.withLock { $0.append(options) }
      return NoOperation()
    }
    let options = BackendOptions(threads: 3, isa: .scalar)
    _ = try Backends.make("echo", options: options)
    #expect(Self.echoed.withLock { $0.contains(options) })
  }

  @Test func whatABackendLeavesOutIsHandedOnAndRecorded() throws {
    func count(_ operation: Quern.Operation, of backend: String) -> Int {
      Trace.fallbacks.filter { $0.key.backend == backend && $0.key.operation == operation }.values.reduce(0, +)
    }
    let context = Context(backend: OneOperation(mark: 0))
    let x = try Operands(seed: 1).make(Shape(4, 5))
    let (y, expected) = (try MutableTensor(zeros: x.shape), try MutableTensor(zeros: x.shape))
    let before = count(.softmax, of: OneOperation.name)
    try context.softmax(x.view, into: y)
    try context.softmax(x.view, into: y)
    try context.scale(x.view, by: 1, into: expected)
    #expect(count(.softmax, of: OneOperation.name) == before + 2)
    #expect(count(.scale, of: OneOperation.name) == 0, "its own operation is no fallback")
    #expect(Trace.fallbacks.keys.contains { $0.backend == OneOperation.name && $0.fallback == "reference" })
    try Context(backend: ReferenceBackend()).softmax(x.view, into: expected)
    #expect(y.elements == expected.elements)
  }

  @Test func aBackendOfNothingIsCompleteAndRecordsEverything() throws {
    #expect(NoOperation().isa == nil && NoOperation().threads == 1)
    let table = try Coverage.handedOn(by: NoOperation())
    for operation in Operation.allCases {
      // A fused form is composed, and what it is composed of is handed on.
      #expect(table[operation] == (operation == .gatedLinear ? nil : "reference"), "\(operation.rawValue)")
    }
  }

  @Test func theReferenceHandsNothingOn() throws { #expect(try Coverage.handedOn(by: ReferenceBackend()).isEmpty) }
}

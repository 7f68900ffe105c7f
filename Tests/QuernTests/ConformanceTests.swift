import CKernels
import Quern
import QuernTesting
import Testing

/// Every operation on every backend and every instruction set of this machine, against the reference.
@Suite struct ConformanceTests {
  /// Each instruction set on one thread and on three, and OpenBLAS where it is built in.
  private static func subjects() throws -> [Conformance.Subject] {
    var subjects = [Conformance.Subject(ReferenceBackend())]
    for isa in ISA.available {
      let rounding = Rounding.blocked(try KernelTable(isa).kernels.gemm_kc)
      for threads in [1, 3] {
        let backend = try MultithreadedBackend(options: BackendOptions(threads: threads, isa: isa))
        subjects.append(.init(backend, label: "multithreaded \(isa.rawValue) x\(threads)", rounding: rounding))
      }
    }
    if Backends.unavailability(of: "blas") == nil {
      for threads in [1, 2] {
        subjects.append(.init(try BLASBackend(options: BackendOptions(threads: threads)), label: "blas x\(threads)"))
      }
    }
    return subjects
  }

  @Test(arguments: Operation.allCases) func everyBackendMeetsTheBound(_ operation: Operation) throws {
    let report = try Conformance.check(try Self.subjects(), operations: [operation])
    #expect(report.cases > 10 || operation == .pack)
    #expect(report.failures.isEmpty, "\(report.failures.count) failures, first: \(report.failures.prefix(3))")
    let handedOn = report.fallbacks.filter { $0.operation == operation && $0.backend != BLASBackend.name }
    #expect(handedOn.isEmpty, "the reference and multithreaded do every operation themselves")
    if let worst = report.errorOverBound[operation.rawValue] {
      print("\(operation.rawValue): largest error over bound \(worst)")
    }
  }

  @Test func whatThisMachineCannotRunIsSaid() {
    // Absent instruction sets are reported, never counted as passed.
    for isa in ISA.allCases where !isa.isAvailable { print("not run on this machine: \(isa.rawValue)") }
    #expect(ISA.available.contains(.scalar))
  }
}

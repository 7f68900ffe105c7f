import CKernels
import Quern
import QuernTesting
import Testing

/// Every operation on every backend and every instruction set of this machine, against the reference.
@Suite struct ConformanceTests {
  @Test(arguments: ISA.available, [1, 3]) func multithreaded(_ isa: ISA, threads: Int) throws {
    let backend = try MultithreadedBackend(options: BackendOptions(threads: threads, isa: isa))
    let depth = try KernelTable(isa).kernels.gemm_kc
    let report = try Conformance.check(backend, rounding: .blocked(depth))
    #expect(report.cases > 500)
    #expect(report.failures.isEmpty, "\(report.failures.count) failures, first: \(report.failures.prefix(3))")
    #expect(report.fallbacks.isEmpty)
  }

  @Test(.enabled(if: Backends.unavailability(of: "blas") == nil, "this build has no OpenBLAS"), arguments: [1, 2])
  func blas(threads: Int) throws {
    let backend = try BLASBackend(options: BackendOptions(threads: threads))
    let report = try Conformance.check(backend)
    #expect(report.failures.isEmpty, "\(report.failures.count) failures, first: \(report.failures.prefix(3))")
  }

  @Test func theReferenceHandsNothingOn() throws {
    let report = try Conformance.check(ReferenceBackend())
    #expect(report.failures.isEmpty, "\(report.failures.prefix(3))")
    #expect(report.fallbacks.isEmpty)
  }

  @Test func whatThisMachineCannotRunIsSaid() {
    // Absent instruction sets are reported, never counted as passed.
    for isa in ISA.allCases where !isa.isAvailable { print("not run on this machine: \(isa.rawValue)") }
    #expect(ISA.available.contains(.scalar))
  }
}

import CKernels
import Quern
import QuernTesting

/// The conformance harness on every instruction set of this machine: for machines that have no checkout to test.
enum ConformanceRun {
  static func run(threads: Int?) throws {
    var failures: [String] = []
    for isa in ISA.allCases {
      guard isa.isAvailable else {
        print("\(isa.rawValue): not run: this machine or build lacks it")
        continue
      }
      let backend = try MultithreadedBackend(options: BackendOptions(threads: threads, isa: isa))
      let rounding = Rounding.blocked(try KernelTable(isa).kernels.gemm_kc)
      let report = try Conformance.check([.init(backend, label: isa.rawValue, rounding: rounding)])
      let worst = report.errorOverBound.max { $0.value < $1.value }
      print(
        "\(isa.rawValue): \(report.cases) cases, \(report.failures.count) failed, largest error over bound "
          + "\(worst.map { "\($0.value) (\($0.key))" } ?? "none")")
      failures += report.failures
    }
    for failure in failures.prefix(20) { StandardError.writeLine("benchmarks: \(failure)") }
    if !failures.isEmpty { throw Failure("\(failures.count) conformance cases failed") }
  }
}

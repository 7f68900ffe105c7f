import CKernels
import Foundation
import Quern
import QuernTesting
import Testing

@Suite struct RegistryTests {
  static let names = (0..<ck_kernel_count()).map { String(cString: ck_kernel_name($0)) }

  @Test func everyKernelHasAReferenceABoundAndACase() throws {
    // A workload carries all three, so a registry line that no workload names has none of them.
    var covered: Set<String> = []
    for entry in TestCases.all { covered.formUnion(try entry.workload(seed: 1).kernels) }
    #expect(Set(Self.names).subtracting(covered).isEmpty, "registry lines without a test case")
    #expect(covered.subtracting(Self.names).isEmpty, "test cases for kernels that do not exist")
  }

  @Test func everyKernelHasABenchmark() throws {
    var covered: Set<String> = []
    for entry in BenchmarkCases.all { covered.formUnion(entry.kernels) }
    #expect(Set(Self.names).subtracting(covered).isEmpty, "registry lines without a benchmark")
  }

  @Test func namesFollowTheGrammar() {
    #expect(Self.names.count > 10)
    for name in Self.names { #expect(name.wholeMatch(of: /(f32|bf16|f16|i8)(_[a-z0-9]+)+/) != nil, "\(name)") }
    #expect(Set(Self.names).count == Self.names.count)
  }

  @Test(arguments: ISA.allCases) func aTableIsWholeOrAbsent(_ isa: ISA) throws {
    guard isa.isAvailable else { return }
    let table = try KernelTable(isa).kernels
    #expect(table.isa == isa.code)
    #expect(table.gemm_mr > 0 && table.gemm_nr > 0 && table.attention_keys % table.gemm_nr == 0)
  }

  @Test func plainCProgramsCanUseTheKernels() throws {
    let output = try BuiltProgram("CSmoke").run()
    #expect(output.status == 0, "\(output.standardOutput)\(output.standardError)")
    for isa in ISA.available { #expect(output.standardOutput.contains("\(isa.rawValue) ok")) }
  }

  /// `make test-neon` and `make test-cpus` run the same program on processors that are not at hand.
  @Test func everyKernelAgreesWithNaiveLoopsInC() throws {
    let output = try BuiltProgram("CTests").run()
    #expect(output.status == 0, "\(output.standardOutput)\(output.standardError)")
    for isa in ISA.available { #expect(output.standardOutput.contains("\(isa.rawValue) ok")) }
  }

  @Test func aLimitIsWhatTheKernelsAreChosenBy() throws {
    for isa in ISA.available {
      let output = try BuiltProgram("CTests").run(
        ["--expect", isa.rawValue, "f32_add"], environment: ["QUERN_MAX_ISA": isa.rawValue])
      #expect(output.status == 0, "\(output.standardOutput)\(output.standardError)")
    }
  }
}

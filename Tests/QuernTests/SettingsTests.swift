import Quern
import Testing

/// The environment variables: what is taken, and what is refused by name.
@Suite struct SettingsTests {
  private func settings(_ variables: [String: String]) throws(QuernError) -> Settings {
    try Settings { variables[$0] }
  }

  /// The variable and the value that an error names.
  private func refused(_ variables: [String: String]) -> [String]? {
    do {
      _ = try settings(variables)
      return nil
    } catch .invalidSetting(let name, let value, let expected) {
      let line = "\(QuernError.invalidSetting(name: name, value: value, expected: expected))"
      #expect(line.hasPrefix("\(name)=\(value): expected ") && !line.contains("\n") && !expected.isEmpty)
      return [name, value]
    } catch {
      Issue.record("expected invalidSetting, got \(error)")
      return nil
    }
  }

  @Test func nothingIsSetByDefault() throws {
    let none = try settings([:])
    #expect(none.backend == nil && none.threads == nil && none.maximumISA == nil && !none.tracesFallbacks)
    #expect(none.f32 == nil && none.activationBits == nil && !none.verifies)
    let names = [
      "QUERN_BACKEND", "QUERN_NUM_THREADS", "OMP_NUM_THREADS", "QUERN_MAX_ISA", "QUERN_F32", "QUERN_CONV",
      "QUERN_ACTIVATION_BITS",
      "QUERN_TRACE", "QUERN_VERIFY",
    ]
    #expect(try settings(Dictionary(uniqueKeysWithValues: names.map { ($0, "") })) == none, "empty counts as unset")
  }

  @Test func goodValuesAreTaken() throws {
    let all = try settings([
      "QUERN_BACKEND": "blas", "QUERN_NUM_THREADS": "3", "OMP_NUM_THREADS": "7", "QUERN_MAX_ISA": "avx2",
      "QUERN_TRACE": "fallback", "QUERN_VERIFY": "1",
    ])
    #expect(all.verifies)
    #expect(all.backend == "blas" && all.threads == 3 && all.maximumISA == .avx2 && all.tracesFallbacks)
    for sums in ConvolutionSums.allCases { #expect(try settings(["QUERN_CONV": sums.rawValue]).convolution == sums) }
    for way in F32Products.allCases { #expect(try settings(["QUERN_F32": way.rawValue]).f32 == way) }
    for bits in ActivationBits.allCases {
      #expect(try settings(["QUERN_ACTIVATION_BITS": bits.rawValue]).activationBits == bits)
    }
    for isa in ISA.allCases { #expect(try settings(["QUERN_MAX_ISA": isa.rawValue]).maximumISA == isa) }
  }

  @Test func threadsAreOpenMPsWhereOursAreUnset() throws {
    #expect(try settings(["OMP_NUM_THREADS": "5"]).threads == 5)
    #expect(try settings(["QUERN_NUM_THREADS": "", "OMP_NUM_THREADS": "5"]).threads == 5)
    #expect(try settings(["OMP_NUM_THREADS": "4,2,1"]).threads == 4, "the first of a list, one for each nesting level")
    #expect(try settings(["QUERN_NUM_THREADS": "2", "OMP_NUM_THREADS": "many"]).threads == 2, "OpenMP's is not read")
  }

  @Test func threadsStayInRange() throws {
    let range = BackendOptions.threadRange
    for count in [range.lowerBound, range.upperBound] {
      #expect(try settings(["QUERN_NUM_THREADS": "\(count)"]).threads == count)
    }
    let bad = [
      "0", "-1", "\(range.upperBound + 1)", "many", "2.5", "1e1", " 4", "4 ", "4,2", "99999999999999999999", "０",
    ]
    for value in bad {
      #expect(refused(["QUERN_NUM_THREADS": value]) == ["QUERN_NUM_THREADS", value], "\(value)")
    }
    for value in ["0", ",4", "many", "257,1"] {
      #expect(refused(["OMP_NUM_THREADS": value]) == ["OMP_NUM_THREADS", value], "\(value)")
    }
    #expect(refused(["QUERN_NUM_THREADS": "0", "OMP_NUM_THREADS": "4"]) == ["QUERN_NUM_THREADS", "0"])
  }

  @Test func otherVariablesAreChecked() throws {
    for value in ["sse2", "AVX2", "avx512 ", "1"] {
      #expect(refused(["QUERN_MAX_ISA": value]) == ["QUERN_MAX_ISA", value])
    }
    for value in ["4", "8 bits"] {
      #expect(refused(["QUERN_ACTIVATION_BITS": value]) == ["QUERN_ACTIVATION_BITS", value])
    }
    for value in ["fft", "Winograd"] { #expect(refused(["QUERN_CONV": value]) == ["QUERN_CONV", value]) }
    for value in ["tf32", "Split", "1"] { #expect(refused(["QUERN_F32": value]) == ["QUERN_F32", value]) }
    for value in ["0", "true", "1 "] { #expect(refused(["QUERN_VERIFY": value]) == ["QUERN_VERIFY", value]) }
    for value in ["1", "Fallback", "all"] { #expect(refused(["QUERN_TRACE": value]) == ["QUERN_TRACE", value]) }
  }

  @Test(arguments: ["multithreaded", "blas"]) func optionsAreChecked(_ name: String) throws {
    if let reason = Backends.unavailability(of: name) { return print("not run: \(name): \(reason)") }
    for threads in [0, -3, 257, .max] {
      let error = try #require(throws: QuernError.self) {
        _ = try Backends.make(name, options: BackendOptions(threads: threads))
      }
      guard case .invalidSetting("threads", "\(threads)", _) = error else {
        Issue.record("\(error)")
        continue
      }
    }
    #expect(try Backends.make(name, options: BackendOptions(threads: 256)).threads == 256)
    for isa in ISA.allCases where !isa.isAvailable {
      let error = try #require(throws: QuernError.self) {
        _ = try Backends.make(name, options: BackendOptions(isa: isa))
      }
      #expect("\(error)".hasPrefix("isa=\(isa.rawValue): expected one this machine runs: "))
    }
  }
}

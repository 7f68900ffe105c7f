import PluggedBackend
import Quern
import QuernTesting
import Testing

@Suite struct PluggedBackendTests {
  @Test func itPassesTheHarness() throws {
    let report = try Conformance.check(try PluggedBackend())
    #expect(report.cases > 1000)
    #expect(report.failures.isEmpty, "\(report.failures.prefix(3))")
    // The harness also has 16-bit operands, which this backend leaves to its fallback; on f32 RMSNorm is its own.
    let handedOn = Set(try Coverage.handedOn(by: PluggedBackend()).keys)
    // A gated product is composed, and what it is composed of is handed on.
    #expect(handedOn == Set(Quern.Operation.allCases).subtracting([.rmsNorm, .gatedLinear]), "all others are recorded")
  }

  @Test func itIsSelectedByName() throws {
    PluggedBackend.register()
    #expect(Backends.names.contains("plugged"))
    let context = try Context("plugged", options: BackendOptions(threads: 1))
    #expect(context.backend is PluggedBackend)
    let x = try Tensor([3, 4], shape: [1, 2])
    let y = try MutableTensor(zeros: [1, 2])
    try context.rmsNorm(x.view, epsilon: 0, into: y)
    #expect(zip(y.elements, [3, 4]).allSatisfy { abs($0 - $1 / Float(12.5).squareRoot()) < 1e-6 })
  }
}

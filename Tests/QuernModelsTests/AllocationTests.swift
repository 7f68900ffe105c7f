import Foundation
import Quern
import QuernTesting
import Testing

/// A steady state allocates nothing: counted in a process of its own, whose allocator counts.
@Suite struct AllocationTests {
  /// What the probe prints.
  struct Counts: Decodable {
    let works: Bool
    let forward, tokens, linear, attention, softmax, layerNorm, matmul, meanPool, l2Normalize, structured: Int?
  }

  /// Why nothing can be counted here.
  static let isSanitized = ProcessInfo.processInfo.environment["QUERN_SANITIZE"] != nil

  @Test(.disabled(if: isSanitized, "a sanitizer has an allocator of its own"), arguments: ["multithreaded", "blas"])
  func aSteadyStateAllocatesNothing(_ backend: String) throws {
    if let reason = Backends.unavailability(of: backend) {
      return print("not run: allocations of \(backend): \(reason)")
    }
    let output = try BuiltProgram("AllocationProbe").run(
      [backend, "--decoders=" + Fixture.path("decoders")], environment: ["QUERN_NUM_THREADS": ""])
    try #require(output.status == 0, "\(output.standardError)")
    let counts = try JSONDecoder().decode(Counts.self, from: Data(output.standardOutput.utf8))
    guard counts.works else { return print("not run: allocations of \(backend): this C library cannot be counted") }
    let found = [
      counts.forward, counts.tokens, counts.linear, counts.attention, counts.softmax, counts.layerNorm, counts.matmul,
      counts.meanPool,
      counts.l2Normalize, counts.structured,
    ]
    let whole = "\(output.standardOutput): `AllocationProbe \(backend) --trace` shows where"
    #expect(found == [Int?](repeating: 0, count: found.count), "\(whole)")
  }
}

import CKernels
import Foundation
import Testing

/// The threading seam: every item once, whatever the cut, however many callers.
@Suite(.serialized) struct TeamTests {
  /// Counts visits to each item through the C interface.
  private func visits(count: Int, grain: Int, threads: Int) -> [Int32] {
    var seen = [Int32](repeating: 0, count: count)
    seen.withUnsafeMutableBufferPointer { buffer in
      ck_parallel(
        count, grain, threads,
        { context, first, last in
          let seen = UnsafeMutablePointer(mutating: context!.assumingMemoryBound(to: Int32.self))
          for item in first..<last { seen[item] += 1 }
        }, buffer.baseAddress)
    }
    return seen
  }

  @Test(arguments: [1, 2, 3, 4, 8]) func everyItemRunsOnce(_ threads: Int) {
    for (count, grain) in [(0, 1), (1, 1), (2, 1), (7, 3), (100, 7), (1000, 1), (5, 100)] {
      #expect(visits(count: count, grain: grain, threads: threads).allSatisfy { $0 == 1 }, "\(count) by \(grain)")
    }
  }

  @Test func manyCallersAtOnceAllGetTheirItems() async {
    await withTaskGroup(of: Bool.self) { group in
      for _ in 0..<64 {
        group.addTask { (0..<50).allSatisfy { _ in visits(count: 64, grain: 1, threads: 4).allSatisfy { $0 == 1 } } }
      }
      for await whole in group { #expect(whole) }
    }
  }

  @Test func allowedThreadsAreAtLeastOneAndAtMostTheCores() {
    #expect((1...ProcessInfo.processInfo.processorCount).contains(ck_allowed_threads()))
  }

  @Test func scratchIsAlignedAndKept() throws {
    let first = try #require(ck_scratch(Int(CK_SCRATCH_CALLER), 100))
    #expect(UInt(bitPattern: first) % 64 == 0)
    #expect(ck_scratch(Int(CK_SCRATCH_CALLER), 50) == first, "a smaller request reuses the memory")
    #expect(ck_scratch(Int(CK_SCRATCH_CALLER), Int.max / 8) == nil, "memory that cannot be had is refused")
  }
}

import CKernels
import CPeak
import Foundation
import Quern

/// The machine as this run finds it: what it is, and how fast it can be at best.
struct Machine: CustomStringConvertible {
  let processor: String
  let isa: ISA
  let threads: Int
  /// Floating-point operations a second when nothing leaves the registers.
  let peakFlops: Double
  /// Bytes a second read from memory.
  let readBytes: Double

  var description: String {
    String(
      format: "%@, %@, %d thread%@; FMA peak %.0f GFLOP/s, read bandwidth %.1f GB/s", processor, isa.rawValue, threads,
      threads == 1 ? "" : "s", peakFlops / 1e9, readBytes / 1e9)
  }

  /// The share of the nearer roof that this much work in this time reaches.
  func peakFraction(flops: Double, bytes: Double, seconds: Double) -> Double {
    max(flops / seconds / peakFlops, bytes / seconds / readBytes)
  }

  static func measure(threads: Int, isa: ISA) throws -> Machine {
    let width = width(of: isa)
    return Machine(
      processor: processorName(), isa: isa, threads: threads, peakFlops: measurePeak(width, threads),
      readBytes: try measureRead(width, threads))
  }

  private static func width(of isa: ISA) -> cpeak_width {
    switch isa {
    case .scalar, .neon: CPEAK_BASELINE
    case .avx2: CPEAK_AVX2
    case .avx512: CPEAK_AVX512
    }
  }

  /// What the pieces of one measurement share.
  private struct Job {
    var width: cpeak_width
    var floats: UnsafePointer<Float>?
  }

  private static let iterations = 1 << 14
  private static let pieceFloats = 1 << 18

  /// The best of many short trials: whatever else runs can only slow one down. Small pieces let a thread that starts late
  /// do its share.
  private static func measurePeak(_ width: cpeak_width, _ threads: Int) -> Double {
    let pieces = 64 * threads
    let best = bestTime(of: Job(width: width), pieces: pieces, threads: threads, trials: 40) { context, first, last in
      let job = context!.assumingMemoryBound(to: Job.self).pointee
      for _ in first..<last { Machine.keep(cpeak_fma(job.width, Machine.iterations)) }
    }
    return Double(pieces * iterations * cpeak_fma_flops(width)) / best
  }

  private static func measureRead(_ width: cpeak_width, _ threads: Int) throws -> Double {
    // Well beyond the last-level cache, of which a virtual machine may tell less than there is.
    let bytes = max(256 << 20, 4 * ck_cache_bytes(3)), pieces = bytes / 4 / pieceFloats
    let memory = try MutableTensor(zeros: Shape(pieces * pieceFloats))
    let job = Job(width: width, floats: UnsafePointer(memory.base))
    let best = bestTime(of: job, pieces: pieces, threads: threads, trials: 10) { context, first, last in
      let job = context!.assumingMemoryBound(to: Job.self).pointee
      for piece in first..<last {
        Machine.keep(cpeak_read(job.width, job.floats! + piece * Machine.pieceFloats, Machine.pieceFloats))
      }
    }
    return Double(pieces * pieceFloats * 4) / withExtendedLifetime(memory) { best }
  }

  private static func bestTime(of job: Job, pieces: Int, threads: Int, trials: Int, _ task: ck_task) -> Double {
    withUnsafePointer(to: job) { job in
      (0..<trials).map { _ in Stopwatch.time { ck_parallel(pieces, 1, threads, task, job) } }.min() ?? .infinity
    }
  }

  /// A use of a result that the compiler must take for real.
  @inline(never) private static func keep(_ value: Float) {}

  private static func processorName() -> String {
    let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    for line in text.split(separator: "\n") where line.hasPrefix("model name") {
      if let colon = line.firstIndex(of: ":") { return line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces) }
    }
    return "unnamed processor"
  }
}

/// Monotonic time.
enum Stopwatch {
  static func now() -> Double { Double(DispatchTime.now().uptimeNanoseconds) * 1e-9 }

  static func time(_ body: () throws -> Void) rethrows -> Double {
    let start = now()
    try body()
    return now() - start
  }

  /// Processor seconds that all threads of this process have used.
  static func processSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}

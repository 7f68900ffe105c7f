import CKernels
import CPeak
import Foundation
import Quern

/// The machine as this run finds it: what it is, and how fast it can be at best.
final class Machine: CustomStringConvertible {
  let processor: String
  let isa: ISA
  let threads: Int
  /// Floating-point operations a second when nothing leaves the registers.
  private(set) var peakFlops = 0.0
  /// Bytes a second read from memory.
  private(set) var readBytes = 0.0

  private let width: cpeak_width
  private let memory: MutableTensor

  private static let iterations = 1 << 14
  private static let pieceFloats = 1 << 18

  init(threads: Int, isa: ISA) throws {
    (self.threads, self.isa, processor) = (threads, isa, Self.processorName())
    width =
      switch isa {
      case .scalar, .neon, .neondot: CPEAK_BASELINE
      case .avx2, .avxvnni: CPEAK_AVX2
      case .avx512, .avx512vnni, .avx512bf16, .amx: CPEAK_AVX512
      }
    // Well beyond the last-level cache that a few cores get, whatever a virtual machine tells of it.
    let floats = (256 << 20) / MemoryLayout<Float>.stride
    memory = try MutableTensor(zeros: Shape(floats / Self.pieceFloats * Self.pieceFloats))
    measure(trials: 40)
  }

  var description: String {
    String(
      format: "%@, %@, %d thread%@; FMA peak %.0f GFLOP/s, read bandwidth %.1f GB/s", processor, isa.rawValue, threads,
      threads == 1 ? "" : "s", peakFlops / 1e9, readBytes / 1e9)
  }

  /// The share of the nearer roof that this much work in this time reaches.
  func peakFraction(flops: Double, bytes: Double, seconds: Double) -> Double {
    max(flops / seconds / peakFlops, bytes / seconds / readBytes)
  }

  /// Raises the peaks to what these trials show. The best counts, as whatever else runs can only slow one down; trials
  /// all along a run keep a busy moment at its start from passing for a slow machine.
  func measure(trials: Int) {
    // Small pieces, so that a thread that starts late does its share.
    let pieces = 64 * threads
    let flops = Double(pieces * Self.iterations * cpeak_fma_flops(width))
    for _ in 0..<trials {
      let arithmetic = time(pieces) { job, first, last in
        for _ in first..<last { Machine.keep(cpeak_fma(job.width, Machine.iterations)) }
      }
      peakFlops = max(peakFlops, flops / arithmetic)
      readBytes = max(readBytes, readOnce())
    }
  }

  /// Bytes a second of one reading from memory, as other guests of the machine leave it just now.
  func readOnce() -> Double {
    let reading = time(memory.shape.count / Self.pieceFloats) { job, first, last in
      for piece in first..<last {
        Machine.keep(cpeak_read(job.width, job.floats + piece * Machine.pieceFloats, Machine.pieceFloats))
      }
    }
    return Double(memory.shape.count * MemoryLayout<Float>.stride) / reading
  }

  /// Bytes a second read and written by one copy between arrays in memory; with `streams` stores go past the caches.
  func copyBytes(streams: Bool) -> Double {
    let pieces = memory.shape.count / Self.pieceFloats / 2
    let seconds = time(pieces) { job, first, last in
      for piece in first..<last {
        let to = job.floats + piece * Machine.pieceFloats
        cpeak_copy(job.width, to, to + pieces * Machine.pieceFloats, Machine.pieceFloats, streams ? 1 : 0)
      }
    }
    return Double(2 * pieces * Self.pieceFloats * MemoryLayout<Float>.stride) / seconds
  }

  /// What the pieces of one trial share.
  private struct Job {
    let width: cpeak_width
    let floats: UnsafeMutablePointer<Float>
    let task: (Job, Int, Int) -> Void
  }

  private func time(_ pieces: Int, _ task: @escaping (Job, Int, Int) -> Void) -> Double {
    withUnsafePointer(to: Job(width: width, floats: memory.base, task: task)) { job in
      Stopwatch.time {
        ck_parallel(
          pieces, 1, threads,
          { context, first, last in
            let job = context!.assumingMemoryBound(to: Job.self).pointee
            job.task(job, first, last)
          }, job)
      }
    }
  }

  /// A use of a result that the compiler must take for real.
  @inline(never) private static func keep(_ value: Float) {}

  private static func processorName() -> String {
    let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    for line in text.split(separator: "\n") where line.hasPrefix("model name") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      return line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
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

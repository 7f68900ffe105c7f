import ArgumentParser
import Foundation
import Quern
import QuernTesting

/// The command line.
struct BenchmarksCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "benchmarks",
    abstract: "Times every operation on every backend, beside OpenBLAS called directly.",
    discussion: """
      Each case is checked against the reference before it is timed: whole, or by a seeded sample of rows where the \
      reference would take long. Backends then take turns within one run, so that what else the machine does meets \
      them all. Figures are medians with the 10th and 90th percentile.

      The share of the peak is that of whichever roof bounds the case: the larger of flops/s over the FMA rate and \
      bytes/s over the read bandwidth, both the best measured at the start and between cases, with the same threads \
      and instruction set. \
      Operands that stay in cache can exceed 100%, as the bandwidth is that of memory.

      The OpenBLAS column runs cblas_sgemm with OpenBLAS's own threads on the same operands, without the epilogue; \
      a batch is a loop of calls.

      A backend runs a case where one call takes less than --seconds; the reference is left out of larger ones.
      """)

  enum Format: String, CaseIterable, ExpressibleByArgument { case table, json, csv, markdown }

  @Option(help: ArgumentHelp("Only cases whose operation or name contains this text; repeatable.", valueName: "text"))
  var filter: [String] = []

  @Option(help: ArgumentHelp("Only this backend; repeatable. All by default.", valueName: "name"))
  var backend: [String] = []

  @Option(help: ArgumentHelp("Threads; QUERN_NUM_THREADS, else the cores allowed, by default.", valueName: "n"))
  var threads: Int?

  @Option(help: ArgumentHelp("Instruction set of the kernels; this machine's best by default.", valueName: "name"))
  var isa: ISA?

  @Option(help: "How results are written to standard output.")
  var format = Format.table

  @Option(help: ArgumentHelp("Time spent on measuring one case, all backends together.", valueName: "s"))
  var seconds = 0.25

  @Flag(help: "Print the cases and stop.")
  var list = false

  @Flag(help: "The matrix products that bars are set for, instead of the cases of every operation.")
  var products = false

  @Flag(help: "Check every operation on every instruction set of this machine, instead of timing.")
  var conformance = false

  @Flag(help: "Time 64 tasks that call at once against the same calls in turn, instead of the cases.")
  var concurrency = false

  @Flag(
    help: "Time prompts and decoding of whole decoders with random weights, instead of the cases; --filter names some.")
  var generation = false

  @Flag(help: "Time guided steps of Stable Diffusion 1.5's U-Net with random weights; --filter names f32 or bf16.")
  var unet = false

  @Flag(help: "Time pictures of Stable Diffusion 1.5's autoencoder with random weights; --filter names f32 or bf16.")
  var autoencoder = false

  @Flag(help: ArgumentHelp("Run cases as standard input asks for them, for `make peers`.", visibility: .hidden))
  var serve = false

  func validate() throws {
    guard seconds > 0, seconds.isFinite else { throw ValidationError("--seconds takes a number above 0") }
  }

  func run() throws {
    if generation || unet || autoencoder { return try runModels() }
    let cases = try chosenCases()
    if list {
      for entry in cases { print("\(entry.operation.rawValue)\t\(entry.name)") }
      return
    }
    if conformance { return try ConformanceRun.run(threads: threads) }
    let options = BackendOptions(threads: threads, isa: isa)
    let backends = try chosenBackends(options)
    if serve {
      guard let backend = backends.last else { throw Failure("no backend is available") }
      return try Serve(cases: cases, backend: backend, options: options).run()
    }
    try ReleaseBuild.takeOverFromDebug()
    if concurrency {
      return try Concurrency.run(backends.filter { !($0 is ReferenceBackend) }, asJSON: format == .json)
    }

    let defaults = try MultithreadedBackend(options: options)
    let machine = try Machine(threads: defaults.threads, isa: defaults.isa ?? .scalar)
    StandardError.writeLine("benchmarks: \(machine)")
    var runner = Runner(machine: machine, backends: backends, seconds: seconds)
    try runner.run(cases)

    switch format {
    case .table: print(Table(runner.measurements, omissions: runner.omissions).text, terminator: "")
    case .markdown: print(Table(runner.measurements, omissions: runner.omissions).markdown, terminator: "")
    case .json: print(Records.json(runner.measurements))
    case .csv: print(Records.csv(runner.measurements), terminator: "")
    }
    for failure in runner.failures { StandardError.writeLine("benchmarks: wrong result: \(failure)") }
    if !runner.failures.isEmpty { throw ExitCode(1) }
  }

  private func runModels() throws {
    try ReleaseBuild.takeOverFromDebug()
    let chosen = try Backends.make(
      backend.last ?? Backends.defaultName, options: BackendOptions(threads: threads, isa: isa))
    let machine = try Machine(threads: chosen.threads, isa: isa ?? MultithreadedBackend().isa ?? .scalar)
    StandardError.writeLine("benchmarks: \(machine)")
    let (context, asJSON) = (Context(backend: chosen), format == .json)
    for (isWanted, part) in [(unet, DiffusionPart.unet), (autoencoder, .autoencoder)] where isWanted {
      try part.run(context: context, machine: machine, filter: filter, asJSON: asJSON)
    }
    guard generation else { return }
    try Generation.run(context: context, machine: machine, filter: filter, asJSON: asJSON)
  }

  private func chosenCases() throws -> [BenchmarkCases.Entry] {
    let cases = (products ? BenchmarkCases.products : BenchmarkCases.all).filter { entry in
      filter.isEmpty
        || filter.contains { text in
          "\(entry.operation.rawValue) \(entry.name)".range(of: text, options: .caseInsensitive) != nil
        }
    }
    if cases.isEmpty { throw Failure("no case matches --filter \(filter.joined(separator: ", ")); --list prints them") }
    return cases
  }

  /// The backends named, else every one that can be made here.
  private func chosenBackends(_ options: BackendOptions) throws -> [any Backend] {
    if !backend.isEmpty {
      var seen: Set<String> = []
      return try backend.filter { seen.insert($0).inserted }.map { try Backends.make($0, options: options) }
    }
    return try Backends.names.compactMap { name in
      do {
        return try Backends.make(name, options: options)
      } catch let error as QuernError {
        guard case .unavailableBackend(_, let reason, _) = error else { throw error }
        StandardError.writeLine("benchmarks: not run: \(name): \(reason)")
        return nil
      }
    }
  }
}

extension ISA: ExpressibleByArgument {}

/// An error that says what went wrong in one line.
struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

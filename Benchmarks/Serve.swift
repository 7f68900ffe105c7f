import Foundation
import Quern
import QuernModels
import QuernTesting

/// Runs cases as another program asks for them, so that it can measure a library of its own in turn with this one.
///
/// One JSON object a line, in and out; nothing is made before it is asked for, and only the last case is kept.
///
/// | Request | Answer |
/// |---|---|
/// | `{"list": true}` | `backend`, `isa`, `threads`, and `cases`, each with `op` and `case` |
/// | `{"op": O, "case": C, "export": FILE}` | writes operands and result as safetensors; `flops` and `bytes` of a call |
/// | `{"op": O, "case": C, "seconds": S}` | runs it that long; `seconds` a call, a list |
/// | the last two with `"peer": true` | the same of OpenBLAS on the operands of a product, called directly |
/// | `{"peak": true}` | `flops` a second and `bytes` read from memory a second, the best of this process so far |
/// | `{"copy": true}` | `plain` and `streamed`: bytes a second of a copy in memory, read and written |
///
/// A request that fails is answered by `{"error": "why"}`.
final class Serve {
  private struct Request: Decodable {
    var list: Bool?
    var copy: Bool?
    var peak: Bool?
    var peer: Bool?
    var op: String?
    var `case`: String?
    var seconds: Double?
    var export: String?
  }

  private struct Case: Encodable {
    let op, `case`: String
  }

  private struct Answer: Encodable {
    var error, backend, isa: String?
    var threads: Int?
    var cases: [Case]?
    var flops, bytes: Double?
    var seconds: [Double]?
    var plain, streamed: Double?
  }

  /// The case that is ready to run.
  private struct Loaded {
    let operation, name: String
    let workload: Workload
    let call: () throws -> Void
    /// Seconds of the fastest call so far, of the backend and of the peer.
    var expected: Double
    var expectedOfPeer = Double.infinity
    var peer: Peers.Call?
  }

  private let cases: [BenchmarkCases.Entry]
  private let context: Context
  private let backend: any Backend
  private let isa: ISA
  private var loaded: Loaded?
  private var machine: Machine?

  init(cases: [BenchmarkCases.Entry], backend: any Backend, options: BackendOptions) throws {
    (self.cases, self.backend, context) = (cases, backend, Context(backend: backend))
    isa = try backend.isa ?? MultithreadedBackend(options: options).isa ?? .scalar
  }

  func run() throws {
    let (decoder, encoder) = (JSONDecoder(), JSONEncoder())
    while let line = readLine() {
      var answer: Answer
      do {
        answer = try respond(to: decoder.decode(Request.self, from: Data(line.utf8)))
      } catch {
        answer = Answer(error: "\(error)")
      }
      FileHandle.standardOutput.write(try encoder.encode(answer) + Data("\n".utf8))
    }
  }

  private func respond(to request: Request) throws -> Answer {
    if request.list == true {
      return Answer(
        backend: type(of: backend).name, isa: isa.rawValue, threads: backend.threads,
        cases: cases.map { Case(op: $0.operation.rawValue, case: $0.name) })
    }
    if request.peak == true {
      let machine = try measuredMachine()
      machine.measure(trials: 4)
      return Answer(flops: machine.peakFlops, bytes: machine.readBytes)
    }
    if request.copy == true {
      let machine = try measuredMachine()
      return Answer(plain: machine.copyBytes(streams: false), streamed: machine.copyBytes(streams: true))
    }
    guard let operation = request.op, let name = request.case else {
      throw Failure("a request has list, copy, or op and case")
    }
    var current = try load(operation, name)
    defer { loaded = current }
    if request.peer == true { return try respond(to: request, peerOf: &current) }
    var answer = Answer()
    if let path = request.export {
      try Safetensors.write(path: path, tensors: try current.workload.exported(on: context).map(Self.tensor))
      (answer.flops, answer.bytes) = (current.workload.flops, current.workload.bytes)
    }
    if let seconds = request.seconds {
      #if DEBUG
        throw Failure("a debug build measures nothing")
      #else
        answer.seconds = try Self.time(current.call, expected: &current.expected, seconds: seconds)
      #endif
    }
    return answer
  }

  private func respond(to request: Request, peerOf current: inout Loaded) throws -> Answer {
    if current.peer == nil {
      current.peer = try Peers.openBLASCall(current.workload, threads: backend.threads, usesVectors: true)
    }
    guard let peer = current.peer else {
      throw Failure("OpenBLAS has nothing for \(current.operation) \(current.name)")
    }
    var answer = Answer()
    peer.enter()
    defer { peer.leave() }
    if let path = request.export {
      peer.run()
      let c = peer.product.c
      let values = Array(UnsafeBufferPointer(start: c.base, count: c.shape.count))
      try Safetensors.write(
        path: path, tensors: [.init(name: "result", shape: c.shape.array, values: .float32(values))])
    }
    if let seconds = request.seconds {
      #if DEBUG
        throw Failure("a debug build measures nothing")
      #else
        answer.seconds = Self.time(peer.run, expected: &current.expectedOfPeer, seconds: seconds)
      #endif
    }
    return answer
  }

  private func measuredMachine() throws -> Machine {
    let machine = try machine ?? Machine(threads: backend.threads, isa: isa)
    self.machine = machine
    return machine
  }

  private func load(_ operation: String, _ name: String) throws -> Loaded {
    if let loaded, loaded.operation == operation, loaded.name == name { return loaded }
    loaded = nil  // its memory goes before the next one's is taken
    guard let entry = cases.first(where: { $0.operation.rawValue == operation && $0.name == name }) else {
      throw Failure("there is no case \(operation) \(name)")
    }
    let workload = try entry.workload()
    let call = try workload.ready(on: context)
    return Loaded(
      operation: operation, name: name, workload: workload, call: call, expected: try Stopwatch.time(call))
  }

  /// The other side has had the caches and the cores since the last turn, so some calls go first that do not count.
  private static func time(
    _ call: () throws -> Void, expected: inout Double, seconds: Double
  ) rethrows -> [Double] {
    var samples: [Double] = []
    let start = Stopwatch.now()
    repeat {
      expected = min(expected, try Stopwatch.time(call))
    } while Stopwatch.now() - start < seconds / 10
    let end = Stopwatch.now() + seconds
    repeat {
      // Very short calls are timed by the dozen, as reading the clock takes time as well.
      let calls = max(1, Int(5e-5 / expected))
      let each = try Stopwatch.time { for _ in 0..<calls { try call() } } / Double(calls)
      expected = min(expected, each)
      samples.append(each)
    } while Stopwatch.now() < end
    return samples
  }

  private static func tensor(_ exported: ExportedTensor) -> Safetensors.NewTensor {
    switch exported.values {
    case .float32(let values): .init(name: exported.name, shape: exported.shape, values: .float32(values))
    case .int64(let values): .init(name: exported.name, shape: exported.shape, values: .int64(values))
    }
  }
}

// Counts what calls take from the system in their steady state, and prints it as one JSON object. It is a program of its
// own since a count of a process's allocations or threads means nothing beside other tests.
//
//     AllocationProbe BACKEND [--trace] [--decoders=DIR] [--unets=DIR] [--inpainting=DIR]   heap allocations; --trace writes the
//                                         stack of each to standard error, the first two have a model in each folder
//     AllocationProbe BACKEND --threads   operating-system threads while 64 tasks call at once
import CAllocationCounter
import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting

/// What calls allocate once they are warm.
struct Probe {
  static let warmups = 20
  static let calls = 50
  static let rounds = 5

  let context: Context
  let traces: Bool

  /// Allocations of ``calls`` calls, by every thread, in the first of up to ``rounds`` rounds that has none, else in the last.
  /// On a loaded machine a worker may come late to its first share of an operation, and so to the scratch it then keeps.
  func count(_ call: () throws -> Void) throws -> Int64 {
    for _ in 0..<Self.warmups { try call() }
    var found: Int64 = 0
    for _ in 0..<Self.rounds {
      allocation_counter_start(traces ? 1 : 0)
      for _ in 0..<Self.calls { try call() }
      found = allocation_counter_stop()
      if found == 0 { break }
    }
    return found
  }

  /// A forward pass of a small encoder with random weights.
  func forward() throws -> Int64 {
    let model = try EncoderModel(TinyBert.configuration, source: TinyBert.source(), file: "random", context: context)
    // Ragged, and enough tokens for products and heads to be shared out over threads.
    let sequences: [[Int32]] = [40, 3, 64, 17].map { count in (0..<count).map { $0 % 90 } }
    let batch = try EncoderBatch(sequences)
    let workspace = try EncoderModel.Workspace()
    return try count { _ = try model.forward(batch, workspace: workspace) }
  }

  /// Tokens of decoders behind those that their caches hold.
  func tokens(_ folder: String) throws -> Int64 {
    try ["llama3", "gemma2", "qwen3-moe", "deepseek-v3", "gpt-oss"].reduce(0) { sum, name in
      let model = try DecoderModel(path: "\(folder)/\(name)", context: context)
      let (cache, workspace) = (try model.makeCache(sequences: 2, capacity: 32), try DecoderModel.Workspace())
      _ = try model.forward(
        [3, 4, 5, 6, 7], segments: Segments(lengths: [3, 2]), cache: cache, workspace: workspace)
      let (ids, rows): ([Int32], [Int32]) = ([8, 9], [0, 1])
      let segments = try Segments(lengths: [1, 1])
      return try sum
        + count {
          cache.truncate(0, to: 3)
          cache.truncate(1, to: 2)
          let hidden = try model.forward(ids, segments: segments, cache: cache, workspace: workspace)
          _ = try model.logits(hidden, rows: rows, workspace: workspace)
        }
    }
  }

  /// Steps of U-Nets whose conditions have been computed.
  func steps(_ folder: String) throws -> Int64 {
    try ["sd1", "sdxl", "lcm", "classes"].reduce(0) { sum, name in
      let model = try UNet2DConditionModel(directory: "\(folder)/\(name)", context: context)
      let inputs = try Safetensors(path: "\(folder)/\(name)/inputs.safetensors")
      func tensor(_ name: String) throws -> Tensor? {
        guard inputs.contains(name) else { return nil }
        return try Tensor(inputs.readFloat32(name), shape: Shape(checking: inputs.info(name).shape))
      }
      let conditioning = try model.conditioning(
        prompt: tensor("encoder_hidden_states")?.view, textEmbeds: tensor("text_embeds")?.view,
        timeIDs: tensor("time_ids")?.view, classes: inputs.contains("class_labels") ? .indices([3, 1]) : nil, images: 2)
      guard let sample = try tensor("sample") else { return sum }
      var shape = sample.shape
      shape[1] = model.configuration.outChannels
      let (y, workspace) = (try MutableTensor(zeros: shape), try UNetWorkspace())
      var timestep = 999.0
      return try sum
        + count {
          try model.forward(
            sample.view, timestep: timestep, conditioning: conditioning, workspace: workspace, into: y)
          timestep -= 1
        }
    }
  }

  /// Steps of an inpainting pipeline, with what it hands its caller after each.
  func inpainting(_ directory: String) throws -> Int64 {
    let pipeline = try DiffusionPipeline(directory: directory, context: context)
    let workspace = try DiffusionPipeline.Workspace()
    var request = DiffusionRequest(prompt: "a red circle")
    let picture = try RGBImage(width: 16, height: 16, bytes: (0..<768).map { UInt8($0 / 3) })
    (request.initialImage, request.mask) = (picture, picture)
    request.steps = Self.warmups + Self.calls
    var found: Int64 = 0
    for _ in 0..<Self.rounds {
      _ = try pipeline.generate(request, workspace: workspace) { step in
        if step.index + 1 == Self.warmups { allocation_counter_start(traces ? 1 : 0) }
        if step.index + 1 == step.count { found = allocation_counter_stop() }
        return .proceed
      }
      if found == 0 { break }
    }
    return found
  }

  /// Sparse, grouped and routed products, top-k, scatter-add and random numbers, added up.
  func structured() throws -> Int64 {
    let sparse = BlockSparseShape(m: 64, n: 200, k: 96, block: (16, 16), finishes: true)
    return try operation(.blockSparse(sparse, operands: Operands(seed: 8)))
      + operation(.grouped(3, m: 64, n: 40, k: 96, finishes: true, operands: Operands(seed: 9)))
      + operation(.lowRank(m: 64, n: 200, k: 96, rank: 8, finishes: true, operands: Operands(seed: 10)))
      + operation(.lowRank(m: 64, n: 200, k: 96, rank: 8, hasBase: false, operands: Operands(seed: 10)))
      + operation(.expert([40, 0, 24], n: 200, k: 96, finishes: true, operands: Operands(seed: 11)))
      + operation(.topK(RowShape(80, 3000), k: 8, onlyValues: true, operands: Operands(seed: 12)))
      + operation(.scatterAdd(RowShape(80, 3000), destinations: 9, weighted: true, operands: Operands(seed: 13)))
      + operation(.random(.normal, RowShape(80, 3000), operands: Operands(seed: 14)))
  }

  /// One operation at a shape of its own.
  func operation(_ workload: Workload) throws -> Int64 {
    let call = try workload.ready(on: context)
    return try count { try call() }
  }
}

/// An encoder of two layers.
enum TinyBert {
  static let configuration = EncoderConfiguration(
    vocabSize: 90, hiddenSize: 96, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 200,
    maxPositionEmbeddings: 64)

  /// Seeded weights under their published names.
  static func source() throws -> any TensorSource {
    let (width, inner) = (configuration.hiddenSize, configuration.intermediateSize)
    var shapes: [(String, [Int])] = [
      ("embeddings.word_embeddings.weight", [configuration.vocabSize, width]),
      ("embeddings.position_embeddings.weight", [configuration.maxPositionEmbeddings, width]),
      ("embeddings.token_type_embeddings.weight", [configuration.typeVocabSize, width]),
    ]
    func add(_ name: String, _ weight: [Int]) { shapes += [("\(name).weight", weight), ("\(name).bias", [weight[0]])] }
    add("embeddings.LayerNorm", [width])
    for layer in 0..<configuration.numHiddenLayers {
      let name = "encoder.layer.\(layer)"
      for part in ["query", "key", "value"] { add("\(name).attention.self.\(part)", [width, width]) }
      add("\(name).attention.output.dense", [width, width])
      add("\(name).attention.output.LayerNorm", [width])
      add("\(name).intermediate.dense", [inner, width])
      add("\(name).output.dense", [width, inner])
      add("\(name).output.LayerNorm", [width])
    }
    var random = SeededRandom()
    let tensors = shapes.map { name, shape in
      Safetensors.NewTensor(
        name: name, shape: shape, values: .float32((0..<shape.reduce(1, *)).map { _ in 0.1 * random.normal() }))
    }
    let path = NSTemporaryDirectory() + "/quern-probe-" + UUID().uuidString + ".safetensors"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Safetensors.write(path: path, tensors: tensors)
    return try Safetensors(path: path)
  }
}

func countAllocations(on name: String, traces: Bool, decoders: String?, unets: String?, inpainting: String?) throws {
  guard allocation_counter_works() != 0 else {
    print("{\"works\": false}")
    return
  }
  // More than one thread on any machine, so that the workers' allocations are met too.
  let backend = try Backends.make(name, options: BackendOptions(threads: 2))
  let probe = Probe(context: Context(backend: backend), traces: traces)
  let attention = AttentionShape([70, 20], heads: 4, size: 24, mask: .causalAdditive)
  let counts: [(String, Int64)] = [
    ("forward", try probe.forward()), ("tokens", try decoders.map(probe.tokens) ?? 0),
    ("steps", try unets.map(probe.steps) ?? 0), ("inpainting", try inpainting.map(probe.inpainting) ?? 0),
    (
      "linear",
      try probe.operation(
        .linear(LinearShape(m: 64, n: 200, k: 96, activation: .gelu, bias: true), operands: Operands(seed: 1)))
    ),
    ("attention", try probe.operation(.attention(attention, operands: Operands(seed: 2)))),
    ("softmax", try probe.operation(.softmax(RowShape(80, 300), operands: Operands(seed: 3)))),
    (
      "layerNorm",
      try probe.operation(.norm(.layerNorm, RowShape(80, 300), residual: true, operands: Operands(seed: 4)))
    ),
    ("matmul", try probe.operation(.matmul(MatmulShape(batch: 3, m: 64, n: 70, k: 96), operands: Operands(seed: 5)))),
    ("meanPool", try probe.operation(.meanPool([40, 3, 64], n: 96, operands: Operands(seed: 6)))),
    ("structured", try probe.structured()),
    ("l2Normalize", try probe.operation(.norm(.l2Normalize, RowShape(9, 96), operands: Operands(seed: 7)))),
  ]
  let fields = counts.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ")
  print("{\"works\": true, \"calls\": \(Probe.calls), \(fields)}")
}

let arguments = CommandLine.arguments.dropFirst()
let name = arguments.first { !$0.hasPrefix("--") } ?? Backends.defaultName
do {
  if arguments.contains("--threads") {
    try await ThreadCount.report(on: name)
  } else {
    func folder(_ prefix: String) -> String? {
      arguments.first { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
    }
    try countAllocations(
      on: name, traces: arguments.contains("--trace"), decoders: folder("--decoders="), unets: folder("--unets="),
      inpainting: folder("--inpainting="))
  }
} catch {
  FileHandle.standardError.write(Data("AllocationProbe: \(error)\n".utf8))
  exit(1)
}

import CPeak
import Foundation
import Quern
import QuernModels

/// Prompts and decoding of whole decoders of published shapes with random weights: rates, shares of the machine's peaks, and memory.
enum Generation {
  static let prompt = 512
  static let steps = 24
  static let together = 8

  /// The figures of one model.
  struct Row: Encodable {
    var model, weights: String
    /// Tokens a second: of a prompt, after it, and of several sequences together.
    var prompt, decode, together: Double
    /// Of the FMA rate, and of the read bandwidth counting weights and cache.
    var promptShare, decodeShare: Double
    /// Bytes of weights and cache that a decoding step reads.
    var stepBytes: Int
    /// What the process holds more than before the model was made, once it has run, and what was to be expected, in bytes.
    var resident, expected: Int
  }

  static func run(context: Context, machine: Machine, filter: [String], asJSON: Bool) throws {
    var rows: [Row] = []
    for decoder in RandomDecoder.all {
      for format in [nil, QuantizedFormat.q8, .q4] {
        let label = "\(decoder.name) \(format?.rawValue ?? "bf16")"
        guard filter.isEmpty || filter.contains(where: { label.localizedCaseInsensitiveContains($0) }) else { continue }
        StandardError.writeLine("benchmarks: \(label)")
        rows.append(try measure(decoder, format, context, machine))
      }
    }
    guard !rows.isEmpty else { throw Failure("no model matches --filter \(filter.joined(separator: ", "))") }
    if asJSON {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      return print(String(decoding: try encoder.encode(rows), as: UTF8.self))
    }
    let titles = ["model", "weights", "prompt t/s", "of FMA", "decode t/s", "of read", "8 together", "ratio", "memory"]
    let cells = rows.map { row in
      [
        row.model, row.weights, String(format: "%.1f", row.prompt), String(format: "%.2f", row.promptShare),
        String(format: "%.1f", row.decode), String(format: "%.2f", row.decodeShare),
        String(format: "%.1f", row.together), String(format: "%.2f", row.together / row.decode),
        String(format: "%.2f of %.2f GB", Double(row.resident) / 1e9, Double(row.expected) / 1e9),
      ]
    }
    for line in [titles] + cells {
      print(
        line.enumerated().map { $1.padding(toLength: $0 == 0 ? 14 : $0 == 8 ? 18 : 11, withPad: " ", startingAt: 0) }
          .joined())
    }
  }

  private static func measure(
    _ decoder: RandomDecoder, _ format: QuantizedFormat?, _ context: Context, _ machine: Machine
  ) throws -> Row {
    let before = residentBytes()
    let model = try decoder.model(format, context: context)
    let workspace = try DecoderModel.Workspace()
    let ids = (0..<prompt).map { Int32($0 * 37 % 30000) }
    let cache = try model.makeCache(capacity: prompt + steps, type: .bf16)
    let whole = try Segments(single: prompt)

    // The median of a few; the first meets cold memory.
    var prompts: [Double] = []
    for _ in 0..<4 {
      cache.truncate(0)
      prompts.append(
        try Stopwatch.time {
          let hidden = try model.forward(ids, segments: whole, cache: cache, workspace: workspace)
          _ = try model.logits(hidden, rows: [Int32(prompt - 1)], workspace: workspace)
        })
    }
    let promptSeconds = prompts.dropFirst().sorted()[1]
    let (decodeSeconds, readBytes) = try decode(model, cache, workspace, machine, sequences: 1)
    let resident = residentBytes() - before

    let many = try model.makeCache(sequences: together, capacity: prompt / 4 + steps, type: .bf16)
    let share = try Segments(lengths: [Int](repeating: prompt / 4, count: together))
    _ = try model.forward(
      (0..<share.total).map { ids[$0 % prompt] }, segments: share, cache: many, workspace: workspace)
    let (manySeconds, _) = try decode(model, many, workspace, machine, sequences: together)

    machine.measure(trials: 4)
    let embedding = decoder.vocabulary * decoder.hidden
    let weights = weightBytes(decoder, format)
    let cacheRow = 2 * decoder.layers * decoder.keyHeads * decoder.headDim * DataType.bf16.size
    let stepBytes = weights + cacheRow * (prompt + steps / 2)
    // Two operations a weight, but for the head's, which meets the last token alone; and attention's two products.
    let pairs = prompt * (prompt + 1) / 2
    let flops =
      2 * (decoder.productElements - embedding) * prompt + 2 * embedding
      + 4 * decoder.layers * decoder.heads * decoder.headDim * pairs
    return Row(
      model: decoder.name, weights: format?.rawValue ?? "bf16", prompt: Double(prompt) / promptSeconds,
      decode: 1 / decodeSeconds, together: Double(together) / manySeconds,
      promptShare: Double(flops) / promptSeconds / machine.peakFlops,
      decodeShare: Double(stepBytes) / decodeSeconds / readBytes, stepBytes: stepBytes, resident: resident,
      expected: weights + cacheRow * (prompt + steps) + workspaceBytes(decoder))
  }

  /// Median seconds of a step in which each sequence gets a token, and bytes a second read from memory in turn with them.
  private static func decode(
    _ model: DecoderModel, _ cache: KeyValueCache, _ workspace: DecoderModel.Workspace, _ machine: Machine,
    sequences: Int
  ) throws -> (seconds: Double, readBytes: Double) {
    let segments = try Segments(lengths: [Int](repeating: 1, count: sequences))
    let rows = (0..<Int32(sequences)).map { $0 }
    var ids = rows.map { $0 + 11 }
    var seconds: [Double] = []
    var rates: [Double] = []
    for step in 0..<steps {
      let time = try Stopwatch.time {
        let hidden = try model.forward(ids, segments: segments, cache: cache, workspace: workspace)
        _ = try model.logits(hidden, rows: rows, workspace: workspace)
      }
      for index in ids.indices { ids[index] = (ids[index] + Int32(step) * 7 + 1) % 30000 }
      rates.append(machine.readOnce())
      if step > 2 { seconds.append(time) }
    }
    return (seconds.sorted()[seconds.count / 2], rates.sorted()[rates.count / 2])
  }

  private static func weightBytes(_ decoder: RandomDecoder, _ format: QuantizedFormat?) -> Int {
    let embedding = decoder.vocabulary * decoder.hidden
    let linear = decoder.productElements - embedding
    guard let format else { return 2 * decoder.productElements }
    return 2 * embedding + linear / format.blockSize * format.blockBytes
  }

  /// Rows of a pass over the prompt in f32, and a row of logits.
  private static func workspaceBytes(_ decoder: RandomDecoder) -> Int {
    let row =
      2 * decoder.hidden + (2 * decoder.heads + 2 * decoder.keyHeads) * decoder.headDim + 2 * decoder.inner
    return 4 * (prompt * row + decoder.vocabulary + decoder.hidden)
  }

  /// Pages of this process in memory, less what it has freed; 0 where the system does not say.
  static func residentBytes() -> Int {
    cpeak_trim()
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return 0 }
    let fields = text.split(separator: " ")
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(getpagesize()) : 0
  }
}

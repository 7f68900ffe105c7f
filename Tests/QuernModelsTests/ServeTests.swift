import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// `benchmarks --serve`, which `make peers` measures through.
@Suite struct ServeTests {
  @Test func aCaseIsListedExportedAndRun() throws {
    let entry = try #require(BenchmarkCases.all.first { $0.operation == .embedding })
    let folder = try TemporaryFolder()
    let file = "\(folder.path)/case.safetensors"
    let key = "\"op\": \"embedding\", \"case\": \"\(entry.name)\""
    var requests = [
      "{\"list\": true}", "{\(key), \"export\": \"\(file)\"}", "{\"op\": \"embedding\", \"case\": \"none\"}",
    ]
    #if !DEBUG
      requests.append("{\(key), \"seconds\": 0.001}")
    #endif
    let output = try BuiltProgram("benchmarks").run(
      ["--serve", "--backend", "multithreaded"], input: Data((requests.joined(separator: "\n") + "\n").utf8))
    #expect(output.status == 0, "\(output.standardError)")
    let answers = output.standardOutput.split(separator: "\n")
    try #require(answers.count == requests.count, "\(output)")

    #expect(answers[0].contains("\"backend\":\"multithreaded\"") && answers[0].contains(entry.name))
    #expect(answers[2].contains("\"error\"") && answers[2].contains("none"))
    #if !DEBUG
      struct Seconds: Decodable { let seconds: [Double] }
      let seconds = try JSONDecoder().decode(Seconds.self, from: Data(answers[3].utf8)).seconds
      #expect(!seconds.isEmpty && seconds.allSatisfy { $0 > 0 })
    #endif

    // What was written is a row of the table for each id.
    let tensors = try Safetensors(path: file)
    let (table, result) = (try floats("operand.0", of: tensors), try floats("result", of: tensors))
    let ids = try tensors.readInt64("operand.1")
    let n = try #require(try tensors.info("result").shape.last)
    for (row, id) in ids.enumerated() where row % 97 == 0 {
      #expect(result[row * n..<(row + 1) * n].elementsEqual(table[Int(id) * n..<(Int(id) + 1) * n]))
    }
  }

  @Test func aProductRunsInOpenBLASOnTheSameOperands() throws {
    let entry = try #require(BenchmarkCases.products.first { $0.operation == .matmul })
    let folder = try TemporaryFolder()
    let files = ["ours", "theirs"].map { "\(folder.path)/\($0).safetensors" }
    let key = "\"op\": \"matmul\", \"case\": \"\(entry.name)\""
    let requests = ["{\"list\": true}", "{\(key), \"export\": \"\(files[0])\"}"]
    let peer = "{\(key), \"peer\": true, \"export\": \"\(files[1])\"}\n"
    let output = try BuiltProgram("benchmarks").run(
      ["--serve", "--products", "--backend", "multithreaded"],
      input: Data((requests.joined(separator: "\n") + "\n" + peer).utf8))
    let answers = output.standardOutput.split(separator: "\n")
    try #require(output.status == 0 && answers.count == 3, "\(output)")
    #expect(answers[0].contains(entry.name) && !answers[0].contains("embedding"))
    #if OpenBLAS
      let results = try files.map { try floats("result", of: Safetensors(path: $0)) }
      #expect(!results[0].isEmpty && results[0].count == results[1].count)
      #expect(zip(results[0], results[1]).allSatisfy { abs($0 - $1) < 1e-4 })
      #expect(results[0].contains { abs($0) > 1 })
    #else
      #expect(answers[2].contains("\"error\"") && answers[2].contains("OpenBLAS"))
    #endif
  }

  private func floats(_ name: String, of tensors: Safetensors) throws -> [Float] {
    var values = [Float](repeating: 0, count: try tensors.info(name).shape.reduce(1, *))
    try values.withUnsafeMutableBufferPointer { try tensors.readFloat32(name, into: $0) }
    return values
  }
}

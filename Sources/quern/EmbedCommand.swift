import ArgumentParser
import Foundation
import Quern
import QuernModels

struct EmbedCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "embed", abstract: "Prints the embedding of each text.",
    discussion: "Texts come from the command line, or one a line from standard input. "
      + "Texts beyond the model's limit are cut to it, as sentence-transformers does.")

  @Option(help: "A sentence-transformers directory.") var model: String
  @Option(help: "text: one vector a line. json: one object a line, with the text and the vector.")
  var format = OutputFormat.text
  @Option(help: "How matrices and hidden states are stored; arithmetic is in f32.") var precision = DataType.f32
  @Option(help: "The name of the model's prompt that is put before each text, such as query.") var prompt: String?
  @OptionGroup var backend: BackendArguments
  @Argument(help: "The texts (default: lines of standard input).") var texts: [String] = []

  func run() throws {
    let embedder = try SentenceEmbedder(directory: model, context: backend.context(), precision: precision)
    let texts = texts.isEmpty ? try linesOfStandardInput() : texts
    let progress = Progress(total: texts.count, unit: "texts")
    let vectors = try embedder.embed(texts, prompt: prompt) { progress.update($0) }
    progress.finish()
    for (text, vector) in zip(texts, vectors) {
      switch format {
      case .text: print(vector.map { "\($0)" }.joined(separator: " "))
      case .json: print(try line(text, vector))
      }
    }
  }

  private func linesOfStandardInput() throws -> [String] {
    var lines: [String] = []
    let bytes = FileHandle.standardInput.readDataToEndOfFile()
    var fields = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    if fields.last?.isEmpty == true { fields.removeLast() }
    var offset = 0
    for (number, field) in fields.enumerated() {
      guard let text = String(validating: field, as: UTF8.self) else {
        throw ModelError(
          file: "standard input", field: "line \(number + 1)", offset: offset, reason: "the text is not UTF-8")
      }
      lines.append(text)
      offset += field.count + 1
    }
    return lines
  }

  private struct Row: Encodable {
    let text: String
    let embedding: [Float]
  }

  private func line(_ text: String, _ vector: [Float]) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(Row(text: text, embedding: vector)), as: UTF8.self)
  }
}

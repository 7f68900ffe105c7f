import ArgumentParser
import Foundation
import Quern
import QuernModels

struct PerplexityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perplexity", abstract: "Measures how well a model predicts a text.",
    discussion:
      "exp of the mean negative log likelihood of the file's tokens. Windows of --context tokens begin every --stride tokens, and "
      + "each predicts the tokens that none before it had, from those before them in the window. The file is read and put into "
      + "tokens 4 MiB at a time, cut behind a line.")

  @Option(help: "A Hugging Face model directory, or a GGUF file.") var model: String
  @Option(help: "A text in UTF-8.") var file: String
  @Option(help: "Tokens of a window (default: 512, or as many as the model has positions).") var context: Int?
  @Option(help: "Tokens from one window to the next (default: half of --context).") var stride: Int?
  @Option(help: "How matrices are stored, unless they are quantised (default: as the files have them).")
  var precision: DataType?
  @Option(name: .customLong("cache-type"), help: "How keys and values are stored.") var cacheType = CacheType.f32
  @OptionGroup var backend: BackendArguments
  @Option(help: "json: an object with all numbers.") var format = OutputFormat.text

  private struct Row: Encodable {
    let perplexity, meanNegativeLogLikelihood: Double
    let tokens, windows, context, stride: Int
  }

  func run() throws {
    let text = try TextPieces(path: file)
    let tokenizer = try TextGenerator.tokenizer(path: model)
    let decoder = try DecoderModel(path: model, context: backend.context(), precision: precision)
    let generator = try TextGenerator(path: model, model: decoder, tokenizer: tokenizer)
    let measure = try Perplexity(model: decoder, context: context, stride: stride, cacheType: cacheType)
    let progress = Progress(total: text.size / 1000, unit: "kB")
    var isFirst = true
    while let piece = try text.next() {
      let ids = try generator.encode(piece.text, addSpecialTokens: isFirst)
      isFirst = false
      try measure.append(
        ids,
        progress: { taken in
          progress.update((piece.start + piece.text.utf8.count * taken / max(ids.count, 1)) / 1000)
        })
    }
    let result = try measure.finish()
    progress.finish()
    guard result.tokens > 0 else {
      throw ModelError(file: file, field: "", reason: "has too few tokens to predict one from another")
    }
    switch format {
    case .text:
      print(
        String(format: "perplexity %.4f of %d tokens in %d windows", result.perplexity, result.tokens, result.windows))
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys]
      let row = Row(
        perplexity: result.perplexity, meanNegativeLogLikelihood: result.meanNegativeLogLikelihood,
        tokens: result.tokens, windows: result.windows, context: measure.context, stride: measure.stride)
      print(String(decoding: try encoder.encode(row), as: UTF8.self))
    }
  }
}

/// A file of text in pieces that end behind a line, where there is one in reach.
private final class TextPieces {
  let size: Int
  private let file: ModelFile
  private var position = 0
  private static let pieceSize = 4 << 20

  init(path: String) throws {
    file = try ModelFile(path: path)
    size = file.size
  }

  func next() throws -> (text: String, start: Int)? {
    guard position < size else { return nil }
    let start = position
    let bytes = try file.read(start..<min(start + Self.pieceSize, size))
    return try bytes.withUnsafeBytes { bytes in
      var end = bytes.count
      if start + end < size {
        let line = bytes.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 }
        // Without a line, behind the last whole character.
        end = line ?? (bytes.lastIndex { $0 & 0xC0 != 0x80 }.flatMap { $0 > 0 ? $0 : nil } ?? end)
      }
      guard let text = String(validating: bytes[..<end], as: UTF8.self) else {
        throw ModelError(file: file.path, field: "", offset: start, reason: "the text from here on is not UTF-8")
      }
      position = start + end
      return (text, start)
    }
  }
}

/// Why tokens could not be generated. Every description is one line that says what to do.
public enum GenerationError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A prompt without tokens: there is nothing to continue.
  case emptyPrompt
  /// A prompt that leaves no room for a token in the context.
  case promptTooLong(tokens: Int, capacity: Int)
  /// An option out of its range.
  case invalidOption(name: String, value: String, expected: String)
  /// Every sequence of the cache is in use.
  case busy(sequences: Int)

  public var description: String {
    switch self {
    case .emptyPrompt: "the prompt has no tokens; give it a text, or a token that begins one"
    case .promptTooLong(let tokens, let capacity):
      "the prompt has \(tokens) tokens and the context \(capacity); shorten it or ask for a larger context"
    case .invalidOption(let name, let value, let expected): "\(name) is \(value); it is \(expected)"
    case .busy(let sequences): "all \(sequences) sequences are in use; wait for one to finish"
    }
  }
}

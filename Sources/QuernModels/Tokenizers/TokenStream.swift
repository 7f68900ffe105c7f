/// Ids to text while they come, for a model that writes: each `append` gives the text that is certain by then.
///
/// A character is never cut: its text comes with the token that completes it. `U+FFFD` comes only for bytes that no
/// further token can make whole. All that `append` and `finish` give, put together, is what `decode` gives for all ids.
///
///     var stream = TokenStream(tokenizer)
///     for id in ids { print(try stream.append(id), terminator: "") }
///     print(stream.finish())
///
/// Time is linear in the text. A tokenizer with `byte_fallback` decodes a run of byte tokens as a whole, so the text of
/// such a run comes with the token after it.
public struct TokenStream: Sendable {
  private let tokenizer: HubTokenizer
  private let skipSpecialTokens: Bool
  private var run: DecodingRun
  private var count = 0

  /// - Parameter skipSpecialTokens: Whether special tokens give no text.
  public init(_ tokenizer: HubTokenizer, skipSpecialTokens: Bool = true) {
    self.tokenizer = tokenizer
    self.skipSpecialTokens = skipSpecialTokens
    run = DecodingRun(tokenizer.decoder)
  }

  /// The text that `id` makes certain; it may be empty. An id that is no token is refused and changes nothing.
  public mutating func append(_ id: Int32) throws(TokenizerError) -> String {
    try tokenizer.push(id, at: count, skipSpecialTokens: skipSpecialTokens, into: &run)
    count += 1
    return run.takeText()
  }

  /// The rest of the text. The stream is as new afterwards.
  public mutating func finish() -> String {
    run.finish()
    defer {
      run = DecodingRun(tokenizer.decoder)
      count = 0
    }
    return run.takeText()
  }
}

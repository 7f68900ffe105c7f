import Foundation
import QuernModels
import QuernTesting
import Testing

/// Tokenizer files that must be refused, each by an edit of a good one.
@Suite struct TokenizerFileTests {
  struct Edit: Sendable, CustomTestStringConvertible {
    var from: String
    var to: String
    var field: String
    var testDescription: String { field + ": " + to }
  }

  static let edits: [Edit] = [
    Edit(from: "\"type\":\"WordPiece\",\"unk", to: "\"type\":\"WordLevel\",\"unk", field: "model.type"),
    Edit(from: "\"type\":\"WordPiece\",\"unk", to: "\"type\":7,\"unk", field: "model.type"),
    Edit(from: "\"unk_token\":\"[UNK]\"", to: "\"unk_token\":\"[NONE]\"", field: "model.unk_token"),
    Edit(from: "\"unk_token\":\"[UNK]\",", to: "", field: "model.unk_token"),
    Edit(from: "\"unk_token\":", to: "\"surprise\":1,\"unk_token\":", field: "model.surprise"),
    Edit(
      from: "\"max_input_chars_per_word\":100", to: "\"max_input_chars_per_word\":0",
      field: "model.max_input_chars_per_word"),
    Edit(
      from: "\"max_input_chars_per_word\":100", to: "\"max_input_chars_per_word\":1000000000",
      field: "model.max_input_chars_per_word"),
    Edit(from: "\"token\":", to: "\"token\":-1,\"zzzz\":", field: "model.vocab.token"),
    Edit(from: "\"token\":", to: "\"token\":4294967296,\"zzzz\":", field: "model.vocab.token"),
    Edit(from: "\"token\":", to: "\"token\":1.5,\"zzzz\":", field: "model.vocab.token"),
    Edit(from: "\"token\":", to: "\"token\":\"1\",\"zzzz\":", field: "model.vocab.token"),
    Edit(from: "\"token\":", to: "\"token\":3,\"zzzz\":", field: "model.vocab"),
    Edit(from: "\"token\":", to: "\"tok\\u0065n\":700,\"token\":", field: "model.vocab.token"),
    Edit(from: "\"vocab\":{", to: "\"vocab\":[{", field: "model.vocab"),
    Edit(from: "\"type\":\"BertNormalizer\"", to: "\"type\":\"NFKX\"", field: "normalizer.type"),
    Edit(from: "\"clean_text\":true", to: "\"clean_text\":1", field: "normalizer.clean_text"),
    Edit(from: "\"clean_text\":true", to: "\"cleen_text\":true", field: "normalizer.cleen_text"),
    Edit(from: "BertPreTokenizer", to: "UnicodeScripts", field: "pre_tokenizer.type"),
    Edit(from: "TemplateProcessing", to: "BarkProcessing", field: "post_processor.type"),
    Edit(from: "\"ids\":[2]", to: "\"ids\":[99999]", field: "post_processor.special_tokens.[CLS].ids[0]"),
    Edit(
      from: "{\"SpecialToken\":{\"id\":\"[CLS]\"", to: "{\"SpecialToken\":{\"id\":\"[NO]\"",
      field: "post_processor.single[0].SpecialToken.id"),
    Edit(
      from: "{\"Sequence\":{\"id\":\"A\"", to: "{\"Sequence\":{\"id\":\"B\"",
      field: "post_processor.single[1].Sequence.id"),
    Edit(
      from: "\"decoder\":{\"type\":\"WordPiece\"", to: "\"decoder\":{\"type\":\"CTC\"", field: "decoder.type"),
    Edit(from: "\"truncation\":null", to: "\"truncation\":{\"max_length\":0}", field: "truncation.max_length"),
    Edit(
      from: "\"truncation\":null", to: "\"truncation\":{\"max_length\":9,\"strategy\":\"Best\"}",
      field: "truncation.strategy"),
    Edit(from: "\"padding\":null", to: "\"padding\":{\"strategy\":\"Wide\"}", field: "padding.strategy"),
    Edit(
      from: "\"padding\":null", to: "\"padding\":{\"strategy\":{\"Fixed\":99999999999}}",
      field: "padding.strategy.Fixed"),
    Edit(from: "\"version\":\"1.0\"", to: "\"version\":\"2.0\"", field: "version"),
    Edit(from: "\"version\":", to: "\"extra\":0,\"version\":", field: "extra"),
    Edit(from: "{\"id\":0,\"content\":\"[PAD]\"", to: "{\"id\":9,\"content\":\"[PAD]\"", field: "added_tokens"),
    Edit(from: "\"content\":\"[PAD]\"", to: "\"content\":\"\"", field: "added_tokens[0].content"),
    Edit(from: "{\"id\":0,\"content\"", to: "{\"id\":-3,\"content\"", field: "added_tokens[0].id"),
    Edit(from: "\"content\":\"<l>\"", to: "\"content\":\"[PAD]\"", field: "added_tokens"),
  ]

  @Test(arguments: edits)
  func refusesByName(edit: Edit) throws {
    let good = try String(contentsOfFile: Fixture.path("wordpiece/uncased.json"), encoding: .utf8)
    let range = try #require(good.range(of: edit.from), "the fixture does not have \(edit.from)")
    let bad = good.replacingCharacters(in: range, with: edit.to)
    let error = modelError { _ = try HubTokenizer(json: bad.utf8, file: "tokenizer.json") }
    let found = try #require(error)
    #expect(found.field == edit.field)
    #expect(found.offset != nil)
    #expect(found.file == "tokenizer.json")
    #expect(!found.description.contains("\n"))
  }

  @Test func refusesEveryTruncation() throws {
    let good = try Data(contentsOf: URL(fileURLWithPath: Fixture.path("wordpiece/uncased.json")))
    // The last byte is a new line.
    for length in stride(from: 0, to: good.count - 1, by: 7) {
      let error = modelError { _ = try HubTokenizer(json: good[0..<length], file: "t") }
      #expect(error?.offset != nil, "cut to \(length) bytes")
    }
  }

  @Test func refusesOtherModelsByName() throws {
    let folder = try TemporaryFolder()
    #expect(modelError { _ = try TokenizerFile.load(directory: folder.path) }?.reason.contains("no such file") == true)
    try folder.write("tokenizer.json", #"{"model":{"type":"WordLevel"}}"#.utf8)
    let error = modelError { _ = try TokenizerFile.load(directory: folder.path) }
    #expect(error?.field == "model.type")
    #expect(error?.reason.contains("WordLevel") == true)
  }

  /// Names that `String` holds equal but that are different bytes are different tokens.
  @Test func namesAreComparedByteForByte() throws {
    let json = """
      {"model":{"type":"WordPiece","unk_token":"u","continuing_subword_prefix":"##","max_input_chars_per_word":9,\
      "vocab":{"u":0,"\u{E9}":1,"e\u{301}":2}}}
      """
    let tokenizer = try HubTokenizer(json: json.utf8, file: "t")
    #expect(tokenizer.vocabularySize == 3)
    #expect(tokenizer.id(of: "\u{E9}") == 1)
    #expect(tokenizer.id(of: "e\u{301}") == 2)
    #expect(try tokenizer.encode("e\u{301}") == [2])
  }
}

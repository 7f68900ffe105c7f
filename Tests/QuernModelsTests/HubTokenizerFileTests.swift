import Foundation
import QuernModels
import Testing

/// Files that must be refused, texts that must not take long, and streams cut at every token.
@Suite struct HubTokenizerFileTests {
  struct Edit: Sendable, CustomTestStringConvertible {
    var layout: String
    var from: String
    var to: String
    var field: String
    var testDescription: String { layout + " " + field + ": " + to }
  }

  static let edits: [Edit] = [
    Edit(layout: "gpt2", from: "\"merges\":[[", to: "\"merges\":[[\"no such\",\"token\"],[", field: "model.merges[0]"),
    Edit(layout: "gpt2", from: "\"merges\":[[", to: "\"merges\":[[\"a\"],[", field: "model.merges[0]"),
    Edit(layout: "gpt2", from: "\"merges\":[[", to: "\"merges\":[[\"a\",7],[", field: "model.merges[0][1]"),
    Edit(layout: "gpt2", from: "\"merges\":[[", to: "\"merges\":[\"a b c\",[", field: "model.merges[0]"),
    Edit(layout: "gpt2", from: "\"merges\":[[", to: "\"merges\":[\"ab\",[", field: "model.merges[0]"),
    Edit(layout: "gpt2", from: "\"merges\":[[", to: "\"merges\":[7,[", field: "model.merges[0]"),
    Edit(layout: "gpt2", from: "\"dropout\":null", to: "\"dropout\":0.1", field: "model.dropout"),
    Edit(layout: "gpt2", from: "\"unk_token\":null", to: "\"unk_token\":\"<none>\"", field: "model.unk_token"),
    Edit(layout: "gpt2", from: "\"fuse_unk\":false", to: "\"fuse_unk\":0", field: "model.fuse_unk"),
    Edit(layout: "gpt2", from: "\"fuse_unk\":false", to: "\"fuse_unks\":false", field: "model.fuse_unks"),
    Edit(
      layout: "gpt2", from: "\"add_prefix_space\":false", to: "\"add_prefix_space\":1",
      field: "pre_tokenizer.add_prefix_space"),
    Edit(layout: "llama3", from: "{1,3}", to: "{1,4}", field: "pre_tokenizer.pretokenizers[0].pattern.Regex"),
    Edit(layout: "llama3", from: "\"Regex\":", to: "\"Glob\":", field: "pre_tokenizer.pretokenizers[0].pattern.Glob"),
    Edit(layout: "llama3", from: "\"Isolated\"", to: "\"Isolate\"", field: "pre_tokenizer.pretokenizers[0].behavior"),
    Edit(
      layout: "llama3", from: "\"processors\":[{\"type\":\"ByteLevel\"",
      to: "\"processors\":[{\"type\":\"BarkProcessing\"",
      field: "post_processor.processors[0].type"),
    Edit(layout: "roberta", from: "\"cls\":[\"<s>\",0]", to: "\"cls\":[\"<s>\",99999]", field: "post_processor.cls[1]"),
    Edit(layout: "llama2", from: "\"prepend\":\"▁\"", to: "\"prepend\":7", field: "normalizer.normalizers[0].prepend"),
    Edit(
      layout: "llama2", from: "\"String\":\" \"", to: "\"String\":\"\"",
      field: "normalizer.normalizers[1].pattern.String"),
    Edit(layout: "llama2", from: "{\"type\":\"Fuse\"}", to: "{\"type\":\"CTC\"}", field: "decoder.decoders[2].type"),
    Edit(
      layout: "llama2", from: "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}",
      to: "{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}", field: "decoder.decoders[2].type"),
    Edit(layout: "llama2", from: "\"start\":1", to: "\"start\":-1", field: "decoder.decoders[3].start"),
    Edit(
      layout: "mistral", from: "\"prepend_scheme\":\"first\"", to: "\"prepend_scheme\":\"last\"",
      field: "pre_tokenizer.prepend_scheme"),
    Edit(
      layout: "mistral", from: "\"replacement\":\"▁\"", to: "\"replacement\":\"__\"", field: "pre_tokenizer.replacement"
    ),
    Edit(layout: "t5", from: "\"unk_id\":2", to: "\"unk_id\":null", field: "model.unk_id"),
    Edit(layout: "t5", from: "\"unk_id\":2", to: "\"unk_id\":99999", field: "model.unk_id"),
    Edit(layout: "t5", from: "\"vocab\":[[", to: "\"vocab\":[[\"x\",\"y\"],[", field: "model.vocab[0][1]"),
    Edit(layout: "t5", from: "\"vocab\":[[", to: "\"vocab\":[[\"\",1.0],[", field: "model.vocab[0][0]"),
    Edit(layout: "t5", from: "\"vocab\":[[", to: "\"vocab\":[[1],[", field: "model.vocab[0]"),
    Edit(
      layout: "t5", from: "\"precompiled_charsmap\":\"", to: "\"precompiled_charsmap\":\"!",
      field: "normalizer.precompiled_charsmap"),
    Edit(
      layout: "t5", from: "\"precompiled_charsmap\":\"", to: "\"precompiled_charsmap\":\"////",
      field: "normalizer.precompiled_charsmap"),
  ]

  private static func text(_ layout: String) throws -> String {
    try String(contentsOfFile: Fixture.path("tokenizers/\(layout).json"), encoding: .utf8)
  }

  @Test(arguments: edits)
  func refusesByName(edit: Edit) throws {
    let good = try Self.text(edit.layout)
    let range = try #require(good.range(of: edit.from, options: .literal), "the fixture does not have \(edit.from)")
    let bad = good.replacingCharacters(in: range, with: edit.to)
    let error = try #require(modelError { _ = try HubTokenizer(json: bad.utf8, file: "tokenizer.json") })
    #expect(error.field == edit.field, "\(error)")
    #expect(error.offset != nil)
    #expect(!error.description.contains("\n"))
  }

  /// A few steps that each lengthen the text would together fill the memory.
  @Test func refusesStepsThatMultiplyTheText() throws {
    let replace = #"{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaaaaaaaa"}"#
    let steps = [String](repeating: replace, count: 5).joined(separator: ",")
    let model = #""model":{"type":"BPE","vocab":{"a":0},"merges":[]}"#
    let parts = [
      (#""normalizer":{"type":"Sequence","normalizers":[\#(steps)]}"#, "normalizer.normalizers"),
      (#""decoder":{"type":"Sequence","decoders":[\#(steps)]}"#, "decoder"),
    ]
    for (part, field) in parts {
      let error = modelError { _ = try HubTokenizer(json: "{\(part),\(model)}".utf8, file: "t") }
      #expect(error?.field == field)
    }
  }

  @Test(arguments: ["llama3", "llama2", "t5"])
  func refusesEveryTruncation(layout: String) throws {
    let good = Array(try Self.text(layout).utf8)
    for length in stride(from: 0, to: good.count - 1, by: 97) {
      let error = modelError { _ = try HubTokenizer(json: good[0..<length], file: "t") }
      #expect(error?.offset != nil, "cut to \(length) bytes")
    }
  }

  /// Of a megabyte each: an encoding whose time grows with the square would take many minutes.
  @Test(arguments: ["gpt2", "o200k", "clip", "llama2", "t5"])
  func hostileTextsAreQuick(layout: String) throws {
    let tokenizer = try HubTokenizerTests.load(layout)
    let patterns = [
      "a", "ab", " ", "\n", " \n", "A", "中A", "aA", "'", "\u{301}", "\u{302E}\u{323}", "1", "!", "<|im_star", "<mask> ",
      "\u{1F600}",
      "\u{1161}", "é", "\u{200D}", "the", "▁", "\u{FB01}",
    ]
    for pattern in patterns {
      let text = String(repeating: pattern, count: 1_000_000 / pattern.utf8.count)
      let ids = try tokenizer.encode(text)
      guard ["a", " ", "\u{1F600}"].contains(pattern) else { continue }
      var stream = TokenStream(tokenizer)
      var count = 0
      for id in ids { count += try stream.append(id).utf8.count }
      count += stream.finish().utf8.count
      #expect(count == (try tokenizer.decode(ids)).utf8.count)
    }
  }

  /// Bytes of one character come together; a broken one is replaced once nothing can mend it.
  @Test func streamsWholeCharacters() throws {
    let tokenizer = try HubTokenizerTests.load("gpt2")
    func id(_ token: String) throws -> Int32 { try #require(tokenizer.id(of: token)) }
    // U+1F600 is F0 9F 98 80; the alphabet has other characters for these bytes.
    let bytes = try ["ð", "Ł", "ĺ", "Ģ"].map(id)
    var stream = TokenStream(tokenizer)
    #expect(try stream.append(bytes[0]) == "")
    #expect(try stream.append(bytes[1]) == "")
    #expect(try stream.append(bytes[2]) == "")
    #expect(try stream.append(bytes[3]) == "\u{1F600}")
    #expect(try stream.append(bytes[0]) == "")
    #expect(try stream.append(id("a")) == "\u{FFFD}a")
    #expect(try stream.append(bytes[3]) == "\u{FFFD}")
    #expect(throws: TokenizerError.unknownID(1_000_000, position: 7)) { try stream.append(1_000_000) }
    #expect(try stream.append(bytes[0]) == "")
    #expect(stream.finish() == "\u{FFFD}")
    #expect(stream.finish() == "")
    #expect(try stream.append(id("a")) == "a")
  }

  /// What may be dropped at the end of the text is kept until more comes.
  @Test func streamsWhatIsStripped() throws {
    let json = #"""
      {"decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},
      {"type":"Replace","pattern":{"String":"aab"},"content":"X"},{"type":"Strip","content":" ","start":1,"stop":2}]},
      "model":{"type":"BPE","vocab":{"a":0,"b":1," ":2,"é":3},"merges":[]}}
      """#
    let tokenizer = try HubTokenizer(json: json.utf8, file: "t")
    #expect(try tokenizer.decode([2, 2, 0, 2, 2, 2]) == " a ")
    #expect(try tokenizer.decode([0, 0, 0, 1, 3]) == "aXé")
    #expect(try tokenizer.decode([2]) == "")
    #expect(try tokenizer.decode([]) == "")
    var stream = TokenStream(tokenizer)
    #expect(
      try [2, 2, 0, 0, 1, 2, 2, 2, 3, 0].map { try stream.append($0) } == [
        "", "", "", "", " X", "", "", " ", "  é", "",
      ])
    #expect(stream.finish() == "a")
  }
}

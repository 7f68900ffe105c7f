/// The tokenizer of CLIP's text tower as diffusers directories have it: ids of one fixed length, cut or padded.
///
/// Reads `tokenizer.json` where the folder has one, else `vocab.json` and `merges.txt`: byte-level BPE over composed, lower-cased words
/// of letters, single digits and runs of other marks (Radford et al., arXiv 2103.00020). Gives the ids of `CLIPTokenizer` of
/// transformers 5. The special tokens and the length are those of `tokenizer_config.json` and `special_tokens_map.json`.
public struct CLIPTokenizer: Sendable {
  public let tokenizer: HubTokenizer
  /// Fills a text up to ``maximumLength``.
  public let padID: Int32
  /// `model_max_length`: tokens of every text, special ones included.
  public let maximumLength: Int

  /// - Parameters:
  ///   - directory: the folder of the tokenizer, such as `tokenizer` of a diffusers directory.
  ///   - positions: the most tokens that the text encoder takes; the length where the folder names none, or a larger one.
  /// - Throws: ``ModelError`` naming file, field and offset.
  public init(directory: String, positions: Int) throws(ModelError) {
    let special = try SpecialTokens(directory: directory)
    let end = try special.name("eos_token") ?? Self.end
    let pad = try special.name("pad_token") ?? end
    let hub = "\(directory)/tokenizer.json"
    if ModelFile.exists(hub) {
      tokenizer = try HubTokenizer(path: hub)
    } else {
      let start = try special.name("bos_token") ?? Self.start
      tokenizer = try HubTokenizer(
        vocabulary: "\(directory)/vocab.json", merges: "\(directory)/merges.txt", start: start, end: end,
        unknown: special.name("unk_token") ?? end, padding: pad)
    }
    guard let id = tokenizer.id(of: pad) else { throw special.error("pad_token", "\(pad) is not in the vocabulary") }
    padID = id
    // Files without a limit name 1e30.
    let length = try special.length ?? Double(positions)
    guard length >= 2 else { throw special.error("model_max_length", "leaves no room for a text") }
    maximumLength = min(positions, length >= Double(positions) ? positions : Int(length))
  }

  fileprivate static let start = "<|startoftext|>"
  fileprivate static let end = "<|endoftext|>"

  /// The ids of `text` between its start and end tokens, cut or padded to ``maximumLength``.
  public func encode(_ text: String) throws(TokenizerError) -> [Int32] {
    var ids = try tokenizer.encode(text, options: EncodingOptions(length: .atMost(maximumLength)))
    if ids.count < maximumLength { ids.append(contentsOf: repeatElement(padID, count: maximumLength - ids.count)) }
    return ids
  }
}

/// What `tokenizer_config.json` says of special tokens, and where it says nothing `special_tokens_map.json`.
private struct SpecialTokens {
  private let directory: String
  private let files: [HubConfig]

  init(directory: String) throws(ModelError) {
    self.directory = directory
    var files: [HubConfig] = []
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
      if let file = try HubConfig.ifPresent(directory: directory, name: name) { files.append(file) }
    }
    self.files = files
  }

  /// A token's text, which stands alone or as the `content` of an object.
  func name(_ key: String) throws(ModelError) -> String? {
    for file in files {
      guard let value = try file.root.optional(key) else { continue }
      return try value.kind == .object ? value.required("content").string() : value.string()
    }
    return nil
  }

  var length: Double? {
    get throws(ModelError) { try files.first?.root.optional("model_max_length")?.double() }
  }

  func error(_ key: String, _ reason: String) -> ModelError {
    ModelError(file: files.first?.path ?? directory, field: key, reason: reason)
  }
}

extension HubTokenizer {
  /// CLIP's layout over a vocabulary and merges in files of their own.
  fileprivate convenience init(
    vocabulary: String, merges: String, start: String, end: String, unknown: String, padding: String
  ) throws(ModelError) {
    let tokens = try JSONDocument(path: vocabulary, limit: TokenizerFile.sizeLimit).root
    let table = try Vocabulary(tokens)
    func id(_ token: String) throws(ModelError) -> Int32 {
      guard let id = table.id(of: token) else { throw tokens.error("lacks the special token \(token)") }
      return id
    }
    let (first, last, other) = (try id(start), try id(end), try id(unknown))
    // Each is found in a text as well, SDXL's padding token "!" too.
    var added: [AddedToken] = []
    for token in [start, end, unknown, padding] where !added.contains(where: { $0.content == token }) {
      added.append(AddedToken(id: try id(token), content: token, rstrip: false, special: true))
    }
    let rules = try JSONDocument(text: CLIPTokenizer.rules.utf8, file: "CLIP").root
    self.init(
      model: .bpe(
        BPEModel(
          table, merges: try CLIPTokenizer.readMerges(merges, table), ignoresMerges: false, suffix: "</w>",
          unknownID: other)),
      added: AddedVocabulary(added), normalizers: try Normalizer.read(rules.required("normalizer")),
      preTokenizers: try PreTokenizer.read(rules.required("pre_tokenizer")),
      postProcessor: PostProcessor(before: [first], after: [last]), decoder: TokenDecoder([.byteLevel]))
  }
}

extension CLIPTokenizer {
  /// What `CLIPTokenizer` adds to a vocabulary, in the words of `tokenizer.json`.
  fileprivate static let rules = #"""
    {"normalizer": {"type": "Sequence", "normalizers": [
       {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
     "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
       {"type": "Split", "behavior": "Removed", "invert": true, "pattern": {"Regex":
        "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
       {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]}}
    """#

  /// Reads `merges.txt`: a line for each merge, two tokens with a space between them, behind a line with the version.
  fileprivate static func readMerges(_ path: String, _ vocabulary: Vocabulary) throws(ModelError) -> MergeTable {
    let bytes = try ModelFile(path: path).readAll(limit: TokenizerFile.sizeLimit)
    return try bytes.withUnsafeBytes { (raw) throws(ModelError) in
      let text = raw.bindMemory(to: UInt8.self)
      var merges = MergeTable(expected: text.count / 8)
      var (start, line, guess) = (0, 0, vocabulary.count)
      while start < text.count {
        let end = text[start...].firstIndex(of: 0x0A) ?? text.count
        line += 1
        let merge = UnsafeBufferPointer(rebasing: text[start..<end])
        if !merge.isEmpty, !merge.starts(with: "#version".utf8) {
          let reason: String? =
            if let (left, right) = BPEModel.halves(merge) {
              switch BPEModel.append(left, right, vocabulary, [], &merges, &guess) {
              case nil: "is of a token that is not in vocab.json, or makes one that is not"
              case false?: BPEModel.crowded
              default: nil
              }
            } else {
              BPEModel.notTwoTokens
            }
          if let reason { throw ModelError(file: path, field: "line \(line)", offset: start, reason: reason) }
        }
        start = end + 1
      }
      return merges
    }
  }
}

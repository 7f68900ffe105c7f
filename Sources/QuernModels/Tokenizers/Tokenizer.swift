/// Text to token ids and back, as the tokenizer file of a model defines it.
public protocol Tokenizer: Sendable {
  /// The number of different tokens, added ones included.
  var vocabularySize: Int { get }

  /// The largest token id; an embedding table must have more rows than this.
  var largestID: Int32 { get }

  /// How the file says that long inputs are cut, if it does.
  var truncation: Truncation? { get }

  /// How the file says that inputs of one batch are made equally long, if it does.
  var padding: Padding? { get }

  func id(of token: String) -> Int32?

  func token(of id: Int32) -> String?

  /// The ids of `text`, or of the two texts of a pair, cut as `options` says but not padded.
  func encode(_ text: String, pair: String?, options: EncodingOptions) throws(TokenizerError) -> Encoding

  /// The text that `ids` stand for, as far as the normaliser has left it.
  func decode(_ ids: [Int32], skipSpecialTokens: Bool) throws(TokenizerError) -> String
}

/// The ids of one input, and for each the number of the text it came from.
public struct Encoding: Sendable, Equatable {
  public var ids: [Int32]
  /// `token_type_ids`: 0, or 1 for the second text of a pair, where the file says so.
  public var typeIDs: [Int32]
}

public struct EncodingOptions: Sendable {
  public enum Length: Sendable {
    /// At most as many tokens as the file says, or any number where it says nothing.
    case fromFile
    /// At most this many tokens, special ones included.
    case atMost(Int)
    case unlimited
  }

  /// Whether to add the tokens of the file's template, such as `[CLS]` and `[SEP]`.
  public var addSpecialTokens: Bool
  public var length: Length

  public init(addSpecialTokens: Bool = true, length: Length = .fromFile) {
    self.addSpecialTokens = addSpecialTokens
    self.length = length
  }
}

/// The `truncation` section of `tokenizer.json`.
public struct Truncation: Sendable, Equatable {
  public enum Strategy: String, Sendable {
    case longestFirst = "LongestFirst"
    case onlyFirst = "OnlyFirst"
    case onlySecond = "OnlySecond"
  }
  public enum Direction: String, Sendable {
    case left = "Left"
    case right = "Right"
  }

  /// Tokens of an encoding, special ones included.
  public var maximumLength: Int
  public var strategy = Strategy.longestFirst
  /// The end at which tokens are dropped.
  public var direction = Direction.right

  public init(maximumLength: Int, strategy: Strategy = .longestFirst, direction: Direction = .right) {
    self.maximumLength = maximumLength
    self.strategy = strategy
    self.direction = direction
  }
}

/// The `padding` section of `tokenizer.json`.
public struct Padding: Sendable, Equatable {
  public enum Length: Sendable, Equatable {
    case longestOfBatch
    case fixed(Int)
  }
  public enum Direction: String, Sendable {
    case left = "Left"
    case right = "Right"
  }

  public var length = Length.longestOfBatch
  /// The end at which padding is added.
  public var direction = Direction.right
  public var multipleOf: Int?
  public var id: Int32 = 0
  public var typeID: Int32 = 0
  public var token = "[PAD]"

  public init() {}
}

/// Encodings of several inputs, row-major, all rows padded to the same length.
public struct TokenBatch: Sendable, Equatable {
  public var rows: Int
  public var columns: Int
  /// `input_ids`.
  public var ids: [Int32]
  /// `attention_mask`: 1 for a token, 0 for padding.
  public var attentionMask: [Int32]
  /// `token_type_ids`.
  public var typeIDs: [Int32]
}

/// Why a text could not be encoded or ids not be decoded.
public enum TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
  case unknownID(Int32, position: Int)
  case tooLong(tokens: Int, maximumLength: Int, reason: String)

  public var description: String {
    switch self {
    case .unknownID(let id, let position): "token id \(id) at position \(position) is not in the vocabulary"
    case .tooLong(let tokens, let maximumLength, let reason):
      "\(tokens) tokens cannot be cut to \(maximumLength): \(reason)"
    }
  }
}

extension Tokenizer {
  /// The ids of `text` with special tokens, cut to the length the file gives.
  public func encode(_ text: String) throws(TokenizerError) -> [Int32] {
    try encode(text, pair: nil, options: EncodingOptions()).ids
  }

  public func encode(_ text: String, options: EncodingOptions) throws(TokenizerError) -> [Int32] {
    try encode(text, pair: nil, options: options).ids
  }

  public func decode(_ ids: [Int32]) throws(TokenizerError) -> String {
    try decode(ids, skipSpecialTokens: true)
  }

  /// Encodes `texts` into one rectangle. `padding` is the file's unless given, else to the longest of the batch.
  public func encodeBatch(
    _ texts: [String], options: EncodingOptions = EncodingOptions(), padding: Padding? = nil
  ) throws(TokenizerError) -> TokenBatch {
    var encodings: [Encoding] = []
    encodings.reserveCapacity(texts.count)
    for text in texts { encodings.append(try encode(text, pair: nil, options: options)) }
    return (padding ?? self.padding ?? Padding()).batch(encodings)
  }
}

extension Padding {
  /// `encodings` as the rows of one rectangle; a row that is already longer than a fixed length decides the width.
  public func batch(_ encodings: [Encoding]) -> TokenBatch {
    var columns = encodings.reduce(0) { max($0, $1.ids.count) }
    if case .fixed(let length) = length { columns = max(columns, length) }
    if let multipleOf, multipleOf > 1, columns % multipleOf != 0 { columns += multipleOf - columns % multipleOf }
    var batch = TokenBatch(rows: encodings.count, columns: columns, ids: [], attentionMask: [], typeIDs: [])
    for encoding in encodings {
      let missing = columns - encoding.ids.count
      func append(_ values: [Int32], _ filler: Int32, to row: inout [Int32]) {
        if direction == .left { row.append(contentsOf: repeatElement(filler, count: missing)) }
        row.append(contentsOf: values)
        if direction == .right { row.append(contentsOf: repeatElement(filler, count: missing)) }
      }
      append(encoding.ids, id, to: &batch.ids)
      append([Int32](repeating: 1, count: encoding.ids.count), 0, to: &batch.attentionMask)
      append(encoding.typeIDs, typeID, to: &batch.typeIDs)
    }
    return batch
  }
}

/// Opens the tokenizer of a model folder, whatever its kind.
public enum TokenizerFile {
  /// Larger files are refused; those of the largest multilingual models are about half of this.
  public static let sizeLimit = 64 << 20

  /// Reads `tokenizer.json` in `directory`.
  public static func load(directory: String) throws(ModelError) -> HubTokenizer {
    let path = "\(directory)/tokenizer.json"
    guard ModelFile.exists(path) else {
      throw ModelError(
        file: path, field: "", reason: "no such file; a Hugging Face model directory with a fast tokenizer has one")
    }
    return try HubTokenizer(path: path)
  }
}

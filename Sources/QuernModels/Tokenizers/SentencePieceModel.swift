/// SentencePiece's BPE (Kudo and Richardson, arXiv 1808.06226) as GGUF files have it: a text begins as its characters, and of all
/// neighbours that together are a token, those whose token has the highest score are merged, the leftmost of equal ones first.
///
/// What no token is made of becomes its bytes, as the tokens `<0x00>` to `<0xFF>`.
struct SentencePieceModel: Sendable {
  let vocabulary: Vocabulary
  let unknownID: Int32?
  private let scores: [Float]
  private let byteTokens: [Int32]

  /// Merges look up texts of up to this many bytes.
  static let tokenLimit = 1024
  /// The id of a character that is no token.
  private static let noToken = Int32.max

  /// - Parameter scores: one for each token, none of them NaN.
  init(_ vocabulary: Vocabulary, scores: [Float], unknownID: Int32?) {
    (self.vocabulary, self.scores, self.unknownID) = (vocabulary, scores, unknownID)
    byteTokens = vocabulary.byteTokens()
  }

  /// Whether every text can be written.
  var isComplete: Bool { unknownID != nil || byteTokens.allSatisfy { $0 >= 0 } }

  func encode(_ word: UnsafeBufferPointer<UInt8>, _ work: inout ModelWork) {
    var starts = work.starts
    work.starts = []
    starts.removeAll(keepingCapacity: true)
    var position = 0
    while position < word.count {
      let end = position &+ ScalarReader.next(word, position).length
      let id = vocabulary.id(UnsafeBufferPointer(rebasing: word[position..<end]))
      work.merging.append(id >= 0 ? id : Self.noToken)
      starts.append(position)
      position = end
    }
    starts.append(word.count)
    work.merging.merge(TextMerges(model: self, text: word, starts: starts))
    work.merging.forEach { place, next in
      let id = work.merging.symbols[place].id
      if id != Self.noToken { return work.ids.append(id) }
      appendBytes(word[starts[place]..<starts[next < 0 ? starts.count &- 1 : next]], &work.ids)
    }
    work.merging.symbols.removeAll(keepingCapacity: true)
    work.starts = starts
  }

  private func appendBytes(_ character: Slice<UnsafeBufferPointer<UInt8>>, _ ids: inout [Int32]) {
    if character.allSatisfy({ byteTokens[Int($0)] >= 0 }) {
      for byte in character { ids.append(byteTokens[Int(byte)]) }
    } else if let unknownID {
      ids.append(unknownID)
    }
  }

  /// Merges of symbols by the text that they are together.
  private struct TextMerges: MergeRule {
    let model: SentencePieceModel
    let text: UnsafeBufferPointer<UInt8>
    /// Where the symbol of each place begins, and the end.
    let starts: [Int]

    private func token(_ left: Int, _ right: Int, _ symbols: [MergeWork.Symbol]) -> Int32 {
      let next = symbols[right].next
      let range = starts[left]..<starts[next < 0 ? starts.count &- 1 : Int(next)]
      guard range.count <= model.vocabulary.longestToken else { return -1 }
      return model.vocabulary.id(UnsafeBufferPointer(rebasing: text[range]))
    }

    /// The bits of the score so that higher ones come first; none of them are `MergeTable.none`, which would be NaN.
    func rank(_ left: Int, _ right: Int, _ symbols: [MergeWork.Symbol]) -> UInt32 {
      let id = token(left, right, symbols)
      guard id >= 0 else { return MergeTable.none }
      // Adding 0 makes -0 the 0 that it equals.
      let bits = (model.scores[Int(id)] + 0).bitPattern
      return bits >> 31 == 0 ? ~(bits | 1 << 31) : bits
    }

    func token(_: UInt32, _ left: Int, _ right: Int, _ symbols: [MergeWork.Symbol]) -> Int32 {
      token(left, right, symbols)
    }

    func isSame(_ waiting: UInt32, _ now: UInt32) -> Bool { waiting == now }
  }
}

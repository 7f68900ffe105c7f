/// `BertPreTokenizer`: words are what lies between white space, and each punctuation character.
package enum WordSplitter {
  @inline(__always)
  package static func forEachWord(_ bytes: UnsafeBufferPointer<UInt8>, _ body: (Range<Int>) -> Void) {
    let characters = BertCharacters.shared
    var wordStart = 0
    var position = 0
    while position < bytes.count {
      let (scalar, length) = ScalarReader.next(bytes, position)
      let classes = characters.classes(scalar)
      let end = position &+ length
      if !classes.isDisjoint(with: [.whitespace, .punctuation]) {
        if wordStart < position { body(wordStart..<position) }
        if !classes.contains(.whitespace) { body(position..<end) }
        wordStart = end
      }
      position = end
    }
    if wordStart < position { body(wordStart..<position) }
  }
}

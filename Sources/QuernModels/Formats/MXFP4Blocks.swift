import Quern

/// The blocks of ``QuantizedFormat/mxfp4`` from those that files have, whose scale is the exponent of a power of two in one byte.
enum MXFP4Blocks {
  /// Bytes of ggml's `block_mxfp4`: the exponent, then codes in the order of the format.
  static let ggmlBytes = 17

  /// Half of `2^(e - 127)` in bf16; NaN for 255.
  static func half(ofExponent e: UInt8) -> UInt16 {
    switch e {
    case 0: 0x20
    case 1: 0x40
    case 255: 0x7FC0
    default: UInt16(e - 1) << 7
    }
  }

  /// Blocks of ggml, whole ones, to as many of the format.
  static func widen(_ stored: UnsafeRawBufferPointer, into blocks: UnsafeMutableRawBufferPointer) {
    let size = QuantizedFormat.mxfp4.blockBytes
    for block in 0..<stored.count / ggmlBytes {
      let (from, to) = (block * ggmlBytes, block * size)
      blocks.storeBytes(of: half(ofExponent: stored[from]).littleEndian, toByteOffset: to, as: UInt16.self)
      UnsafeMutableRawBufferPointer(rebasing: blocks[to + 2..<to + size])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: stored[from + 1..<from + ggmlBytes]))
    }
  }
}

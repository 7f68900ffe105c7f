import Quern
import QuernModels

/// How an image has to be turned to be upright: tag 0x0112 of Exif (CIPA DC-008), which says what the first row and column are.
struct ExifOrientation {
  /// 1 to 8.
  private let value: Int

  /// Finds the tag in a TIFF header and its first directory; nil where it is not, or nothing is to be turned.
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 8, bytes[0] == bytes[1] else { return nil }
    let isLittle = bytes[0] == UInt8(ascii: "I")
    guard isLittle || bytes[0] == UInt8(ascii: "M") else { return nil }
    func number(_ offset: Int, _ count: Int) -> Int? {
      guard offset >= 0, offset <= bytes.count - count else { return nil }
      return (0..<count).reduce(0) { $0 << 8 | Int(bytes[offset + (isLittle ? count - 1 - $1 : $1)]) }
    }
    guard number(2, 2) == 42, let directory = number(4, 4), let entries = number(directory, 2) else { return nil }
    for entry in 0..<entries {
      let offset = directory + 2 + 12 * entry
      guard let tag = number(offset, 2) else { return nil }
      guard tag == 0x0112 else { continue }
      // A SHORT, left-aligned in its four bytes.
      guard number(offset + 2, 2) == 3, let value = number(offset + 8, 2), (2...8).contains(value) else { return nil }
      self.value = value
      return
    }
    return nil
  }

  func upright(_ image: RGBImage) -> RGBImage {
    let swaps = value >= 5
    let (width, height) = swaps ? (image.height, image.width) : (image.width, image.height)
    var bytes = [UInt8](repeating: 0, count: image.bytes.count)
    for row in 0..<height {
      for column in 0..<width {
        // Where a pixel of the upright image comes from.
        let (x, y): (Int, Int) =
          switch value {
          case 2: (width - 1 - column, row)
          case 3: (width - 1 - column, height - 1 - row)
          case 4: (column, height - 1 - row)
          case 5: (row, column)
          case 6: (row, width - 1 - column)
          case 7: (height - 1 - row, width - 1 - column)
          default: (height - 1 - row, column)
          }
        let (from, to) = (3 * (y * image.width + x), 3 * (row * width + column))
        for channel in 0..<3 { bytes[to + channel] = image.bytes[from + channel] }
      }
    }
    // The same bytes in a size with as many pixels.
    return (try? RGBImage(width: width, height: height, bytes: bytes)) ?? image
  }
}

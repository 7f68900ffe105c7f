import Quern
import QuernModels

extension RGBImage {
  /// A picture as an autoencoder makes it: `(x / 2 + 1/2) 255`, cut off at 0 and 255 and rounded to nearest even.
  ///
  /// - Parameter pixels: `[height, width, 3]`, or `[1, height, width, 3]`, f32 without gaps.
  /// - Throws: ``QuernError/invalidShape(_:)`` for another tensor.
  public init(pixels: TensorView) throws(QuernError) {
    let axes = pixels.shape.rank
    guard axes == 3 || axes == 4 && pixels.shape[0] == 1, pixels.shape[axes - 1] == 3, pixels.isContiguous,
      pixels.dataType == .f32
    else { throw .invalidShape("a picture \(pixels.shape): [height, width, 3] in f32 without gaps is expected") }
    let (source, count) = (pixels.pointer, pixels.shape.count)
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { target, filled in
      for index in 0..<count {
        let value = (source[index] / 2 + 0.5) * 255
        // A NaN is no colour; black is as good as any.
        target[index] = value > 0 ? UInt8(min(value, 255).rounded(.toNearestOrEven)) : 0
      }
      filled = count
    }
    try self.init(width: pixels.shape[axes - 2], height: pixels.shape[axes - 3], bytes: bytes)
  }

  /// Writes `x / 127.5 - 1` of each byte into `[height, width, 3]`, or `[1, height, width, 3]`, f32 without gaps.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for another tensor.
  public func write(to pixels: MutableTensor) throws(QuernError) {
    let axes = pixels.shape.rank
    guard axes == 3 || axes == 4 && pixels.shape[0] == 1, pixels.shape[axes - 3] == height,
      pixels.shape[axes - 2] == width, pixels.shape[axes - 1] == 3, pixels.isContiguous, pixels.dataType == .f32
    else {
      throw .invalidShape(
        "a picture of \(width)x\(height) into \(pixels.shape): [\(height), \(width), 3] in f32 without gaps is expected")
    }
    let target = pixels.pointer
    for (index, byte) in bytes.enumerated() { target[index] = Float(byte) / 127.5 - 1 }
  }
}

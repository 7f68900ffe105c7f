import Foundation
import Quern

/// What a model's images go through before it sees them, from a directory's `preprocessor_config.json`: resizing, a crop at the
/// centre, and `(value / 255 - mean) / std` of each channel.
///
/// ```swift
/// let preprocessor = try ImagePreprocessor(directory: "clip-vit-base-patch32")
/// let pixels = try preprocessor.pixels(RGBImage(width: 640, height: 480, bytes: bytes))   // [1, 3, 224, 224]
/// ```
public struct ImagePreprocessor: Sendable, Equatable {
  /// How large an image becomes.
  public enum Size: Sendable, Equatable {
    /// Its shorter side; the other follows, rounded down.
    case shortestEdge(Int)
    case exactly(height: Int, width: Int)
  }

  /// `nil` leaves the size alone.
  public var size: Size?
  public var filter: ResamplingFilter
  /// Height and width of the crop; `nil` for none.
  public var crop: ImageSize?
  /// What a byte is multiplied by.
  public var rescaleFactor: Float
  /// Of red, green and blue, after the factor.
  public var mean: [Float]
  public var std: [Float]

  /// - Throws: ``ModelError`` naming the field, also for processors and filters that are not implemented.
  public init(directory: String) throws(ModelError) {
    try self.init(HubConfig(directory: directory, name: "preprocessor_config.json"))
  }

  /// Reads the fields of the processors of CLIP, ConvNeXT, which ResNet has too, and ViT, those of older versions of `transformers`
  /// included.
  public init(_ config: HubConfig) throws(ModelError) {
    let kinds = ["CLIP", "ConvNext", "ViT"].flatMap { kind in
      ["ImageProcessor", "ImageProcessorFast", "FeatureExtractor"].map { kind + $0 }
    }
    let key =
      try config.root.optional("image_processor_type") == nil ? "feature_extractor_type" : "image_processor_type"
    let kind = try config.string(key, oneOf: kinds)
    let (isViT, isConvNext) = (kind.hasPrefix("ViT"), kind.hasPrefix("ConvNext"))
    let doesCrop = try config.bool("do_center_crop", default: kind.hasPrefix("CLIP"))
    if try config.bool("do_resize", default: true) {
      size = try config.size(isShortestEdge: !isViT, default: isConvNext ? 384 : 224)
    }
    filter = isViT ? .bilinear : .bicubic
    if let resample = try config.root.optional("resample") {
      guard let found = ResamplingFilter(rawValue: try resample.int()) else {
        throw resample.error(
          "\(try resample.int()) is not supported; supported: 1, Lanczos, 2, bilinear, and 3, bicubic")
      }
      filter = found
    }
    if isConvNext {
      if doesCrop { throw try config.root.required("do_center_crop").error("true is not supported; crop_pct crops") }
      switch size {
      case .shortestEdge(let edge): (size, crop) = try config.croppedShare(edge)
      case .exactly:
        throw try config.root.required("size").error("is a height and a width; \(kind) takes shortest_edge")
      case nil: break
      }
    } else if doesCrop {
      crop = try config.crop()
    }
    let doesRescale = try config.bool("do_rescale", default: true)
    rescaleFactor = doesRescale ? Float(try config.positive("rescale_factor", default: 1 / 255)) : 1
    let isNormalized = try config.bool("do_normalize", default: true)
    mean = isNormalized ? try config.channels("image_mean") : [0, 0, 0]
    std = isNormalized ? try config.channels("image_std") : [1, 1, 1]
    guard std.allSatisfy({ $0 > 0 }) else {
      throw try config.root.required("image_std").error("\(std) has an element that is not positive")
    }
  }

  /// `[1, 3, height, width]` of an image.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` where the crop is larger than the resized image.
  public func pixels(_ image: RGBImage) throws(QuernError) -> MutableTensor {
    var image = image
    switch size {
    case .exactly(let height, let width): image = try image.resized(height: height, width: width, filter)
    case .shortestEdge(let edge):
      let (short, long) = (min(image.height, image.width), max(image.height, image.width))
      let (product, overflow) = edge.multipliedReportingOverflow(by: long)
      guard !overflow else { throw .invalidShape("an image of \(image.width)x\(image.height) is too large") }
      let other = product / short
      image = try image.resized(
        height: image.height == short ? edge : other, width: image.height == short ? other : edge, filter)
    case nil: break
    }
    let window = crop ?? ImageSize(image.height, image.width)
    guard window.height <= image.height, window.width <= image.width else {
      throw .invalidShape("a crop of \(window) from an image of \(ImageSize(image.height, image.width))")
    }
    let (top, left) = ((image.height - window.height) / 2, (image.width - window.width) / 2)
    let plane = window.height * window.width
    let pixels = try MutableTensor(zeros: Shape(1, 3, window.height, window.width))
    for channel in 0..<3 {
      let (factor, shift) = (rescaleFactor / std[channel], mean[channel] / std[channel])
      for row in 0..<window.height {
        let target = pixels.base + channel * plane + row * window.width
        let source = ((top + row) * image.width + left) * 3 + channel
        for column in 0..<window.width {
          target[column] = Float(image.bytes[source + 3 * column]) * factor - shift
        }
      }
    }
    return pixels
  }
}

/// An image of 8 bits for each of red, green and blue.
public struct RGBImage: Sendable, Equatable {
  public let width, height: Int
  /// Row by row from the top, three bytes a pixel.
  public let bytes: [UInt8]

  /// - Throws: ``QuernError/invalidShape(_:)`` where the count of bytes is not that of the pixels, or there are none.
  public init(width: Int, height: Int, bytes: [UInt8]) throws(QuernError) {
    guard width > 0, height > 0, width <= 1 << 20, height <= 1 << 20, bytes.count == 3 * width * height else {
      throw .invalidShape("\(bytes.count) bytes for an image of \(width)x\(height), three for each pixel")
    }
    (self.width, self.height, self.bytes) = (width, height, bytes)
  }
}

/// The filters of Pillow's `resize`, with their numbers there: where an image becomes smaller they widen, so that every pixel counts.
public enum ResamplingFilter: Int, Sendable {
  /// Lanczos' windowed sinc, three lobes a side (*Applied Analysis*, 1956).
  case lanczos = 1
  case bilinear = 2
  /// Keys' cubic convolution with a = -1/2 (IEEE ASSP 29, 1981).
  case bicubic = 3

  /// How far it reaches.
  fileprivate var support: Double {
    switch self {
    case .lanczos: 3
    case .bilinear: 1
    case .bicubic: 2
    }
  }

  fileprivate func weight(_ x: Double) -> Double {
    let x = abs(x)
    func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(.pi * x) / (.pi * x) }
    switch self {
    case .lanczos: return x < 3 ? sinc(x) * sinc(x / 3) : 0
    case .bilinear: return max(1 - x, 0)
    case .bicubic:
      if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0
    }
  }
}

extension RGBImage {
  /// The image in another size: along its rows, then along its columns, rounded to 8 bits after each.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for a size that is not positive.
  public func resized(height: Int, width: Int, _ filter: ResamplingFilter) throws(QuernError) -> RGBImage {
    guard width > 0, height > 0, width <= 1 << 14, height <= 1 << 14 else {
      throw .invalidShape("an image of \(width)x\(height): at least 1x1 and at most 16384x16384")
    }
    let across = Self.resample(
      bytes, lines: self.height, from: self.width, to: width, step: 3, line: 3 * self.width, newLine: 3 * width, filter)
    let down = Self.resample(
      across, lines: width, from: self.height, to: height, step: 3 * width, line: 3, newLine: 3, filter)
    return try RGBImage(width: width, height: height, bytes: down)
  }

  /// Each line of `count` pixels, `step` apart, becomes one of `target`; lines lie `line` apart, and `newLine` in the result.
  private static func resample(
    _ bytes: [UInt8], lines: Int, from count: Int, to target: Int, step: Int, line: Int, newLine: Int,
    _ filter: ResamplingFilter
  ) -> [UInt8] {
    guard count != target else { return bytes }
    var result = [UInt8](repeating: 0, count: 3 * lines * target)
    let scale = Double(count) / Double(target)
    let reach = filter.support * max(scale, 1)
    for place in 0..<target {
      let centre = (Double(place) + 0.5) * scale
      let (first, last) = (max(Int(centre - reach + 0.5), 0), min(Int(centre + reach + 0.5), count))
      let raw = (first..<last).map { filter.weight((Double($0) + 0.5 - centre) / max(scale, 1)) }
      let total = raw.reduce(0, +)
      let weights = raw.map { $0 / total }
      for other in 0..<lines {
        for channel in 0..<3 {
          var sum = 0.5
          for (index, weight) in weights.enumerated() {
            sum += weight * Double(bytes[other * line + (first + index) * step + channel])
          }
          result[other * newLine + place * step + channel] = UInt8(min(max(sum, 0), 255))
        }
      }
    }
    return result
  }
}

extension HubConfig {
  fileprivate func size(isShortestEdge: Bool, default edge: Int) throws(ModelError) -> ImagePreprocessor.Size {
    let range = 1...(1 << 14)
    guard let size = try root.optional("size") else {
      return isShortestEdge ? .shortestEdge(edge) : .exactly(height: edge, width: edge)
    }
    guard size.kind == .object else {
      let edge = try size.int(in: range)
      return isShortestEdge ? .shortestEdge(edge) : .exactly(height: edge, width: edge)
    }
    if let edge = try size.optional("shortest_edge") {
      try size.expectOnly(["shortest_edge"])
      return .shortestEdge(try edge.int(in: range))
    }
    try size.expectOnly(["height", "width"])
    return .exactly(
      height: try size.required("height").int(in: range), width: try size.required("width").int(in: range))
  }

  /// ConvNeXT's: up to 383 pixels the centre of what is larger by `crop_pct`, from 384 on the whole image as a square.
  fileprivate func croppedShare(_ edge: Int) throws(ModelError) -> (ImagePreprocessor.Size, ImageSize?) {
    guard edge < 384 else { return (.exactly(height: edge, width: edge), nil) }
    let share = try positive("crop_pct", default: 224.0 / 256)
    let resized = Double(edge) / share
    guard share <= 1, resized <= 16384 else {
      throw try root.required("crop_pct").error("\(share) is out of range: at most 1, of at most 16384 pixels")
    }
    return (.shortestEdge(Int(resized)), ImageSize(edge, edge))
  }

  fileprivate func crop() throws(ModelError) -> ImageSize {
    let range = 1...(1 << 14)
    guard let size = try root.optional("crop_size") else { return 224 }
    guard size.kind == .object else { return ImageSize(try size.int(in: range), try size.int(in: range)) }
    return ImageSize(try size.required("height").int(in: range), try size.required("width").int(in: range))
  }

  /// Three numbers, of red, green and blue.
  fileprivate func channels(_ key: String) throws(ModelError) -> [Float] {
    let list = try root.required(key)
    var values: [Float] = []
    try list.forEachElement { (value) throws(ModelError) in values.append(Float(try value.double())) }
    guard values.count == 3, values.allSatisfy(\.isFinite) else { throw list.error("\(values) are not three numbers") }
    return values
  }
}

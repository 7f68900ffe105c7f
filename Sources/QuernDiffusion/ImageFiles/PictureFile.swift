import Quern
import QuernModels

#if ImageFiles
  import CImageFiles
#endif

/// A picture read from a PNG or JPEG file, and the texts that came with it.
///
/// PNG: grey, palette and RGB of 1 to 16 bits, interlaced or not; 16 bits are rounded to 8, and alpha is dropped, as Pillow's
/// `convert("RGB")` drops it. JPEG: baseline and progressive, grey or of three colours. Both are turned the way their Exif says they are to
/// be looked at. Gamma and colour profiles are passed over.
public struct PictureFile: Sendable, Equatable {
  /// A key and a text of a PNG, in the order of the file.
  public struct Text: Sendable, Equatable {
    public var key: String
    public var value: String

    public init(key: String, value: String) { (self.key, self.value) = (key, value) }
  }

  /// Samples of the largest picture that is read unless the caller says otherwise, three a pixel.
  public static let sampleLimit = 1 << 28
  /// Files larger than this are something else.
  public static let sizeLimit = 1 << 30

  public var image: RGBImage
  public var texts: [Text]

  /// The text of this key, if there is one: `parameters` is where tools write what a picture was made with.
  public func text(_ key: String) -> String? { texts.first { $0.key == key }?.value }

  /// Reads a file, of the kind that its first bytes say.
  ///
  /// - Parameter limit: pictures of more samples are refused before memory is taken for them; so are files that are too small for the
  ///   picture they promise.
  /// - Throws: ``ModelError`` naming file and chunk or segment, for anything that is not whole; in a build without the trait
  ///   `ImageFiles`, for every file.
  public init(path: String, limit: Int = PictureFile.sampleLimit) throws(ModelError) {
    #if ImageFiles
      let bytes = try ModelFile(path: path).readAll(limit: Self.sizeLimit)
      self = try bytes.withUnsafeBytes { (raw) throws(ModelError) in try Self.read(raw, path: path, limit: limit) }
    #else
      throw Self.withoutTrait(path)
    #endif
  }

  /// Writes a PNG of 8 bits, which appears under its name only when it is whole.
  ///
  /// - Parameter texts: in chunks of their own; keys are 1 to 79 printable ASCII characters without outer or double spaces.
  /// - Throws: ``ModelError``, for a file that cannot be written or a text that a PNG cannot hold.
  public static func writePNG(_ image: RGBImage, texts: [Text] = [], to path: String) throws(ModelError) {
    #if ImageFiles
      try write(image, texts, to: path)
    #else
      throw withoutTrait(path)
    #endif
  }

  #if ImageFiles
    private static func read(
      _ bytes: UnsafeRawBufferPointer, path: String, limit: Int
    ) throws(ModelError) -> PictureFile {
      let isPNG = bytes.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
      guard isPNG || bytes.starts(with: [0xFF, 0xD8, 0xFF]) else {
        throw ModelError(
          file: path, field: "signature", offset: 0, reason: "is neither that of a PNG nor that of a JPEG file")
      }
      var picture = image_picture()
      let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
      let most = UInt64(max(limit, 0))
      let status =
        isPNG
        ? image_read_png(base, bytes.count, most, &picture) : image_read_jpeg(base, bytes.count, most, &picture)
      defer {
        image_free(picture.pixels)
        image_free(picture.texts)
        image_free(picture.exif)
      }
      guard status == IMAGE_OK, let pixels = picture.pixels else {
        throw error(picture, status, path: path, limit: limit)
      }
      let (width, height) = (Int(picture.width), Int(picture.height))
      let image: RGBImage
      do throws(QuernError) {
        image = try RGBImage(
          width: width, height: height, bytes: Array(UnsafeBufferPointer(start: pixels, count: 3 * width * height)))
      } catch {
        throw ModelError(file: path, field: "size", reason: "\(error)")
      }
      let exif = UnsafeRawBufferPointer(start: picture.exif, count: picture.exif_size)
      return PictureFile(
        image: ExifOrientation(exif).map { $0.upright(image) } ?? image,
        texts: texts(UnsafeRawBufferPointer(start: picture.texts, count: picture.texts_size)))
    }

    /// The chunk or segment, which messages begin with where there is one, and the rest.
    private static func error(
      _ picture: image_picture, _ status: image_status, path: String, limit: Int
    ) -> ModelError {
      let message = withUnsafeBytes(of: picture.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      var (field, reason) = ("", message)
      if let colon = message.firstRange(of: ": "), message.distance(from: message.startIndex, to: colon.lowerBound) <= 4
      {
        (field, reason) = (String(message[..<colon.lowerBound]), String(message[colon.upperBound...]))
      }
      if status == IMAGE_TOO_LARGE { reason += "; more than \(limit) samples, three a pixel, are not read" }
      return ModelError(file: path, field: field, offset: picture.offset, reason: reason)
    }

    private static func texts(_ bytes: UnsafeRawBufferPointer) -> [Text] {
      var texts: [Text] = []
      var rest = bytes[...]
      while let kind = rest.popFirst() {
        let key = rest.prefix { $0 != 0 }
        rest = rest.dropFirst(key.count + 1)
        let value = rest.prefix { $0 != 0 }
        rest = rest.dropFirst(value.count + 1)
        func latin(_ bytes: some Sequence<UInt8>) -> String {
          String(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) }))
        }
        let isUTF8 = kind == UInt8(ascii: "u")
        texts.append(Text(key: latin(key), value: isUTF8 ? String(decoding: value, as: UTF8.self) : latin(value)))
      }
      return texts
    }

    private static func write(_ image: RGBImage, _ texts: [Text], to path: String) throws(ModelError) {
      var encoded: [(key: [CChar], text: [CChar], isUTF8: Bool)] = []
      for text in texts { encoded.append(try encode(text, path: path)) }
      var (bytes, size): (UnsafeMutablePointer<UInt8>?, Int) = (nil, 0)
      var message = [CChar](repeating: 0, count: 256)
      let status = image.bytes.withUnsafeBufferPointer { pixels in
        withTexts(encoded[...], []) { texts in
          texts.withUnsafeBufferPointer {
            image_write_png(
              pixels.baseAddress, UInt32(image.width), UInt32(image.height), $0.baseAddress, $0.count, &bytes, &size,
              &message)
          }
        }
      }
      defer { image_free(bytes) }
      guard status == IMAGE_OK else {
        let reason = String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        throw ModelError(file: path, field: "", reason: reason)
      }
      let file = try AtomicFile(path: path)
      try file.write(UnsafeRawBufferPointer(start: bytes, count: size))
      try file.commit()
    }

    /// Pointers to all texts at once, for as long as `body` runs.
    private static func withTexts<R>(
      _ texts: ArraySlice<(key: [CChar], text: [CChar], isUTF8: Bool)>, _ done: [image_text],
      _ body: ([image_text]) -> R
    ) -> R {
      guard let first = texts.first else { return body(done) }
      return first.key.withUnsafeBufferPointer { key in
        first.text.withUnsafeBufferPointer { text in
          let entry = image_text(key: key.baseAddress, text: text.baseAddress, is_utf8: first.isUTF8 ? 1 : 0)
          return withTexts(texts.dropFirst(), done + [entry], body)
        }
      }
    }

    private static func encode(
      _ text: Text, path: String
    ) throws(ModelError) -> (key: [CChar], text: [CChar], isUTF8: Bool) {
      let key = Array(text.key.utf8)
      let isPlain = key.allSatisfy { (0x20...0x7E).contains($0) } && (1...79).contains(key.count)
      guard isPlain, key.first != 0x20, key.last != 0x20, !text.key.contains("  ") else {
        throw ModelError(
          file: path, field: text.key,
          reason: "is no key of a PNG: 1 to 79 printable ASCII characters without outer or double spaces")
      }
      guard !text.value.utf8.contains(0), text.value.utf8.count < 1 << 28 else {
        throw ModelError(file: path, field: text.key, reason: "its text holds a zero byte, or is too long")
      }
      let isLatin = text.value.unicodeScalars.allSatisfy { $0.value < 0x100 }
      let value =
        isLatin ? text.value.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) } : Array(text.value.utf8)
      func terminated(_ bytes: [UInt8]) -> [CChar] { bytes.map { CChar(bitPattern: $0) } + [0] }
      return (terminated(key), terminated(value), !isLatin)
    }
  #else
    private static func withoutTrait(_ path: String) -> ModelError {
      ModelError(
        file: path, field: "",
        reason: "pictures need libpng and libjpeg, and this build is without the package trait ImageFiles")
    }
  #endif

  private init(image: RGBImage, texts: [Text]) { (self.image, self.texts) = (image, texts) }
}

import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// Pictures of every kind against their pixels (tools/fixtures/pictures.py), and files that are not whole.
@Suite struct PictureFileTests {
  struct Pixels: Decodable, Sendable {
    let width, height: Int
    let bytes: String

    func image() throws -> RGBImage {
      let digits = Array(bytes.utf8)
      func value(_ digit: UInt8) -> UInt8 { digit < 58 ? digit - 48 : digit - 87 }
      return try RGBImage(
        width: width, height: height,
        bytes: stride(from: 0, to: digits.count, by: 2).map { value(digits[$0]) << 4 | value(digits[$0 + 1]) })
    }
  }

  static let pixels = (try? Fixture.decode([String: Pixels].self, "pictures/pixels.json")) ?? [:]
  static let files = pixels.keys.filter { $0.contains(".") }.sorted()

  private static func path(_ name: String) -> String { Fixture.path("pictures/\(name)") }

  /// The furthest that two images of one size are apart.
  private static func difference(_ a: RGBImage, _ b: RGBImage) throws -> Int {
    try #require(a.width == b.width && a.height == b.height, "\(a.width)x\(a.height) \(b.width)x\(b.height)")
    return zip(a.bytes, b.bytes).map { abs(Int($0) - Int($1)) }.max() ?? 0
  }

  @Test func lanczosIsPillows() throws {
    let smooth = try #require(Self.pixels["smooth"]).image()
    let expected = try #require(Self.pixels["lanczos-8x19"]).image()
    #expect(try Self.difference(smooth.resized(height: 19, width: 8, .lanczos), expected) <= 1)
  }

  @Test func pixelsAndTensorsAreEachOther() throws {
    let image = try #require(Self.pixels["smooth"]).image()
    let pixels = try MutableTensor(zeros: Shape(1, image.height, image.width, 3))
    try image.write(to: pixels)
    #expect(pixels.base[0] == -1 && pixels.elements.allSatisfy { $0 >= -1 && $0 <= 1 })
    #expect(try RGBImage(pixels: pixels.view) == image)
    let wild = try MutableTensor(zeros: Shape(1, 2, 3))
    let values: [Float] = [2, -3, .nan, 0.999, .infinity, -.infinity]
    for (index, value) in values.enumerated() { wild.base[index] = value }
    #expect(try RGBImage(pixels: wild.view).bytes == [255, 0, 0, 255, 255, 0])
    #expect(throws: QuernError.self) { try RGBImage(pixels: MutableTensor(zeros: Shape(2, 2, 4)).view) }
    #expect(throws: QuernError.self) { try RGBImage(pixels: MutableTensor(zeros: Shape(2, 2, 2, 3)).view) }
    #expect(throws: QuernError.self) { try image.write(to: MutableTensor(zeros: Shape(2, 2, 3))) }
  }

  #if ImageFiles
    @Test(arguments: files) func everyKind(_ name: String) throws {
      let file = try PictureFile(path: Self.path(name))
      let expected = try #require(Self.pixels[name]).image()
      let difference = try Self.difference(file.image, expected)
      #expect(difference <= (name.hasSuffix("png") ? 0 : 2), "\(difference)")
      guard name.hasSuffix("png") else { return #expect(file.texts.isEmpty) }
      #expect(file.text("Comment") == "behind the pixels")
      let hasTexts = name.contains("-8.")
      #expect(file.text("parameters") == (hasTexts ? "a cat, café\nSteps: 20" : nil))
      #expect(file.text("packed") == (hasTexts ? "one one one one one one one one one " : nil))
      #expect(file.text("title") == (hasTexts ? "猫とcafé" : nil))
    }

    @Test func everyFileIsHere() { #expect(Self.files.count == 44) }

    @Test func whatIsWrittenIsReadBack() throws {
      let folder = try TemporaryFolder()
      let path = folder.path + "/a.png"
      let texts = [("parameters", "a cat\nSteps: 20, é"), ("Software", ""), ("title", "猫")].map {
        PictureFile.Text(key: $0, value: $1)
      }
      for (width, height) in [(1, 1), (3, 2), (257, 64)] {
        var random = SeededRandom()
        let image = try RGBImage(
          width: width, height: height,
          bytes: (0..<3 * width * height).map { _ in .random(in: 0...255, using: &random) })
        try PictureFile.writePNG(image, texts: texts, to: path)
        let file = try PictureFile(path: path)
        #expect(file.image == image && file.texts == texts)
      }
      // Nothing but the file is left, and it is whole by its own sums.
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["a.png"])
    }

    @Test func textsThatAPNGCannotHoldAreRefused() throws {
      let folder = try TemporaryFolder()
      let image = try RGBImage(width: 1, height: 1, bytes: [1, 2, 3])
      for (key, value) in [
        ("", "a"), (" a", "a"), ("a ", "a"), ("a  b", "a"), ("é", "a"), ("a\n", "a"),
        (String(repeating: "a", count: 80), "a"),
        ("a", "b\0c"),
      ] {
        let error = thrown(ModelError.self) {
          try PictureFile.writePNG(image, texts: [.init(key: key, value: value)], to: folder.path + "/a.png")
        }
        #expect(error?.field == key)
      }
      #expect(thrown(ModelError.self) { try PictureFile.writePNG(image, to: folder.path + "/no/a.png") } != nil)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
    }

    private static func bytes(_ name: String) throws -> [UInt8] {
      [UInt8](try Data(contentsOf: URL(fileURLWithPath: path(name))))
    }

    private func refusal(_ bytes: [UInt8], limit: Int = PictureFile.sampleLimit) throws -> ModelError? {
      let folder = try TemporaryFolder()
      let path = try folder.write("file", bytes)
      let error = thrown(ModelError.self) { _ = try PictureFile(path: path, limit: limit) }
      if let error { #expect(error.file == path) }
      return error
    }

    @Test func filesThatAreNotWholeAreNamed() throws {
      let png = try Self.bytes("rgb-8.png")
      var broken = png
      broken[0] = 0
      #expect(try refusal(broken)?.field == "signature")
      #expect(try refusal([])?.field == "signature")
      #expect(try refusal(Array(png[..<4]))?.field == "signature")
      // A size beyond the bytes: IHDR's sum is made anew.
      func sized(_ width: UInt32, _ height: UInt32) -> [UInt8] {
        var bytes = png
        for (index, value) in [(16, width), (20, height)] {
          for place in 0..<4 { bytes[index + place] = UInt8(truncatingIfNeeded: value >> (24 - 8 * UInt32(place))) }
        }
        let sum = Self.checksum(bytes[12..<29])
        for place in 0..<4 { bytes[29 + place] = UInt8(truncatingIfNeeded: sum >> (24 - 8 * UInt32(place))) }
        return bytes
      }
      #expect(try refusal(sized(11, 9)) == nil)
      #expect(try refusal(sized(0x7FFF_FFFF, 0x7FFF_FFFF))?.field == "IHDR")
      #expect(try refusal(sized(20000, 20000))?.reason.contains("not read") == true)
      #expect(try refusal(sized(9000, 9000))?.reason.contains("cannot hold") == true)
      #expect(try refusal(sized(0, 9))?.reason.contains("IHDR") == true)
      #expect(try refusal(sized(11, 10)) != nil)
      #expect(try refusal(png, limit: 3 * 11 * 9 - 1)?.field == "IHDR")
      #expect(try refusal(png, limit: 3 * 11 * 9) == nil)
      broken = png
      broken[png.count - 20] ^= 1
      #expect(try refusal(broken)?.reason.contains("CRC") == true)
      #expect(
        try refusal([UInt8](try Data(contentsOf: URL(fileURLWithPath: Self.path("cmyk.jpg")))))?.reason.contains("CMYK")
          == true)
    }

    private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
      ~bytes.reduce(~0) { sum, byte in
        (0..<8).reduce(sum ^ UInt32(byte)) { sum, _ in sum & 1 == 1 ? 0xEDB8_8320 ^ sum >> 1 : sum >> 1 }
      }
    }

    @Test(arguments: ["rgb-8.png", "rgba-16-interlaced.png", "baseline.jpg", "progressive.jpg"])
    func everyPrefixIsRefused(_ name: String) throws {
      let bytes = try Self.bytes(name)
      let folder = try TemporaryFolder()
      for count in 0..<bytes.count {
        let path = try folder.write("file", bytes[..<count])
        let error = thrown(ModelError.self) { _ = try PictureFile(path: path) }
        #expect(error != nil && (error?.offset ?? 0) <= count, "\(count) of \(bytes.count) bytes")
      }
    }

    @Test func jpegSizesAreChecked() throws {
      let bytes = try Self.bytes("baseline.jpg")
      let frame = try #require((0..<bytes.count - 1).first { bytes[$0] == 0xFF && bytes[$0 + 1] == 0xC0 })
      func sized(_ size: [UInt8]) -> [UInt8] {
        var changed = bytes
        changed.replaceSubrange(frame + 5..<frame + 9, with: size)
        return changed
      }
      #expect(try refusal(sized([0xFF, 0xDC, 0xFF, 0xDC]))?.field == "SOF")
      #expect(try refusal(sized([0x20, 0, 0x20, 0]))?.reason.contains("cannot hold") == true)
      #expect(try refusal(sized([0, 0, 0, 21])) != nil)
      #expect(try refusal(bytes, limit: 3 * 21 * 14 - 1)?.field == "SOF")
    }

    /// Bytes changed, cut and doubled end in a picture or in a typed error.
    @Test(arguments: [
      "rgb-8.png", "palette-4-interlaced.png", "grey-alpha-16.png", "progressive.jpg", "turned-6.jpg", "turned-6.png",
      "grey.jpg",
    ])
    func changedFilesNeverTrap(_ name: String) throws {
      let original = try Self.bytes(name)
      let folder = try TemporaryFolder()
      var (random, refused) = (SeededRandom(), 0)
      for round in 0..<(ProcessInfo.processInfo.environment["QUERN_SANITIZE"] == nil ? 1500 : 200) {
        var bytes = original
        for _ in 0..<Int.random(in: 1...3, using: &random) {
          let at = Int.random(in: 0..<bytes.count, using: &random)
          switch Int.random(in: 0..<4, using: &random) {
          case 0: bytes[at] = .random(in: 0...255, using: &random)
          case 1: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
          case 2: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...8, using: &random)))
          default: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + 8)], at: at)
          }
          if bytes.isEmpty { bytes = original }
        }
        // Half of the PNG files get sums that are right, so that what lies behind them is met.
        if name.hasSuffix("png"), round % 2 == 0 { Self.mendSums(&bytes) }
        let path = try folder.write("file", bytes)
        do {
          _ = try PictureFile(path: path, limit: 1 << 22)
        } catch {
          refused += 1
          #expect(error.file == path, "\(error)")
        }
      }
      #expect(refused > 0)
    }

    private static func mendSums(_ bytes: inout [UInt8]) {
      var at = 8
      while at + 12 <= bytes.count {
        let length = bytes[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }
        guard length <= bytes.count - at - 12 else { return }
        let sum = checksum(bytes[at + 4..<at + 8 + length])
        for place in 0..<4 {
          bytes[at + 8 + length + place] = UInt8(truncatingIfNeeded: sum >> (24 - 8 * UInt32(place)))
        }
        at += 12 + length
      }
    }
  #else
    @Test func withoutTheTraitPicturesSaySo() throws {
      let folder = try TemporaryFolder()
      let path = try folder.write("a.png", [0x89])
      let image = try RGBImage(width: 1, height: 1, bytes: [1, 2, 3])
      for error in [
        thrown(ModelError.self) { _ = try PictureFile(path: path) },
        thrown(ModelError.self) { try PictureFile.writePNG(image, to: path) },
      ] { #expect(error?.reason.contains("ImageFiles") == true) }
    }
  #endif
}

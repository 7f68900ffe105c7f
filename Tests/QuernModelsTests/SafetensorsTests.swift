import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

@Suite struct SafetensorsTests {
  private static let good = Fixture.path("safetensors/good.safetensors")

  @Test func readsWhatTheReferenceWrote() throws {
    let file = try Safetensors(path: Self.good)
    #expect(
      Set(file.tensorNames) == ["embed.weight", "half", "ids", "double", "flags", "empty", "scalar"])
    #expect(file.metadata == ["format": "pt", "note": "é \"quoted\" \n"])
    let info = try file.info("embed.weight")
    #expect(info.dtype == .f32 && info.shape == [2, 3] && info.elementCount == 6 && info.byteRange.count == 24)
    #expect(try file.readFloat32("embed.weight") == [-1, -0.75, -0.5, -0.25, 0, 0.25])
    let half: [Float] = try file.readFloat32("half")
    #expect(half == [1.5, 0, 65504, 0x1p-24] && half[1].sign == .minus)
    #expect(try file.readFloat32("double") == [0.1, .infinity, -0])
    #expect(try file.readInt64("ids") == [1, -2, 3, 1 << 40])
    #expect(try file.readInt64("flags") == [1, 0, 1])
    #expect(try file.readInt64("scalar") == [7])
    #expect(try file.info("scalar").shape == [])
    #expect(try file.readFloat32("empty") == [])
    #expect(try file.info("empty").shape == [0, 4])
    let bytes = try file.readBytes("embed.weight")
    #expect(bytes.withUnsafeBytes { Int(bitPattern: $0.baseAddress) % FileBytes.alignment } == 0)
  }

  @Test func refusesReadsThatDoNotFit() throws {
    let file = try Safetensors(path: Self.good)
    #expect(modelError { _ = try file.info("nothing") }?.field == "tensors.nothing")
    #expect(modelError { _ = try file.readFloat32("ids") as [Float] }?.field == "tensors.ids.dtype")
    #expect(modelError { _ = try file.readInt64("half") }?.field == "tensors.half.dtype")
    var small = [Float](repeating: 0, count: 5)
    let error = modelError {
      try small.withUnsafeMutableBufferPointer { try file.readFloat32("embed.weight", into: $0) }
    }
    #expect(error?.field == "tensors.embed.weight.shape")
  }

  /// Every binary16 value, against the arithmetic definition of the format.
  @Test func everyHalfIsWidenedExactly() {
    for half in UInt16.min...UInt16.max {
      let exponent = Int(half >> 10 & 31)
      let fraction = Double(half & 1023)
      let magnitude =
        switch exponent {
        case 0: scalbn(fraction, -24)
        case 31: fraction == 0 ? Double.infinity : Double.nan
        default: scalbn(1024 + fraction, exponent - 25)
        }
      let expected = Float(half & 0x8000 == 0 ? magnitude : -magnitude)
      let found = DataType.widened(half: half)
      #expect(found.isNaN ? expected.isNaN : found.bitPattern == expected.bitPattern)
    }
  }

  @Test func namesAreComparedByteForByte() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/t.safetensors"
    let names = ["\u{E9}", "e\u{301}"]
    try Safetensors.write(
      path: path,
      tensors: [
        .init(name: names[0], shape: [1], values: .float32([1])),
        .init(name: names[1], shape: [1], values: .float32([2])),
      ])
    let file = try Safetensors(path: path)
    #expect(try file.readFloat32(names[0]) == [1])
    #expect(try file.readFloat32(names[1]) == [2])
  }

  @Test func fileThatShrinksGivesAnError() throws {
    let folder = try TemporaryFolder()
    let bytes = try Data(contentsOf: URL(fileURLWithPath: Self.good))
    let path = try folder.write("t.safetensors", bytes)
    let file = try Safetensors(path: path)
    truncate(path, off_t(bytes.count - 60))
    var failures = 0
    for name in file.tensorNames where modelError({ _ = try file.readBytes(name) })?.offset != nil { failures += 1 }
    #expect(failures > 0)
  }
}

@Suite struct SafetensorsWriterTests {
  @Test func roundTrips() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/out.safetensors"
    let floats = (0..<100).map { Float($0) / 7 }
    try Safetensors.write(
      path: path,
      tensors: [
        .init(name: "b\"\n\\", shape: [10, 10], values: .float32(floats)),
        .init(name: "a", shape: [], values: .int64([.min])),
        .init(name: "none", shape: [3, 0], values: .float32([])),
      ], metadata: ["k": "v\u{1}"])
    let file = try Safetensors(path: path)
    #expect(try file.readFloat32("b\"\n\\") == floats)
    #expect(try file.readInt64("a") == [.min])
    #expect(try file.info("none").shape == [3, 0])
    #expect(file.metadata == ["k": "v\u{1}"])
    // Nothing temporary is left.
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["out.safetensors"])
  }

  @Test func refusesWhatItCouldNotReadBack() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("old.safetensors", "old".utf8)
    func failure(_ tensors: [Safetensors.NewTensor], _ path: String) -> ModelError? {
      modelError { try Safetensors.write(path: path, tensors: tensors) }
    }
    let one = Safetensors.NewTensor(name: "a", shape: [1], values: .float32([1]))
    #expect(failure([one, one], path)?.field == "tensors.a")
    #expect(failure([.init(name: "a", shape: [2], values: .float32([1]))], path) != nil)
    #expect(failure([.init(name: "a", shape: [-1], values: .float32([1]))], path) != nil)
    #expect(failure([.init(name: "a", shape: [.max, .max], values: .float32([1]))], path) != nil)
    #expect(failure([.init(name: "__metadata__", shape: [1], values: .float32([1]))], path) != nil)
    #expect(failure([one], folder.path + "/no/such/t.safetensors")?.reason.contains("cannot be created") == true)
    // The file that was there is untouched, and nothing temporary is left.
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "old")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["old.safetensors"])
  }
}

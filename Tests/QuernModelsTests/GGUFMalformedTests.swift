import Foundation
import QuernModels
import QuernTesting
import Testing

/// Files that must be refused with a field and a byte, and with little memory. Some are those of published vulnerabilities of
/// other readers.
@Suite struct GGUFMalformedTests {
  struct Bad: Sendable, CustomTestStringConvertible {
    var name: String
    var field: String
    var bytes: [UInt8]
    var testDescription: String { name }

    init(_ name: String, _ field: String, _ build: (inout GGUFBuilder) -> Void) {
      (self.name, self.field) = (name, field)
      var builder = GGUFBuilder()
      build(&builder)
      bytes = builder.bytes
    }

    /// A single key.
    init(_ name: String, _ field: String, type: UInt32, _ value: [UInt8]) {
      self.init(name, field) { $0.key("k", type, value) }
    }

    /// A single tensor.
    init(
      _ name: String, _ field: String, tensor extents: [UInt64], type: UInt32 = 0, data: Int = 64,
      offset: UInt64? = nil,
      rank: UInt32? = nil
    ) {
      self.init(name, field) {
        $0.tensor(
          "a", extents, type: type, data: [UInt8](repeating: 0, count: data), offset: offset, rank: rank)
      }
    }
  }

  private static func number(_ value: some FixedWidthInteger) -> [UInt8] { GGUFBuilder.number(value) }

  private static let four = [UInt8](repeating: 0, count: 4)

  static let bad: [Bad] =
    cves + [
      // The frame
      Bad("magic", "magic") { $0.magic = Array("GGML".utf8) },
      Bad("version 1", "version") { $0.version = 1 },
      Bad("version 4", "version") { $0.version = 4 },
      Bad("big-endian", "version") { $0.version = UInt32(3).bigEndian },
      Bad("one tensor too many", "tensors[0].name") {
        $0.tensorCount = 1
        $0.strings("k", ["something to make the file long"])
      },
      Bad("one key too many", "metadata[1].key") {
        $0.keyCount = 2
        $0.strings("k", ["x"])
      },
      // Keys
      Bad("key twice", "metadata.k") {
        $0.key("k", 4, four)
        $0.key("k", 4, four)
      },
      Bad("empty key", "metadata[0].key") { $0.key("", 4, four) },
      Bad("key of 65,536 bytes", "metadata[0].key") { $0.key(String(repeating: "k", count: 65536), 4, four) },
      Bad("key is not UTF-8", "metadata[0].key") { $0.keys = [number(UInt64(1)) + [0xFF] + number(UInt32(4)) + four] },
      Bad("type 13", "metadata.k.type", type: 13, four),
      Bad("type 2^32-1", "metadata.k.type", type: .max, four),
      Bad("no value", "metadata.k", type: 10, four),
      // Alignment
      Bad("alignment 0", "metadata.general.alignment") { $0.key("general.alignment", 4, four) },
      Bad("alignment 48", "metadata.general.alignment") { $0.key("general.alignment", 4, number(UInt32(48))) },
      Bad("alignment is a string", "metadata.general.alignment") { $0.strings("general.alignment", ["32"]) },
      Bad("alignment -32", "metadata.general.alignment") { $0.key("general.alignment", 5, number(Int32(-32))) },
      // Tensors
      Bad("name twice", "tensors.a") {
        $0.tensor("a", [1], data: four)
        $0.tensor("a", [1], data: four)
      },
      Bad("empty name", "tensors[0].name") { $0.tensor("", [1], data: four) },
      Bad("five dimensions", "tensors.a.dimensions", tensor: [1, 1, 1, 1, 1]),
      Bad("row of half a block", "tensors.a.shape", tensor: [48, 2], type: 8),
      Bad("row of half a block of MXFP4", "tensors.a.shape", tensor: [48, 2], type: 39),
      Bad("MXFP4 cut short", "tensors.a.offset", tensor: [32, 4], type: 39, data: 67),
      Bad("extent 2^63", "tensors.a.shape[0]", tensor: [1 << 63]),
      Bad("product wraps to 4", "tensors.a.shape", tensor: [1 << 32 + 1, 1 << 32, 1 << 32, 4]),
      Bad("offset inside the alignment", "tensors.a.offset", tensor: [1], offset: 4),
      Bad("offset behind the end", "tensors.a.offset", tensor: [1], offset: 96),
      Bad("offset 2^64-32", "tensors.a.offset", tensor: [1], offset: .max - 31),
      Bad("offset 2^63-64", "tensors.a.offset", tensor: [1], offset: 1 << 63 - 64),
      Bad("unknown type behind the end", "tensors.a.offset", tensor: [1], type: 200, offset: 96),
      Bad("data cut short", "tensors.a.offset", tensor: [17]),
      Bad("overlap", "tensors.b.offset") {
        $0.tensor("a", [16], data: [UInt8](repeating: 0, count: 64))
        $0.tensor("b", [8], data: [UInt8](repeating: 0, count: 32), offset: 32)
      },
      Bad("same place twice", "tensors.b.offset") {
        $0.tensor("a", [8], data: [UInt8](repeating: 0, count: 32))
        $0.tensor("b", [8], data: [UInt8](repeating: 0, count: 32), offset: 0)
      },
    ]

  /// One or more for each published flaw of a reader of GGUF files.
  static let cves: [Bad] = [
    // n_kv times the size of a record wraps.
    Bad("CVE-2024-23605", "metadata count") { $0.keyCount = UInt64.max / 48 + 2 },
    Bad("CVE-2024-23605, within 63 bits", "metadata count") { $0.keyCount = 1 << 58 + 1 },
    // The same of n_tensors.
    Bad("CVE-2024-21836", "tensor count") { $0.tensorCount = UInt64.max / 88 + 2 },
    Bad("CVE-2024-21836, all ones", "tensor count") { $0.tensorCount = .max },
    // More dimensions than the array for them has.
    Bad("CVE-2024-21802", "tensors.a.dimensions", tensor: [1, 1], rank: 1000),
    Bad("CVE-2024-21802, all ones", "tensors.a.dimensions", tensor: [1, 1], rank: .max),
    // The length of a string plus one wraps.
    Bad("CVE-2024-23496", "metadata[0].key") { $0.keys = [number(UInt64.max) + [0, 0, 0, 0]] },
    Bad("CVE-2024-23496, a value", "metadata.k", type: 8, number(UInt64.max)),
    // The number of elements times their size wraps.
    Bad("CVE-2024-21825", "metadata.k.count") { $0.array("k", of: 4, count: 1 << 62 + 1, four) },
    Bad("CVE-2024-21825, strings", "metadata.k.count") { $0.array("k", of: 8, count: UInt64.max / 16 + 2, four) },
    // Errors in the middle of a key left values without contents.
    Bad("CVE-2024-32878", "metadata.k[1]") { $0.array("k", of: 8, count: 2, GGUFBuilder.string(four + four) + four) },
    Bad("CVE-2024-41130", "metadata.k", type: 8, number(UInt64(99))),
    // Lengths that are negative in 32 or 64 bits.
    Bad("CVE-2025-49847", "metadata.k[0]") { $0.array("k", of: 8, count: 1, number(UInt64(0x8000_0000)) + four) },
    Bad("CVE-2025-52566", "metadata.k[0]") { $0.array("k", of: 8, count: 1, number(UInt64(1) << 63) + four) },
    // The sum of the sizes of tensors, or of it and an offset, wraps.
    Bad("CVE-2025-53630", "tensors.b.offset") {
      $0.tensor("a", [16], data: [UInt8](repeating: 0, count: 64))
      $0.tensor("b", [1 << 60], offset: 64)
    },
    Bad("CVE-2026-27940", "tensors.a.offset", tensor: [1 << 60], offset: 1 << 63 - 1 << 62),
    // The size in bytes of a tensor wraps.
    Bad("CVE-2026-33298", "tensors.a.shape", tensor: [1 << 62]),
    Bad("CVE-2026-33298, blocks", "tensors.a.shape", tensor: [1 << 63 - 32, 1], type: 8),
    // A tensor that is not in the file.
    Bad("CVE-2026-7482", "tensors.a.offset", tensor: [1 << 20]),
    // The alignment has no bound.
    Bad("oss-sec V-01", "metadata.general.alignment") { $0.key("general.alignment", 4, number(UInt32(1) << 31)) },
    Bad("oss-sec V-01, 64 bits", "metadata.general.alignment") { $0.key("general.alignment", 10, number(UInt64.max)) },
    // Elements whose type is not looked at, and arrays of arrays.
    Bad("element type 13", "metadata.k.element type") { $0.array("k", of: 13, count: 1, four) },
    Bad("array of arrays", "metadata.k.element type") { $0.array("k", of: 9, count: 1, four + number(UInt64(0))) },
    Bad("recursion of arrays", "metadata.k.element type") {
      let level = number(UInt32(9)) + number(UInt64(1))
      $0.key("k", 9, (0..<100_000).flatMap { _ in level })
    },
  ]

  @Test(arguments: bad) func refuses(_ bad: Bad) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("bad.gguf", bad.bytes)
    let error = try #require(modelError { _ = try GGUF(path: path) }, "was accepted")
    #expect(error.field == bad.field && error.file == path && !error.reason.isEmpty, "\(error)")
    let offset = try #require(error.offset)
    #expect((0...bad.bytes.count).contains(offset))
    #expect(!error.description.contains("\n") && error.description.utf8.count < 4000)
  }

  @Test func theGoodFilesOfTheseCasesAreAccepted() throws {
    let folder = try TemporaryFolder()
    func open(_ build: (inout GGUFBuilder) -> Void) throws -> GGUF {
      try GGUF(path: folder.write("good.gguf", Bad("", "", build).bytes))
    }
    _ = try open { _ in }
    #expect(try open { $0.version = 2 }.version == 2)
    let file = try open {
      $0.alignment = 8
      $0.key("general.alignment", 4, Self.number(UInt32(8)))
      $0.key("text", 8, GGUFBuilder.string([]))
      $0.array("empty", of: 8, count: 0, [])
      $0.tensor("scalar", [], data: Self.four)
      $0.tensor("unknown", [3], type: 200, data: Self.four)
      $0.tensor("four", [1, 2, 3, 1], data: [UInt8](repeating: 0, count: 24))
      $0.tensor("none", [0, 4], type: 8)
    }
    #expect(try file.metadata.strings("empty").isEmpty && file.metadata.string("text").isEmpty)
    #expect(try file.info("four").shape == [1, 3, 2, 1] && file.info("scalar").shape == [])
    #expect(try file.readFloat32("scalar") == [0] && file.readFloat32("none") == [])
    #expect(try file.info("none").quantization?.inputs == 0)
    #expect(modelError { _ = try file.info("unknown") }?.reason.contains("type 200") == true)
  }

  /// What is in the wrong type is refused where it is asked for.
  @Test func valuesThatAreNotWhatTheirTypeSays() throws {
    let folder = try TemporaryFolder()
    let bytes = Bad("", "") {
      $0.key("two", 7, [2])
      $0.key("text", 8, GGUFBuilder.string([0xC3]))
      $0.array("texts", of: 8, count: 2, GGUFBuilder.string("a".utf8) + GGUFBuilder.string([0xED, 0xA0, 0x80]))
      $0.array("bools", of: 7, count: 2, [1, 255])
      $0.array("bytes", of: 1, count: 2, [1, 255])
      $0.key("large", 10, Self.number(UInt64.max))
      $0.key("nan", 6, Self.number(Float.nan.bitPattern))
    }.bytes
    let metadata = try GGUF(path: folder.write("odd.gguf", bytes)).metadata
    #expect(modelError { _ = try metadata.bool("two") }?.field == "metadata.two")
    #expect(modelError { _ = try metadata.string("text") }?.reason == "is not UTF-8")
    #expect(modelError { _ = try metadata.strings("texts") }?.field == "metadata.texts[1]")
    #expect(modelError { _ = try metadata.bools("bools") }?.field == "metadata.bools[1]")
    #expect(modelError { _ = try metadata.int("large") }?.reason.contains("64") == true)
    #expect(modelError { _ = try metadata.double("nan") }?.reason.contains("finite") == true)
    // Bytes are integers, and no reader takes them for f32.
    #expect(try metadata.floats("bytes") == [1, -1] && metadata.ints("bytes") == [1, -1])
  }

  // MARK: Memory and time

  /// Headers of about `size` bytes that are refused late, each dense in another way.
  static func bombs(_ size: Int) -> [Bad] {
    func filled(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
    func names(_ width: Int, _ limit: Int) -> [String] { (0..<min(size / width, limit)).map { String($0, radix: 36) } }
    return [
      Bad("empty strings, one short", "metadata.k[\(size / 8)]") {
        $0.array("k", of: 8, count: UInt64(size / 8 + 1), filled(size / 8 * 8) + [0, 0, 0, 0, 0, 0, 0])
        $0.keys[0].append(0xFF)
      },
      Bad("bytes, one short", "metadata.k.count") { $0.array("k", of: 0, count: UInt64(size + 1), filled(size)) },
      Bad("one long string, and one too many", "metadata[1].key") {
        $0.key("k", 8, GGUFBuilder.string(filled(size)))
        $0.keyCount = 2
      },
      Bad("keys, the first twice", "metadata.0") {
        for name in names(18, 65535) { $0.key(name, 0, [0]) }
        $0.key("0", 0, [0])
      },
      Bad("tensors, the first twice", "tensors.0") {
        for name in names(29, 1 << 18 - 1) { $0.tensor(name, []) }
        $0.tensor("0", [])
      },
      Bad("tensors, and one out of place", "tensors.!.offset") {
        for index in 0..<1 << 18 - 1 { $0.tensor(String(index, radix: 36), [0]) }
        $0.tensor("!", [0], offset: 1)
      },
    ]
  }

  /// In a process of its own, where nothing else allocates: at most 64 MiB and 4 times the header.
  @Test(.disabled(if: AllocationTests.isSanitized, "a sanitizer's own memory does not fit the limit"))
  func refusingTakesBoundedMemory() async {
    await #expect(processExitsWith: .success) {
      for bad in Self.bombs(6 << 20) {
        let folder = try TemporaryFolder()
        let path = try folder.write("bomb.gguf", bad.bytes)
        let used = try PeakMemory.of {
          let error = try #require(modelError { _ = try GGUF(path: path) })
          precondition(error.field == bad.field, "\(error)")
        }
        precondition(used <= 64 << 20 + 4 * bad.bytes.count, "\(bad.name): \(used) bytes")
      }
      // A header that is said to be long, in a file that is, but has holes: next to nothing may be read.
      let folder = try TemporaryFolder()
      let short = Bad("", "", type: 8, GGUFBuilder.number(UInt64(1) << 40)).bytes
      let path = try folder.write("holes.gguf", short)
      truncate(path, 1 << 41)
      let used = try PeakMemory.of { precondition(modelError { _ = try GGUF(path: path) }?.field == "metadata.k") }
      precondition(used <= 64 << 20, "\(used) bytes")
    }
  }

  @Test func thereAreEnoughCases() { #expect(Self.bad.count >= 55) }

  @Test func refusesEveryTruncation() throws {
    let folder = try TemporaryFolder()
    let good = try Data(contentsOf: URL(fileURLWithPath: Fixture.path("gguf/types.gguf")))
    let file = try GGUF(path: Fixture.path("gguf/types.gguf"))
    // The last tensor is of a type that is not read, and padding follows it.
    let end = try file.info("experts").byteRange.upperBound + 352
    for length in 0..<end {
      let path = try folder.write("cut.gguf", good[0..<length])
      #expect(modelError { _ = try GGUF(path: path) }?.offset != nil, "cut to \(length) bytes")
    }
  }

  /// Each bit of the header changed: a typed error, or a file whose tensors are read or refused.
  @Test func flippedBitsNeverTrap() throws {
    let folder = try TemporaryFolder()
    let good = try Data(contentsOf: URL(fileURLWithPath: Fixture.path("gguf/types.gguf")))
    let header = try GGUF(path: Fixture.path("gguf/types.gguf")).info("f32").byteRange.lowerBound
    var (accepted, refused) = (0, 0)
    for index in 0..<header {
      for bit in 0..<8 {
        var bytes = good
        bytes[index] ^= 1 << UInt8(bit)
        let path = try folder.write("flip.gguf", bytes)
        do {
          try Self.readEverything(path)
          accepted += 1
        } catch {
          refused += 1
          let error = try #require(error as? ModelError)
          #expect(error.offset != nil && !error.field.isEmpty)
        }
      }
    }
    #expect(accepted > 1000 && refused > 1000, "\(accepted) accepted, \(refused) refused")
  }

  /// Opens a file and asks it for everything; what it does not read is its right.
  static func readEverything(_ path: String) throws {
    let file = try GGUF(path: path)
    for key in file.metadata.keys {
      _ = try? file.metadata.int(key)
      _ = try? file.metadata.double(key)
      _ = try? file.metadata.string(key)
      _ = try? file.metadata.bool(key)
      _ = (try? file.metadata.strings(key)).map { $0.reduce(0) { $0 + $1.utf8.count } }
      _ = try? file.metadata.ints(key)
      _ = try? file.metadata.floats(key)
      _ = try? file.metadata.bools(key)
    }
    for name in file.tensorNames {
      guard let info = try? file.info(name), info.valueCount < 1 << 16 else { continue }
      _ = try? file.readFloat32(name)
      _ = try? file.readInt64(name)
      _ = try file.readBytes(name)
    }
  }
}

import Quern

/// An element type of ggml by its number in a file, known or not.
/// Source: https://github.com/ggml-org/ggml, `include/ggml.h` (`enum ggml_type`) and `src/ggml-common.h` (blocks).
struct GGUFType: Sendable, Equatable {
  /// What Quern does with the bytes.
  enum Content: Equatable {
    case elements(SafetensorsDType)
    /// Of a format, which `stored` become where they are not of it.
    case blocks(QuantizedFormat, stored: StoredBlocks? = nil)
    /// Known to ggml but not read here, and so by its size alone; or not known at all.
    case other
  }

  let number: UInt32

  /// As ggml spells it; `type 99` for one it did not have when this was written.
  var name: String { Self.layouts[number]?.name ?? "type \(number)" }

  /// Elements and bytes of a block; nil where the type is not known.
  var block: (size: Int, bytes: Int)? { Self.layouts[number].map { ($0.size, $0.bytes) } }

  var content: Content {
    if let stored { return .blocks(stored.format, stored: stored) }
    return switch number {
    case 0: .elements(.f32)
    case 1: .elements(.f16)
    case 2: .blocks(.q4)
    case 8: .blocks(.q8)
    case 7: .blocks(.q5One)
    case 12: .blocks(.q4K)
    case 13: .blocks(.q5K)
    case 14: .blocks(.q6K)
    case 24: .elements(.i8)
    case 25: .elements(.i16)
    case 26: .elements(.i32)
    case 27: .elements(.i64)
    case 28: .elements(.f64)
    case 30: .elements(.bf16)
    default: .other
    }
  }

  private var stored: StoredBlocks? {
    switch number {
    case 3: .q4One
    case 6: .q5
    case 10: .q2K
    case 11: .q3K
    case 20: .iq4NL
    case 23: .iq4XS
    case 39: .mxfp4
    default: nil
    }
  }

  /// What is read, for messages.
  static let read = layouts.keys.sorted().map { GGUFType(number: $0) }.filter { $0.content != .other }.map(\.name)
    .joined(separator: ", ")

  private static let layouts: [UInt32: (name: String, size: Int, bytes: Int)] = [
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
  ]
}

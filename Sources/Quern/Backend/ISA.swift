import CKernels

/// Instruction sets the kernels are compiled for, weakest first on each architecture.
public enum ISA: String, Sendable, CaseIterable {
  case scalar, neon, neondot, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx

  package var code: ck_isa {
    switch self {
    case .scalar: CK_ISA_SCALAR
    case .neon: CK_ISA_NEON
    case .neondot: CK_ISA_NEONDOT
    case .avx2: CK_ISA_AVX2
    case .avxvnni: CK_ISA_AVXVNNI
    case .avx512: CK_ISA_AVX512
    case .avx512vnni: CK_ISA_AVX512VNNI
    case .avx512bf16: CK_ISA_AVX512BF16
    case .amx: CK_ISA_AMX
    }
  }

  package init(code: ck_isa) { self = Self.allCases.first { $0.code == code } ?? .scalar }

  /// Whether this machine and this build can run it.
  public var isAvailable: Bool { ck_kernels_for(code) != nil }

  /// The instruction sets that this machine runs.
  public static var available: [ISA] { allCases.filter(\.isAvailable) }

  /// Why a processor with AMX runs without it; `nil` where it does not, or has none.
  package static var amxRefusal: String? {
    var leaves = ck_cpu_read()
    guard leaves.leaf7_edx & 1 << 24 != 0, let reason = ck_amx_missing(&leaves) else { return nil }
    return String(cString: reason)
  }
}

/// The kernels of one instruction set: a pointer to a constant table, hence safe to share.
package struct KernelTable: @unchecked Sendable {
  package let pointer: UnsafePointer<ck_kernels>

  package var isa: ISA { ISA(code: pointer.pointee.isa) }
  package var kernels: ck_kernels { pointer.pointee }

  /// The table of `isa`, or of the best instruction set where none is named.
  ///
  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` where this machine cannot run `isa`.
  package init(_ isa: ISA? = nil) throws(QuernError) {
    guard let isa else {
      pointer = ck_kernels_best()
      return
    }
    guard let table = ck_kernels_for(isa.code) else {
      let runnable = ISA.available.map(\.rawValue).joined(separator: ", ")
      throw .invalidSetting(name: "isa", value: isa.rawValue, expected: "one this machine runs: \(runnable)")
    }
    pointer = table
  }
}

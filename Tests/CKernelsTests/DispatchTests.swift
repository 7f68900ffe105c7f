import CKernels
import Testing

/// Detection against recorded machines: CPUID and XCR0 as they report them.
@Suite struct DispatchTests {
  private static let osxsave: UInt32 = 1 << 27
  private static let avxBits: UInt32 = 1 << 28 | 1 << 12 | 1 << 29  // AVX, FMA, F16C
  private static let avx2: UInt32 = 1 << 5
  private static let avx512: UInt32 = 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31  // F, DQ, BW, VL

  private func best(_ ecx: UInt32, _ ebx: UInt32, _ xcr0: UInt64, maxLeaf: UInt32 = 0xD) -> ck_isa {
    var leaves = ck_cpu_leaves()
    (leaves.max_leaf, leaves.leaf1_ecx, leaves.leaf7_ebx, leaves.xcr0) = (maxLeaf, ecx, ebx, xcr0)
    return ck_isa_from_leaves(&leaves)
  }

  #if arch(x86_64)
    @Test func instructionsAndRegisterStateMustBothBeThere() {
      let ecx = Self.osxsave | Self.avxBits
      let both = Self.avx2 | Self.avx512
      #expect(best(ecx, both, 0xE7) == CK_ISA_AVX512)
      #expect(best(ecx, Self.avx2, 0x7) == CK_ISA_AVX2)
      // A virtual machine that shows AVX-512 in CPUID while its kernel does not save the registers.
      #expect(best(ecx, both, 0x7) == CK_ISA_AVX2)
      #expect(best(ecx, both, 0x67) == CK_ISA_AVX2)
      #expect(best(ecx, both, 0x3) == CK_ISA_SCALAR)
      #expect(best(Self.avxBits, both, 0xE7) == CK_ISA_SCALAR, "no OSXSAVE: XCR0 means nothing")
      #expect(best(ecx & ~(1 << 12), both, 0xE7) == CK_ISA_SCALAR, "no FMA")
      #expect(best(ecx, both & ~(1 << 17), 0xE7) == CK_ISA_AVX2, "no AVX-512 DQ, as on Xeon Phi")
      #expect(best(ecx, Self.avx512, 0xE7) == CK_ISA_SCALAR, "no AVX2")
      #expect(best(ecx, both, 0xE7, maxLeaf: 1) == CK_ISA_SCALAR, "leaf 7 is out of range")
      #expect(best(0, 0, 0, maxLeaf: 0) == CK_ISA_SCALAR)
    }

    @Test func tilesNeedTheirInstructionsStateAndPermission() {
      var good = ck_cpu_leaves()
      (good.max_leaf, good.leaf1_ecx, good.leaf7_ebx) = (0x20, Self.osxsave | Self.avxBits, Self.avx2 | Self.avx512)
      (good.leaf7_ecx, good.leaf7_edx, good.leaf7_1_eax) = (1 << 11, 1 << 22 | 1 << 24 | 1 << 25, 1 << 5)
      (good.xcr0, good.tiles_allowed) = (0x600E7, 1)
      #expect(ck_isa_from_leaves(&good) == CK_ISA_AMX && ck_amx_missing(&good) == nil)
      func without(_ part: WritableKeyPath<ck_cpu_leaves, UInt32>, _ bit: UInt32) -> ck_isa {
        var leaves = good
        leaves[keyPath: part] &= ~(1 << bit)
        #expect(ck_amx_missing(&leaves) != nil)
        return ck_isa_from_leaves(&leaves)
      }
      for bit in [22, 24, 25] as [UInt32] { #expect(without(\.leaf7_edx, bit) == CK_ISA_AVX512BF16, "EDX bit \(bit)") }
      #expect(without(\.leaf7_ecx, 11) == CK_ISA_AVX512, "no AVX512-VNNI")
      #expect(without(\.leaf7_1_eax, 5) == CK_ISA_AVX512VNNI, "no AVX512-BF16")
      #expect(without(\.leaf7_ebx, 30) == CK_ISA_AVX2, "no AVX-512 BW")
      for state in [0x200E7, 0x400E7, 0xE7] as [UInt64] {
        var leaves = good
        leaves.xcr0 = state
        #expect(ck_isa_from_leaves(&leaves) == CK_ISA_AVX512BF16, "tile state is not saved whole")
      }
      var refused = good
      refused.tiles_allowed = 0
      #expect(ck_isa_from_leaves(&refused) == CK_ISA_AVX512BF16)
      #expect(ck_amx_missing(&refused).map { String(cString: $0) }?.contains("refused") == true)
    }

    /// What was added to AVX2 came later than what was added to AVX-512, so neither implies the other.
    @Test func integerProductsAreAskedForByThemselves() {
      var client = ck_cpu_leaves()  // Alder Lake with its small cores
      (client.max_leaf, client.leaf1_ecx, client.leaf7_ebx) = (0x20, Self.osxsave | Self.avxBits, Self.avx2)
      (client.leaf7_1_eax, client.xcr0) = (1 << 4, 0x7)
      #expect(ck_isa_from_leaves(&client) == CK_ISA_AVXVNNI)
      client.xcr0 = 0x3
      #expect(ck_isa_from_leaves(&client) == CK_ISA_SCALAR)

      var server = ck_cpu_leaves()  // Ice Lake
      (server.max_leaf, server.leaf1_ecx, server.leaf7_ebx) = (
        0x1B, Self.osxsave | Self.avxBits, Self.avx2 | Self.avx512
      )
      (server.leaf7_ecx, server.xcr0) = (1 << 11, 0xE7)
      #expect(ck_isa_from_leaves(&server) == CK_ISA_AVX512VNNI)
      #expect(ck_isa_allowed(&server, CK_ISA_AVXVNNI) == 0 && ck_isa_allowed(&server, CK_ISA_AVX2) != 0)
      server.leaf7_1_eax = 1 << 5
      #expect(ck_isa_from_leaves(&server) == CK_ISA_AVX512BF16)
      server.leaf7_ecx = 0
      #expect(ck_isa_from_leaves(&server) == CK_ISA_AVX512, "bf16 without VNNI is no processor there is")
      server.xcr0 = 0x7
      #expect(ck_isa_from_leaves(&server) == CK_ISA_AVX2)
    }
  #endif

  @Test func dotProductsOfArmAreAskedForBesidesNeon() {
    var core = ck_cpu_leaves()
    (core.neon, core.arm_hwcap) = (1, 0xFF)  // Cortex-A57
    #expect(ck_isa_from_leaves(&core) == CK_ISA_NEON)
    core.arm_hwcap |= 1 << 20
    #expect(ck_isa_from_leaves(&core) == CK_ISA_NEONDOT && ck_isa_allowed(&core, CK_ISA_NEON) != 0)
    core.neon = 0
    #expect(ck_isa_from_leaves(&core) == CK_ISA_SCALAR)
  }

  @Test func namesRoundTrip() {
    for code in 0..<CK_ISA_COUNT.rawValue {
      let name = ck_isa_name(ck_isa(rawValue: code))
      #expect(name != nil && ck_isa_parse(name) == Int32(code))
    }
    #expect(ck_isa_parse("avx1024") == -1)
    #expect(ck_isa_name(CK_ISA_COUNT) == nil)
    #expect(ck_kernels_for(CK_ISA_COUNT) == nil)
    #expect(ck_kernels_for(CK_ISA_SCALAR) != nil, "scalar runs everywhere")
  }
}

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
  #endif

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

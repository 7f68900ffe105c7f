// CPU detection: CPUID and XCR0 on x86; on AArch64 the auxiliary vector, beyond NEON, which is part of the base architecture.
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "include/ck_cpu.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

enum {
  LEAF1_ECX_FMA = 1 << 12,
  LEAF1_ECX_OSXSAVE = 1 << 27,
  LEAF1_ECX_AVX = 1 << 28,
  LEAF1_ECX_F16C = 1 << 29,
  LEAF7_EBX_AVX2 = 1 << 5,
  LEAF7_EBX_AVX512F = 1 << 16,
  LEAF7_EBX_AVX512DQ = 1 << 17,
  LEAF7_EBX_AVX512BW = 1 << 30,
  LEAF7_ECX_AVX512_VNNI = 1 << 11,
  LEAF7_EDX_AMX_BF16 = 1 << 22,
  LEAF7_EDX_AMX_TILE = 1 << 24,
  LEAF7_EDX_AMX_INT8 = 1 << 25,
  LEAF7_1_EAX_AVX_VNNI = 1 << 4,
  LEAF7_1_EAX_AVX512_BF16 = 1 << 5,
  XCR0_YMM = 0x06,  // SSE and AVX state
  XCR0_ZMM = 0xE6,  // and opmask, upper ZMM, ZMM16-31
  XCR0_TILES = 0x60000,  // TILECFG and TILEDATA
  ARCH_REQ_XCOMP_PERM = 0x1023,
  XFEATURE_TILEDATA = 18,
  ARM_HWCAP_ASIMDDP = 1 << 20,
};
#define LEAF7_EBX_AVX512VL (1u << 31)

static int has(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

static int has_avx2(const ck_cpu_leaves *leaves) {
  const uint32_t one = LEAF1_ECX_FMA | LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX | LEAF1_ECX_F16C;
  return leaves->max_leaf >= 7 && has(leaves->leaf1_ecx, one) && has(leaves->leaf7_ebx, LEAF7_EBX_AVX2) &&
         has(leaves->xcr0, XCR0_YMM);
}

static int has_avx512(const ck_cpu_leaves *leaves) {
  const uint32_t seven = LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512BW | LEAF7_EBX_AVX512VL;
  return has_avx2(leaves) && has(leaves->leaf7_ebx, seven) && has(leaves->xcr0, XCR0_ZMM);
}

const char *ck_amx_missing(const ck_cpu_leaves *leaves) {
  const uint32_t tiles = LEAF7_EDX_AMX_TILE | LEAF7_EDX_AMX_BF16 | LEAF7_EDX_AMX_INT8;
  if (leaves->max_leaf < 7 || !has(leaves->leaf7_edx, tiles)) return "the processor has no AMX";
  if (!ck_isa_allowed(leaves, CK_ISA_AVX512BF16)) return "AMX without the AVX-512 that goes with it";
  if (!has(leaves->xcr0, XCR0_TILES)) return "the operating system does not save AMX tiles";
  return leaves->tiles_allowed ? 0 : "the operating system refused this process AMX tiles";
}

int32_t ck_isa_allowed(const ck_cpu_leaves *leaves, ck_isa isa) {
  switch (isa) {
    case CK_ISA_SCALAR:
      return 1;
    case CK_ISA_NEON:
      return leaves->neon;
    case CK_ISA_NEONDOT:
      return leaves->neon && has(leaves->arm_hwcap, ARM_HWCAP_ASIMDDP);
    case CK_ISA_AVX2:
      return has_avx2(leaves);
    case CK_ISA_AVXVNNI:
      return has_avx2(leaves) && has(leaves->leaf7_1_eax, LEAF7_1_EAX_AVX_VNNI);
    case CK_ISA_AVX512:
      return has_avx512(leaves);
    case CK_ISA_AVX512VNNI:
      return has_avx512(leaves) && has(leaves->leaf7_ecx, LEAF7_ECX_AVX512_VNNI);
    case CK_ISA_AVX512BF16:
      return ck_isa_allowed(leaves, CK_ISA_AVX512VNNI) && has(leaves->leaf7_1_eax, LEAF7_1_EAX_AVX512_BF16);
    case CK_ISA_AMX:
      return !ck_amx_missing(leaves);
    default:
      return 0;
  }
}

ck_isa ck_isa_from_leaves(const ck_cpu_leaves *leaves) {
  int32_t isa = CK_ISA_COUNT - 1;
  while (!ck_isa_allowed(leaves, (ck_isa)isa)) isa--;
  return (ck_isa)isa;
}

#if defined(__x86_64__)
// Linux saves tiles only for processes that ask; it refuses where a signal stack is too small for them.
static int32_t ask_for_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILEDATA);
#else
  return 0;
#endif
}
#endif

ck_cpu_leaves ck_cpu_read(void) {
  ck_cpu_leaves leaves = {0};
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  leaves.max_leaf = __get_cpuid_max(0, 0);
  if (__get_cpuid(1, &a, &b, &c, &d)) leaves.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    leaves.leaf7_ebx = b, leaves.leaf7_ecx = c, leaves.leaf7_edx = d;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) leaves.leaf7_1_eax = a;
  }
  if (has(leaves.leaf1_ecx, LEAF1_ECX_OSXSAVE)) {
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    leaves.xcr0 = (uint64_t)d << 32 | a;
  }
  leaves.tiles_allowed = 1;
  leaves.tiles_allowed = !ck_amx_missing(&leaves) && ask_for_tiles();
#elif defined(__aarch64__)
  leaves.neon = 1;
#if defined(__linux__)
  leaves.arm_hwcap = getauxval(AT_HWCAP);
#endif
#endif
  return leaves;
}

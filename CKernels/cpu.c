// CPU detection: CPUID and XCR0 on x86, a constant on AArch64 (NEON is part of the base architecture).
#include "include/ck_cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
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
  XCR0_YMM = 0x06,  // SSE and AVX state
  XCR0_ZMM = 0xE6,  // and opmask, upper ZMM, ZMM16-31
};
#define LEAF7_EBX_AVX512VL (1u << 31)

static int has(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

ck_isa ck_isa_from_leaves(const ck_cpu_leaves *leaves) {
  if (leaves->neon) return CK_ISA_NEON;
  const uint32_t one = LEAF1_ECX_FMA | LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX | LEAF1_ECX_F16C;
  const uint32_t seven = LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512BW | LEAF7_EBX_AVX512VL;
  if (leaves->max_leaf < 7 || !has(leaves->leaf1_ecx, one) || !has(leaves->leaf7_ebx, LEAF7_EBX_AVX2)) return CK_ISA_SCALAR;
  if (!has(leaves->xcr0, XCR0_YMM)) return CK_ISA_SCALAR;
  return has(leaves->leaf7_ebx, seven) && has(leaves->xcr0, XCR0_ZMM) ? CK_ISA_AVX512 : CK_ISA_AVX2;
}

ck_cpu_leaves ck_cpu_read(void) {
  ck_cpu_leaves leaves = {0};
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  leaves.max_leaf = __get_cpuid_max(0, 0);
  if (__get_cpuid(1, &a, &b, &c, &d)) leaves.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) leaves.leaf7_ebx = b;
  if (has(leaves.leaf1_ecx, LEAF1_ECX_OSXSAVE)) {
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    leaves.xcr0 = (uint64_t)d << 32 | a;
  }
#elif defined(__aarch64__)
  leaves.neon = 1;
#endif
  return leaves;
}

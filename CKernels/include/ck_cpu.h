// What the processor can run. Detection is a pure function of raw register values, so that tests can feed recorded machines.
#ifndef CK_CPU_H
#define CK_CPU_H

#include "ck_types.h"

// CPUID leaves and XCR0 as the instructions return them, Arm's features as the operating system tells them; all zero is a machine
// with nothing beyond the baseline.
typedef struct ck_cpu_leaves {
  uint32_t max_leaf;   // CPUID 0: EAX
  uint32_t leaf1_ecx;  // CPUID 1: ECX
  uint32_t leaf7_ebx;  // CPUID 7.0: EBX
  uint32_t leaf7_ecx, leaf7_edx;  // CPUID 7.0
  uint32_t leaf7_1_eax;           // CPUID 7.1: EAX, or 0 where there is no such leaf
  uint64_t xcr0;       // XGETBV 0, or 0 where CPUID 1 says the OS does not allow it
  int32_t tiles_allowed;  // the operating system lets this process use AMX tiles
  int32_t neon;        // Arm: Advanced SIMD present
  uint64_t arm_hwcap;  // Arm: AT_HWCAP of Linux's auxiliary vector, or 0 elsewhere
} ck_cpu_leaves;

// Whether those values allow an ISA: both the instructions and the operating system's register state.
int32_t ck_isa_allowed(const ck_cpu_leaves *leaves, ck_isa isa);
// The best of them.
ck_isa ck_isa_from_leaves(const ck_cpu_leaves *leaves);
// This machine's values. Asks the operating system for AMX tiles where the rest of AMX is there.
ck_cpu_leaves ck_cpu_read(void);
// Why these values rule out AMX, in words, or NULL where they do not.
const char *ck_amx_missing(const ck_cpu_leaves *leaves);

#endif

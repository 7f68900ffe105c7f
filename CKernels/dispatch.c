// The table choice: once per process, for the best ISA of the machine that the build has, lowered by QUERN_MAX_ISA.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "body/body.h"
#include "include/ck_cpu.h"

static const char *const isa_names[CK_ISA_COUNT] = {"scalar", "neon",       "neondot",    "avx2", "avxvnni",
                                                    "avx512", "avx512vnni", "avx512bf16", "amx"};

static const ck_kernels *table_of(ck_isa isa) {
  switch (isa) {
    case CK_ISA_SCALAR:
      return ck_table__scalar();
    case CK_ISA_NEON:
      return ck_table__neon();
    case CK_ISA_NEONDOT:
      return ck_table__neondot();
    case CK_ISA_AVX2:
      return ck_table__avx2();
    case CK_ISA_AVXVNNI:
      return ck_table__avxvnni();
    case CK_ISA_AVX512:
      return ck_table__avx512();
    case CK_ISA_AVX512VNNI:
      return ck_table__avx512vnni();
    case CK_ISA_AVX512BF16:
      return ck_table__avx512bf16();
    case CK_ISA_AMX:
      return ck_table__amx();
    default:
      return 0;
  }
}

// What this machine runs: bit i for ISA i.
static uint32_t machine_isas(void) {
  static _Atomic uint32_t cached;
  uint32_t isas = atomic_load_explicit(&cached, memory_order_relaxed);
  if (!isas) {
    const ck_cpu_leaves leaves = ck_cpu_read();
    for (int32_t isa = 0; isa < CK_ISA_COUNT; isa++) isas |= (ck_isa_allowed(&leaves, (ck_isa)isa) ? 1u : 0u) << isa;
    atomic_store_explicit(&cached, isas, memory_order_relaxed);
  }
  return isas;
}

const ck_kernels *ck_kernels_for(ck_isa isa) {
  if ((int32_t)isa < 0 || isa >= CK_ISA_COUNT || !(machine_isas() >> isa & 1)) return 0;
  return table_of(isa);
}

const ck_kernels *ck_kernels_best(void) {
  static _Atomic(const ck_kernels *) cached;
  const ck_kernels *best = atomic_load_explicit(&cached, memory_order_acquire);
  if (best) return best;
  const char *limit = getenv("QUERN_MAX_ISA");
  const int32_t parsed = limit ? ck_isa_parse(limit) : -1;  // Swift reports a name that is not one
  int32_t isa = parsed >= 0 ? parsed : CK_ISA_COUNT - 1;
  while (!ck_kernels_for((ck_isa)isa)) isa--;
  best = ck_kernels_for((ck_isa)isa);
  const ck_kernels *first = 0;  // racing first calls agree on one answer
  return atomic_compare_exchange_strong(&cached, &first, best) ? best : first;
}

const char *ck_isa_name(ck_isa isa) { return (int32_t)isa >= 0 && isa < CK_ISA_COUNT ? isa_names[isa] : 0; }

int32_t ck_isa_parse(const char *name) {
  for (int32_t isa = 0; isa < CK_ISA_COUNT; isa++)
    if (name && !strcmp(name, isa_names[isa])) return isa;
  return -1;
}

static const char *const kernel_names[] = {
#define CK_KERNEL(name, params) #name,
#include "kernels.inc"
#undef CK_KERNEL
};

size_t ck_kernel_count(void) { return sizeof kernel_names / sizeof *kernel_names; }

const char *ck_kernel_name(size_t index) { return index < ck_kernel_count() ? kernel_names[index] : 0; }

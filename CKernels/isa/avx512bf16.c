#include "../body/body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c"))), \
                             apply_to = function)
#define CK_ISA avx512bf16
#define CK_ISA_BASE avx512
#define CK_VNNI
#define TILES_PAY CK_TILES_DOT
#include "../vec/vec_avx512.h"

#include "isa.h"
#pragma clang attribute pop
#define CK_ISA_VALUE CK_ISA_AVX512BF16
#include "table.h"
#else
const ck_kernels *ck_table__avx512bf16(void) { return 0; }
#endif

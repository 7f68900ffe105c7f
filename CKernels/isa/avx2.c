#include "../body/body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define CK_ISA avx2
#include "../vec/vec_avx2.h"

#include "isa.h"
#pragma clang attribute pop
#define CK_ISA_VALUE CK_ISA_AVX2
#include "table.h"
#else
const ck_kernels *ck_table__avx2(void) { return 0; }
#endif

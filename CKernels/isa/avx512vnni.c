#include "../body/body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)
#define CK_ISA avx512vnni
#define CK_ISA_BASE avx512
#define CK_VNNI
#include "../vec/vec_avx512.h"

#include "isa.h"
#pragma clang attribute pop
#define CK_ISA_VALUE CK_ISA_AVX512VNNI
#include "table.h"
#else
const ck_kernels *ck_table__avx512vnni(void) { return 0; }
#endif

#include "../body/body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(                                                                                          \
    __attribute__((                                                                                                    \
        target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c,amx-tile,amx-bf16,amx-int8"))), \
    apply_to = function)
#define CK_ISA amx
#define CK_ISA_BASE avx512
#define CK_VNNI
#define TILES_PAY CK_TILES_UNIT
#include "../vec/vec_avx512.h"

#include "../vec/tile_amx.h"

#include "isa.h"
#pragma clang attribute pop
#define CK_ISA_VALUE CK_ISA_AMX
#include "table.h"
#else
const ck_kernels *ck_table__amx(void) { return 0; }
#endif

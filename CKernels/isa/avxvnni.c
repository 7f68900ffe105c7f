#include "../body/body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#define CK_ISA avxvnni
#define CK_ISA_BASE avx2
#define CK_VNNI
#include "../vec/vec_avx2.h"

#include "isa.h"
#pragma clang attribute pop
#define CK_ISA_VALUE CK_ISA_AVXVNNI
#include "table.h"
#else
const ck_kernels *ck_table__avxvnni(void) { return 0; }
#endif

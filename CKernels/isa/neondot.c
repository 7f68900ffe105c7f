#include "../body/body.h"
#if defined(__aarch64__)
#include <arm_neon.h>
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#define CK_ISA neondot
#define CK_ISA_BASE neon
#define CK_DOTPROD
#include "../vec/vec_neon.h"

#include "isa.h"
#pragma clang attribute pop
#define CK_ISA_VALUE CK_ISA_NEONDOT
#include "table.h"
#else
const ck_kernels *ck_table__neondot(void) { return 0; }
#endif

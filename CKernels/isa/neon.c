#include "../body/body.h"
#if defined(__aarch64__)
#define CK_ISA neon
#include "../vec/vec_neon.h"

#include "isa.h"
#define CK_ISA_VALUE CK_ISA_NEON
#include "table.h"
#else
const ck_kernels *ck_table__neon(void) { return 0; }
#endif

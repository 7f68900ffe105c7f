// The table of one ISA, filled from the registry so that no slot can be forgotten.
static const ck_kernels table = {
    .isa = CK_ISA_VALUE,
    .gemm_mr = GEMM_MR,
    .gemm_nr = GEMM_NR,
    .gemm_mc = GEMM_MC,
    .gemm_kc = GEMM_KC,
    .attention_keys = ATTENTION_KEYS,
    .tiles = TILES_NATIVE,
#define CK_KERNEL(name, params) .name = CK_NAME(name),
#include "../kernels.inc"
#undef CK_KERNEL
};
const ck_kernels *CK_PASTE_(table, CK_ISA)(void) { return &table; }

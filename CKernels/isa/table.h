// The table of one ISA, filled from the registry so that no slot can be forgotten. With CK_ISA_BASE, the kernels of that ISA but
// for those that CK_VNNI, VI_FOURS and TILES_PAY change.
static const ck_kernels table = {
    .isa = CK_ISA_VALUE,
    .gemm_mr = GEMM_MR,
    .gemm_nr = GEMM_NR,
    .gemm_mc = GEMM_MC,
    .gemm_kc = GEMM_KC,
    .attention_keys = ATTENTION_KEYS,
    .attention_rows = ATTENTION_ROWS_,
    .tiles = TILES_PAY,
#ifdef VI_FOURS
    .bytes = CK_BYTES_ALL,
#elif defined(VI_SMALL_FOURS)
    .bytes = CK_BYTES_SMALL,
#endif
#ifdef CK_ISA_BASE
#define CK_KERNEL(name, params) .name = CK_PASTE_(name, CK_ISA_BASE),
#include "../kernels.inc"
#undef CK_KERNEL
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winitializer-overrides"
#ifdef CK_VNNI
    .f32_gemm_quantized = CK_NAME(f32_gemm_quantized),
#endif
#ifdef VI_FOURS
    .f32_i8_block = CK_NAME(f32_i8_block),
    .f32_gemm_quantized8 = CK_NAME(f32_gemm_quantized8),
    .f32_quantize8 = CK_NAME(f32_quantize8),
#endif
#if TILES_PAY
    .f32_attention_block = CK_NAME(f32_attention_block),
    .f32_tile_block = CK_NAME(f32_tile_block),
#endif
#if TILES_PAY == CK_TILES_UNIT
    .f32_i8_tile_block = CK_NAME(f32_i8_tile_block),
#endif
#pragma clang diagnostic pop
#else
#define CK_KERNEL(name, params) .name = CK_NAME(name),
#include "../kernels.inc"
#undef CK_KERNEL
#endif
};
const ck_kernels *CK_PASTE_(table, CK_ISA)(void) { return &table; }

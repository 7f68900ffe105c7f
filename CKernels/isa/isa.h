// Included by each isa/*.c after its vec header: every body, then the table of this ISA from the registry.
// CK_NAME(f32_add) is ck_f32_add__avx2 and so on; bodies define exactly the registry's names.
#define CK_PASTE2_(name, isa) ck_##name##__##isa
#define CK_PASTE_(name, isa) CK_PASTE2_(name, isa)
#define CK_NAME(name) CK_PASTE_(name, CK_ISA)

#ifdef CK_ISA_BASE  // kernels that the table takes from there are not compiled again
#define CK_KERNEL(name, params)                             \
  static __attribute__((unused)) void CK_NAME(name) params; \
  void CK_PASTE_(name, CK_ISA_BASE) params;
#else
#define CK_KERNEL(name, params) void CK_NAME(name) params;
#endif
#include "../kernels.inc"
#undef CK_KERNEL

#ifndef TILES_PAY
#define TILES_PAY 0
#endif
#if TILES_PAY != CK_TILES_UNIT
#include "../vec/tile_emulated.h"
#endif

#include "../body/math.h"

#include "../body/convert.h"

#include "../body/gemm.h"
#include "../body/gemm_quantized.h"
#include "../body/gemm_quantized8.h"
#include "../body/gemm_stream.h"
#include "../body/gemm_tile.h"
#include "../body/int8.h"

#include "../body/attention_pairs.h"
#include "../body/attention_walk.h"
#include "../body/attention_softmax.h"
#include "../body/attention.h"
#include "../body/conv.h"
#include "../body/winograd.h"
#include "../body/elementwise.h"

#include "../body/data.h"
#include "../body/gather.h"
#include "../body/norm.h"
#include "../body/position.h"
#include "../body/random.h"
#include "../body/reduce.h"
#include "../body/slerp.h"

#include "../body/groupnorm.h"
#include "../body/image.h"
#include "../body/routing.h"
#include "../body/softmax.h"
#include "../body/sparse.h"

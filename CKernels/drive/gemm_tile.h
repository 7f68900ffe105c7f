// Where ck_f32_gemm goes through tiles.
#ifndef CK_GEMM_TILE_H
#define CK_GEMM_TILE_H

#include "../include/ck_drive.h"

enum {
  TILE_FEWEST_ROWS = 17,    // fewer are streamed, or leave tiles half empty
  TILE_FEWEST_COLUMNS = 16,
  TILE_FEWEST_DEPTH = 32,   // below this the bound of three pieces is not that of FMA
  TILE_WORK = 1 << 18,      // multiply-adds that repay cutting operands into pieces
};

static inline int gemm_tile_pays(const ck_kernels *table, const ck_gemm *call) {
  const int narrow = call->b_type == CK_BF16 || call->b_type == CK_F16;
  const int wanted = narrow || (call->b_type == CK_F32 && call->split != CK_SPLIT_NARROW);
  return table->tiles && wanted && call->a_cs == 1 && call->m >= TILE_FEWEST_ROWS && call->n >= TILE_FEWEST_COLUMNS &&
         call->k >= TILE_FEWEST_DEPTH && call->m * call->n * call->k >= TILE_WORK;
}

#endif

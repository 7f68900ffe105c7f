// What every driver of products decides in the same way.
#ifndef CK_GEMM_H
#define CK_GEMM_H

#include "../include/ck_types.h"

enum {
  GEMM_FEWEST_ROWS_TO_PACK = 24,  // rows of a block that repay packing A
  GEMM_MOST_ROWS_WHOLE = 16,      // rows that go through every slice of a panel before the next panel
};

// Whether rows of A, unpacked, go through whole packed panels: one row of f32 has no use for fetching what comes next.
static inline int gemm_streams_whole(size_t rows, ck_dtype b_type) {
  return rows <= GEMM_MOST_ROWS_WHOLE && (b_type != CK_F32 || rows > 1);
}

#endif

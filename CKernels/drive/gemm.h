// What every driver of products decides in the same way.
#ifndef CK_GEMM_H
#define CK_GEMM_H

#include "../include/ck_drive.h"

enum {
  GEMM_FEWEST_ROWS_TO_PACK = 24,  // rows of a block that repay packing A
  GEMM_MOST_ROWS_WHOLE = 16,      // rows that go through every slice of a panel before the next panel
  GEMM_CALLER_WORK = 1 << 19,     // multiply-adds worth handing to another thread: about 20 microseconds
};

// Whether rows of A, unpacked, go through whole packed panels: one row of f32 has no use for fetching what comes next.
static inline int gemm_streams_whole(size_t rows, ck_dtype b_type) {
  return rows <= GEMM_MOST_ROWS_WHOLE && (b_type != CK_F32 || rows > 1);
}

// Multiply-adds of an entry: a few rows cost what reading B costs.
static inline size_t gemm_work(const ck_gemm *call) {
  return (call->m > 4 ? call->m : 4) * call->n * call->k * (call->value ? 2 : 1);
}

// Elements from panel to panel of packed B.
static inline size_t gemm_panel(const ck_kernels *table, const ck_gemm *call) {
  return call->packed_panel ? call->packed_panel : table->gemm_nr * call->k;
}

// Elements of packed B before row k of the panel that column j is in.
static inline size_t gemm_packed_at(const ck_kernels *table, const ck_gemm *call, size_t j, size_t k) {
  return j / table->gemm_nr * gemm_panel(table, call) + k * table->gemm_nr;
}

// A whole product: 0, or -1 when scratch memory cannot be had.
typedef int32_t gemm_driver(const ck_kernels *table, const ck_gemm *call, size_t threads);

// The depth of the pieces that K is cut into, by N and K alone; K where it is not cut.
size_t gemm_long_depth(const ck_gemm *call);
// A product that is not empty in such pieces, each by `run`.
int32_t gemm_long(const ck_kernels *table, const ck_gemm *call, gemm_driver *run, size_t threads);

#endif

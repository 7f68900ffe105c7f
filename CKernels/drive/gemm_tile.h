// Products in tiles: where they pay, and A that is made as it is needed.
#ifndef CK_GEMM_TILE_H
#define CK_GEMM_TILE_H

#include "../include/ck_drive.h"

enum {
  TILE_FEWEST_ROWS = 17,    // fewer are streamed, or leave tiles half empty
  TILE_FEWEST_ROWS_DIRECT = 5,  // but panels that are multiplied as they lie need only more than the vectors of a product
  TILE_FEWEST_ROWS_QUANTIZED = 64,  // fewer do not repay panels of floats; without a matrix unit no number does
  TILE_FEWEST_COLUMNS = 16,
  TILE_FEWEST_DEPTH = 32,   // below this the bound of three pieces is not that of FMA
  TILE_WORK = 1 << 18,      // multiply-adds that repay cutting operands into pieces
  GEMM_TILE_LINE = 64,      // bytes that rows of tiles are to lie in whole
};

// Rows of A that are made, not read: call->a is unused.
typedef struct ck_tile_rows {
  // Rows [i, i + m), at most CK_TILE_EDGE, and steps [k, k + depth): to[m, depth] of call->a_type.
  void (*make)(const void *context, size_t i, size_t m, size_t k, size_t depth, void *to);
  const void *context;
  // NULL; or of 16 rows from i on, steps [k, k + 32 steps): where each tile [16, 32] of bf16 lies, rows place_rs apart, made in
  // scratch where it does not lie anywhere. A step lies within one of the runs of `place_run` elements that K consists of, for
  // each of which there is scratch of 16 rows.
  void (*place)(const void *context, size_t i, size_t k, size_t steps, uint16_t *scratch, const uint16_t **at);
  size_t place_rs, place_run;
  size_t bias_rows;  // 0, or a multiple of CK_TILE_EDGE: rows that share one of the rows of call->bias [m / bias_rows, n]
} ck_tile_rows;

// ck_tile_gemm of such rows, batch 1.
int32_t ck_tile_gemm_rows(const ck_kernels *table, const ck_gemm *call, const ck_tile_rows *made, size_t threads);

// Has the scratch that ck_tile_gemm of this call takes: 0, or -1 when it cannot be had.
int32_t ck_tile_gemm_ready(const ck_kernels *table, const ck_gemm *call, size_t threads);

// Products of pieces that an element takes: i of A and j of B where i + j is at most `order`.
static inline size_t tile_products(size_t a_pieces, size_t b_pieces, size_t order) {
  size_t products = 0;
  for (size_t i = 0; i < a_pieces; i++) products += b_pieces < order + 1 - i ? b_pieces : order + 1 - i;
  return products;
}

static inline size_t gemm_tile_products(const ck_gemm *call) {
  const size_t order = ck_tile_order(call->split);
  return tile_products(ck_tile_pieces(call->a_type, order), ck_tile_pieces(call->b_type, order), order);
}

// Whether the ranges of B, and of V, are known.
static inline int gemm_tile_known(const ck_gemm *call) {
  return call->packed_range.least > 0 && (!call->value || call->value_range.least > 0);
}

// Whether panels of bf16 are the columns of tiles.
static inline int gemm_tile_reads(const ck_kernels *table) { return table->tiles && table->gemm_nr == CK_TILE_EDGE; }
// Whether B is multiplied as it is packed.
static inline int gemm_tile_direct(const ck_kernels *table, const ck_gemm *call) {
  return call->packed && call->b_type == CK_BF16 && gemm_tile_reads(table);
}

static inline int gemm_tile_pays(const ck_kernels *table, const ck_gemm *call) {
  const int narrow = call->b_type == CK_BF16 || call->b_type == CK_F16;
  const int quantized = call->b_type >= CK_DTYPE_COUNT;
  const int wanted =
      quantized ? call->split == CK_SPLIT_ONE && table->tiles == CK_TILES_UNIT : narrow || call->split != CK_SPLIT_NARROW;
  const int direct = gemm_tile_direct(table, call) && call->a_type == CK_BF16 && gemm_tile_known(call);
  const size_t rows = quantized ? TILE_FEWEST_ROWS_QUANTIZED : direct ? TILE_FEWEST_ROWS_DIRECT : TILE_FEWEST_ROWS;
  return gemm_tile_products(call) <= (size_t)table->tiles && wanted && call->a_cs == 1 && call->m >= rows &&
         call->n >= TILE_FEWEST_COLUMNS && call->k >= TILE_FEWEST_DEPTH && call->m * call->n * call->k >= TILE_WORK;
}

#endif

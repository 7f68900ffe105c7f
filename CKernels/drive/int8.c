// Products of int8 codes: rows are coded some at a time, then multiplied 32 at a time by blocks of columns.
#include <string.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  EDGE = CK_TILE_EDGE,
  CODES_OF_A = 1 << 20,    // bytes of codes of rows that are made at a time
  BLOCK_OF_B = 1 << 20,    // bytes of a block's weights: half of L2
  MOST_COLUMNS = 512,
  CALLER_WORK = 1 << 21,   // multiply-adds worth handing to another thread
};

typedef struct plan {
  const ck_kernels *table;
  const ck_int8 *call;
  size_t steps, columns;   // of a row of codes; of a block
  size_t i, m;             // the rows at hand
  int8_t *codes;           // [m/16][steps][16][64]
  float *scales;           // [m]
  size_t kept_value;  // floats of a block of A V
  float *pieces;
} plan;

size_t ck_int8_packed_bytes(size_t n, size_t k) { return round_up(n, CK_INT8_COLUMNS) * ck_int8_steps(k) * CK_INT8_STEP; }

typedef struct packing {
  const ck_kernels *table;
  size_t n, k, w_rs;
  ck_dtype type;
  const void *w;           // [n, k]
  int8_t *codes;
  float *scales;
  int8_t *rows;            // 32 coded columns a participant
} packing;

// Panels [first, last): each column is coded as if it were a row of A, then dealt out in fours.
static void pack_panels(const void *context, size_t first, size_t last) {
  const packing *p = context;
  const size_t steps = ck_int8_steps(p->k), panel = steps * CK_INT8_STEP * CK_INT8_COLUMNS;
  int8_t *rows = p->rows + ck_participant() * panel;
  for (size_t q = first; q < last; q++) {
    const size_t j = q * CK_INT8_COLUMNS, n = MIN(CK_INT8_COLUMNS, p->n - j);
    int8_t *to = p->codes + q * panel;
    if (n < CK_INT8_COLUMNS) memset(to, 0, panel);
    for (size_t c = 0; c < n; c++) {
      int8_t *row = ck_int8_row(rows, steps, c);
      p->table->i8_quantize(p->type, p->k, staging_at(p->type, p->w, p->w_rs, j + c, 0), row, p->scales + j + c);
      for (size_t k = 0; k < steps * CK_INT8_STEP; k += 4)
        memcpy(to + k * CK_INT8_COLUMNS + 4 * c, row + k / CK_INT8_STEP * 16 * CK_INT8_STEP + k % CK_INT8_STEP, 4);
    }
  }
}

int32_t ck_int8_pack(const ck_kernels *table, size_t n, size_t k, ck_dtype type, const void *w, size_t w_rs, int8_t *codes,
                     float *scales, size_t threads) {
  const size_t panels = pieces_of(n, CK_INT8_COLUMNS), panel = ck_int8_packed_bytes(1, k);
  packing p = {table, n, k, w_rs, type, w, codes, scales, 0};
  p.rows = (int8_t *)ck_scratch(CK_SCRATCH_A, pieces_of(panel, sizeof(float)) * MAX(MIN(threads, panels), 1));
  if (!p.rows) return -1;
  ck_parallel(panels, 1, threads, pack_panels, &p);
  return 0;
}

static void code_rows(const void *context, size_t first, size_t last) {
  const plan *p = context;
  const ck_int8 *call = p->call;
  for (size_t i = first; i < last; i++)
    p->table->i8_quantize(call->a_type, call->k, staging_at(call->a_type, call->a, call->a_rs, p->i + i, 0),
                          ck_int8_row(p->codes, p->steps, i), p->scales + i);
}

// EDGE of the rows at hand by a block of columns. Neighbours share columns.
static void run_block(const plan *p, size_t index) {
  const ck_int8 *call = p->call;
  const size_t above = pieces_of(p->m, EDGE), row = index % above * EDGE, j = index / above * p->columns;
  const size_t m = MIN(EDGE, p->m - row), n = MIN(p->columns, call->n - j), i = p->i + row;
  float *kept_value = p->pieces + ck_participant() * p->kept_value;
  ck_gemm_block block = {
      .m = m, .n = n, .alpha = call->alpha, .bias = call->bias ? call->bias + j : 0, .activation = call->activation};
  block.y = (void *)staging_at(call->c_type, call->c, call->c_rs, i, j), block.y_rs = call->c_rs, block.y_type = call->c_type;
  if (call->residual) {
    block.residual = staging_at(call->residual_type, call->residual, call->residual_rs, i, j);
    block.residual_rs = call->residual_rs, block.residual_type = call->residual_type;
  }
  const size_t b_at = j * p->steps * CK_INT8_STEP;
  ck_int8_block codes = {.steps = p->steps, .a = ck_int8_row(p->codes, p->steps, row), .a_scales = p->scales + row};
  void (*const multiply)(const ck_int8_block *) =
      p->table->tiles == CK_TILES_UNIT ? p->table->f32_i8_tile_block : p->table->f32_i8_block;
  if (call->value) {
    const ck_gemm_block value = {
        .m = m, .n = n, .alpha = call->alpha, .bias = call->value_bias ? call->value_bias + j : 0, .c = kept_value, .c_rs = n};
    codes.block = &value, codes.b = call->value + b_at, codes.b_scales = call->value_scales + j;
    multiply(&codes);
    block.factor = kept_value, block.factor_rs = n;
  }
  codes.block = &block, codes.b = call->codes + b_at, codes.b_scales = call->scales + j;
  multiply(&codes);
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

int32_t ck_int8_gemm(const ck_kernels *table, const ck_int8 *call, size_t threads) {
  if (!call->m || !call->n) return 0;
  if (MAX(call->m, 4) * call->n * call->k * (call->value ? 2 : 1) < CALLER_WORK) threads = 1;
  plan p = {.table = table, .call = call, .steps = ck_int8_steps(call->k)};
  const size_t row = MAX(p.steps, 1) * CK_INT8_STEP;
  p.columns = balanced(call->n, MIN(MOST_COLUMNS, MAX(BLOCK_OF_B / row, EDGE)), EDGE);
  while (threads > 1 && p.columns > EDGE && pieces_of(call->m, EDGE) * pieces_of(call->n, p.columns) < threads * 4)
    p.columns = round_up(p.columns / 2, EDGE);
  const size_t rows = MIN(round_up(call->m, EDGE), MAX(CODES_OF_A / row / EDGE, 1) * EDGE);
  if (call->value) p.kept_value = EDGE * p.columns;
  const size_t blocks = pieces_of(rows, EDGE) * pieces_of(call->n, p.columns);
  if (call->value && !(p.pieces = ck_scratch(CK_SCRATCH_A, p.kept_value * MAX(MIN(threads, blocks), 1)))) return -1;
  float *codes = ck_scratch(CK_SCRATCH_B, rows * row / sizeof(float) + rows);
  if (!codes) return -1;
  p.codes = (int8_t *)codes, p.scales = codes + rows * row / sizeof(float);
  for (p.i = 0; p.i < call->m; p.i += rows) {
    p.m = MIN(rows, call->m - p.i);
    ck_parallel(p.m, (1 << 16) / row + 1, threads, code_rows, &p);
    ck_parallel(pieces_of(p.m, EDGE) * pieces_of(call->n, p.columns), 1, threads, run_blocks, &p);
  }
  return 0;
}

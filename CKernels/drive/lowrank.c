// A product with a low-rank update, as three products: the narrow one into scratch, the base where there is one, and the update
// on top of it.
#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum { STAGED_ROWS = 256 };  // rows of the result kept as floats where c cannot hold them: not f32, or also the residual

// A bare product of `rows` rows on f32 destinations, with the B of `b`.
static ck_gemm product(const ck_gemm *b, size_t rows, const void *a, size_t a_rs, ck_dtype a_type, float *c, size_t c_rs) {
  ck_gemm g = *b;
  g.batch = 1, g.m = rows, g.alpha = 1, g.beta = 0;
  g.a = a, g.a_rs = a_rs, g.a_cs = 1, g.a_type = a_type;
  g.c = c, g.c_rs = c_rs, g.c_type = CK_F32;
  g.bias = 0, g.residual = 0, g.activation = CK_IDENTITY;
  return g;
}

// What follows the products where c does not hold them: c = act(wide + bias) + residual for rows from i on.
static int32_t finish_staged(const ck_kernels *table, const ck_gemm *base, const float *wide, size_t i, size_t rows,
                             size_t threads) {
  const ck_rows call = {
      .rows = rows,
      .n = base->n,
      .x_n = base->n,
      .x = wide,
      .x_rs = base->n,
      .other = base->residual ? staging_at(base->residual_type, base->residual, base->residual_rs, i, 0) : 0,
      .other_rs = base->residual_rs,
      .bias = base->bias,
      .y = (float *)(void *)((char *)base->c + i * base->c_rs * ck_dtype_size(base->c_type)),
      .y_rs = base->c_rs,
      .scale = 1,
      .diagonal = CK_NO_DIAGONAL,
      .activation = base->activation,
      .other_type = base->residual ? base->residual_type : CK_F32,
      .y_type = base->c_type,
  };
  return ck_rows_run(table, table->f32_epilogue, &call, threads);
}

int32_t ck_f32_low_rank(const ck_kernels *table, const ck_gemm *base, const ck_gemm *down, const ck_gemm *up, float scale,
                        size_t threads) {
  const size_t m = base->m, n = base->n, rank = down->n;
  if (!m || !n) return 0;
  const int has_base = base->b || base->packed;
  const int staged = base->c_type != CK_F32 || base->residual == base->c;
  const size_t most = staged ? MIN(m, STAGED_ROWS) : m, narrow_floats = round_up(most * rank, 16);
  float *narrow = ck_scratch(CK_SCRATCH_OPERATION, narrow_floats + (staged ? most * n : 0)), *wide = narrow + narrow_floats;
  if (!narrow) return -1;
  for (size_t i = 0; i < m; i += most) {
    const size_t rows = MIN(most, m - i);
    const void *a = staging_at(base->a_type, base->a, base->a_rs, i, 0);
    float *c = staged ? wide : base->c;
    const size_t c_rs = staged ? n : base->c_rs;
    ck_gemm first = product(down, rows, a, base->a_rs, base->a_type, narrow, rank);
    first.alpha = scale;
    ck_gemm second = product(base, rows, a, base->a_rs, base->a_type, c, c_rs);
    second.alpha = base->alpha;
    ck_gemm third = product(up, rows, narrow, rank, CK_F32, c, c_rs);
    third.beta = has_base ? 1 : 0;
    if (!staged) {
      third.bias = base->bias, third.activation = base->activation;
      third.residual = base->residual, third.residual_rs = base->residual_rs, third.residual_type = base->residual_type;
    }
    if (ck_f32_gemm(table, &first, threads) || (has_base && ck_f32_gemm(table, &second, threads)) ||
        ck_f32_gemm(table, &third, threads))
      return -1;
    if (staged && finish_staged(table, base, wide, i, rows, threads)) return -1;
  }
  return 0;
}

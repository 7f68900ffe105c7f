// Block-sparse products: the tile of gemm.h over the blocks of one panel of outputs, sums kept in registers from the first block
// to the last. Loop order: panels, row tiles, blocks, inputs of a block. An element's sum runs over its stored inputs in order.

// One panel of `vectors` vectors of outputs.
typedef struct sparse_panel_ {
  const int32_t *columns;   // block columns, [blocks]
  size_t blocks, j, n;      // first output, from the call's first one, and how many
  const float *b;           // [blocks][block_inputs][width]
} sparse_panel_;

// Rows [i, i + m) by one panel; m and vectors constant.
CK_INLINE void sparse_tile_(const size_t m, const size_t vectors, const ck_sparse_block *s, const ck_gemm_block *g,
                            const sparse_panel_ *panel, size_t i) {
  const size_t deep = s->weights->block_inputs, inputs = s->weights->inputs, width = vectors * VL;
  const float *a = s->a + i * s->a_rs, *b = panel->b;
  vf acc[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) acc[t] = vf_zero();
#pragma clang loop unroll(disable)
  for (size_t t = 0; t < panel->blocks; t++, b += deep * width) {
    const size_t k = (size_t)panel->columns[t] * deep;
    gemm_tile_(m, vectors, CK_MIN(deep, inputs - k), a + k, s->a_rs, 1, b, width, GEMM_NR, acc);
  }
  if (panel->n == width && g->alpha == 1 && !g->bias && !g->residual && g->activation == CK_IDENTITY) {
    float *c = g->c + i * g->c_rs + panel->j;
#pragma clang loop unroll(full)
    for (size_t t = 0; t < m * vectors; t++) vf_store(c + t / vectors * g->c_rs + t % vectors * VL, acc[t]);
    return;
  }
  _Alignas(64) float tile[GEMM_ACCUMULATORS_ * VL];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) vf_store(tile + t * VL, acc[t]);
  gemm_finish_(g, i, panel->j, m, panel->n, tile, width);
}

// Every row by one panel; vectors constant.
CK_INLINE void sparse_rows_(const size_t vectors, const ck_sparse_block *s, const ck_gemm_block *g, const sparse_panel_ *panel) {
  size_t i = 0;
  for (; i + GEMM_MR <= s->m; i += GEMM_MR) sparse_tile_(GEMM_MR, vectors, s, g, panel, i);
#define SPARSE_REST_(count)                       \
  case count:                                     \
    sparse_tile_(count, vectors, s, g, panel, i); \
    break;
  switch (s->m - i) {
    SPARSE_REST_(1)
    SPARSE_REST_(2)
    SPARSE_REST_(3)
#if GEMM_MR > 4
    SPARSE_REST_(4)
    SPARSE_REST_(5)
#endif
#if GEMM_MR > 6
    SPARSE_REST_(6)
    SPARSE_REST_(7)
    SPARSE_REST_(8)
    SPARSE_REST_(9)
    SPARSE_REST_(10)
    SPARSE_REST_(11)
#endif
    default:
      break;
  }
#undef SPARSE_REST_
}

// The two panel widths, each an instance of its own.
static __attribute__((noinline)) void sparse_whole_(const ck_sparse_block *s, const ck_gemm_block *g,
                                                    const sparse_panel_ *panel) {
  sparse_rows_(GEMM_NRV, s, g, panel);
}
static __attribute__((noinline)) void sparse_half_(const ck_sparse_block *s, const ck_gemm_block *g, const sparse_panel_ *panel) {
  sparse_rows_(GEMM_NRV / 2, s, g, panel);
}

void CK_NAME(f32_sparse_block)(const ck_sparse_block *s) {
  const ck_sparse_weights *w = s->weights;
  const int halves = CK_SPARSE_HALVES(w->block_outputs, GEMM_NR);
  const size_t width = halves ? GEMM_NR / 2 : GEMM_NR, panels = (w->block_outputs + width - 1) / width;
  const size_t origin = s->first / panels * w->block_outputs + s->first % panels * width;
  const ck_gemm_block finish = {
      .c = s->c,
      .c_rs = s->c_rs,
      .alpha = s->alpha,
      .bias = s->bias,
      .residual = s->residual,
      .residual_rs = s->residual_rs,
      .activation = s->activation,
  };
  for (size_t p = s->first; p < s->last; p++) {
    const size_t row = p / panels, q = p % panels, j = row * w->block_outputs + q * width;
    if (j >= w->outputs) break;  // the last block row sticks out by whole panels
    const size_t begin = (size_t)w->offsets[row], blocks = (size_t)w->offsets[row + 1] - begin;
    const sparse_panel_ panel = {
        .columns = w->columns + begin,
        .blocks = blocks,
        .j = j - origin,
        .n = CK_MIN(CK_MIN(width, w->block_outputs - q * width), w->outputs - j),
        .b = w->packed + (begin * panels + q * blocks) * w->block_inputs * width,
    };
    if (halves)
      sparse_half_(s, &finish, &panel);
    else
      sparse_whole_(s, &finish, &panel);
  }
}

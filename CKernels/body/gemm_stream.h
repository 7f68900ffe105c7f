// GEMM of few rows by panels of bf16 or f16. B comes from memory once, is widened in registers, exactly, and multiplied in the
// order of gemm_tile_: the bits are those of the same panels widened first.
// Loop order: panels, rows STREAM_MR_ at a time, rows of B.
#define STREAM_MR_ (VL == 16 ? 8 : 4)
#define STREAM_AHEAD_ 1024  // bytes of B fetched ahead

// One row of B against m rows of A: acc[r * vectors + v] += a[r * a_rs] x[v].
CK_INLINE void stream_step_(const size_t m, const size_t vectors, const float *a, size_t a_rs, const vf *x, vf *acc) {
#pragma clang loop unroll(full)
  for (size_t r = 0; r < m; r++) {
    const vf value = vf_broadcast(a + r * a_rs);
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) acc[r * vectors + v] = vf_fma(x[v], value, acc[r * vectors + v]);
  }
}

// Rows of B of 16-bit elements; `panel` is bytes from panel to panel.
CK_INLINE void stream_halves_(const ck_dtype type, const size_t m, const size_t vectors, size_t k, const float *a, size_t a_rs,
                              const char *b, size_t panel, vf *acc) {
#pragma clang loop unroll_count(4)
  for (size_t p = 0; p < k; p++, b += 2 * GEMM_NR) {
    vf x[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) {
      const char *row = b + v / GEMM_NRV * panel;
      if (v % GEMM_NRV == 0) __builtin_prefetch(row + STREAM_AHEAD_);
      x[v] = row_load_as_(type, row, v % GEMM_NRV * VL, VL);
    }
    stream_step_(m, vectors, a + p, a_rs, x, acc);
  }
}

CK_INLINE void stream_rows_(const ck_dtype type, const size_t m, const size_t panels, const ck_gemm_block *g, size_t i, size_t j,
                            enum gemm_exit_ leave) {
  const size_t vectors = panels * GEMM_NRV, panel = ck_packed_bytes(type, g->b_panel);
  const char *b = (const char *)g->b + j / GEMM_NR * panel;
  vf acc[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) acc[t] = vf_zero();
  stream_halves_(type, m, vectors, g->k, g->a + i * g->a_rs, g->a_rs, b, panel, acc);
  gemm_leave_(m, panels, g, i, j, leave, acc);
}

// Panels at once for one row: enough sums to hide the latency of an FMA.
#define STREAM_PANELS_ (GEMM_NRV > 2 ? 1 : 4)

CK_INLINE void stream_(const ck_dtype type, const ck_gemm_block *g) {
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  const size_t group = STREAM_PANELS_ * GEMM_NR;
  size_t j = 0;
  if (g->m == 1)
    for (; j + group <= g->n; j += group) stream_rows_(type, 1, STREAM_PANELS_, g, 0, j, leave);
  for (; j < g->n; j += GEMM_NR) {
    size_t i = 0;
    for (; i + STREAM_MR_ <= g->m; i += STREAM_MR_) stream_rows_(type, STREAM_MR_, 1, g, i, j, leave);
    if (STREAM_MR_ > 4 && i + 4 <= g->m) stream_rows_(type, 4, 1, g, i, j, leave), i += 4;
    if (i + 2 <= g->m) stream_rows_(type, 2, 1, g, i, j, leave), i += 2;
    if (i < g->m) stream_rows_(type, 1, 1, g, i, j, leave);
  }
}

void CK_NAME(f32_gemm_stream)(const ck_gemm_block *g) {
  if (g->b_type == CK_BF16)
    stream_(CK_BF16, g);
  else
    stream_(CK_F16, g);
}

// Convolution: what its gather writes, and the depthwise sum.

// Lines of m pixels, one for each k of [p, p + count), into strips [m/MR][k][MR] for f32_gemm_block. Lines are read up to a
// multiple of MR, and VL beyond. A vector wider than a strip spills into the next k, which is written later.
void CK_NAME(f32_conv_strips)(size_t m, size_t k, size_t p, size_t count, const float *lines, size_t line_rs, float *packed) {
  for (size_t i = 0; i < m; i += GEMM_MR) {
    float *dst = packed + i * k + p * GEMM_MR;
    for (size_t q = 0; q < count; q++)
      for (size_t v = 0; v < GEMM_MR; v += VL) {
        const vf x = vf_load(lines + q * line_rs + i + v);
        if (GEMM_MR - v >= VL || p + q + 1 < k)
          vf_store(dst + q * GEMM_MR + v, x);
        else
          vf_store_n(dst + q * GEMM_MR + v, x, GEMM_MR - v);
      }
  }
}

// Channels [c, c + lanes) of `pixels` pixels from q on, a constant; taps in order from zero.
CK_INLINE void depthwise_step_(const ck_activation kind, const size_t pixels, const ck_depthwise_run *g, size_t q, size_t c,
                               const size_t lanes) {
  vf acc[4];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < pixels; t++) acc[t] = vf_zero();
  for (size_t ty = 0; ty < g->taps_h; ty++) {
    const float *x = g->x + q * g->x_ps + ty * g->x_ths + c, *w = g->weights + ty * g->w_ths + c;
    for (size_t tx = 0; tx < g->taps_w; tx++, x += g->x_tws, w += g->w_tws) {
      const vf weight = row_load_(w, lanes);
#pragma clang loop unroll(full)
      for (size_t t = 0; t < pixels; t++) acc[t] = vf_fma(row_load_(x + t * g->x_ps, lanes), weight, acc[t]);
    }
  }
  const vf scale = vf_set1(g->scale);
#pragma clang loop unroll(full)
  for (size_t t = 0; t < pixels; t++) {
    vf s = vf_mul(scale, acc[t]);
    if (g->bias) s = vf_add(s, row_load_(g->bias + c, lanes));
    s = ck_activate_(s, kind);
    if (g->residual) s = vf_add(s, row_load_(g->residual + (q + t) * g->residual_ps + c, lanes));
    row_store_(g->y + (q + t) * g->y_ps + c, s, lanes);
  }
}

CK_INLINE void depthwise_run_(const ck_activation kind, const ck_depthwise_run *g) {
  size_t q = 0;
#define STEP(j, lanes) depthwise_step_(kind, 4, g, q, j, lanes);
  for (; q + 4 <= g->pixels; q += 4) ROW_COLUMNS_(g->n, STEP);
#undef STEP
#define STEP(j, lanes) depthwise_step_(kind, 1, g, q, j, lanes);
  for (; q < g->pixels; q++) ROW_COLUMNS_(g->n, STEP);
#undef STEP
}
void CK_NAME(f32_depthwise)(const ck_depthwise_run *run) { CK_WITH_ACTIVATION(run->activation, depthwise_run_, run); }

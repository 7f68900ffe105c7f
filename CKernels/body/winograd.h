// Winograd's F(4, 3): a 4 x 4 square of a 3 x 3 convolution from a 6 x 6 square of x by 36 products instead of 144.
// Lavin and Gray, arXiv:1509.09308, at the points 0, +-a, +-b, infinity with a = 1/sqrt 2 and b = sqrt 2, which keep the error
// near that of the direct sum. With pairs +-p the transforms part into even and odd halves.
#define WINOGRAD_A 0.70710678118654752f
#define WINOGRAD_B 1.41421356237309505f
#define WINOGRAD_EACH_ _Pragma("clang loop unroll(full)")

// One axis of x: to[6] from d[6], `step` elements of either from one to the next.
CK_INLINE void winograd_input_(const vf *d, size_t d_step, vf *to, size_t to_step) {
  const vf d0 = d[0], d1 = d[d_step], d2 = d[2 * d_step], d3 = d[3 * d_step], d4 = d[4 * d_step], d5 = d[5 * d_step];
  const vf a = vf_set1(WINOGRAD_A), b = vf_set1(WINOGRAD_B), half = vf_set1(0.5f), two = vf_set1(2), sum = vf_set1(2.5f);
  const vf even_a = vf_fnma(two, d2, d4), odd_a = vf_fnma(two, d1, d3);
  const vf even_b = vf_fnma(half, d2, d4), odd_b = vf_fnma(half, d1, d3);
  to[0] = vf_fnma(sum, d2, vf_add(d0, d4));
  to[to_step] = vf_fma(a, odd_a, even_a);
  to[2 * to_step] = vf_fnma(a, odd_a, even_a);
  to[3 * to_step] = vf_fma(b, odd_b, even_b);
  to[4 * to_step] = vf_fnma(b, odd_b, even_b);
  to[5 * to_step] = vf_fnma(sum, d3, vf_add(d1, d5));
}

// One axis of the weights: to[6] from g[3].
CK_INLINE void winograd_weights_(const vf *g, size_t g_step, vf *to, size_t to_step) {
  const vf a = vf_set1(WINOGRAD_A), b = vf_set1(WINOGRAD_B), half = vf_set1(0.5f), two = vf_set1(2);
  const vf g0 = g[0], g1 = g[g_step], g2 = g[2 * g_step], third = vf_set1(-2.0f / 3), sixth = vf_set1(1.0f / 6);
  const vf even_a = vf_mul(third, vf_fma(half, g2, g0)), even_b = vf_mul(sixth, vf_fma(two, g2, g0));
  const vf odd_a = vf_mul(vf_mul(third, a), g1), odd_b = vf_mul(vf_mul(sixth, b), g1);
  to[0] = g0;
  to[to_step] = vf_add(even_a, odd_a), to[2 * to_step] = vf_sub(even_a, odd_a);
  to[3 * to_step] = vf_add(even_b, odd_b), to[4 * to_step] = vf_sub(even_b, odd_b);
  to[5 * to_step] = g2;
}

// One axis of the result: to[4] from m[6].
CK_INLINE void winograd_output_(const vf *m, size_t m_step, vf *to, size_t to_step) {
  const vf a = vf_set1(WINOGRAD_A), b = vf_set1(WINOGRAD_B), half = vf_set1(0.5f), two = vf_set1(2);
  const vf sum_a = vf_add(m[m_step], m[2 * m_step]), odd_a = vf_mul(a, vf_sub(m[m_step], m[2 * m_step]));
  const vf sum_b = vf_add(m[3 * m_step], m[4 * m_step]), odd_b = vf_mul(b, vf_sub(m[3 * m_step], m[4 * m_step]));
  to[0] = vf_add(m[0], vf_add(sum_a, sum_b));
  to[to_step] = vf_add(odd_a, odd_b);
  to[2 * to_step] = vf_fma(two, sum_b, vf_mul(half, sum_a));
  to[3 * to_step] = vf_add(vf_fma(two, odd_b, vf_mul(half, odd_a)), m[5 * m_step]);
}

CK_INLINE void winograd_square_(const ck_dtype type, size_t n, const void *const *x, float *v, size_t v_fs) {
#define STEP(j, lanes)                                                                            \
  {                                                                                               \
    vf d[36], t[36];                                                                              \
    WINOGRAD_EACH_ for (size_t i = 0; i < 36; i++) d[i] = row_load_as_(type, x[i], (j), (lanes)); \
    WINOGRAD_EACH_ for (size_t i = 0; i < 6; i++) winograd_input_(d + i, 6, t + i, 6);            \
    WINOGRAD_EACH_ for (size_t i = 0; i < 6; i++) winograd_input_(t + 6 * i, 1, d + 6 * i, 1);    \
    WINOGRAD_EACH_ for (size_t i = 0; i < 36; i++) row_store_(v + i * v_fs + (j), d[i], (lanes)); \
  }
  ROW_COLUMNS_(n, STEP);
#undef STEP
}
void CK_NAME(f32_winograd_input)(ck_dtype type, size_t n, const void *const *x, float *v, size_t v_fs) {
  CK_WITH_DTYPE(type, winograd_square_, n, x, v, v_fs);
}

void CK_NAME(f32_winograd_weights)(size_t k, const float *w, size_t w_ts, float *u, size_t u_fs) {
  for (size_t j = 0; j < k * GEMM_NR; j += VL) {
    vf g[9], t[18], to[36];
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i++) g[i] = vf_load(w + i * w_ts + j);
    WINOGRAD_EACH_ for (size_t i = 0; i < 3; i++) winograd_weights_(g + i, 3, t + i, 3);
    WINOGRAD_EACH_ for (size_t i = 0; i < 6; i++) winograd_weights_(t + 3 * i, 1, to + 6 * i, 1);
    WINOGRAD_EACH_ for (size_t i = 0; i < 36; i++) vf_store(u + i * u_fs + j, to[i]);
  }
}

// Channels [j, j + lanes) of pixel i from its sum.
CK_INLINE void winograd_finish_(const ck_activation kind, const ck_winograd_tile *g, size_t i, size_t j, const size_t lanes,
                                vf sum) {
  if (!g->y[i]) return;
  vf s = vf_mul(vf_set1(g->scale), sum);
  if (g->bias) s = vf_add(s, row_load_(g->bias + j, lanes));
  s = ck_activate_(s, kind);
  if (g->residual[i]) s = vf_add(s, row_load_as_(g->residual_type, g->residual[i], j, lanes));
  row_store_as_(g->y_type, g->y[i], j, s, lanes);
}

CK_INLINE void winograd_tile_(const ck_activation kind, const ck_winograd_tile *g) {
#define STEP(j, lanes)                                                                                  \
  {                                                                                                     \
    vf m[36], t[24], y[16];                                                                             \
    WINOGRAD_EACH_ for (size_t i = 0; i < 36; i++) m[i] = row_load_(g->m + i * g->m_fs + (j), (lanes)); \
    WINOGRAD_EACH_ for (size_t i = 0; i < 6; i++) winograd_output_(m + i, 6, t + i, 6);                 \
    WINOGRAD_EACH_ for (size_t i = 0; i < 4; i++) winograd_output_(t + 6 * i, 1, y + 4 * i, 1);         \
    WINOGRAD_EACH_ for (size_t i = 0; i < 16; i++) winograd_finish_(kind, g, i, (j), (lanes), y[i]);    \
  }
  ROW_COLUMNS_(g->n, STEP);
#undef STEP
}
void CK_NAME(f32_winograd_output)(const ck_winograd_tile *tile) { CK_WITH_ACTIVATION(tile->activation, winograd_tile_, tile); }

// The same of an image whose pixels are repeated, 2 x 2 pixels of y from 3 x 3 of x by 9 products instead of 36. Along an axis
// y[2j] = v x[j] + w[0] (x[j - 1] - x[j]) and y[2j + 1] = v x[j] + w[2] (x[j + 1] - x[j]), v = w[0] + w[1] + w[2].
CK_INLINE void doubled_square_(const ck_dtype type, size_t n, const void *const *x, float *v, size_t v_fs) {
#define STEP(j, lanes)                                                                                                         \
  {                                                                                                                            \
    vf d[9];                                                                                                                   \
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i++) d[i] = row_load_as_(type, x[i], (j), (lanes));                               \
    WINOGRAD_EACH_ for (size_t i = 0; i < 3; i++) { d[i] = vf_sub(d[i], d[3 + i]), d[6 + i] = vf_sub(d[6 + i], d[3 + i]); }    \
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i += 3) { d[i] = vf_sub(d[i], d[i + 1]), d[i + 2] = vf_sub(d[i + 2], d[i + 1]); } \
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i++) row_store_(v + i * v_fs + (j), d[i], (lanes));                               \
  }
  ROW_COLUMNS_(n, STEP);
#undef STEP
}
void CK_NAME(f32_doubled_input)(ck_dtype type, size_t n, const void *const *x, float *v, size_t v_fs) {
  CK_WITH_DTYPE(type, doubled_square_, n, x, v, v_fs);
}

void CK_NAME(f32_doubled_weights)(size_t k, const float *w, size_t w_ts, float *u, size_t u_fs) {
  for (size_t j = 0; j < k * GEMM_NR; j += VL) {
    vf g[9];
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i++) g[i] = vf_load(w + i * w_ts + j);
    WINOGRAD_EACH_ for (size_t i = 0; i < 3; i++) g[3 + i] = vf_add(vf_add(g[i], g[3 + i]), g[6 + i]);
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i += 3) g[i + 1] = vf_add(vf_add(g[i], g[i + 1]), g[i + 2]);
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i++) vf_store(u + i * u_fs + j, g[i]);
  }
}

// One axis of the result: to[2] from m[3]. At the end of an odd image x[j + 1] - x[j] is -x[j], and takes w[2] out of v.
CK_INLINE void doubled_output_(const vf *m, size_t m_step, vf *to, size_t to_step, int32_t odd) {
  to[0] = vf_add(m[0], m[m_step]);
  to[to_step] = vf_add(m[m_step], m[2 * m_step]);
  if (odd) to[0] = vf_add(m[0], to[to_step]);
}

CK_INLINE void doubled_tile_(const ck_activation kind, const ck_winograd_tile *g) {
  const int32_t odd_h = !g->y[2], odd_w = !g->y[1];
#define STEP(j, lanes)                                                                                 \
  {                                                                                                    \
    vf m[9], t[6], y[4];                                                                               \
    WINOGRAD_EACH_ for (size_t i = 0; i < 9; i++) m[i] = row_load_(g->m + i * g->m_fs + (j), (lanes)); \
    WINOGRAD_EACH_ for (size_t i = 0; i < 3; i++) doubled_output_(m + i, 3, t + i, 3, odd_h);          \
    WINOGRAD_EACH_ for (size_t i = 0; i < 2; i++) doubled_output_(t + 3 * i, 1, y + 2 * i, 1, odd_w);  \
    WINOGRAD_EACH_ for (size_t i = 0; i < 4; i++) winograd_finish_(kind, g, i, (j), (lanes), y[i]);    \
  }
  ROW_COLUMNS_(g->n, STEP);
#undef STEP
}
void CK_NAME(f32_doubled_output)(const ck_winograd_tile *tile) { CK_WITH_ACTIVATION(tile->activation, doubled_tile_, tile); }

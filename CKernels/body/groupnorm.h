// GroupNorm's two passes over a block. Loop order: rows four at a time, then columns, so that memory is read along rows.
// Sums keep one partial sum a column (several rows) or NORM_SUMS_ x VL partial sums (one row), added in a fixed tree.

// What the second pass adds up around m.
typedef struct group_sums_ {
  vf deviation, square;
} group_sums_;

CK_INLINE void group_sums_add_(group_sums_ *s, vf d) {
  s->deviation = vf_add(s->deviation, d);
  s->square = vf_fma(d, d, s->square);
}

// One contiguous row, one group.
CK_INLINE void group_row_(const ck_dtype type, const void *x, size_t n, float *out) {
  vf sum[NORM_SUMS_];
  for (size_t v = 0; v < NORM_SUMS_; v++) sum[v] = vf_zero();
  size_t j = 0;
  for (; j + NORM_SUMS_ * VL <= n; j += NORM_SUMS_ * VL)
    for (size_t v = 0; v < NORM_SUMS_; v++) sum[v] = vf_add(sum[v], row_load_as_(type, x, j + v * VL, VL));
  for (size_t v = 0; j < n; j += VL, v++) sum[v] = vf_add(sum[v], row_load_as_(type, x, j, CK_MIN(n - j, (size_t)VL)));
  const float near = vf_reduce_add(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3]))) / (float)n;

  const vf mean = vf_set1(near);
  group_sums_ s[NORM_SUMS_];
  for (size_t v = 0; v < NORM_SUMS_; v++) s[v].deviation = s[v].square = vf_zero();
  for (j = 0; j + NORM_SUMS_ * VL <= n; j += NORM_SUMS_ * VL)
    for (size_t v = 0; v < NORM_SUMS_; v++) group_sums_add_(&s[v], vf_sub(row_load_as_(type, x, j + v * VL, VL), mean));
  for (size_t v = 0; j < n; j += VL, v++) {
    const size_t lanes = CK_MIN(n - j, (size_t)VL);
    group_sums_add_(&s[v], vf_sub(vf_select(vf_first(lanes), row_load_as_(type, x, j, lanes), mean), mean));
  }
  out[0] = near;
  out[1] = vf_reduce_add(vf_add(vf_add(s[0].deviation, s[1].deviation), vf_add(s[2].deviation, s[3].deviation)));
  out[2] = vf_reduce_add(vf_add(vf_add(s[0].square, s[1].square), vf_add(s[2].square, s[3].square)));
}

// Adds `rows` rows (a constant, up to 4) to the sums of each column: x itself, or x - mean and its square.
CK_INLINE void group_rows_(const ck_dtype type, const int second, const size_t rows, const ck_group_moments *g, size_t at,
                           const float *mean, float *sum, float *square) {
#define STEP(j, lanes)                                                                            \
  vf s = row_load_(sum + j, lanes), q = second ? row_load_(square + j, lanes) : s;                \
  const vf m = second ? row_load_(mean + j, lanes) : s;                                           \
  vf d[4];                                                                                        \
  for (size_t r = 0; r < rows; r++) d[r] = row_load_as_(type, g->x, at + r * g->x_rs + j, lanes); \
  if (second)                                                                                     \
    for (size_t r = 0; r < rows; r++) d[r] = vf_sub(d[r], m), q = vf_fma(d[r], d[r], q);          \
  s = vf_add(s, rows == 4 ? vf_add(vf_add(d[0], d[1]), vf_add(d[2], d[3])) : d[0]);               \
  row_store_(sum + j, s, lanes);                                                                  \
  if (second) row_store_(square + j, q, lanes);
  ROW_COLUMNS_(g->n, STEP);
#undef STEP
}

CK_INLINE void group_columns_(const ck_dtype type, const int second, const ck_group_moments *g, const float *mean, float *sum,
                              float *square) {
  memset(sum, 0, g->n * sizeof *sum);
  if (second) memset(square, 0, g->n * sizeof *square);
  size_t r = 0;
  for (; r + 4 <= g->rows; r += 4) group_rows_(type, second, 4, g, r * g->x_rs, mean, sum, square);
  for (; r < g->rows; r++) group_rows_(type, second, 1, g, r * g->x_rs, mean, sum, square);
}

CK_INLINE void group_moments_(const ck_dtype type, const ck_group_moments *g) {
  if (g->rows == 1 && g->groups == 1) {
    group_row_(type, g->x, g->n, g->out);
    return;
  }
  const size_t width = g->n / g->groups;
  float *mean = g->scratch, *sum = mean + g->n, *square = sum + g->n;
  group_columns_(type, 0, g, 0, sum, 0);
  for (size_t group = 0; group < g->groups; group++) {
    const float near = norm_sum_(NORM_VALUE_, sum + group * width, 0, 0, width, vf_zero()) / ((float)width * (float)g->rows);
    g->out[3 * group] = near;
    for (size_t c = 0; c < width; c++) mean[group * width + c] = near;
  }
  group_columns_(type, 1, g, mean, sum, square);
  for (size_t group = 0; group < g->groups; group++) {
    g->out[3 * group + 1] = norm_sum_(NORM_VALUE_, sum + group * width, 0, 0, width, vf_zero());
    g->out[3 * group + 2] = norm_sum_(NORM_VALUE_, square + group * width, 0, 0, width, vf_zero());
  }
}
void CK_NAME(f32_group_moments)(const ck_group_moments *call) { CK_WITH_DTYPE(call->x_type, group_moments_, call); }

CK_INLINE void group_affine_(const ck_activation kind, const ck_group_affine *g) {
  for (size_t i = 0; i < g->rows; i++) {
    const float *x = g->x + i * g->x_rs;  // [n]
    float *y = g->y + i * g->y_rs;
    if (g->uniform) {
      const vf mean = vf_set1(*g->mean), scale = vf_set1(*g->scale), bias = vf_set1(*g->bias);
#define STEP(j, lanes) row_store_(y + j, ck_activate_(vf_fma(vf_sub(row_load_(x + j, lanes), mean), scale, bias), kind), lanes);
      ROW_COLUMNS_(g->n, STEP);
#undef STEP
    } else {
#define STEP(j, lanes)                                                         \
  const vf d = vf_sub(row_load_(x + j, lanes), row_load_(g->mean + j, lanes)); \
  row_store_(y + j, ck_activate_(vf_fma(d, row_load_(g->scale + j, lanes), row_load_(g->bias + j, lanes)), kind), lanes);
      ROW_COLUMNS_(g->n, STEP);
#undef STEP
    }
  }
}
void CK_NAME(f32_group_affine)(const ck_group_affine *call) { CK_WITH_ACTIVATION(call->activation, group_affine_, call); }

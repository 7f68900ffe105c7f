// Moving and combining elements: transposes, element-wise rows of two operands, interpolation, sums from the left.

// Tiles of VL x VL, two by two, so that whole cache lines are read and written; the edges one element at a time.
void CK_NAME(f32_transpose)(size_t m, size_t n, const float *x, size_t x_rs, float *y, size_t y_rs) {
  const size_t whole_m = m / VL * VL, whole_n = n / VL * VL;
  for (size_t i = 0; i < whole_m; i += 2 * VL)
    for (size_t j = 0; j < whole_n; j += VL) {
      vf_transpose(x + i * x_rs + j, x_rs, y + j * y_rs + i, y_rs);
      if (i + VL < whole_m) vf_transpose(x + (i + VL) * x_rs + j, x_rs, y + j * y_rs + i + VL, y_rs);
    }
  for (size_t i = 0; i < whole_m; i++)
    for (size_t j = whole_n; j < n; j++) y[j * y_rs + i] = x[i * x_rs + j];
  for (size_t i = whole_m; i < m; i++)
    for (size_t j = 0; j < n; j++) y[j * y_rs + i] = x[i * x_rs + j];
}

// The larger, or a NaN where there is one: vf_max returns its second operand then.
CK_INLINE vf data_max_(vf a, vf b) { return vf_select(vf_nan(a), a, vf_max(a, b)); }
CK_INLINE vf data_min_(vf a, vf b) { return vf_select(vf_nan(a), a, vf_min(a, b)); }

void CK_NAME(f32_binary)(const ck_rows *call, size_t first, size_t last) {
  if (call->variant == CK_SUBTRACT) pair_rows_(vf_sub, call, first, last);
  if (call->variant == CK_DIVIDE) pair_rows_(vf_div, call, first, last);
  if (call->variant == CK_MAXIMUM) pair_rows_(data_max_, call, first, last);
  if (call->variant == CK_MINIMUM) pair_rows_(data_min_, call, first, last);
}

void CK_NAME(f32_clamp)(const ck_rows *call, size_t first, size_t last) {
  const vf low = vf_set1(call->low), high = vf_set1(call->high);
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, vf_min(high, vf_max(low, row_load_(x + j, lanes))), lanes);  // NaN stays
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}

void CK_NAME(f32_masked_copy)(const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs, *mask = call->other + i * call->other_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes)                                                 \
  const vm set = vf_lt(vf_zero(), vf_abs(row_load_(mask + j, lanes))); \
  row_store_(y + j, vf_select(set, row_load_(x + j, lanes), row_load_(y + j, lanes)), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}

// a + t (b - a) from the nearer end, so that t = 0 gives a and t = 1 gives b.
CK_INLINE void lerp_row_(const float *a, const float *b, float t, float *y, size_t n) {
  const vf near = vf_set1(fabsf(t) < 0.5f ? t : 1 - t);
  if (fabsf(t) < 0.5f) {
#define STEP(j, lanes)                                                   \
  const vf from = row_load_(a + j, lanes), to = row_load_(b + j, lanes); \
  row_store_(y + j, vf_fma(near, vf_sub(to, from), from), lanes);
    ROW_COLUMNS_(n, STEP);
#undef STEP
  } else {
#define STEP(j, lanes)                                                   \
  const vf from = row_load_(a + j, lanes), to = row_load_(b + j, lanes); \
  row_store_(y + j, vf_fnma(near, vf_sub(to, from), to), lanes);
    ROW_COLUMNS_(n, STEP);
#undef STEP
  }
}

void CK_NAME(f32_lerp)(const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++)
    lerp_row_(call->x + i * call->x_rs, call->other + i * call->other_rs, call->scale, call->y + i * call->y_rs, call->n);
}

// y[j] = base + (group + local): local adds up to DATA_RUN_ columns from zero, group the runs before it among DATA_RUNS_ of them,
// base the groups before that, each in order. No sum is deeper than 2 + 63 + 63 + n / 4096. y may be x.
#define DATA_RUN_ 64
#define DATA_RUNS_ 64
#define DATA_CHAINS_ 4  // runs added up side by side: one chain of additions waits for itself

CK_INLINE void cumsum_runs_(const size_t chains, const float *x, float *local) {
  float sum[DATA_CHAINS_] = {0};
  for (size_t j = 0; j < DATA_RUN_; j++)
    for (size_t c = 0; c < chains; c++) local[c * DATA_RUN_ + j] = sum[c] += x[c * DATA_RUN_ + j];
}

CK_INLINE void cumsum_row_(const float *x, float *y, size_t n) {
  float local[DATA_CHAINS_ * DATA_RUN_], base = 0, group = 0;
  for (size_t at = 0, runs = 0; at < n; at += DATA_CHAINS_ * DATA_RUN_) {
    const size_t count = CK_MIN(n - at, (size_t)DATA_CHAINS_ * DATA_RUN_);
    if (count == DATA_CHAINS_ * DATA_RUN_) {
      cumsum_runs_(DATA_CHAINS_, x + at, local);
    } else {
      for (size_t j = 0; j < count; j++) local[j] = (j % DATA_RUN_ ? local[j - 1] : 0) + x[at + j];
    }
    for (size_t run = 0; run < count; run += DATA_RUN_) {
      const size_t columns = CK_MIN(count - run, (size_t)DATA_RUN_);
      const vf before = vf_set1(group), start = vf_set1(base);
      float *to = y + at + run;
#define STEP(j, lanes) row_store_(to + j, vf_add(start, vf_add(before, row_load_(local + run + j, lanes))), lanes);
      ROW_COLUMNS_(columns, STEP);
#undef STEP
      group += local[run + columns - 1];
      if (++runs % DATA_RUNS_ == 0) base += group, group = 0;
    }
  }
}

void CK_NAME(f32_cumsum)(const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) cumsum_row_(call->x + i * call->x_rs, call->y + i * call->y_rs, call->n);
}

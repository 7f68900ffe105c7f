// Row norms. Loop order: rows; in a row one pass for each statistic, then one that writes, all from L1.
//   layernorm  s = x + other, left in z where there is one, y = (s - mean) / sqrt(mean (s - mean)^2 + epsilon) weight + bias
//   rmsnorm    s = x + other, y = s / sqrt(mean s^2 + epsilon) weight;   l2norm  y = x / max(|x|, epsilon)
// A sum keeps NORM_SUMS_ x VL partial sums, column j in sum j mod (NORM_SUMS_ VL), and adds them in a fixed tree.
#define NORM_SUMS_ 4

// What a pass adds up for an element.
enum norm_term_ { NORM_VALUE_, NORM_SQUARE_, NORM_DEVIATION_ };

CK_INLINE vf norm_term_of_(const enum norm_term_ term, vf sum, vf x, vf mean) {
  if (term == NORM_VALUE_) return vf_add(sum, x);
  if (term == NORM_DEVIATION_) x = vf_sub(x, mean);
  return vf_fma(x, x, sum);
}

// Sum of a term over x, or over x + other, which is then left in sums.
CK_INLINE float norm_sum_(const enum norm_term_ term, const float *x, const float *other, float *sums, size_t n, vf mean) {
  vf sum[NORM_SUMS_];
  for (size_t v = 0; v < NORM_SUMS_; v++) sum[v] = vf_zero();
  size_t j = 0;
  for (; j + NORM_SUMS_ * VL <= n; j += NORM_SUMS_ * VL)
    for (size_t v = 0; v < NORM_SUMS_; v++) {
      vf s = vf_load(x + j + v * VL);
      if (other) {
        s = vf_add(s, vf_load(other + j + v * VL));
        vf_store(sums + j + v * VL, s);
      }
      sum[v] = norm_term_of_(term, sum[v], s, mean);
    }
  for (size_t v = 0; v < NORM_SUMS_; v++) {
    const size_t at = j + v * VL, lanes = at < n ? CK_MIN(n - at, (size_t)VL) : 0;
    if (!lanes) break;
    vf s = vf_load_n(x + at, lanes);
    if (other) {
      s = vf_add(s, vf_load_n(other + at, lanes));
      vf_store_n(sums + at, s, lanes);
    }
    if (term == NORM_DEVIATION_) s = vf_select(vf_first(lanes), s, mean);  // lanes past the row add 0
    sum[v] = norm_term_of_(term, sum[v], s, mean);
  }
  return vf_reduce_add(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
}

// The sum of a first pass: `other` decided once a row.
CK_INLINE float norm_first_(const enum norm_term_ term, const float *x, const float *other, float *sums, size_t n) {
  return other ? norm_sum_(term, x, other, sums, n, vf_zero()) : norm_sum_(term, x, 0, sums, n, vf_zero());
}

CK_INLINE vf norm_reciprocal_(float sum, size_t n, float epsilon) {  // 1 / sqrt(sum / n + epsilon)
  return vf_div(vf_set1(1), vf_sqrt(vf_add(vf_div(vf_set1(sum), vf_set1((float)n)), vf_set1(epsilon))));
}

void CK_NAME(f32_layernorm)(const ck_rows *call, size_t first, size_t last) {
  const size_t n = call->n;
  for (size_t i = first; n && i < last; i++) {
    const float *x = call->x + i * call->x_rs, *other = call->other ? call->other + i * call->other_rs : 0;  // [n]
    float *y = call->y + i * call->y_rs, *sums = call->z ? call->z + i * call->z_rs : y;
    const float *next = x + call->x_rs;
    const vf mean = vf_div(vf_set1(norm_first_(NORM_VALUE_, x, other, sums, n)), vf_set1((float)n));
    if (other) x = sums;
    const vf r = norm_reciprocal_(norm_sum_(NORM_DEVIATION_, x, 0, y, n, mean), n, call->epsilon);
#define STEP(j, lanes)                                                 \
  row_fetch_(next + j, 0);                                             \
  vf t = vf_mul(vf_sub(row_load_(x + j, lanes), mean), r);             \
  if (call->weight) t = vf_mul(t, row_load_(call->weight + j, lanes)); \
  if (call->bias) t = vf_add(t, row_load_(call->bias + j, lanes));     \
  row_store_(y + j, t, lanes);
    ROW_COLUMNS_(n, STEP);
#undef STEP
  }
}

void CK_NAME(f32_rmsnorm)(const ck_rows *call, size_t first, size_t last) {
  const size_t n = call->n;
  for (size_t i = first; n && i < last; i++) {
    const float *x = call->x + i * call->x_rs, *other = call->other ? call->other + i * call->other_rs : 0;  // [n]
    float *y = call->y + i * call->y_rs, *sums = call->z ? call->z + i * call->z_rs : y;
    const float *next = x + call->x_rs;
    const vf r = norm_reciprocal_(norm_first_(NORM_SQUARE_, x, other, sums, n), n, call->epsilon);
    if (other) x = sums;
#define STEP(j, lanes)                                                 \
  row_fetch_(next + j, 0);                                             \
  vf t = vf_mul(row_load_(x + j, lanes), r);                           \
  if (call->weight) t = vf_mul(t, row_load_(call->weight + j, lanes)); \
  row_store_(y + j, t, lanes);
    ROW_COLUMNS_(n, STEP);
#undef STEP
  }
}

void CK_NAME(f32_l2norm)(const ck_rows *call, size_t first, size_t last) {
  const size_t n = call->n;
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
    const float sum = norm_sum_(NORM_SQUARE_, x, 0, y, n, vf_zero());
    const vf length = vf_max(vf_set1(call->epsilon), vf_sqrt(vf_set1(sum)));  // a NaN length stays
#define STEP(j, lanes) row_store_(y + j, vf_div(row_load_(x + j, lanes), length), lanes);
    ROW_COLUMNS_(n, STEP);
#undef STEP
  }
}

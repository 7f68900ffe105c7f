// y = softmax(s), s = scale x + other, over the columns j <= i + diagonal; the columns beyond are 0, a row of -inf is zeros.
// Loop order: rows; in a row blocks that fit L1, each max(s), then e = exp(s - max so far) and its sum; then the blocks from the
// last back, times exp(max then - max) / sum, as an online softmax does (Milakov and Gimelshein, arXiv 1805.02867). The next
// block is fetched during the exponentials. Column j belongs to partial sum j mod (4 VL) of its block, as in norm.h.
#define SOFTMAX_BLOCK_ 2048  // columns, or 1/64 of a longer row
#define SOFTMAX_BLOCKS_ 64

CK_INLINE vf softmax_score_(vf scale, const float *x, const float *other, size_t lanes) {
  const vf s = row_load_(x, lanes);
  return other ? vf_fma(scale, s, row_load_(other, lanes)) : vf_mul(scale, s);
}

// max(s) over n columns, or max(x) where `scale` is to follow: a NaN may be lost here and is found again by the sum.
CK_INLINE float softmax_max_(const int plain, vf scale, const float *x, const float *other, size_t n) {
  const vf low = vf_set1(-INFINITY);
  vf top[4] = {low, low, low, low};
  size_t j = 0;
  for (; j + 4 * VL <= n; j += 4 * VL)
    for (size_t v = 0; v < 4; v++)
      top[v] = vf_max(
          top[v], plain ? vf_load(x + j + v * VL) : softmax_score_(scale, x + j + v * VL, other ? other + j + v * VL : 0, VL));
  for (; j < n; j += VL) {
    const size_t lanes = CK_MIN(n - j, (size_t)VL);
    const vf s = plain ? row_load_(x + j, lanes) : softmax_score_(scale, x + j, other ? other + j : 0, lanes);
    top[0] = vf_max(top[0], vf_select(vf_first(lanes), s, low));
  }
  return vf_reduce_max(vf_max(vf_max(top[0], top[1]), vf_max(top[2], top[3])));
}

CK_INLINE vf softmax_less_(vf scale, const float *x, const float *other, vf base, size_t lanes) {  // s - base
  if (!other) return vf_fma(scale, row_load_(x, lanes), vf_sub(vf_zero(), base));
  return vf_sub(softmax_score_(scale, x, other, lanes), base);
}

// y = exp(s - base) over n columns, which may overwrite x or other; returns the sum.
CK_INLINE float softmax_exp_(vf scale, const float *x, const float *other, vf base, float *y, size_t n) {
  vf sum[4];
  for (size_t v = 0; v < 4; v++) sum[v] = vf_zero();
  size_t j = 0;
  for (; j + 4 * VL <= n; j += 4 * VL) {
    vf e[4];
    for (size_t line = 0; line < 4 * VL; line += 16) row_fetch_(x + j + line, SOFTMAX_BLOCK_);
    MATH_EACH_(4) e[v] = softmax_less_(scale, x + j + v * VL, other ? other + j + v * VL : 0, base, VL);
    math_exp_nonpositive_(4, e);
    MATH_EACH_(4) vf_store(y + j + v * VL, e[v]);
    MATH_EACH_(4) sum[v] = vf_add(sum[v], e[v]);
  }
  for (size_t v = 0; j < n; j += VL, v++) {
    const size_t lanes = CK_MIN(n - j, (size_t)VL);
    const vf e = vf_exp_nonpositive_(softmax_less_(scale, x + j, other ? other + j : 0, base, lanes));
    row_store_(y + j, e, lanes);
    sum[v] = vf_add(sum[v], vf_select(vf_first(lanes), e, vf_zero()));
  }
  return vf_reduce_add(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
}

CK_INLINE float softmax_exp_of_(float x) {
  float e;
  vf_store_n(&e, vf_exp_nonpositive_(vf_set1(x)), 1);
  return e;
}

// One row; `other` NULL is a constant at one of the two calls.
CK_INLINE void softmax_row_(float factor, const float *x, const float *other, float *y, size_t seen, size_t n) {
  const vf scale = vf_set1(factor);
  const int plain = !other && factor >= 0;
  const size_t even = (seen + SOFTMAX_BLOCKS_ - 1) / SOFTMAX_BLOCKS_, block = even > SOFTMAX_BLOCK_ ? even : SOFTMAX_BLOCK_;
  float top = -INFINITY, sum = 0, tops[SOFTMAX_BLOCKS_];  // tops: what was subtracted in a block
  size_t blocks = 0;
  for (size_t j = 0; j < seen; j += block, blocks++) {
    const size_t columns = CK_MIN(seen - j, block);
    const float before = top, own = plain ? factor * softmax_max_(1, scale, x + j, 0, columns)
                                          : softmax_max_(0, scale, x + j, other ? other + j : 0, columns);
    top = own > top ? own : top;
    tops[blocks] = top;
    const float base = top == -INFINITY ? 0 : top;
    const float e = softmax_exp_(scale, x + j, other ? other + j : 0, vf_set1(base), y + j, columns);
    sum = sum * (before == top ? 1 : softmax_exp_of_(before - top)) + e;
  }
  for (size_t i = blocks; i-- > 0;) {
    const size_t j = i * block, columns = CK_MIN(seen - j, block);
    float *part = y + j;
    const vf r = vf_set1(sum == 0 ? 0 : (tops[i] == top ? 1 : softmax_exp_of_(tops[i] - top)) / sum);
#define STEP(c, lanes) row_store_(part + c, vf_mul(row_load_(part + c, lanes), r), lanes);
    ROW_COLUMNS_(columns, STEP);
#undef STEP
  }
  for (size_t j = seen; j < n; j++) y[j] = 0;
}

void CK_NAME(f32_softmax)(const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const size_t seen = row_seen_(i, call->diagonal, call->n);
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
    if (call->other)
      softmax_row_(call->scale, x, call->other + i * call->other_rs, y, seen, call->n);
    else
      softmax_row_(call->scale, x, 0, y, seen, call->n);
  }
}

// Reductions of rows and of columns, and the positions of extremes.
//
// Sums are added up in blocks of REDUCE_BLOCK_ steps from zero; block sums are joined in pairs, then pairs of pairs, as a binary
// counter carries. A row runs 4 VL columns side by side. No sum of n terms is deeper than 20 + log2 n, rounded up.
#define REDUCE_BLOCK_ 16
#define REDUCE_SUMS_ 4
#define REDUCE_LEVELS_ 48
#define REDUCE_COLUMNS_ 128  // columns of one strip: 16 rows of it lie in L1

// What is added up: the reductions, and two sums that others need.
enum reduce_term_ { REDUCE_SUM_, REDUCE_SQUARES_, REDUCE_PRODUCTS_, REDUCE_EXP_, REDUCE_MAX_, REDUCE_MIN_ };

CK_INLINE float reduce_start_(const enum reduce_term_ term) {
  return term == REDUCE_MAX_ ? -INFINITY : term == REDUCE_MIN_ ? INFINITY : 0;
}

CK_INLINE vf reduce_join_(const enum reduce_term_ term, vf a, vf b) {
  return term == REDUCE_MAX_ ? data_max_(a, b) : term == REDUCE_MIN_ ? data_min_(a, b) : vf_add(a, b);
}

// x joined to a sum; `with` is the other factor, or what is taken off before exp.
CK_INLINE vf reduce_step_(const enum reduce_term_ term, vf sum, vf x, vf with) {
  if (term == REDUCE_SQUARES_) return vf_fma(x, x, sum);
  if (term == REDUCE_PRODUCTS_) return vf_fma(x, with, sum);
  if (term == REDUCE_EXP_) return vf_add(sum, vf_exp_nonpositive_(vf_sub(x, with)));
  return reduce_join_(term, x, sum);
}

// Block sum number `blocks` joined into level[l * step], the sum of 2^l blocks; levels above the carry are left alone.
CK_INLINE void reduce_carry_(const enum reduce_term_ term, vf *level, size_t step, size_t blocks, vf sum) {
  size_t l = 0;
  for (; blocks >> l & 1; l++) sum = reduce_join_(term, level[l * step], sum);
  level[l * step] = sum;
}

CK_INLINE vf reduce_total_(const enum reduce_term_ term, const vf *level, size_t step, size_t blocks) {
  vf total = vf_set1(reduce_start_(term));
  for (size_t l = 0; blocks >> l; l++)
    if (blocks >> l & 1) total = reduce_join_(term, level[l * step], total);
  return total;
}

CK_INLINE float reduce_lanes_(const enum reduce_term_ term, vf x) {
  if (term != REDUCE_MAX_ && term != REDUCE_MIN_) return vf_reduce_add(x);
  float lane[VL];
  vf_store(lane, x);
  float most = lane[0];
  for (size_t i = 1; i < VL; i++)
    if (lane[i] != lane[i] || (term == REDUCE_MAX_ ? lane[i] > most : lane[i] < most)) most = lane[i];
  return most;
}

// The sum of a row of n; `other` is the second factor of products, `base` what exp takes off.
CK_INLINE float reduce_row_(const enum reduce_term_ term, const float *x, const float *other, float base, size_t n) {
  const vf start = vf_set1(reduce_start_(term)), off = vf_set1(base);
  const vf neutral = term == REDUCE_EXP_ ? vf_set1(-INFINITY) : start;  // lanes past the row
  const int two = term == REDUCE_PRODUCTS_;
  vf level[REDUCE_LEVELS_];
  size_t blocks = 0;
  for (size_t j = 0; j < n; blocks++) {
    const size_t end = n - j < REDUCE_BLOCK_ * REDUCE_SUMS_ * VL ? n : j + REDUCE_BLOCK_ * REDUCE_SUMS_ * VL;
    vf sum[REDUCE_SUMS_];
    for (size_t v = 0; v < REDUCE_SUMS_; v++) sum[v] = start;
    for (; j + REDUCE_SUMS_ * VL <= end; j += REDUCE_SUMS_ * VL)
      for (size_t v = 0; v < REDUCE_SUMS_; v++)
        sum[v] = reduce_step_(term, sum[v], vf_load(x + j + v * VL), two ? vf_load(other + j + v * VL) : off);
    for (size_t v = 0; v < REDUCE_SUMS_ && j < end; v++) {
      const size_t lanes = CK_MIN(end - j, (size_t)VL);
      const vf t = vf_select(vf_first(lanes), row_load_(x + j, lanes), neutral);
      sum[v] = reduce_step_(term, sum[v], t, two ? row_load_(other + j, lanes) : off);
      j += lanes;
    }
    const vf front = reduce_join_(term, sum[0], sum[1]), back = reduce_join_(term, sum[2], sum[3]);
    reduce_carry_(term, level, 1, blocks, reduce_join_(term, front, back));
  }
  return reduce_lanes_(term, reduce_total_(term, level, 1, blocks));
}

// log(sum e^x) = top + log(sum e^(x - top)); an infinite or NaN top is the result.
CK_INLINE float reduce_log_sum_exp_(const float *x, size_t n) {
  const float top = reduce_row_(REDUCE_MAX_, x, 0, 0, n);
  if (!(fabsf(top) < INFINITY)) return top;
  return (float)(top + log(reduce_row_(REDUCE_EXP_, x, 0, top, n)));
}

void CK_NAME(f32_reduce)(const ck_rows *call, size_t first, size_t last) {
  const size_t n = call->x_n;
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [x_n]
    float *y = call->y + i * call->y_rs;        // [1]
    switch (call->variant) {
      case CK_SUM:
        *y = reduce_row_(REDUCE_SUM_, x, 0, 0, n);
        break;
      case CK_MEAN:
        *y = reduce_row_(REDUCE_SUM_, x, 0, 0, n) / (float)n;
        break;
      case CK_SUM_SQUARES:
        *y = reduce_row_(REDUCE_SQUARES_, x, 0, 0, n);
        break;
      case CK_MAX:
        *y = reduce_row_(REDUCE_MAX_, x, 0, 0, n);
        break;
      case CK_MIN:
        *y = reduce_row_(REDUCE_MIN_, x, 0, 0, n);
        break;
      default:
        *y = reduce_log_sum_exp_(x, n);
    }
  }
}

// total[v]: the sums of columns [j, j + columns) of every row; `off` is what exp takes off. Loop order: blocks of rows, columns
// VL at a time, rows of the block.
CK_INLINE void reduce_strip_(const ck_dtype type, const enum reduce_term_ term, const ck_rows *call, size_t j, size_t columns,
                             const vf *off, vf *total) {
  vf level[REDUCE_LEVELS_ * (REDUCE_COLUMNS_ / VL)];
  const size_t step = REDUCE_COLUMNS_ / VL;
  size_t blocks = 0;
  for (size_t i = 0; i < call->rows; i += REDUCE_BLOCK_, blocks++) {
    const size_t rows = CK_MIN(call->rows - i, (size_t)REDUCE_BLOCK_);
    for (size_t v = 0; v * VL < columns; v++) {
      const size_t lanes = CK_MIN(columns - v * VL, (size_t)VL);
      vf sum = vf_set1(reduce_start_(term));
      for (size_t r = 0; r < rows; r++)
        sum = reduce_step_(term, sum, row_load_as_(type, call->x, (i + r) * call->x_rs + j + v * VL, lanes), off[v]);
      reduce_carry_(term, level + v, step, blocks, sum);
    }
  }
  for (size_t v = 0; v * VL < columns; v++) total[v] = reduce_total_(term, level + v, step, blocks);
}

// Each lane as reduce_log_sum_exp_ has it: `off` is top, or 0 where that is no number to take off.
CK_INLINE vf reduce_log_(vf top, vf off, vf sum) {
  float lane[VL], base[VL];
  vf_store(lane, sum), vf_store(base, off);
  for (size_t i = 0; i < VL; i++) lane[i] = (float)(base[i] + log(lane[i]));
  return vf_select(vf_lt(vf_abs(top), vf_set1(INFINITY)), vf_load(lane), top);
}

CK_INLINE void reduce_columns_(const ck_dtype type, const ck_rows *call, size_t j, size_t columns) {
  vf off[REDUCE_COLUMNS_ / VL], total[REDUCE_COLUMNS_ / VL], top[REDUCE_COLUMNS_ / VL];
  const size_t vectors = (columns + VL - 1) / VL;
  for (size_t v = 0; v < vectors; v++) off[v] = vf_zero();
  switch (call->variant) {
    case CK_SUM_SQUARES:
      reduce_strip_(type, REDUCE_SQUARES_, call, j, columns, off, total);
      break;
    case CK_MAX:
      reduce_strip_(type, REDUCE_MAX_, call, j, columns, off, total);
      break;
    case CK_MIN:
      reduce_strip_(type, REDUCE_MIN_, call, j, columns, off, total);
      break;
    case CK_LOG_SUM_EXP:
      reduce_strip_(type, REDUCE_MAX_, call, j, columns, off, top);
      for (size_t v = 0; v < vectors; v++) off[v] = vf_select(vf_lt(vf_abs(top[v]), vf_set1(INFINITY)), top[v], vf_zero());
      reduce_strip_(type, REDUCE_EXP_, call, j, columns, off, total);
      for (size_t v = 0; v < vectors; v++) total[v] = reduce_log_(top[v], off[v], total[v]);
      break;
    default:
      reduce_strip_(type, REDUCE_SUM_, call, j, columns, off, total);
  }
  for (size_t v = 0; v < vectors; v++) {
    const size_t lanes = CK_MIN(columns - v * VL, (size_t)VL);
    if (call->variant == CK_MEAN) total[v] = vf_div(total[v], vf_set1((float)call->rows));
    if (call->y_type == CK_BF16) row_store_as_(CK_BF16, call->y, j + v * VL, total[v], lanes);
    if (call->y_type == CK_F16) row_store_as_(CK_F16, call->y, j + v * VL, total[v], lanes);
    if (call->y_type == CK_F32) row_store_as_(CK_F32, call->y, j + v * VL, total[v], lanes);
  }
}
void CK_NAME(f32_reduce_columns)(const ck_rows *call, size_t first, size_t last) {
  for (size_t j = first; j < last; j += REDUCE_COLUMNS_)
    CK_WITH_DTYPE(call->x_type, reduce_columns_, call, j, CK_MIN(last - j, (size_t)REDUCE_COLUMNS_));
}

// The largest of each run of columns is compared with the best so far; only the run that holds it is searched.
#define REDUCE_RUN_ 256

CK_INLINE void argmax_rows_(const ck_dtype type, const enum reduce_term_ term, const ck_extreme *call, size_t first,
                            size_t last) {
  for (size_t i = first; i < last; i++) {
    const char *x = (const char *)call->x + i * call->x_rs * ck_dtype_size(type);  // [n]
    float run[REDUCE_RUN_], best = 0;
    size_t best_at = 0;
    for (size_t j = 0; j < call->n && best == best; j += REDUCE_RUN_) {
      const size_t columns = CK_MIN(call->n - j, (size_t)REDUCE_RUN_);
      const float *values = (const float *)(const void *)x + j;
      if (type != CK_F32) widen_(type, columns, x + j * ck_dtype_size(type), run), values = run;
      const float most = reduce_row_(term, values, 0, 0, columns);
      if (j == 0 || most != most || (term == REDUCE_MAX_ ? most > best : most < best)) best = most, best_at = j;
    }
    widen_(type, CK_MIN(call->n - best_at, (size_t)REDUCE_RUN_), x + best_at * ck_dtype_size(type), run);
    size_t at = 0;
    while (best == best ? run[at] != best : run[at] == run[at]) at++;
    call->y[i] = (int32_t)(best_at + at);
  }
}

CK_INLINE void argmax_(const ck_dtype type, const ck_extreme *call, size_t first, size_t last) {
  if (call->least)
    argmax_rows_(type, REDUCE_MIN_, call, first, last);
  else
    argmax_rows_(type, REDUCE_MAX_, call, first, last);
}
void CK_NAME(f32_argmax)(const ck_extreme *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, argmax_, call, first, last);
}

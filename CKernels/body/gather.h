// y[i] = x[index[i]] (+ y[i]), and y[i] = mean of x[index[i] ..< index[i + 1]]. Loop order: output rows, columns, table rows.

CK_INLINE void gather_rows_(const ck_dtype type, const ck_rows *call, size_t first, size_t last) {
  const size_t step = call->x_rs * ck_dtype_size(type);  // bytes
  for (size_t i = first; i < last; i++) {
    const char *x = (const char *)call->x + (size_t)call->index[i] * step;  // [n]
    const char *next =
        i + 1 < last ? (const char *)call->x + (size_t)call->index[i + 1] * step : x;  // rows lie anywhere: ask early
    float *y = call->y + i * call->y_rs;
    if (!call->accumulate) {
#define STEP(j, lanes)                                \
  __builtin_prefetch(next + j * ck_dtype_size(type)); \
  row_store_(y + j, row_load_as_(type, x, j, lanes), lanes);
      ROW_COLUMNS_(call->n, STEP);
#undef STEP
    } else {
#define STEP(j, lanes) row_store_(y + j, vf_add(row_load_(y + j, lanes), row_load_as_(type, x, j, lanes)), lanes);
      ROW_COLUMNS_(call->n, STEP);
#undef STEP
    }
  }
}
void CK_NAME(f32_gather)(const ck_rows *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, gather_rows_, call, first, last);
}

// Mean of rows [0, rows) of x over `vectors` vectors of columns, the last one `lanes` wide; even and odd rows apart, then added.
CK_INLINE void mean_columns_(const ck_dtype type, const size_t vectors, const void *x, size_t at, size_t x_rs, size_t rows,
                             float *y, size_t lanes) {
  vf even[4], odd[4];
  for (size_t v = 0; v < vectors; v++) even[v] = odd[v] = vf_zero();
  size_t r = 0;
  for (; r + 2 <= rows; r += 2)
    for (size_t v = 0; v < vectors; v++) {
      const size_t w = v + 1 < vectors ? VL : lanes;
      even[v] = vf_add(even[v], row_load_as_(type, x, at + r * x_rs + v * VL, w));
      odd[v] = vf_add(odd[v], row_load_as_(type, x, at + (r + 1) * x_rs + v * VL, w));
    }
  const vf count = vf_set1((float)rows);
  for (size_t v = 0; v < vectors; v++) {
    const size_t w = v + 1 < vectors ? VL : lanes;
    if (r < rows) even[v] = vf_add(even[v], row_load_as_(type, x, at + r * x_rs + v * VL, w));
    row_store_(y + v * VL, rows ? vf_div(vf_add(even[v], odd[v]), count) : vf_zero(), w);
  }
}

CK_INLINE void mean_rows_(const ck_dtype type, const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const size_t begin = (size_t)call->index[i], rows = (size_t)call->index[i + 1] - begin, n = call->n;
    const size_t at = begin * call->x_rs;  // of [rows, n]
    float *y = call->y + i * call->y_rs;
    size_t j = 0;
    for (; j + 4 * VL <= n; j += 4 * VL) mean_columns_(type, 4, call->x, at + j, call->x_rs, rows, y + j, VL);
    for (; j < n; j += VL) mean_columns_(type, 1, call->x, at + j, call->x_rs, rows, y + j, CK_MIN(n - j, (size_t)VL));
  }
}
void CK_NAME(f32_mean_pool)(const ck_rows *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, mean_rows_, call, first, last);
}

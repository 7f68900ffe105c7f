// Pooling, resizing and padding. Rows are output rows: r = b * y_h + i where channels are last, else (b * channels + c) * y_h +
// i. Channels last: lanes are channels. Else: rows of the window first, along memory, then its columns from a padded line in
// scratch.

// What output row r is.
typedef struct image_row_ {
  size_t b, c, i;
  size_t x, y;  // offsets of (b, c, 0, 0) in x and of the row in y
} image_row_;

CK_INLINE image_row_ image_row_of_(const ck_image *g, size_t r) {
  image_row_ at = {.i = r % g->y_h};
  const size_t plane = r / g->y_h;
  at.b = g->channels_last ? plane : plane / g->channels, at.c = g->channels_last ? 0 : plane % g->channels;
  at.x = at.b * g->x_bs + at.c * g->x_cs, at.y = at.b * g->y_bs + at.c * g->y_cs + at.i * g->y_hs;
  return at;
}

// Taps [first, last) of the window at output `i` that lie in x, the first at x[start].
typedef struct pool_taps_ {
  size_t first, last, start;
} pool_taps_;

CK_INLINE pool_taps_ pool_taps_of_(size_t i, size_t size, size_t stride, size_t dilation, size_t pad, size_t extent) {
  const size_t at = i * stride;  // of the window's first element, plus pad
  const size_t skip = at < pad ? (pad - at + dilation - 1) / dilation : 0, end = extent + pad;
  const size_t reach = at < end ? (end - at + dilation - 1) / dilation : 0;
  pool_taps_ t = {skip, CK_MIN(reach, size), 0};
  if (t.last < t.first) t.last = t.first;
  if (t.first < t.last) t.start = at + t.first * dilation - pad;
  return t;
}

CK_INLINE float *image_scratch_(const ck_image *g) { return g->scratch + ck_participant() * g->scratch_size; }

// A NaN on either side stays.
CK_INLINE vf pool_join_(const int largest, vf a, vf x) { return largest ? vf_select(vf_nan(a), a, vf_max(a, x)) : vf_add(a, x); }
CK_INLINE vf pool_start_(const int largest) { return vf_set1(largest ? -INFINITY : 0); }

#define POOL_VECTORS_ 8

// Channels [at, at + (vectors - 1) VL + lanes) of one output. A sum runs along each row of the window, then over the rows.
CK_INLINE void pool_channels_(const int largest, const ck_dtype type, const size_t vectors, const ck_image *g, pool_taps_ rows,
                              pool_taps_ columns, size_t x, size_t y, size_t lanes, float count) {
  vf total[POOL_VECTORS_];
  for (size_t v = 0; v < vectors; v++) total[v] = pool_start_(largest);
  for (size_t i = rows.first; i < rows.last; i++) {
    size_t at = x + (rows.start + (i - rows.first) * g->dilation_h) * g->x_hs + columns.start * g->x_ws;
    vf row[POOL_VECTORS_];
    for (size_t v = 0; v < vectors; v++) row[v] = largest ? total[v] : vf_zero();
    for (size_t j = columns.first; j < columns.last; j++, at += g->dilation_w * g->x_ws)
      for (size_t v = 0; v < vectors; v++)
        row[v] = pool_join_(largest, row[v], row_load_as_(type, g->x, at + v * VL, v + 1 < vectors ? VL : lanes));
    for (size_t v = 0; v < vectors; v++) total[v] = largest ? row[v] : vf_add(total[v], row[v]);
  }
  for (size_t v = 0; v < vectors; v++) {
    if (!largest) total[v] = vf_div(total[v], vf_set1(count));
    row_store_as_(g->y_type, g->y, y + v * VL, total[v], v + 1 < vectors ? VL : lanes);
  }
}

CK_INLINE void pool_last_(const int largest, const ck_dtype type, const ck_image *g, size_t first, size_t last) {
  const size_t parts = (g->channels - 1) / g->channel_block + 1;
  for (size_t item = first; item < last; item++) {
    const image_row_ at = image_row_of_(g, item / parts);
    const size_t c0 = item % parts * g->channel_block, c1 = CK_MIN(c0 + g->channel_block, g->channels);
    const pool_taps_ rows = pool_taps_of_(at.i, g->kernel_h, g->stride_h, g->dilation_h, g->pad_h, g->x_h);
    for (size_t j = 0; j < g->y_w; j++) {
      const pool_taps_ columns = pool_taps_of_(j, g->kernel_w, g->stride_w, g->dilation_w, g->pad_w, g->x_w);
      const float count = g->include_pad ? (float)g->kernel_h * (float)g->kernel_w
                                         : (float)(rows.last - rows.first) * (float)(columns.last - columns.first);
      const size_t y = at.y + j * g->y_ws;
      size_t c = c0;
      for (; c + POOL_VECTORS_ * VL <= c1; c += POOL_VECTORS_ * VL)
        pool_channels_(largest, type, POOL_VECTORS_, g, rows, columns, at.x + c, y + c, VL, count);
      for (; c + 2 * VL <= c1; c += 2 * VL) pool_channels_(largest, type, 2, g, rows, columns, at.x + c, y + c, VL, count);
      for (; c < c1; c += VL)
        pool_channels_(largest, type, 1, g, rows, columns, at.x + c, y + c, CK_MIN(c1 - c, (size_t)VL), count);
    }
  }
}

// Elements p[0], p[stride], ... of a line with room to read past its end.
CK_INLINE vf image_take_(const float *p, size_t stride, size_t lanes) {
  if (stride == 1) return vf_load(p);
  if (stride == 2) return vf_load_2(p);
  float t[VL] = {0};
  for (size_t l = 0; l < lanes; l++) t[l] = p[l * stride];
  return vf_load(t);
}

// The window's rows joined over every column of x, into line[pad_w ..< pad_w + x_w].
CK_INLINE void pool_line_(const int largest, const ck_dtype type, const ck_image *g, image_row_ at, pool_taps_ rows,
                          float *line) {
  const size_t step = g->dilation_h * g->x_hs, x = at.x + rows.start * g->x_hs;
#define STEP(j, lanes)                                                             \
  vf s = pool_start_(largest);                                                     \
  for (size_t i = 0; i < rows.last - rows.first; i++)                              \
    s = pool_join_(largest, s, row_load_as_(type, g->x, x + i * step + j, lanes)); \
  row_store_(line + g->pad_w + j, s, lanes);
  ROW_COLUMNS_(g->x_w, STEP);
#undef STEP
}

CK_INLINE void pool_first_(const int largest, const ck_dtype type, const ck_image *g, size_t first, size_t last, float *line) {
  for (size_t k = 0; k < g->scratch_size; k += VL) vf_store(line + k, pool_start_(largest));  // beside x: the border
  for (size_t r = first; r < last; r++) {
    const image_row_ at = image_row_of_(g, r);
    const pool_taps_ rows = pool_taps_of_(at.i, g->kernel_h, g->stride_h, g->dilation_h, g->pad_h, g->x_h);
    pool_line_(largest, type, g, at, rows, line);
    const vf height = vf_set1((float)(g->include_pad ? g->kernel_h : rows.last - rows.first));
#define STEP(j, lanes)                                                                                       \
  vf s = pool_start_(largest);                                                                               \
  for (size_t k = 0; k < g->kernel_w; k++)                                                                   \
    s = pool_join_(largest, s, image_take_(line + j * g->stride_w + k * g->dilation_w, g->stride_w, lanes)); \
  if (!largest) s = vf_div(s, vf_mul(height, row_load_(g->column_taps.first_weight + j, lanes)));            \
  row_store_as_(g->y_type, g->y, at.y + j, s, lanes);
    ROW_COLUMNS_(g->y_w, STEP);
#undef STEP
  }
}

CK_INLINE void pool_(const ck_dtype type, const int largest, const ck_image *g, size_t first, size_t last, float *line) {
  if (g->channels_last)
    pool_last_(largest, type, g, first, last);
  else
    pool_first_(largest, type, g, first, last, line);
}
void CK_NAME(f32_avg_pool)(const ck_image *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, pool_, 0, call, first, last, image_scratch_(call));
}
void CK_NAME(f32_max_pool)(const ck_image *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, pool_, 1, call, first, last, image_scratch_(call));
}

// Rows are weighted first, then columns.
CK_INLINE vf bilinear_(vf a, vf b, vf a_weight, vf b_weight) { return vf_fma(b_weight, b, vf_mul(a_weight, a)); }

CK_INLINE void bilinear_last_(const ck_dtype type, const ck_image *g, image_row_ at, size_t upper, size_t lower) {
  const ck_taps *columns = &g->column_taps;
  const vf top = vf_set1(g->row_taps.first_weight[at.i]), bottom = vf_set1(g->row_taps.second_weight[at.i]);
  for (size_t k = 0; k < g->y_w; k++) {
    const size_t p = (size_t)columns->first[k] * g->x_ws, q = (size_t)columns->second[k] * g->x_ws, y = at.y + k * g->y_ws;
    const vf left = vf_set1(columns->first_weight[k]), right = vf_set1(columns->second_weight[k]);
#define STEP(j, lanes)                                                                                                        \
  const vf a =                                                                                                                \
      bilinear_(row_load_as_(type, g->x, upper + p + j, lanes), row_load_as_(type, g->x, lower + p + j, lanes), top, bottom); \
  const vf b =                                                                                                                \
      bilinear_(row_load_as_(type, g->x, upper + q + j, lanes), row_load_as_(type, g->x, lower + q + j, lanes), top, bottom); \
  row_store_as_(g->y_type, g->y, y + j, bilinear_(a, b, left, right), lanes);
    ROW_COLUMNS_(g->channels, STEP);
#undef STEP
  }
}

CK_INLINE void bilinear_first_(const ck_dtype type, const ck_image *g, image_row_ at, size_t upper, size_t lower, float *line) {
  const ck_taps *columns = &g->column_taps;
  const vf top = vf_set1(g->row_taps.first_weight[at.i]), bottom = vf_set1(g->row_taps.second_weight[at.i]);
#define STEP(j, lanes)                                                                                                       \
  row_store_(line + j,                                                                                                       \
             bilinear_(row_load_as_(type, g->x, upper + j, lanes), row_load_as_(type, g->x, lower + j, lanes), top, bottom), \
             lanes);
  ROW_COLUMNS_(g->x_w, STEP);
#undef STEP
#define STEP(j, lanes)                                                                              \
  const vf s = bilinear_(vf_gather(line, columns->first + j), vf_gather(line, columns->second + j), \
                         vf_load(columns->first_weight + j), vf_load(columns->second_weight + j));  \
  row_store_as_(g->y_type, g->y, at.y + j, s, lanes);
  ROW_COLUMNS_(g->y_w, STEP);
#undef STEP
}

CK_INLINE void resize_bilinear_(const ck_dtype type, const ck_image *g, size_t first, size_t last, float *line) {
  for (size_t r = first; r < last; r++) {
    const image_row_ at = image_row_of_(g, r);
    const size_t upper = at.x + (size_t)g->row_taps.first[at.i] * g->x_hs;
    const size_t lower = at.x + (size_t)g->row_taps.second[at.i] * g->x_hs;
    if (g->channels_last)
      bilinear_last_(type, g, at, upper, lower);
    else
      bilinear_first_(type, g, at, upper, lower, line);
  }
}
void CK_NAME(f32_resize_bilinear)(const ck_image *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, resize_bilinear_, call, first, last, image_scratch_(call));
}

// Elements are copied as they are: a pixel of `unit` elements of `size` bytes.
CK_INLINE void image_copy_(const size_t size, const ck_image *g, char *y, const char *x, size_t pixels, size_t unit) {
  if (g->x_ws == unit && g->y_ws == unit) {
    memcpy(y, x, pixels * unit * size);
    return;
  }
  for (size_t j = 0; j < pixels; j++) memcpy(y + j * g->y_ws * size, x + j * g->x_ws * size, unit * size);
}

CK_INLINE void nearest_row_(const size_t size, const ck_image *g, char *y, const char *x, size_t unit) {
  const int32_t *from = g->column_taps.first;
  const size_t x_ws = g->x_ws * size, y_ws = g->y_ws * size;
  const int dense = unit == 1 && g->x_ws == 1 && g->y_ws == 1;
  if (dense && g->y_w == 2 * g->x_w) {
    for (size_t j = 0; j < g->x_w; j++)
      memcpy(y + 2 * j * size, x + j * size, size), memcpy(y + (2 * j + 1) * size, x + j * size, size);
  } else if (dense) {
    for (size_t j = 0; j < g->y_w; j++) memcpy(y + j * size, x + (size_t)from[j] * size, size);
  } else {
    for (size_t j = 0; j < g->y_w; j++) memcpy(y + j * y_ws, x + (size_t)from[j] * x_ws, unit * size);
  }
}

CK_INLINE void resize_nearest_(const size_t size, const ck_image *g, size_t first, size_t last) {
  const size_t unit = g->channels_last ? g->channels : 1;
  for (size_t r = first; r < last; r++) {
    const image_row_ at = image_row_of_(g, r);
    const int32_t *from = g->row_taps.first + at.i;
    char *y = (char *)g->y + at.y * size;
    if (r > first && at.i && from[0] == from[-1] && g->y_ws == unit)
      memcpy(y, y - g->y_hs * size, g->y_w * unit * size);  // the row above, which this piece has just written
    else
      nearest_row_(size, g, y, (const char *)g->x + (at.x + (size_t)from[0] * g->x_hs) * size, unit);
  }
}
void CK_NAME(f32_resize_nearest)(const ck_image *call, size_t first, size_t last) {
  if (call->x_type == CK_F32)
    resize_nearest_(4, call, first, last);
  else
    resize_nearest_(2, call, first, last);
}

// `pixels` pixels of the constant.
CK_INLINE void pad_fill_(const ck_image *g, size_t y, size_t pixels, size_t unit) {
  const vf value = vf_set1(g->value);
  const size_t runs = g->y_ws == unit ? 1 : pixels, length = g->y_ws == unit ? pixels * unit : unit;
  for (size_t k = 0; k < runs; k++) {
#define STEP(j, lanes) row_store_as_(g->y_type, g->y, y + k * g->y_ws + j, value, lanes);
    ROW_COLUMNS_(length, STEP);
#undef STEP
  }
}

// Border pixels [first, last) of a row, from the columns they repeat.
CK_INLINE void pad_side_(const size_t size, const ck_image *g, size_t y, const char *x, size_t first, size_t last, size_t unit) {
  if (g->border == CK_BORDER_CONSTANT) {
    pad_fill_(g, y + first * g->y_ws, last - first, unit);
    return;
  }
  for (size_t j = first; j < last; j++)
    memcpy((char *)g->y + (y + j * g->y_ws) * size, x + (size_t)g->column_taps.first[j] * g->x_ws * size, unit * size);
}

CK_INLINE void pad_(const size_t size, const ck_image *g, size_t first, size_t last) {
  const size_t unit = g->channels_last ? g->channels : 1;
  for (size_t r = first; r < last; r++) {
    const image_row_ at = image_row_of_(g, r);
    const int32_t from = g->row_taps.first[at.i];
    if (from < 0) {
      pad_fill_(g, at.y, g->y_w, unit);
      continue;
    }
    const char *x = (const char *)g->x + (at.x + (size_t)from * g->x_hs) * size;
    pad_side_(size, g, at.y, x, 0, g->pad_w, unit);
    image_copy_(size, g, (char *)g->y + (at.y + g->pad_w * g->y_ws) * size, x, g->x_w, unit);
    pad_side_(size, g, at.y, x, g->pad_w + g->x_w, g->y_w, unit);
  }
}
void CK_NAME(f32_pad)(const ck_image *call, size_t first, size_t last) {
  if (call->x_type == CK_F32)
    pad_(4, call, first, last);
  else
    pad_(2, call, first, last);
}

// Products of int8 codes: exact in int32, scaled once. Loop order: columns of C 32 at a time, rows, k.

// Where a row's largest value lies below this, its codes are those of a row whose largest is this: scales stay exact quotients.
#define INT8_SMALLEST_ 0x1p-100f

// The scale of x[k]: NaN where it is not finite throughout. `unit` becomes that of its finite elements.
CK_INLINE float int8_scale_(const ck_dtype type, size_t k, const void *x, float *unit) {
  vf largest = vf_zero(), bad = vf_zero();
  for (size_t p = 0; p < k; p += VL) {
    const vf value = row_load_as_(type, x, p, CK_MIN(k - p, (size_t)VL));
    largest = vf_max(vf_abs(value), largest), bad = vf_fma(value, vf_zero(), bad);
  }
  const float most = vf_reduce_max(largest);
  *unit = (most > INT8_SMALLEST_ ? most : INT8_SMALLEST_) / 127;
  return *unit + vf_reduce_add(bad);
}

CK_INLINE vf int8_codes_(vf value, float unit) {
  // The second operand is the one that is left where a quotient is NaN.
  return vf_min(vf_max(vf_round(vf_div(value, vf_set1(unit))), vf_set1(-127)), vf_set1(127));
}

CK_INLINE void int8_quantize_(const ck_dtype type, size_t k, const void *x, int8_t *codes, float *scale) {
  float unit;
  *scale = int8_scale_(type, k, x, &unit);
  const size_t padded = ck_int8_steps(k) * CK_INT8_STEP;
  for (size_t p = 0; p < padded; p += VL) {
    const vf value = p < k ? row_load_as_(type, x, p, CK_MIN(k - p, (size_t)VL)) : vf_zero();
    vf_store_s8(codes + p / CK_INT8_STEP * 16 * CK_INT8_STEP + p % CK_INT8_STEP, int8_codes_(value, unit));
  }
}
void CK_NAME(i8_quantize)(ck_dtype type, size_t k, const void *x, int8_t *codes, float *scale) {
  CK_WITH_DTYPE(type, int8_quantize_, k, x, codes, scale);
}

CK_INLINE void int8_quantize_vector_(const ck_dtype type, size_t n, const void *x, int8_t *codes, float *scale) {
  float unit;
  *scale = int8_scale_(type, n, x, &unit);
  for (size_t p = 0; p < n; p += VL) {
    const size_t lanes = CK_MIN(n - p, (size_t)VL);
    int8_t some[VL];
    vf_store_s8(some, int8_codes_(row_load_as_(type, x, p, lanes), unit));
    memcpy(codes + p, some, lanes);
  }
}
void CK_NAME(i8_quantize_vector)(ck_dtype type, size_t n, const void *x, int8_t *codes, float *scale) {
  CK_WITH_DTYPE(type, int8_quantize_vector_, n, x, codes, scale);
}

// x [rows][32]: int32 in the place of floats become floats, and are finished.
CK_INLINE void int8_leave_(const ck_int8_block *t, size_t i, size_t j, size_t rows, float *x) {
  const size_t n = CK_MIN(t->block->n - j, (size_t)CK_INT8_COLUMNS);
  for (size_t r = 0; r < rows; r++) {
    const vf a_scale = vf_set1(t->a_scales[i + r]);
    for (size_t v = 0; v < n; v += VL) {
      float *at = x + r * CK_INT8_COLUMNS + v;
      const vf scale = vf_mul(a_scale, row_load_(t->b_scales + j + v, CK_MIN(n - v, (size_t)VL)));
      vf_store(at, vf_mul(vi_float(vi_load(at)), scale));
    }
  }
  gemm_finish_(t->block, i, j, rows, n, x, CK_INT8_COLUMNS);
}

#define INT8_ROWS_ (VL == 16 ? 8 : 4)

// VL fours of codes of a panel, b [VL][4], as products take them; a four of a row times them. Sums are INT8_EXCESS_ times the
// row's sum of codes too large.
#ifdef VI_FOURS
typedef vi int8_fours_;
#define INT8_EXCESS_ VI_FOURS
CK_INLINE int8_fours_ int8_fours_at_(const int8_t *b) { return vi_fours(vi_load(b)); }
CK_INLINE vi int8_dot_(vi sum, vi four, int8_fours_ b) { return vi_dot4(sum, b, four); }
#else
typedef struct int8_fours_ {
  vi even, odd;
} int8_fours_;
#define INT8_EXCESS_ 0
CK_INLINE int8_fours_ int8_fours_at_(const int8_t *b) {
  const vi x = vi_load(b);
  return (int8_fours_){vi_s8_even(x), vi_s8_odd(x)};
}
CK_INLINE vi int8_dot_(vi sum, vi four, int8_fours_ b) {
  return vi_dot(vi_dot(sum, vi_s8_even(four), b.even), vi_s8_odd(four), b.odd);
}
#endif

// Fours of codes of a row, a [INT8_DEEP_][4], and four i of them in every lane: in a vector where products take any lane of one,
// else in memory. INT8_VECTORS_ vectors of a row of sums at once.
#ifdef CK_DOTPROD
#define INT8_DEEP_ VL
#define INT8_VECTORS_ 4
typedef vi int8_row_;
CK_INLINE int8_row_ int8_row_at_(const int8_t *a) { return vi_load(a); }
CK_INLINE vi int8_four_(int8_row_ row, size_t i) { return vi_lane(row, i); }
#else
#define INT8_DEEP_ 1
#define INT8_VECTORS_ 2
typedef const int8_t *int8_row_;  // [INT8_DEEP_][4]
CK_INLINE int8_row_ int8_row_at_(const int8_t *a) { return a; }
CK_INLINE vi int8_four_(int8_row_ row, size_t i) {
  int32_t four;
  memcpy(&four, row + 4 * i, sizeof four);
  return vi_set1(four);
}
#endif

// What the sums of a row of codes are started with.
CK_INLINE int32_t int8_start_(size_t steps, const int8_t *a) {
  int32_t sum = 0;
  for (size_t step = 0; INT8_EXCESS_ && step < steps; step++, a += 16 * CK_INT8_STEP)
    for (size_t q = 0; q < CK_INT8_STEP; q++) sum += a[q];
  return -INT8_EXCESS_ * sum;
}

// `m` rows by INT8_VECTORS_ vectors of columns.
CK_INLINE void int8_rows_(const size_t m, const ck_int8_block *t, const int8_t *a, const int8_t *b, const int32_t *starts,
                          float *sums) {
  vi acc[INT8_ROWS_ * INT8_VECTORS_];
#pragma clang loop unroll(full)
  for (size_t s = 0; s < m * INT8_VECTORS_; s++) acc[s] = vi_set1(starts[s / INT8_VECTORS_]);
  for (size_t step = 0; step < t->steps; step++, a += 16 * CK_INT8_STEP)
    for (size_t q = 0; q < CK_INT8_STEP; q += 4 * INT8_DEEP_) {
      int8_row_ row[INT8_ROWS_];
#pragma clang loop unroll(full)
      for (size_t r = 0; r < m; r++) row[r] = int8_row_at_(a + r * CK_INT8_STEP + q);
#pragma clang loop unroll(full)
      for (size_t i = 0; i < INT8_DEEP_; i++, b += 4 * CK_INT8_COLUMNS) {
        int8_fours_ codes[INT8_VECTORS_];
#pragma clang loop unroll(full)
        for (size_t v = 0; v < INT8_VECTORS_; v++) codes[v] = int8_fours_at_(b + 4 * v * VL);
#pragma clang loop unroll(full)
        for (size_t r = 0; r < m; r++) {
          const vi four = int8_four_(row[r], i);
#pragma clang loop unroll(full)
          for (size_t v = 0; v < INT8_VECTORS_; v++)
            acc[r * INT8_VECTORS_ + v] = int8_dot_(acc[r * INT8_VECTORS_ + v], four, codes[v]);
        }
      }
    }
#pragma clang loop unroll(full)
  for (size_t s = 0; s < m * INT8_VECTORS_; s++)
    memcpy(sums + s / INT8_VECTORS_ * CK_INT8_COLUMNS + s % INT8_VECTORS_ * VL, &acc[s], sizeof acc[s]);
}

void CK_NAME(f32_i8_block)(const ck_int8_block *t) {
  _Alignas(64) float sums[INT8_ROWS_ * CK_INT8_COLUMNS];
  const ck_gemm_block *g = t->block;
  const size_t panel = t->steps * CK_INT8_STEP * CK_INT8_COLUMNS;
  int32_t starts[CK_TILE_EDGE];
  for (size_t i = 0; i < g->m; i++) starts[i] = int8_start_(t->steps, t->a + (i / 16 * t->steps * 16 + i % 16) * CK_INT8_STEP);
  for (size_t j = 0; j < g->n; j += CK_INT8_COLUMNS)
    for (size_t i = 0; i < g->m; i += INT8_ROWS_) {
      const size_t rows = CK_MIN(g->m - i, (size_t)INT8_ROWS_);
      const int8_t *a = t->a + (i / 16 * t->steps * 16 + i % 16) * CK_INT8_STEP;
      for (size_t v = 0; v < CK_INT8_COLUMNS; v += INT8_VECTORS_ * VL) {
        const int8_t *b = t->b + j / CK_INT8_COLUMNS * panel + 4 * v;
        size_t r = 0;
        if (rows == INT8_ROWS_) int8_rows_(INT8_ROWS_, t, a, b, starts + i, sums + v), r = INT8_ROWS_;
        for (; r + 2 <= rows; r += 2) int8_rows_(2, t, a + r * CK_INT8_STEP, b, starts + i + r, sums + r * CK_INT8_COLUMNS + v);
        if (r < rows) int8_rows_(1, t, a + r * CK_INT8_STEP, b, starts + i + r, sums + r * CK_INT8_COLUMNS + v);
      }
      int8_leave_(t, i, j, rows, sums);
    }
}

CK_INLINE void int8_tiles_(const size_t rows, const ck_int8_block *t) {
  enum { B_STRIDE = 4 * CK_INT8_COLUMNS };
  const ck_gemm_block *g = t->block;
  const size_t a_strip = t->steps * 16 * CK_INT8_STEP, panel = t->steps * CK_INT8_STEP * CK_INT8_COLUMNS;
  _Alignas(64) float sums[CK_TILE_EDGE * CK_INT8_COLUMNS];
  tile_file file;
  tile_begin(&file);
  for (size_t j = 0; j < g->n; j += CK_INT8_COLUMNS) {
    const int8_t *a = t->a, *b = t->b + j / CK_INT8_COLUMNS * panel;
    tile_clear_(&file, rows);
#pragma clang loop unroll(disable)
    for (size_t step = 0; step < t->steps; step++) {
      tile_load(&file, TILE_A_, a, CK_INT8_STEP);
      if (rows > 1) tile_load(&file, TILE_A_ + 1, a + a_strip, CK_INT8_STEP);
      tile_load(&file, TILE_B_, b, B_STRIDE);
      tile_load(&file, TILE_B_ + 1, b + B_STRIDE / 2, B_STRIDE);
      tile_dot_s8(&file, 0, TILE_A_, TILE_B_);
      tile_dot_s8(&file, 1, TILE_A_, TILE_B_ + 1);
      if (rows > 1) {
        tile_dot_s8(&file, 2, TILE_A_ + 1, TILE_B_);
        tile_dot_s8(&file, 3, TILE_A_ + 1, TILE_B_ + 1);
      }
      a += 16 * CK_INT8_STEP, b += 16 * B_STRIDE;
    }
    tile_spill_(&file, rows, sums, 4 * CK_INT8_COLUMNS);
    int8_leave_(t, 0, j, g->m, sums);
  }
  tile_end(&file);
}

void CK_NAME(f32_i8_tile_block)(const ck_int8_block *t) {
  if (t->block->m > 16)
    int8_tiles_(2, t);
  else
    int8_tiles_(1, t);
}

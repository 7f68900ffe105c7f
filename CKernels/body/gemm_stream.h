// GEMM by panels of bf16 or f16, widened exactly and multiplied in the order of gemm_tile_: the bits are those of the same panels
// widened first. Many rows go over a panel's slice widened in L1; few widen it in registers, and read B as fast as it comes, as
// they do f32.
// Loop order of few rows: groups of panels, slices of K, rows in even parts of at most STREAM_MR_, rows of B. A group's panels
// are read from end to end, and what lies STREAM_AHEAD_ bytes on is fetched.

// Beyond 9 rows their addresses are more than an x86 processor's registers hold.
#define STREAM_MR_ CK_MIN(GEMM_MR, 9)

// Bytes from what is read of a panel to what is fetched: several at once, whose rows of 16 bits are short, have a share of L1
// each.
#define STREAM_AHEAD_(type, vectors) ((type) != CK_F32 && (vectors) > GEMM_NRV ? CK_MIN(GEMM_AHEAD_, 6144) : GEMM_AHEAD_)

// Bytes of a row of a panel.
#define STREAM_BYTES_(type) (GEMM_NR * ((type) == CK_F32 ? 4 : 2))

// One row of B; `panel` is bytes from panel to panel.
CK_INLINE void stream_step_(const ck_dtype type, const size_t m, const size_t vectors, const float *a, size_t a_rs, const char *b,
                            size_t panel, vf *acc) {
  vf x[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
  for (size_t v = 0; v < vectors; v++) {
    const char *row = b + v / GEMM_NRV * panel + v % GEMM_NRV * VL * ck_dtype_size(type);
    x[v] = type == CK_F32   ? vf_load((const float *)row)
           : type == CK_F16 ? vf_load_f16((const uint16_t *)row)
                            : vf_load_bf16((const uint16_t *)row);
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < m; r++) {
    const vf value = vf_broadcast(a + r * a_rs);
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) acc[r * vectors + v] = vf_fma(x[v], value, acc[r * vectors + v]);
  }
}

// Vector v of a pair of rows of bf16.
CK_INLINE void stream_load_pair_(size_t v, const char *b, size_t panel, vf *x) {
  vf_load_2_bf16((const uint16_t *)(b + v / GEMM_NRV * panel) + v % GEMM_NRV * VL * 2, x, x + 1);
}

// A pair of rows of bf16: the shorter side stays in registers. Where they do not hold it, B's rows are loaded one after the
// other.
CK_INLINE void stream_pair_(const size_t m, const size_t vectors, const float *a, size_t a_rs, const char *b, size_t panel,
                            vf *acc) {
  const size_t hold = vectors > m ? m : vectors;
  const int together = m * vectors + 2 * hold + 4 < GEMM_REGISTERS;
  vf x[2], held[2 * GEMM_ACCUMULATORS_];
  if (together && vectors > m) {
#pragma clang loop unroll(full)
    for (size_t h = 0; h < 2 * m; h++) held[h] = vf_broadcast(a + h / 2 * a_rs + h % 2);
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) {
      stream_load_pair_(v, b, panel, x);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < m; r++) {
        vf *sum = acc + r * vectors + v;
        *sum = vf_fma(x[1], held[2 * r + 1], vf_fma(x[0], held[2 * r], *sum));
      }
    }
    return;
  }
#pragma clang loop unroll(full)
  for (size_t v = 0; together && v < vectors; v++) stream_load_pair_(v, b, panel, held + 2 * v);
#pragma clang loop unroll(full)
  for (size_t u = 0; u < 2; u++) {
#pragma clang loop unroll(full)
    for (size_t v = 0; !together && v < vectors; v++) stream_load_pair_(v, b, panel, x), held[2 * v + u] = x[u];
#pragma clang loop unroll(full)
    for (size_t r = 0; r < m; r++) {
      const vf value = vf_broadcast(a + r * a_rs + u);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < vectors; v++) acc[r * vectors + v] = vf_fma(held[2 * v + u], value, acc[r * vectors + v]);
    }
    if (!together) __asm__ volatile("" ::: "memory");
  }
}

// acc[r * vectors + v] += the sum over p < k, in order, of A(r, p) B(p, v).
CK_INLINE void stream_sums_(const ck_dtype type, const size_t m, const size_t vectors, size_t k, const float *a, size_t a_rs,
                            const char *b, size_t panel, vf *acc) {
  const size_t row = STREAM_BYTES_(type), ahead = 4 * row * vectors / GEMM_NRV;
  size_t p = 0;
#pragma clang loop unroll(disable)
  for (; p + 4 <= k; p += 4) {
#pragma clang loop unroll(full)
    for (size_t line = 0; line < ahead; line += 64)
      __builtin_prefetch(b + STREAM_AHEAD_(type, vectors) + line / (4 * row) * panel + p * row + line % (4 * row));
#pragma clang loop unroll(full)
    for (size_t u = 0; u < 4; u += type == CK_BF16 ? 2 : 1) {
      if (type == CK_BF16)
        stream_pair_(m, vectors, a + p + u, a_rs, b + (p + u) * row, panel, acc);
      else
        stream_step_(type, m, vectors, a + p + u, a_rs, b + (p + u) * row, panel, acc);
      // Else the rows of four steps are loaded and widened first, and spilled.
      if (type != CK_F32) __asm__ volatile("" ::: "memory");
    }
  }
  if (type == CK_BF16 && p + 2 <= k) {
    stream_pair_(m, vectors, a + p, a_rs, b + p * row, panel, acc);
    p += 2;
  }
#pragma clang loop unroll(disable)
  for (; p < k; p++) stream_step_(type, m, vectors, a + p, a_rs, b + p * row, panel, acc);
}

// Rows [i, i + m) of a slice of `panels` panels, at b; m and panels constant.
CK_INLINE void stream_rows_(const ck_dtype type, const size_t m, const size_t panels, const ck_gemm_block *g, size_t i, size_t j,
                            const char *b) {
  const size_t vectors = panels * GEMM_NRV;
  vf acc[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) acc[t] = vf_zero();
  const size_t panel = ck_packed_bytes(type, g->b_panel);
  stream_sums_(type, m, vectors, g->k, g->a + i * g->a_rs, g->a_rs, b, panel, acc);
  gemm_leave_(m, vectors, g, i, j, gemm_exit_of_(g), acc);
}

// Every row of a slice. One part of rows where there are several panels.
CK_INLINE void stream_slice_(const ck_dtype type, const size_t panels, const size_t most, const ck_gemm_block *g, size_t j,
                             const char *b) {
  for (size_t i = 0, parts = (g->m + STREAM_MR_ - 1) / STREAM_MR_; parts; parts--) {
    const size_t first = i, rows = (g->m - i + parts - 1) / parts;
    i += rows;
#define STREAM_ROWS_(count)                                                                      \
  case count:                                                                                    \
    if (count <= STREAM_MR_ && count <= most) stream_rows_(type, count, panels, g, first, j, b); \
    break;
    switch (rows) {
      STREAM_ROWS_(1)
      STREAM_ROWS_(2)
      STREAM_ROWS_(3)
      STREAM_ROWS_(4)
      STREAM_ROWS_(5)
      STREAM_ROWS_(6)
      STREAM_ROWS_(7)
      STREAM_ROWS_(8)
      STREAM_ROWS_(9)
      default:
        break;
    }
#undef STREAM_ROWS_
  }
}

// Panels from column j on, through every slice: the arithmetic of f32_gemm_block on one slice after the other.
CK_INLINE void stream_panels_(const ck_dtype type, const size_t panels, const size_t most, const ck_gemm_block *g, size_t j) {
  const size_t panel = ck_packed_bytes(type, g->b_panel);
  const char *b = (const char *)g->b + j / GEMM_NR * panel;
  ck_gemm_block slice = *g;
  slice.bias = slice.factor = slice.residual = slice.y = 0, slice.activation = CK_IDENTITY;
  for (size_t p = 0;; p += slice.k) {
    slice.a = g->a + p, slice.k = CK_MIN(g->slice, g->k - p);
    const int last = p + slice.k == g->k;
    if (last) {
      slice.bias = g->bias, slice.factor = g->factor, slice.residual = g->residual, slice.y = g->y;
      slice.activation = g->activation;
    }
    stream_slice_(type, panels, most, &slice, j, b + p * STREAM_BYTES_(type));
    slice.beta = 1;
    if (last) break;
  }
}

CK_INLINE void stream_(const ck_dtype type, const ck_gemm_block *g) {
  size_t j = 0;
#define STREAM_GROUPS_(count)                                                                  \
  if (GEMM_PANELS_(count) > 1 && g->m == count)                                                \
    for (; j + (GEMM_PANELS_(count) - 1) * GEMM_NR < g->n; j += GEMM_PANELS_(count) * GEMM_NR) \
      stream_panels_(type, GEMM_PANELS_(count), count, g, j);
  STREAM_GROUPS_(1)
  STREAM_GROUPS_(2)
#undef STREAM_GROUPS_
  for (; j < g->n; j += GEMM_NR) stream_panels_(type, 1, STREAM_MR_, g, j);
}

// One slice of many rows.
static void stream_widened_(const ck_gemm_block *g) {
  _Alignas(64) float panel[GEMM_KC * GEMM_NR];
  ck_gemm_block column = *g;
  column.b = panel, column.b_type = CK_F32, column.b_panel = g->k * GEMM_NR, column.b_ks = 0;
  for (size_t j = 0; j < g->n; j += GEMM_NR) {
    const char *b = (const char *)g->b + j / GEMM_NR * ck_packed_bytes(g->b_type, g->b_panel);
    CK_NAME(f32_gemm_unpack_b)(g->b_type, g->k, b, panel);
    ck_gemm_columns(&column, g, j, CK_MIN(g->n - j, (size_t)GEMM_NR));
    CK_NAME(f32_gemm_block)(&column);
  }
}

#define STREAM_MOST_ROWS_ 16  // that are not many

void CK_NAME(f32_gemm_stream)(const ck_gemm_block *g) {
  if (g->k <= GEMM_KC && g->slice >= g->k && (g->a_packed || g->m > STREAM_MOST_ROWS_)) {
    stream_widened_(g);
    return;
  }
  if (g->b_type == CK_F32)
    stream_(CK_F32, g);
  else if (g->b_type == CK_BF16)
    stream_(CK_BF16, g);
  else
    stream_(CK_F16, g);
}

// GEMM: broadcast A, vector B, accumulators in registers. One tile is up to GEMM_MR rows by GEMM_NR columns (a panel of B).
// An element's sum runs over k in order from zero, whatever the row count, packing, panel grouping or thread count.

#if VL == 16
#define GEMM_MR 12
#define GEMM_NR 32
#define GEMM_CHAINS 8
#define GEMM_REGISTERS 32
#define GEMM_MC 336
#define GEMM_KC 192
#elif VL == 8
#define GEMM_MR 6
#define GEMM_NR 16
#define GEMM_CHAINS 8
#define GEMM_REGISTERS 16
#define GEMM_MC 168
#define GEMM_KC 384
#elif VL == 4
#define GEMM_MR 6
#define GEMM_NR 16
#define GEMM_CHAINS 16
#define GEMM_REGISTERS 32
#define GEMM_MC 168
#define GEMM_KC 384
#else
#define GEMM_MR 4
#define GEMM_NR 4
#define GEMM_CHAINS 8
#define GEMM_REGISTERS 16
#define GEMM_MC 128
#define GEMM_KC 256
#endif
#define GEMM_NRV (GEMM_NR / VL)
// Bytes from what few rows read of a panel to what they fetch for later: a quarter of L1, or an eighth.
#define GEMM_AHEAD_ (96 * sizeof(float) * GEMM_NR)
// Panels a tile of m rows takes at once: enough for GEMM_CHAINS independent sums, which hide the latency of an FMA, where the
// registers hold them, one value of A a row and one vector of B with room to spare; else one.
#define GEMM_WANTED_(m) ((GEMM_CHAINS + (m) * GEMM_NRV - 1) / ((m) * GEMM_NRV))
#define GEMM_PANELS_(m) ((GEMM_WANTED_(m) * GEMM_NRV + 1) * (m) + 1 < GEMM_REGISTERS ? GEMM_WANTED_(m) : 1)
// Vectors of half a panel: what is taken of one whose other half is empty.
#define GEMM_HALF_ (GEMM_NRV / 2)
#define GEMM_ACCUMULATORS_ (GEMM_MR * GEMM_NRV > 2 * GEMM_CHAINS ? GEMM_MR * GEMM_NRV : 2 * GEMM_CHAINS)

// Rows three by three: row i is a[i / 3] + i % 3 * a_rs, which an x86 address holds without more registers.
#define GEMM_TRIPLES_ ((GEMM_MR + 2) / 3)

// One step of gemm_tile_: acc[i][v] += A(i, p) B(p, v). The shorter side stays in registers.
CK_INLINE void gemm_step_(const size_t m, const size_t vectors, const float *const *a, size_t a_rs, const float *b,
                          size_t b_panel, vf *acc) {
  vf held[GEMM_ACCUMULATORS_];
  const size_t hold = vectors > m ? m : vectors, stream = vectors > m ? vectors : m;
#pragma clang loop unroll(full)
  for (size_t h = 0; h < hold; h++)
    held[h] = vectors > m ? vf_broadcast(a[h / 3] + h % 3 * a_rs) : vf_load(b + h / GEMM_NRV * b_panel + h % GEMM_NRV * VL);
#pragma clang loop unroll(full)
  for (size_t s = 0; s < stream; s++) {
    const vf x = vectors > m ? vf_load(b + s / GEMM_NRV * b_panel + s % GEMM_NRV * VL) : vf_broadcast(a[s / 3] + s % 3 * a_rs);
#pragma clang loop unroll(full)
    for (size_t h = 0; h < hold; h++) {
      const size_t t = vectors > m ? h * vectors + s : s * vectors + h;
      acc[t] = vf_fma(x, held[h], acc[t]);
    }
  }
}

// The micro-tile, for every body that multiplies: acc[i * vectors + v] += sum over p < k, in order, of A(i, p) B(p, v).
//   m, vectors  constants at the call, m <= GEMM_MR, m * vectors <= GEMM_ACCUMULATORS_: acc, a local array, becomes registers
//   a           A(i, p) at a[i * a_rs + p * a_ks]; only the m rows are read
//   b           vector v of row p, read whole, at b + p * b_ks + (v / GEMM_NRV) * b_panel + (v % GEMM_NRV) * VL:
//               rows at any stride b_ks; b_panel = GEMM_NR makes the vectors of a row contiguous
CK_INLINE void gemm_tile_(const size_t m, const size_t vectors, size_t k, const float *a, size_t a_rs, size_t a_ks,
                          const float *b, size_t b_ks, size_t b_panel, vf *acc) {
  const float *row[GEMM_TRIPLES_];
#pragma clang loop unroll(full)
  for (size_t g = 0; g < (m + 2) / 3; g++) row[g] = a + 3 * g * a_rs;
  size_t p = 0;
#pragma clang loop unroll(disable)
  for (; p + 4 <= k; p += 4) {
#pragma clang loop unroll(full)
    for (size_t g = 0; g < (m + 2) / 3; g++) __asm__("" : "+r"(row[g]));  // else a pointer a row is derived, and spilled
#pragma clang loop unroll(full)
    for (size_t u = 0; u < 4; u++) {
      gemm_step_(m, vectors, row, a_rs, b, b_panel, acc);
      b += b_ks;
#pragma clang loop unroll(full)
      for (size_t g = 0; g < (m + 2) / 3; g++) row[g] += a_ks;
    }
  }
#pragma clang loop unroll(disable)
  for (; p < k; p++) {
    gemm_step_(m, vectors, row, a_rs, b, b_panel, acc);
    b += b_ks;
#pragma clang loop unroll(full)
    for (size_t g = 0; g < (m + 2) / 3; g++) row[g] += a_ks;
  }
}

// How a tile leaves the registers.
enum gemm_exit_ { GEMM_FINISH_, GEMM_STORE_, GEMM_ADD_ };

// alpha acc + beta c, + bias, activation, times factor, + residual for rows of a spilled tile, to elements of `type` at `to`;
// `kind` and `type` constant at the call.
CK_INLINE void gemm_finish_as_(const ck_dtype type, const ck_activation kind, const ck_gemm_block *g, size_t i, size_t j,
                               size_t m, size_t n, const float *tile, size_t tile_rs, void *to, size_t to_rs) {
  const vf alpha = vf_set1(g->alpha), beta = vf_set1(g->beta);
  for (size_t r = 0; r < m; r++) {
    const size_t c = (i + r) * g->c_rs + j;
    const float *factor = g->factor ? g->factor + (i + r) * g->factor_rs + j : 0;
    for (size_t v = 0; v < n; v += VL) {
      const size_t lanes = CK_MIN(n - v, (size_t)VL);
      vf x = vf_mul(alpha, vf_load(tile + r * tile_rs + v));
      if (g->beta != 0) x = vf_fma(beta, row_load_(g->c + c + v, lanes), x);
      if (g->bias) x = vf_add(x, row_load_(g->bias + j + v, lanes));
      x = ck_activate_(x, kind);
      if (factor) x = vf_mul(x, row_load_(factor + v, lanes));
      if (g->residual) x = vf_add(x, row_load_as_(g->residual_type, g->residual, (i + r) * g->residual_rs + j + v, lanes));
      row_store_as_(type, to, (i + r) * to_rs + j + v, x, lanes);
    }
  }
}

CK_INLINE void gemm_finish_by_(const ck_activation kind, const ck_gemm_block *g, size_t i, size_t j, size_t m, size_t n,
                               const float *tile, size_t tile_rs) {
  if (!g->y)
    gemm_finish_as_(CK_F32, kind, g, i, j, m, n, tile, tile_rs, g->c, g->c_rs);
  else
    CK_WITH_DTYPE(g->y_type, gemm_finish_as_, kind, g, i, j, m, n, tile, tile_rs, g->y, g->y_rs);
}

// The finish of every tile that cannot be stored straight from registers: edges, epilogues and other types. tile [m][tile_rs].
static __attribute__((noinline)) void gemm_finish_(const ck_gemm_block *g, size_t i, size_t j, size_t m, size_t n,
                                                   const float *tile, size_t tile_rs) {
  CK_WITH_ACTIVATION(g->activation, gemm_finish_by_, g, i, j, m, n, tile, tile_rs);
}

// Accumulators of rows [i, i + m) by `vectors` vectors from column j on, to C.
CK_INLINE void gemm_leave_(const size_t m, const size_t vectors, const ck_gemm_block *g, size_t i, size_t j,
                           enum gemm_exit_ leave, const vf *acc) {
  const size_t width = vectors * VL, n = CK_MIN(width, g->n - j);
  if (leave != GEMM_FINISH_ && n == width) {
    float *c = g->c + i * g->c_rs + j;
#pragma clang loop unroll(full)
    for (size_t t = 0; t < m * vectors; t++) {
      float *out = c + t / vectors * g->c_rs + t % vectors * VL;
      vf_store(out, leave == GEMM_ADD_ ? vf_add(vf_load(out), acc[t]) : acc[t]);
    }
    return;
  }
  _Alignas(64) float tile[GEMM_ACCUMULATORS_ * VL];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) vf_store(tile + t * VL, acc[t]);
  gemm_finish_(g, i, j, m, n, tile, width);
}

// Where element (i, j) of the result goes.
CK_INLINE const void *gemm_place_(const ck_gemm_block *g, size_t i, size_t j) {
  return g->y ? (const char *)g->y + (i * g->y_rs + j) * ck_dtype_size(g->y_type) : (const char *)(g->c + i * g->c_rs + j);
}

// Rows [i, i + m) by panels from column j on, or by half of one; m and vectors constant.
CK_INLINE void gemm_rows_(const size_t m, const size_t vectors, const ck_gemm_block *g, size_t i, size_t j,
                          enum gemm_exit_ leave) {
  const float *b = (const float *)g->b + j / GEMM_NR * g->b_panel;
  vf acc[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) acc[t] = vf_zero();
#pragma clang loop unroll(full)
  for (size_t r = 0; r < m; r++) __builtin_prefetch(gemm_place_(g, i + r, j), 1);
  if (g->a_packed)
    gemm_tile_(m, vectors, g->k, g->a + i * g->k, 1, GEMM_MR, b, GEMM_NR, g->b_panel, acc);
  else if (g->b_ks)
    gemm_tile_(m, vectors, g->k, g->a + i * g->a_rs, g->a_rs, 1, b, g->b_ks, GEMM_NR, acc);
  else
    gemm_tile_(m, vectors, g->k, g->a + i * g->a_rs, g->a_rs, 1, b, GEMM_NR, g->b_panel, acc);
  gemm_leave_(m, vectors, g, i, j, leave, acc);
}

// The rows left below the full tiles, 1 ... GEMM_MR - 1 of them: one instance a count, several panels at once when few, and one
// for half a panel, which `panels` of 0 asks for.
static __attribute__((noinline)) void gemm_rest_(const ck_gemm_block *g, size_t m, size_t i, size_t j, size_t panels,
                                                 enum gemm_exit_ leave) {
#define GEMM_REST_(count)                                                                            \
  case count:                                                                                        \
    if (!panels)                                                                                     \
      gemm_rows_(count, GEMM_HALF_, g, i, j, leave);                                                 \
    else if (GEMM_PANELS_(count) > 1 && panels == GEMM_PANELS_(count))                               \
      gemm_rows_(count, GEMM_PANELS_(count) * GEMM_NRV, g, i, j, leave);                             \
    else                                                                                             \
      for (size_t q = 0; q < panels; q++) gemm_rows_(count, GEMM_NRV, g, i, j + q * GEMM_NR, leave); \
    break;
  switch (m) {
    GEMM_REST_(1)
    GEMM_REST_(2)
    GEMM_REST_(3)
#if GEMM_MR > 4
    GEMM_REST_(4)
    GEMM_REST_(5)
#endif
#if GEMM_MR > 6
    GEMM_REST_(6)
    GEMM_REST_(7)
    GEMM_REST_(8)
    GEMM_REST_(9)
    GEMM_REST_(10)
    GEMM_REST_(11)
#endif
    default:
      break;
  }
#undef GEMM_REST_
}

// The full row tiles of one panel, or of half of one. Where K is sliced the next panel's slice lies elsewhere, so it is fetched a
// share a tile.
CK_INLINE void gemm_column_(const size_t vectors, const ck_gemm_block *g, size_t full, size_t j, enum gemm_exit_ leave) {
  const float *next = (const float *)g->b + (j / GEMM_NR + 1) * g->b_panel;
  const int fetch = !g->b_ks && g->b_panel != g->k * GEMM_NR && j + GEMM_NR < g->n;
  const size_t share = fetch ? g->k * GEMM_NR / (full / GEMM_MR + 1) / 16 + 1 : 0;
  for (size_t i = 0; i < full; i += GEMM_MR) {
    for (size_t line = 0; line < share; line++, next += 16) __builtin_prefetch(next, 0, 2);
    gemm_rows_(GEMM_MR, vectors, g, i, j, leave);
  }
}

CK_INLINE enum gemm_exit_ gemm_exit_of_(const ck_gemm_block *g) {
  const int bare = g->alpha == 1 && !g->bias && !g->factor && !g->residual && !g->y && g->activation == CK_IDENTITY;
  return bare && g->beta == 0 ? GEMM_STORE_ : bare && g->beta == 1 ? GEMM_ADD_ : GEMM_FINISH_;
}

void CK_NAME(f32_gemm_block)(const ck_gemm_block *g) {
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  const size_t full = g->m / GEMM_MR * GEMM_MR, rest = g->m - full, group = rest ? GEMM_PANELS_(rest) : 1;
  const size_t odd = g->n % GEMM_NR, halves = odd && odd <= GEMM_HALF_ * VL, n = halves ? g->n - odd : g->n;
  for (size_t j = 0; j < n; j += group * GEMM_NR) {
    const size_t panels = CK_MIN(group, (n - j + GEMM_NR - 1) / GEMM_NR);
    for (size_t q = 0; q < panels; q++) gemm_column_(GEMM_NRV, g, full, j + q * GEMM_NR, leave);
    if (rest) gemm_rest_(g, rest, full, j, panels, leave);
  }
  if (!halves) return;
  gemm_column_(GEMM_HALF_, g, full, n, leave);
  if (rest) gemm_rest_(g, rest, full, n, 0, leave);
}

// dst[p * width + c] = src[p * s_ks + c * s_cs] for p < k and c < count, zero for count <= c < width.
CK_INLINE void gemm_pack_any_(size_t width, size_t count, size_t k, const float *src, size_t s_ks, size_t s_cs, float *dst) {
  for (size_t p = 0; p < k; p++) {
    for (size_t c = 0; c < count; c++) dst[p * width + c] = src[p * s_ks + c * s_cs];
    for (size_t c = count; c < width; c++) dst[p * width + c] = 0;
  }
}

void CK_NAME(f32_gemm_pack_a)(size_t m, size_t k, const float *a, size_t a_rs, size_t a_ks, float *packed) {
  for (size_t i = 0; i < m; i += GEMM_MR) {
    const size_t rows = CK_MIN(m - i, (size_t)GEMM_MR), reach = GEMM_MR > VL ? GEMM_MR : VL;
    const float *src = a + i * a_rs;
    float *dst = packed + i * k;
    size_t p = 0;
    // A transpose wider than a strip spills into the next k, then into the next strip: both are written later.
    if (a_ks == 1 && m - i >= reach)
      for (; p + VL <= k; p += VL)
        for (size_t r = 0; r < GEMM_MR; r += VL) {
          const size_t first = GEMM_MR > VL ? CK_MIN(r, (size_t)(reach - VL)) : 0;
          vf_transpose(src + first * a_rs + p, a_rs, dst + p * GEMM_MR + first, GEMM_MR);
        }
    gemm_pack_any_(GEMM_MR, rows, k - p, src + p * a_ks, a_ks, a_rs, dst + p * GEMM_MR);
  }
}

// Rows [0, k) of B with contiguous columns, four rows at a time so that both sides run along memory.
CK_INLINE void gemm_pack_b_rows_(size_t n, size_t k, const float *b, size_t b_ks, float *packed) {
  for (size_t p0 = 0; p0 < k; p0 += 4) {
    const size_t p1 = CK_MIN(p0 + 4, k);
    for (size_t j = 0; j < n; j += GEMM_NR)
      for (size_t p = p0; p < p1; p++)
        for (size_t v = 0; v < GEMM_NR; v += VL) {
          const size_t lanes = j + v < n ? CK_MIN(n - j - v, (size_t)VL) : 0;
          const float *src = b + p * b_ks + j + (lanes ? v : 0);
          vf_store(packed + j * k + p * GEMM_NR + v, lanes == VL ? vf_load(src) : vf_load_n(src, lanes));
        }
  }
}

void CK_NAME(f32_gemm_pack_b)(size_t n, size_t k, const float *b, size_t b_ks, size_t b_ns, float *packed) {
  if (b_ns == 1) {
    gemm_pack_b_rows_(n, k, b, b_ks, packed);
    return;
  }
  for (size_t j = 0; j < n; j += GEMM_NR) {
    const size_t columns = CK_MIN(n - j, (size_t)GEMM_NR);
    const float *src = b + j * b_ns;
    float *dst = packed + j * k;
    size_t p = 0;
    if (b_ks == 1 && columns == GEMM_NR)
      for (; p + VL <= k; p += VL)
        for (size_t v = 0; v < GEMM_NR; v += VL) vf_transpose(src + v * b_ns + p, b_ns, dst + p * GEMM_NR + v, GEMM_NR);
    gemm_pack_any_(GEMM_NR, columns, k - p, src + p * b_ks, b_ks, b_ns, dst + p * GEMM_NR);
  }
}

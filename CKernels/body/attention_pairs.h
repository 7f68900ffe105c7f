// Attention of bf16 operands by products of bf16 in pairs of k: S = q k^T from q and k as they are, P v with P rounded to bf16.
// A B operand is panels of CK_TILE_EDGE columns, [k / 2][32][2]; a matrix unit takes 16 rows of A and 16 pairs at a time, dot
// products of vectors GEMM_MR rows and one pair.
#define PAIR_UNIT_ (TILES_PAY != CK_TILES_DOT)
#define PAIR_ROWS_ (PAIR_UNIT_ ? CK_TILE_EDGE / 2 : GEMM_MR)
#define PAIR_STEP_ (PAIR_UNIT_ ? CK_TILE_STEP : 2)
// Keys up to this, times a scale up to this: what flushing denormals adds to a score is then below 2^-50.
#define PAIR_MOST_ 0x1p32f
#if !TILES_PAY
#define vf_store_bf16_flushed vf_store_bf16
#endif
#ifndef VI_ZIP16  // nor pairs: what follows is compiled and never called
#define vf_fraction(x) (x)
#define vi_load_n16(p, n) ((void)(n), vi_load(p))
#define vi_zip16(a, b, first, second) (*(first) = (a), *(second) = (b))
#define vi_store(p, x) memcpy(p, &(x), sizeof(x))
#endif

CK_INLINE size_t pair_depth_(size_t k) { return (k + PAIR_STEP_ - 1) / PAIR_STEP_ * PAIR_STEP_; }

#if PAIR_UNIT_
// C [PAIR_ROWS_, n] = A B; whole panels of C are written.
//   a  [PAIR_ROWS_, k] rows a_rs apart; k a multiple of PAIR_STEP_
//   b  panels b_panel elements apart
static __attribute__((noinline)) void pair_multiply_(size_t n, size_t k, const uint16_t *a, size_t a_rs, const uint16_t *b,
                                                     size_t b_panel, float *c, size_t c_rs) {
  tile_file file;
  tile_begin(&file);
  for (size_t j = 0; j < n; j += CK_TILE_EDGE, b += b_panel) {
    tile_zero(&file, 0);
    tile_zero(&file, 1);
    for (size_t q = 0; q < k; q += CK_TILE_STEP) {
      tile_load(&file, TILE_A_, a + q, a_rs * sizeof *a);
      tile_load(&file, TILE_B_, b + q * CK_TILE_EDGE, 4 * CK_TILE_EDGE);
      tile_load(&file, TILE_B_ + 1, b + q * CK_TILE_EDGE + CK_TILE_EDGE, 4 * CK_TILE_EDGE);
      tile_dot_bf16(&file, 0, TILE_A_, TILE_B_);
      tile_dot_bf16(&file, 1, TILE_A_, TILE_B_ + 1);
    }
    tile_store(&file, 0, c + j, c_rs * sizeof *c);
    tile_store(&file, 1, c + j + CK_TILE_EDGE / 2, c_rs * sizeof *c);
  }
  tile_end(&file);
}
#else
// C [PAIR_ROWS_, vectors VL] = A B of one panel, or of its first half; `vectors` constant.
CK_INLINE void pair_tile_(const size_t vectors, size_t k, const uint16_t *a, size_t a_rs, const uint16_t *b, float *c,
                          size_t c_rs) {
  const uint16_t *row[GEMM_TRIPLES_];
  vf acc[PAIR_ROWS_ * 2];
#pragma clang loop unroll(full)
  for (size_t g = 0; g < GEMM_TRIPLES_; g++) row[g] = a + 3 * g * a_rs;
#pragma clang loop unroll(full)
  for (size_t t = 0; t < PAIR_ROWS_ * vectors; t++) acc[t] = vf_zero();
  for (size_t q = 0; q < k; q += 2, b += 2 * CK_TILE_EDGE) {
    vi two[2];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) two[v] = vi_load(b + v * CK_TILE_EDGE);
#pragma clang loop unroll(full)
    for (size_t g = 0; g < GEMM_TRIPLES_; g++) __asm__("" : "+r"(row[g]));  // as in gemm_tile_
#pragma clang loop unroll(full)
    for (size_t r = 0; r < PAIR_ROWS_; r++) {
      int32_t pair;
      memcpy(&pair, row[r / 3] + r % 3 * a_rs + q, sizeof pair);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < vectors; v++) acc[r * vectors + v] = vf_dot_bf16(acc[r * vectors + v], two[v], vi_set1(pair));
    }
  }
#pragma clang loop unroll(full)
  for (size_t t = 0; t < PAIR_ROWS_ * vectors; t++) vf_store(c + t / vectors * c_rs + t % vectors * VL, acc[t]);
}

// C [PAIR_ROWS_, n] = A B; whole halves of panels of C are written.
//   a  [PAIR_ROWS_, k] rows a_rs apart; k a multiple of PAIR_STEP_
//   b  panels b_panel elements apart
static __attribute__((noinline)) void pair_multiply_(size_t n, size_t k, const uint16_t *a, size_t a_rs, const uint16_t *b,
                                                     size_t b_panel, float *c, size_t c_rs) {
  for (size_t j = 0; j < n; j += CK_TILE_EDGE, b += b_panel)
    if (n - j > CK_TILE_EDGE / 2)
      pair_tile_(2, k, a, a_rs, b, c + j, c_rs);
    else
      pair_tile_(1, k, a, a_rs, b, c + j, c_rs);
}
#endif

// Keys [keys, d], d even and rows an even number of elements apart, as the B of q k^T: pairs are transposed as floats are.
CK_INLINE void pair_pack_keys_(size_t keys, size_t d, const uint16_t *k, size_t k_rs, uint16_t *panels) {
  const size_t depth = pair_depth_(d);
  for (size_t j = 0; j < keys; j += CK_TILE_EDGE, panels += depth * CK_TILE_EDGE) {
    const size_t count = CK_MIN(keys - j, (size_t)CK_TILE_EDGE);
    CK_NAME(f32_gemm_pack_b)(count, d / 2, (const float *)(k + j * k_rs), 1, k_rs / 2, (float *)panels);
    memset(panels + d * CK_TILE_EDGE, 0, (depth - d) * CK_TILE_EDGE * sizeof *panels);
  }
}

// Values [keys, d] as the B of P v.
CK_INLINE void pair_pack_values_(size_t keys, size_t d, const uint16_t *v, size_t v_rs, uint16_t *panels) {
  const size_t depth = pair_depth_(keys);
  for (size_t j = 0; j < d; j += CK_TILE_EDGE) {
    const size_t lanes = CK_MIN(d - j, (size_t)CK_TILE_EDGE);
    for (size_t p = 0; p < depth; p += 2, panels += 2 * CK_TILE_EDGE) {
      vi first, second;
      vi_zip16(p < keys ? vi_load_n16(v + p * v_rs + j, lanes) : vi_set1(0),
               p + 1 < keys ? vi_load_n16(v + (p + 1) * v_rs + j, lanes) : vi_set1(0), &first, &second);
      vi_store(panels, first), vi_store(panels + CK_TILE_EDGE, second);
    }
  }
}

// Zeros for keys [first, last) of a row of P.
CK_INLINE void pair_clear_(float *p, size_t first, size_t last) {
  for (size_t j = first / VL * VL; j < last; j += VL) vf_store_bf16_flushed((uint16_t *)p + j, vf_zero());
}

// e^x for x <= 0 as 2^(x log2 e), within 4 u and what rounding the exponent costs; 0 at minus infinity. Coefficients from
// tools/fit_math.py.
CK_INLINE void pair_exp_(const size_t count, vf *x) {
  static const float rest[] = {0x1.277c1cp-7f, 0x1.c91c10p-5f, 0x1.ebdb6ap-3f, 0x1.62e4bap-1f, 1};
  vf f[4], p[4];
  MATH_EACH_(count) x[v] = vf_mul(vf_set1(MATH_LOG2E_), x[v]);
  MATH_EACH_(count) f[v] = vf_fraction(x[v]);
  MATH_EACH_(count) p[v] = vf_set1(0x1.e96912p-10f);
#pragma clang loop unroll(full)
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) MATH_EACH_(count) p[v] = vf_fma(p[v], f[v], vf_set1(rest[i]));
  MATH_EACH_(count) x[v] = vf_scalef(p[v], x[v]);
}

// GEMM by quantised weights as in gemm_quantized.h, with x in 8-bit codes: four products a lane in place of two.
// Loop order: panels, rows QUANT8_MR_ at a time, blocks of B, fours of its rows QUANT8_DEEP_ at a time.
#define QUANT8_MR_ (VL == 16 ? 6 : 4)

// Adds to s the products of QUANT8_DEEP_ fours of weights, GEMM_NRV vectors apart, and of x.
#ifdef VI_FOURS
#define QUANT8_DEEP_ 1
#define QUANT8_EXCESS_ VI_FOURS
CK_INLINE vi quant8_fours_(vi x) { return vi_fours(x); }
CK_INLINE vi quant8_dot_(const ck_dtype type, vi s, const vi *w, const vi *x) {
  (void)type;
  return vi_dot4(s, *w, *x);
}
#else
#define QUANT8_DEEP_ 2
#define QUANT8_EXCESS_ 0
CK_INLINE vi quant8_fours_(vi x) { return x; }
CK_INLINE vi quant8_dot_(const ck_dtype type, vi s, const vi *w, const vi *x) {
#ifdef VI_SMALL_FOURS
  if (type != CK_Q8_0) return vi_dot_small(s, w[0], x[0], w[GEMM_NRV], x[1]);
#endif
  (void)type;
#pragma clang loop unroll(full)
  for (size_t d = 0; d < QUANT8_DEEP_; d++)
    s = vi_dot(vi_dot(s, vi_s8_even(w[d * GEMM_NRV]), vi_s8_even(x[d])), vi_s8_odd(w[d * GEMM_NRV]), vi_s8_odd(x[d]));
  return s;
}
#endif

// What a format's bytes are more than its codes: products may want Q8_0's unsigned.
CK_INLINE int32_t quant8_offset_(const ck_dtype type) {
  return type == CK_Q8_0 ? QUANT8_EXCESS_ : type == CK_MXFP4 ? 12 : quant_offset_(type);
}

// Nibbles unpack to rows 0, 4, 1, 5 and 2, 6, 3, 7 of eight: the codes of x lie in that order.
CK_INLINE void quant8_order_(int8_t *codes) {
  for (size_t at = 0; at < CK_QUANT_ROWS; at += 8) {
    int8_t eight[8];
    memcpy(eight, codes + at, sizeof eight);
    for (size_t i = 0; i < 4; i++) codes[at + 2 * i] = eight[i], codes[at + 2 * i + 1] = eight[4 + i];
  }
}

CK_INLINE void quantize8_(const ck_dtype type, const ck_dtype format, size_t k, const void *x, int8_t *codes, float *scales,
                          int32_t *starts) {
  const size_t parts = ck_quant_parts(format);
  for (size_t at = 0; at < k; at += CK_QUANT_ROWS, codes += CK_QUANT_ROWS, scales++) {
    vf block[CK_QUANT_ROWS / VL];
    quant_codes_(type, x, at, 127, scales, block);
    for (size_t i = 0; i < CK_QUANT_ROWS; i += VL) vf_store_s8(codes + i, block[i / VL]);
    if (format != CK_Q8_0) quant8_order_(codes);
    for (size_t part = 0; part < parts; part++) {
      const float sum = quant_sum_(block, part, parts);
      *starts++ = ck_quant_lowered(format) ? (int32_t)ck_bits_(-*scales * sum) : -quant8_offset_(format) * (int32_t)sum;
    }
  }
}
void CK_NAME(f32_quantize8)(ck_dtype type, ck_dtype format, size_t k, const void *x, int8_t *codes, float *scales,
                            int32_t *starts) {
  CK_WITH_DTYPE(type, quantize8_, format, k, x, codes, scales, starts);
}

// Four rows of a block as bytes of every lane: its pairs 2 q and 2 q + 1 in Q8_0, else as quant8_order_ has them.
CK_INLINE vi quant8_four_(const ck_dtype type, const char *codes, const size_t q, size_t v) {
  if (type == CK_Q8_0) {
    const char *pair = codes + (2 * q * GEMM_NR + v * VL) * 2;
    return quant8_fours_(vi_join16(pair, pair + 2 * GEMM_NR));
  }
  const size_t word = q / 2;
  const vi low = vi_bits(vi_load(codes + (word * GEMM_NR + v * VL) * 4), (int)(q % 2 * 4), 0x0F0F);
  if (type == CK_MXFP4) return vi_e2m1_bytes(low);
  if (ck_quant_fifths(type)) {
    const vi fifth = vi_load(codes + 16 * GEMM_NR + v * VL * 4);
    return vi_or(low, vi_bits(q < 4 ? vi_up(fifth, 4 - (int)q) : fifth, q < 4 ? 0 : (int)q - 4, 0x1010));
  }
  if (type != CK_Q6_K) return low;
  const vi crumbs = vi_load(codes + 16 * GEMM_NR + (word / 2 * GEMM_NR + v * VL) * 4);
  const int at = (int)(2 * (q % 2 + word % 2 * 2));
  return vi_or(low, vi_bits(at < 4 ? vi_up(crumbs, 4 - at) : crumbs, at < 4 ? 0 : at - 4, 0x3030));
}

CK_INLINE vi quant8_x_(const int8_t *codes) {
  int32_t four;
  memcpy(&four, codes, sizeof four);
  return vi_set1(four);
}

// One block for m rows: x at `row` of their codes.
CK_INLINE void quant8_step_(const ck_dtype type, const size_t m, const ck_gemm_block *g, size_t i, size_t row,
                            const quant_block_ *block, vf *sum) {
  const size_t parts = ck_quant_parts(type), fours = CK_QUANT_ROWS / 4 / parts;
  const int8_t *x = (const int8_t *)g->codes + i * g->k + row;
  const int32_t *starts = g->code_sums + (i * g->k + row) * parts / CK_QUANT_ROWS;
  const float *x_scale = g->code_scales + (i * g->k + row) / CK_QUANT_ROWS;
#pragma clang loop unroll(full)
  for (size_t part = 0; part < parts; part++) {
    vi acc[QUANT8_MR_ * GEMM_NRV];
#pragma clang loop unroll(full)
    for (size_t t = 0; t < m * GEMM_NRV; t++)
      acc[t] = vi_set1(quant8_offset_(type) ? starts[t / GEMM_NRV * g->k * parts / CK_QUANT_ROWS + part] : 0);
#pragma clang loop unroll(full)
    for (size_t q = part * fours; q < (part + 1) * fours; q += QUANT8_DEEP_) {
      vi w[QUANT8_DEEP_ * GEMM_NRV];
#pragma clang loop unroll(full)
      for (size_t t = 0; t < QUANT8_DEEP_ * GEMM_NRV; t++)
        w[t] = quant8_four_(type, block->codes, q + t / GEMM_NRV, t % GEMM_NRV);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < m; r++) {
        vi some[QUANT8_DEEP_];
#pragma clang loop unroll(full)
        for (size_t d = 0; d < QUANT8_DEEP_; d++) some[d] = quant8_x_(x + r * g->k + 4 * (q + d));
#pragma clang loop unroll(full)
        for (size_t v = 0; v < GEMM_NRV; v++) acc[r * GEMM_NRV + v] = quant8_dot_(type, acc[r * GEMM_NRV + v], w + v, some);
      }
    }
#pragma clang loop unroll(full)
    for (size_t v = 0; v < GEMM_NRV; v++) {
      const vf scale = quant_scale_(type, block, part, v);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < m; r++) {
        vf *to = sum + r * GEMM_NRV + v;
        const size_t at = r * g->k / CK_QUANT_ROWS;
        *to = vf_fma(vf_mul(vi_float(acc[r * GEMM_NRV + v]), scale), vf_broadcast(x_scale + at), *to);
        if (ck_quant_lowered(type)) *to = vf_fma(quant_low_(type, block, v), vf_broadcast((const float *)starts + at), *to);
      }
    }
  }
}

CK_INLINE void quant8_rows_(const ck_dtype type, const size_t m, const ck_gemm_block *g, size_t i, size_t j,
                            enum gemm_exit_ leave) {
  const char *at = (const char *)g->b + j / GEMM_NR * ck_packed_bytes(type, g->b_panel);
  vf sum[GEMM_ACCUMULATORS_];
  quant_block_ block;
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * GEMM_NRV; t++) sum[t] = vf_zero();
  for (size_t row = 0; row < g->k; row += CK_QUANT_ROWS) {
    if (i == 0)
#pragma clang loop unroll(full)
      for (size_t line = 0; line < quant_bytes_(type); line += 64) __builtin_prefetch(at + GEMM_AHEAD_ + line);
    at = quant_block_at_(type, row, at, &block);
    quant8_step_(type, m, g, i, row, &block, sum);
  }
  gemm_leave_(m, GEMM_NRV, g, i, j, leave, sum);
}

CK_INLINE void quant8_(const ck_dtype type, const ck_gemm_block *g) {
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  for (size_t j = 0; j < g->n; j += GEMM_NR) {
    size_t i = 0;
    for (; i + QUANT8_MR_ <= g->m; i += QUANT8_MR_) quant8_rows_(type, QUANT8_MR_, g, i, j, leave);
    if (QUANT8_MR_ > 4 && i + 4 <= g->m) quant8_rows_(type, 4, g, i, j, leave), i += 4;
    if (i + 2 <= g->m) quant8_rows_(type, 2, g, i, j, leave), i += 2;
    if (i < g->m) quant8_rows_(type, 1, g, i, j, leave);
  }
}

void CK_NAME(f32_gemm_quantized8)(const ck_gemm_block *g) { QUANT_WITH_(g->b_type, quant8_, g) }

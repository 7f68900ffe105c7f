// GEMM by quantised weights: x in 16-bit codes, 32 to a scale, times the weights' codes in int32, exactly; then scaled, in f32.
// Sixteen bits keep x within 2^-16 of the largest of its block, and one multiply-add takes two of them on every instruction set.
// Loop order: panels, rows QUANT_MR_ at a time, blocks of B, pairs of its rows.
#define QUANT_MR_ (VL == 16 ? 8 : 4)
#define QUANT_PAIRS_ (CK_QUANT_ROWS / 2)

// Blocks of x whose largest lies below this have the scale of one whose largest is this: its inverse stays finite.
#define QUANT_SMALLEST_ 0x1p-100f

// 32 elements of x from `at` on as codes of at most `most`, and their scale: NaN where an element is not finite.
CK_INLINE void quant_codes_(const ck_dtype type, const void *x, size_t at, const float most, float *scale, vf *codes) {
  vf largest = vf_zero(), bad = vf_zero();
#pragma clang loop unroll(full)
  for (size_t i = 0; i < CK_QUANT_ROWS; i += VL) {
    const vf value = row_load_as_(type, x, at + i, VL);
    largest = vf_max(largest, vf_abs(value)), bad = vf_fma(value, vf_zero(), bad);
  }
  const float size = vf_reduce_max(largest), nan = vf_reduce_add(bad);
  const float step = size < QUANT_SMALLEST_ ? QUANT_SMALLEST_ / most : size / most;
  *scale = step + nan;
  const vf inverse = vf_set1(nan == 0 ? 1 / step : 0);
#pragma clang loop unroll(full)
  for (size_t i = 0; i < CK_QUANT_ROWS; i += VL) {
    // A product that is not finite has no code: zero times it is no number, and the maximum takes its second operand.
    const vf code = vf_round(vf_max(vf_mul(row_load_as_(type, x, at + i, VL), inverse), vf_set1(-most)));
    codes[i / VL] = vf_min(code, vf_set1(most));
  }
}

// The sum of the codes of part `part` of a block's `parts`.
CK_INLINE float quant_sum_(const vf *codes, size_t part, size_t parts) {
  const size_t vectors = CK_QUANT_ROWS / VL / parts;
  vf sum = codes[part * vectors];
  for (size_t i = 1; i < vectors; i++) sum = vf_add(sum, codes[part * vectors + i]);
  return vf_reduce_add(sum);
}

CK_INLINE void quantize_(const ck_dtype type, size_t k, size_t group, const void *x, int16_t *codes, float *scales,
                         int32_t *sums) {
  const size_t parts = CK_QUANT_ROWS / group;
  for (size_t at = 0; at < k; at += CK_QUANT_ROWS) {
    vf block[CK_QUANT_ROWS / VL];
    quant_codes_(type, x, at, 32767, scales++, block);
    for (size_t i = 0; i < CK_QUANT_ROWS; i += VL) vf_store_s16(codes + at + i, block[i / VL]);
    for (size_t part = 0; part < parts; part++) *sums++ = (int32_t)quant_sum_(block, part, parts);
  }
}
void CK_NAME(f32_quantize)(ck_dtype type, size_t k, size_t group, const void *x, int16_t *codes, float *scales, int32_t *sums) {
  CK_WITH_DTYPE(type, quantize_, k, group, x, codes, scales, sums);
}

// A block of 32 rows of a panel, and the scales that it shares with the others of its super-block.
typedef struct quant_block_ {
  const char *scales, *codes;
  vf d[GEMM_NRV], low[GEMM_NRV];
} quant_block_;

// Takes the block at `at`, the first of a super-block or not; returns where the next one starts.
CK_INLINE const char *quant_block_at_(const ck_dtype type, size_t row, const char *at, quant_block_ *block) {
  const int large = ck_quant_unit(type) == CK_SUPER_ROWS;
  if (!large || row % CK_SUPER_ROWS == 0) {
#pragma clang loop unroll(full)
    for (size_t v = 0; v < GEMM_NRV; v++) {
      const uint16_t *d = (const uint16_t *)at + v * VL;
      block->d[v] = type == CK_MXFP4 ? vf_load_bf16(d) : vf_load_f16(d);
      if (ck_quant_lowered(type)) block->low[v] = vf_load_f16((const uint16_t *)at + GEMM_NR + v * VL);
    }
    at += (ck_quant_lowered(type) ? 4 : 2) * GEMM_NR;
  }
  block->scales = at;
  block->codes = large ? at + 2 * GEMM_NR : at;
  return block->codes + (type == CK_Q8_0 ? 32 : type == CK_Q6_K ? 24 : ck_quant_fifths(type) ? 20 : 16) * GEMM_NR;
}

// Codes of pair p of a block's rows, vector v of its columns, without the offset of their format.
CK_INLINE vi quant_pair_(const ck_dtype type, const char *codes, size_t p, size_t v) {
  if (type == CK_Q8_0) return vi_load_s8(codes + (p * GEMM_NR + v * VL) * 2);
  const vi word = vi_load(codes + (p / 4 * GEMM_NR + v * VL) * 4);
  if (type == CK_MXFP4) return vi_e2m1(word, (int)(p % 4 * 4));
  const vi low = vi_bits(word, (int)(p % 4 * 4), 15);
  const char *above = codes + 16 * GEMM_NR;
  if (ck_quant_fifths(type)) return vi_or(low, vi_up(vi_bits(vi_load(above + v * VL * 4), (int)ck_fifth(p), 1), 4));
  if (type != CK_Q6_K) return low;
  const vi high = vi_bits(vi_load(above + (p / 8 * GEMM_NR + v * VL) * 4), (int)(2 * ck_crumb(p)), 3);
  return vi_or(low, vi_up(high, 4));
}

CK_INLINE vi quant_x_(const int16_t *codes) {
  int32_t pair;
  memcpy(&pair, codes, sizeof pair);
  return vi_set1(pair);
}

// What the format takes off a code.
CK_INLINE int32_t quant_offset_(const ck_dtype type) { return type == CK_Q4_0 ? 8 : type == CK_Q6_K ? 32 : 0; }

// The scale of the codes of part `part` of a block.
CK_INLINE vf quant_scale_(const ck_dtype type, const quant_block_ *block, size_t part, size_t v) {
  if (ck_quant_unit(type) != CK_SUPER_ROWS) return block->d[v];
  return vf_mul(block->d[v], vf_load_s8(block->scales + part * GEMM_NR + v * VL));
}

// What a format of two terms takes off every weight of a block.
CK_INLINE vf quant_low_(const ck_dtype type, const quant_block_ *block, size_t v) {
  if (type == CK_Q5_1) return vf_sub(vf_zero(), block->low[v]);
  return vf_mul(block->low[v], vf_load_s8(block->scales + GEMM_NR + v * VL));
}

CK_INLINE void dequantize_(const ck_dtype type, size_t k, const char *at, float *y) {
  const size_t parts = ck_quant_parts(type), pairs = QUANT_PAIRS_ / parts;
  const vi offset = vi_set1(-quant_offset_(type)), first = vi_set1(1), second = vi_set1(0x10000);
  quant_block_ block;
  for (size_t row = 0; row < k; row += CK_QUANT_ROWS, y += CK_QUANT_ROWS * GEMM_NR) {
    at = quant_block_at_(type, row, at, &block);
    for (size_t v = 0; v < GEMM_NRV; v++)
      for (size_t p = 0; p < QUANT_PAIRS_; p++) {
        const vi pair = quant_pair_(type, block.codes, p, v);
        const vf scale = quant_scale_(type, &block, p / pairs, v);
        vf even = vf_mul(scale, vi_float(vi_dot(offset, pair, first))),
           odd = vf_mul(scale, vi_float(vi_dot(offset, pair, second)));
        if (ck_quant_lowered(type))
          even = vf_sub(even, quant_low_(type, &block, v)), odd = vf_sub(odd, quant_low_(type, &block, v));
        vf_store(y + 2 * p * GEMM_NR + v * VL, even);
        vf_store(y + (2 * p + 1) * GEMM_NR + v * VL, odd);
      }
  }
}

// f(constant format, ...) for one of the formats.
#define QUANT_WITH_(type, f, ...) \
  switch (type) {                 \
    case CK_Q8_0:                 \
      f(CK_Q8_0, __VA_ARGS__);    \
      break;                      \
    case CK_Q4_0:                 \
      f(CK_Q4_0, __VA_ARGS__);    \
      break;                      \
    case CK_Q4_K:                 \
      f(CK_Q4_K, __VA_ARGS__);    \
      break;                      \
    case CK_MXFP4:                \
      f(CK_MXFP4, __VA_ARGS__);   \
      break;                      \
    case CK_Q5_1:                 \
      f(CK_Q5_1, __VA_ARGS__);    \
      break;                      \
    case CK_Q5_K:                 \
      f(CK_Q5_K, __VA_ARGS__);    \
      break;                      \
    default:                      \
      f(CK_Q6_K, __VA_ARGS__);    \
  }

// Rows of bf16, pairs first.
CK_INLINE void unpack_pairs_(size_t k, const uint16_t *panel, float *y) {
  size_t q = 0;
  for (; q + 2 <= k; q += 2, panel += 2 * GEMM_NR, y += 2 * GEMM_NR)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < GEMM_NR; v += VL) {
      vf even, odd;
      vf_load_2_bf16(panel + 2 * v, &even, &odd);
      vf_store(y + v, even), vf_store(y + GEMM_NR + v, odd);
    }
  widen_(CK_BF16, (k - q) * GEMM_NR, panel, y);
}

void CK_NAME(f32_gemm_unpack_b)(ck_dtype type, size_t k, const void *panel, float *y) {
  if (type == CK_BF16)
    unpack_pairs_(k, panel, y);
  else if (type == CK_F16)
    widen_(CK_F16, k * GEMM_NR, panel, y);
  else
    QUANT_WITH_(type, dequantize_, k, panel, y)
}

// Bytes of 32 rows of a panel.
CK_INLINE size_t quant_bytes_(const ck_dtype type) {
  return ck_packed_bytes(type, ck_quant_unit(type) * GEMM_NR) / (ck_quant_unit(type) / CK_QUANT_ROWS);
}

// One block for m rows: x at `row` of their codes.
CK_INLINE void quant_step_(const ck_dtype type, const size_t m, const ck_gemm_block *g, size_t i, size_t row,
                           const quant_block_ *block, vf *sum) {
  const size_t parts = ck_quant_parts(type), pairs = QUANT_PAIRS_ / parts;
  const int16_t *x = (const int16_t *)g->codes + i * g->k + row;
  const int32_t *x_sum = g->code_sums + (i * g->k + row) * parts / CK_QUANT_ROWS;
  const float *x_scale = g->code_scales + (i * g->k + row) / CK_QUANT_ROWS;
#pragma clang loop unroll(full)
  for (size_t part = 0; part < parts; part++) {
    vi acc[QUANT_MR_ * GEMM_NRV];
#pragma clang loop unroll(full)
    for (size_t t = 0; t < m * GEMM_NRV; t++)
      acc[t] = vi_set1(-quant_offset_(type) * x_sum[t / GEMM_NRV * g->k * parts / CK_QUANT_ROWS + part]);
#pragma clang loop unroll(full)
    for (size_t p = part * pairs; p < (part + 1) * pairs; p++) {
      vi w[GEMM_NRV];
#pragma clang loop unroll(full)
      for (size_t v = 0; v < GEMM_NRV; v++) w[v] = quant_pair_(type, block->codes, p, v);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < m; r++) {
        const vi a = quant_x_(x + r * g->k + 2 * p);
#pragma clang loop unroll(full)
        for (size_t v = 0; v < GEMM_NRV; v++) acc[r * GEMM_NRV + v] = vi_dot(acc[r * GEMM_NRV + v], a, w[v]);
      }
      if (m > 1)  // else sums are regrouped until nothing stays in registers
#pragma clang loop unroll(full)
        for (size_t t = 0; t < m * GEMM_NRV; t++) vi_pin(&acc[t]);
    }
#pragma clang loop unroll(full)
    for (size_t v = 0; v < GEMM_NRV; v++) {
      const vf scale = quant_scale_(type, block, part, v);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < m; r++) {
        vf *to = sum + r * GEMM_NRV + v;
        const float *s = x_scale + r * g->k / CK_QUANT_ROWS;
        *to = vf_fma(vf_mul(vi_float(acc[r * GEMM_NRV + v]), scale), vf_broadcast(s), *to);
        if (ck_quant_lowered(type))
          *to = vf_fnma(quant_low_(type, block, v), vf_set1(*s * (float)x_sum[r * g->k / CK_QUANT_ROWS]), *to);
      }
    }
  }
}

CK_INLINE void quant_rows_(const ck_dtype type, const size_t m, const ck_gemm_block *g, size_t i, size_t j,
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
    quant_step_(type, m, g, i, row, &block, sum);
  }
  gemm_leave_(m, GEMM_NRV, g, i, j, leave, sum);
}

CK_INLINE void quant_(const ck_dtype type, const ck_gemm_block *g) {
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  for (size_t j = 0; j < g->n; j += GEMM_NR) {
    size_t i = 0;
    for (; i + QUANT_MR_ <= g->m; i += QUANT_MR_) quant_rows_(type, QUANT_MR_, g, i, j, leave);
    if (QUANT_MR_ > 4 && i + 4 <= g->m) quant_rows_(type, 4, g, i, j, leave), i += 4;
    if (i + 2 <= g->m) quant_rows_(type, 2, g, i, j, leave), i += 2;
    if (i < g->m) quant_rows_(type, 1, g, i, j, leave);
  }
}

void CK_NAME(f32_gemm_quantized)(const ck_gemm_block *g) { QUANT_WITH_(g->b_type, quant_, g) }

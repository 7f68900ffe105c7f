// GEMM of few rows by panels stored narrow: bf16, f16, Q8_0, Q4_0. B comes from memory once, is widened in registers, exactly,
// and multiplied in the order of gemm_tile_: the bits are those of the same panels widened first.
// Loop order: panels, rows STREAM_MR_ at a time, blocks of B, rows of B.
#define STREAM_MR_ (VL == 16 ? 8 : 4)
#define STREAM_AHEAD_ 1024  // bytes of B fetched ahead

CK_INLINE float stream_power_(const int nibble) {  // 2^(-4 nibble)
  return ck_float_((uint32_t)(127 - 4 * nibble) << 23);
}

// One row of B against m rows of A: acc[r * vectors + v] += a[r * a_rs] x[v].
CK_INLINE void stream_step_(const size_t m, const size_t vectors, const float *a, size_t a_rs, const vf *x, vf *acc) {
#pragma clang loop unroll(full)
  for (size_t r = 0; r < m; r++) {
    const vf value = vf_broadcast(a + r * a_rs);
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) acc[r * vectors + v] = vf_fma(x[v], value, acc[r * vectors + v]);
  }
}

// Rows of B of 16-bit elements; `panel` is bytes from panel to panel.
CK_INLINE void stream_halves_(const ck_dtype type, const size_t m, const size_t vectors, size_t k, const float *a, size_t a_rs,
                              const char *b, size_t panel, vf *acc) {
#pragma clang loop unroll_count(4)
  for (size_t p = 0; p < k; p++, b += 2 * GEMM_NR) {
    vf x[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) {
      const char *row = b + v / GEMM_NRV * panel;
      if (v % GEMM_NRV == 0) __builtin_prefetch(row + STREAM_AHEAD_);
      x[v] = row_load_as_(type, row, v % GEMM_NRV * VL, VL);
    }
    stream_step_(m, vectors, a + p, a_rs, x, acc);
  }
}

// One block of Q8_0 or Q4_0: f(p, x) for its rows p in order, x their vectors. `panel` is bytes from panel to panel.
#define STREAM_BLOCK_(type, vectors, b, panel, f)                                                                \
  do {                                                                                                           \
    vf scale_[GEMM_ACCUMULATORS_], step_[GEMM_ACCUMULATORS_], zero_[GEMM_ACCUMULATORS_], x_[GEMM_ACCUMULATORS_]; \
    const char *at_[GEMM_ACCUMULATORS_];                                                                         \
    _Pragma("clang loop unroll(full)") for (size_t v = 0; v < (vectors); v++) {                                  \
      const char *start_ = (b) + v / GEMM_NRV * (panel);                                                         \
      scale_[v] = vf_load_f16((const uint16_t *)start_ + v % GEMM_NRV * VL);                                     \
      at_[v] = start_ + 2 * GEMM_NR + v % GEMM_NRV * VL * ((type) == CK_Q8_0 ? 1 : 4);                           \
      zero_[v] = vf_mul(scale_[v], vf_set1(-8));                                                                 \
    }                                                                                                            \
    if ((type) == CK_Q8_0) {                                                                                     \
      _Pragma("clang loop unroll_count(4)") for (size_t p = 0; p < CK_QUANT_ROWS; p++) {                         \
        _Pragma("clang loop unroll(full)") for (size_t v = 0; v < (vectors); v++) x_[v] =                        \
            vf_mul(vf_load_s8(at_[v] + p * GEMM_NR), scale_[v]);                                                 \
        f(p, x_);                                                                                                \
      }                                                                                                          \
    } else {                                                                                                     \
      _Pragma("clang loop unroll(full)") for (int nibble = 0; nibble < 8; nibble++) {                            \
        _Pragma("clang loop unroll(full)") for (size_t v = 0; v < (vectors); v++) step_[v] =                     \
            vf_mul(scale_[v], vf_set1(stream_power_(nibble < 7 ? nibble : 0)));                                  \
        _Pragma("clang loop unroll(full)") for (size_t word = 0; word < 4; word++) {                             \
          _Pragma("clang loop unroll(full)") for (size_t v = 0; v < (vectors); v++) x_[v] =                      \
              vf_fma(vf_nibble(at_[v] + word * GEMM_NR * 4, nibble), step_[v], zero_[v]);                        \
          f(4 * (size_t)nibble + word, x_);                                                                      \
        }                                                                                                        \
      }                                                                                                          \
    }                                                                                                            \
  } while (0)

CK_INLINE void stream_blocks_(const ck_dtype type, const size_t m, const size_t vectors, size_t k, const float *a, size_t a_rs,
                              const char *b, size_t panel, vf *acc) {
  const size_t bytes = ck_packed_bytes(type, CK_QUANT_ROWS * GEMM_NR);
  for (size_t block = 0; block < k; block += CK_QUANT_ROWS, b += bytes) {
#pragma clang loop unroll(full)
    for (size_t q = 0; q < vectors / GEMM_NRV; q++)
      for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(b + q * panel + line + STREAM_AHEAD_);
#define STEP(p, x) stream_step_(m, vectors, a + block + (p), a_rs, x, acc)
    STREAM_BLOCK_(type, vectors, b, panel, STEP);
#undef STEP
  }
}

CK_INLINE void stream_rows_(const ck_dtype type, const size_t m, const size_t panels, const ck_gemm_block *g, size_t i, size_t j,
                            enum gemm_exit_ leave) {
  const size_t vectors = panels * GEMM_NRV, panel = ck_packed_bytes(type, g->b_panel);
  const char *b = (const char *)g->b + j / GEMM_NR * panel;
  vf acc[GEMM_ACCUMULATORS_];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) acc[t] = vf_zero();
  if (type == CK_Q8_0 || type == CK_Q4_0)
    stream_blocks_(type, m, vectors, g->k, g->a + i * g->a_rs, g->a_rs, b, panel, acc);
  else
    stream_halves_(type, m, vectors, g->k, g->a + i * g->a_rs, g->a_rs, b, panel, acc);
  gemm_leave_(m, panels, g, i, j, leave, acc);
}

// Panels at once for one row: enough sums to hide the latency of an FMA, and registers for scales besides.
#define STREAM_PANELS_(type) (GEMM_NRV > 2 ? 1 : (type) < CK_DTYPE_COUNT ? 4 : 2)

CK_INLINE void stream_(const ck_dtype type, const ck_gemm_block *g) {
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  const size_t group = STREAM_PANELS_(type) * GEMM_NR;
  size_t j = 0;
  if (g->m == 1)
    for (; j + group <= g->n; j += group) stream_rows_(type, 1, STREAM_PANELS_(type), g, 0, j, leave);
  for (; j < g->n; j += GEMM_NR) {
    size_t i = 0;
    for (; i + STREAM_MR_ <= g->m; i += STREAM_MR_) stream_rows_(type, STREAM_MR_, 1, g, i, j, leave);
    if (STREAM_MR_ > 4 && i + 4 <= g->m) stream_rows_(type, 4, 1, g, i, j, leave), i += 4;
    if (i + 2 <= g->m) stream_rows_(type, 2, 1, g, i, j, leave), i += 2;
    if (i < g->m) stream_rows_(type, 1, 1, g, i, j, leave);
  }
}

void CK_NAME(f32_gemm_stream)(const ck_gemm_block *g) {
  switch (g->b_type) {
    case CK_BF16:
      stream_(CK_BF16, g);
      break;
    case CK_F16:
      stream_(CK_F16, g);
      break;
    case CK_Q8_0:
      stream_(CK_Q8_0, g);
      break;
    default:
      stream_(CK_Q4_0, g);
  }
}

CK_INLINE void unpack_(const ck_dtype type, size_t k, const char *panel, float *y) {
  for (size_t block = 0; block < k; block += CK_QUANT_ROWS, panel += ck_packed_bytes(type, CK_QUANT_ROWS * GEMM_NR)) {
#define STEP(p, x) \
  _Pragma("clang loop unroll(full)") for (size_t v = 0; v < GEMM_NRV; v++) vf_store(y + (block + (p)) * GEMM_NR + v * VL, x[v])
    STREAM_BLOCK_(type, GEMM_NRV, panel, 0, STEP);
#undef STEP
  }
}
void CK_NAME(f32_unpack)(ck_dtype type, size_t k, const void *panel, float *y) {
  if (type == CK_Q8_0)
    unpack_(CK_Q8_0, k, panel, y);
  else
    unpack_(CK_Q4_0, k, panel, y);
}

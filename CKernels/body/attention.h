// o = softmax(s) v, s = scale q k^T + mask over the keys a row sees: online softmax (Milakov and Gimelshein; FlashAttention).
// Loop order: blocks of ATTENTION_KEYS keys, packed once each; groups of GEMM_MR rows; in a group
//   S = q k^T;  m' = max(m, max S);  P = exp(S - m');  l' = l exp(m - m') + sum P;  o' = o exp(m - m') + P v;  at the end o / l.
// Each element of S and of P v is one chain of FMAs from zero in key order, whatever rows share the call.
#define ATTENTION_KEYS 128

typedef struct attention_ {
  const ck_attention_block *call;
  size_t width;        // head_dim rounded up to whole panels
  const float *keys;   // [ATTENTION_KEYS / NR] panels of [head_dim][NR]
  const float *value;  // row p of panel j at value + p * value_rs + j * value_panel
  size_t value_rs, value_panel;
  float *score;        // [GEMM_MR, ATTENTION_KEYS]: S, then P
  float *product;      // [GEMM_MR, width]: P v of this block
  float *top, *total;  // [q_rows]: m and l
} attention_;

// C [m, panels NR] = A [m, k] B; m and wide constants, wide panels at a time.
CK_INLINE void attention_tiles_(const size_t m, size_t panels, size_t k, const float *a, size_t a_rs, const float *b, size_t b_rs,
                                size_t b_panel, float *c, size_t c_rs) {
  const size_t wide = GEMM_PANELS_(m);
  size_t j = 0;
  for (; j + wide <= panels; j += wide) {
    vf acc[GEMM_ACCUMULATORS_];
    for (size_t t = 0; t < m * wide * GEMM_NRV; t++) acc[t] = vf_zero();
    gemm_tile_(m, wide * GEMM_NRV, k, a, a_rs, 1, b + j * b_panel, b_rs, b_panel, acc);
    for (size_t i = 0; i < m; i++)
      for (size_t v = 0; v < wide * GEMM_NRV; v++) vf_store(c + i * c_rs + j * GEMM_NR + v * VL, acc[i * wide * GEMM_NRV + v]);
  }
  for (; wide > 1 && j < panels; j++) {
    vf acc[GEMM_ACCUMULATORS_];
    for (size_t t = 0; t < m * GEMM_NRV; t++) acc[t] = vf_zero();
    gemm_tile_(m, GEMM_NRV, k, a, a_rs, 1, b + j * b_panel, b_rs, b_panel, acc);
    for (size_t i = 0; i < m; i++)
      for (size_t v = 0; v < GEMM_NRV; v++) vf_store(c + i * c_rs + j * GEMM_NR + v * VL, acc[i * GEMM_NRV + v]);
  }
}

static __attribute__((noinline)) void attention_multiply_(size_t m, size_t panels, size_t k, const float *a, size_t a_rs,
                                                          const float *b, size_t b_rs, size_t b_panel, float *c, size_t c_rs) {
#define CASE(rows)                                                         \
  case rows:                                                               \
    attention_tiles_(rows, panels, k, a, a_rs, b, b_rs, b_panel, c, c_rs); \
    break;
  // clang-format off
  switch (m) {
    CASE(1) CASE(2) CASE(3) CASE(4)
#if GEMM_MR > 4
    CASE(5) CASE(6)
#endif
#if GEMM_MR > 6
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
  }
  // clang-format on
#undef CASE
}
_Static_assert(GEMM_MR == 4 || GEMM_MR == 6 || GEMM_MR == 12, "attention_multiply_ names every row count");
_Static_assert(ATTENTION_KEYS % GEMM_NR == 0 && GEMM_MR * GEMM_NR % 16 == 0, "the scratch of a block keeps 64-byte alignment");

// One row of S becomes P over `seen` keys; returns the factor of the earlier o and l. `mask` NULL is a constant at one call.
CK_INLINE float attention_softmax_(float scale, float *s, const float *mask, size_t seen, float *top, float *total) {
  const vf low = vf_set1(-INFINITY), by = vf_set1(scale);
  vf best[4] = {low, low, low, low}, sum[4];
  size_t j = 0;
#define SCORE(at, lanes) (mask ? vf_fma(by, vf_load(s + (at)), row_load_(mask + (at), lanes)) : vf_mul(by, vf_load(s + (at))))
  for (; j + 4 * VL <= seen; j += 4 * VL)
    for (size_t v = 0; v < 4; v++) {
      const vf x = SCORE(j + v * VL, VL);
      vf_store(s + j + v * VL, x);
      best[v] = vf_max(best[v], x);
    }
  for (; j < seen; j += VL) {  // the buffer is whole vectors: lanes past `seen` become -inf, so P is 0 there
    const size_t lanes = CK_MIN(seen - j, (size_t)VL);
    const vf x = vf_select(vf_first(lanes), SCORE(j, lanes), low);
    vf_store(s + j, x);
    best[0] = vf_max(best[0], x);
  }
#undef SCORE
  const float before = *top, here = vf_reduce_max(vf_max(vf_max(best[0], best[1]), vf_max(best[2], best[3])));
  if (here > before) *top = here;  // a NaN is lost here and found again by the sum
  const float base = *top == -INFINITY ? 0 : *top;

  for (size_t v = 0; v < 4; v++) sum[v] = vf_zero();
  for (j = 0; j + 4 * VL <= seen; j += 4 * VL)
    for (size_t v = 0; v < 4; v++) {
      const vf e = vf_exp_nonpositive_(vf_sub(vf_load(s + j + v * VL), vf_set1(base)));
      vf_store(s + j + v * VL, e);
      sum[v] = vf_add(sum[v], e);
    }
  for (size_t v = 0; j < seen; j += VL, v++) {
    const vf e = vf_exp_nonpositive_(vf_sub(vf_load(s + j), vf_set1(base)));
    vf_store(s + j, e);
    sum[v] = vf_add(sum[v], e);
  }
  float factor;
  vf_store_n(&factor, vf_exp_nonpositive_(vf_set1(before - base)), 1);
  *total = *total * factor + vf_reduce_add(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
  return factor;
}

// o = product, or o factor + product; times r, which is 1 before a row's last block.
CK_INLINE void attention_output_(float *o, const float *product, int fresh, float factor, float r, size_t n) {
#define STEP(j, lanes)                                                 \
  vf x = vf_load(product + j);                                         \
  if (!fresh) x = vf_fma(row_load_(o + j, lanes), vf_set1(factor), x); \
  row_store_(o + j, vf_mul(x, vf_set1(r)), lanes);
  ROW_COLUMNS_(n, STEP);
#undef STEP
}

// Rows [i, i + m) against keys [k0, k0 + keys).
CK_INLINE void attention_group_(const attention_ *t, size_t i, size_t m, size_t k0, size_t keys) {
  const ck_attention_block *g = t->call;
  size_t seen[GEMM_MR], whole[GEMM_MR];  // keys a row sees of this block, and of all
  for (size_t r = 0; r < m; r++) {
    whole[r] = row_seen_(i + r, g->diagonal, g->kv_rows);
    seen[r] = whole[r] <= k0 ? 0 : CK_MIN(whole[r] - k0, keys);
  }
  if (!seen[m - 1]) return;  // rows see more keys as they go down
  attention_multiply_(m, (seen[m - 1] + GEMM_NR - 1) / GEMM_NR, g->head_dim, g->q + i * g->q_rs, g->q_rs, t->keys, GEMM_NR,
                      g->head_dim * GEMM_NR, t->score, ATTENTION_KEYS);
  float factor[GEMM_MR];
  int fresh[GEMM_MR];
  for (size_t r = 0; r < m; r++) {
    if (!seen[r]) continue;
    float *s = t->score + r * ATTENTION_KEYS;
    fresh[r] = t->top[i + r] == -INFINITY;  // nothing but masked keys so far: o holds nothing yet
    float *top = t->top + i + r, *total = t->total + i + r;
    factor[r] = g->mask ? attention_softmax_(g->scale, s, g->mask + (i + r) * g->mask_rs + k0, seen[r], top, total)
                        : attention_softmax_(g->scale, s, 0, seen[r], top, total);
  }
  // Keys every row sees, as tiles; then those of the diagonal, row by row, so that no value a row may not see is touched.
  attention_multiply_(m, t->width / GEMM_NR, seen[0], t->score, ATTENTION_KEYS, t->value, t->value_rs, t->value_panel, t->product,
                      t->width);
  for (size_t r = 0; r < m; r++) {
    if (!seen[r]) continue;
    float *product = t->product + r * t->width;
    for (size_t p = seen[0]; p < seen[r]; p++)
      for (size_t j = 0; j < t->width; j += VL) {
        const float *value = t->value + p * t->value_rs + j / GEMM_NR * t->value_panel + j % GEMM_NR;
        vf_store(product + j, vf_fma(vf_set1(t->score[r * ATTENTION_KEYS + p]), vf_load(value), vf_load(product + j)));
      }
    const float total = t->total[i + r];
    float *o = g->o + (i + r) * g->o_rs;
    if (k0 + seen[r] < whole[r])
      attention_output_(o, product, fresh[r], factor[r], 1, g->head_dim);
    else if (total != 0)
      attention_output_(o, product, fresh[r], factor[r], 1 / total, g->head_dim);
    else  // every key masked: zeros, whatever the values are
      for (size_t j = 0; j < g->head_dim; j++) o[j] = 0;
  }
}

// Values are copied to panels when enough rows read them, or where a panel is not whole.
#define ATTENTION_PACK_ROWS_ (4 * GEMM_MR)

void CK_NAME(f32_attention_block)(const ck_attention_block *g) {
  const size_t d = g->head_dim, width = (d + GEMM_NR - 1) / GEMM_NR * GEMM_NR;
  float *keys = g->scratch, *values = keys + ATTENTION_KEYS * width;
  attention_ t = {.call = g, .width = width, .keys = keys};
  t.score = values + ATTENTION_KEYS * width;
  t.product = t.score + GEMM_MR * ATTENTION_KEYS;
  t.top = t.product + GEMM_MR * width;
  t.total = t.top + g->q_rows;
  for (size_t i = 0; i < g->q_rows; i++) {
    t.top[i] = -INFINITY;
    t.total[i] = 0;
    if (row_seen_(i, g->diagonal, g->kv_rows) == 0)
      for (size_t j = 0; j < d; j++) g->o[i * g->o_rs + j] = 0;
  }
  const size_t most = g->q_rows ? row_seen_(g->q_rows - 1, g->diagonal, g->kv_rows) : 0;
  const int pack = d != width || g->q_rows >= ATTENTION_PACK_ROWS_;
  for (size_t k0 = 0; k0 < most; k0 += ATTENTION_KEYS) {
    const size_t block = CK_MIN(most - k0, (size_t)ATTENTION_KEYS);
    CK_NAME(f32_gemm_pack_b)(block, d, g->k + k0 * g->k_rs, 1, g->k_rs, keys);
    if (pack) CK_NAME(f32_gemm_pack_b)(d, block, g->v + k0 * g->v_rs, g->v_rs, 1, values);
    t.value = pack ? values : g->v + k0 * g->v_rs;
    t.value_rs = pack ? GEMM_NR : g->v_rs;
    t.value_panel = pack ? block * GEMM_NR : GEMM_NR;
    for (size_t i = 0; i < g->q_rows; i += GEMM_MR) attention_group_(&t, i, CK_MIN(g->q_rows - i, (size_t)GEMM_MR), k0, block);
  }
}

// o = softmax(s) v over the keys a row sees: online softmax (Milakov and Gimelshein; FlashAttention).
// Loop order: tiles of up to ATTENTION_KEYS keys, packed once each; heads that share them; groups of GEMM_MR rows; in a group
//   S = q k^T;  m' = max(m, max S);  P = exp(S - m');  l' = l exp(m - m') + sum P;  o' = o exp(m - m') + P v;  at the end o / l.
// Each element of S and of P v is one chain of FMAs from zero in key order, whatever rows share the call. The heads of a single
// query (step 0) read keys and values where they lie, once: those of several key heads a few keys of each before the next, which
// is their order in memory. A sum of S then has VL chains. bf16 goes by attention_pairs.h.

#define ATTENTION_PAIRS_ (TILES_PAY && GEMM_NR == CK_TILE_EDGE)

// C [m, panels NR] = A [m, k] B, or C + A B; m, panels and the choice constants.
CK_INLINE void attention_tile_(const size_t m, const size_t panels, const int more, size_t k, const float *a, size_t a_rs,
                               const float *b, size_t b_rs, size_t b_panel, float *c, size_t c_rs) {
  vf acc[GEMM_ACCUMULATORS_];
  for (size_t i = 0; i < m; i++)
    for (size_t v = 0; v < panels * GEMM_NRV; v++)
      acc[i * panels * GEMM_NRV + v] = more ? vf_load(c + i * c_rs + v * VL) : vf_zero();
  gemm_tile_(m, panels * GEMM_NRV, k, a, a_rs, 1, b, b_rs, b_panel, acc);
  for (size_t i = 0; i < m; i++)
    for (size_t v = 0; v < panels * GEMM_NRV; v++) vf_store(c + i * c_rs + v * VL, acc[i * panels * GEMM_NRV + v]);
}

CK_INLINE void attention_tiles_(const size_t m, int more, size_t panels, size_t k, const float *a, size_t a_rs, const float *b,
                                size_t b_rs, size_t b_panel, float *c, size_t c_rs) {
  const size_t wide = GEMM_PANELS_(m);
  size_t j = 0;
  for (; !more && j + wide <= panels; j += wide)
    attention_tile_(m, wide, 0, k, a, a_rs, b + j * b_panel, b_rs, b_panel, c + j * GEMM_NR, c_rs);
  for (; !more && wide > 1 && j < panels; j++)
    attention_tile_(m, 1, 0, k, a, a_rs, b + j * b_panel, b_rs, b_panel, c + j * GEMM_NR, c_rs);
  for (; more && j < panels; j++) attention_tile_(m, 1, 1, k, a, a_rs, b + j * b_panel, b_rs, b_panel, c + j * GEMM_NR, c_rs);
}

static __attribute__((noinline)) void attention_multiply_(size_t m, int more, size_t panels, size_t k, const float *a,
                                                          size_t a_rs, const float *b, size_t b_rs, size_t b_panel, float *c,
                                                          size_t c_rs) {
#define CASE(rows)                                                               \
  case rows:                                                                     \
    attention_tiles_(rows, more, panels, k, a, a_rs, b, b_rs, b_panel, c, c_rs); \
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

// o = (sum factor + product) r; r is 1 before a row's last block. Without an earlier sum it is NULL.
CK_INLINE void attention_output_(const ck_dtype type, void *o, const float *sum, const float *product, float factor, float r,
                                 size_t n) {
#define STEP(j, lanes)                                                \
  vf x = vf_load(product + j);                                        \
  if (sum) x = vf_fma(row_load_(sum + j, lanes), vf_set1(factor), x); \
  row_store_as_(type, o, j, vf_mul(x, vf_set1(r)), lanes);
  ROW_COLUMNS_(n, STEP);
#undef STEP
}

// product += P v over keys [from, to) of one row.
CK_INLINE void attention_row_(const attention_ *t, const float *weight, size_t from, size_t to, float *product) {
  for (size_t j = 0; from < to && j < t->width; j += GEMM_NR) {
    const float *value = t->value + j / GEMM_NR * t->value_panel;
    vf acc[GEMM_NRV];
    for (size_t v = 0; v < GEMM_NRV; v++) acc[v] = vf_load(product + j + v * VL);
    for (size_t p = from; p < to; p++)
      for (size_t v = 0; v < GEMM_NRV; v++)
        acc[v] = vf_fma(vf_set1(weight[p]), vf_load(value + p * t->value_rs + v * VL), acc[v]);
    for (size_t v = 0; v < GEMM_NRV; v++) vf_store(product + j + v * VL, acc[v]);
  }
}

// A row has seen its last key; `product` NULL: it has seen none.
CK_INLINE void attention_finish_(const attention_ *t, size_t i, const float *sum, const float *product, float factor) {
  const ck_attention_block *g = t->call;
  const float total = t->total[i];
  char *o = t->o + i * g->o_rs * ck_dtype_size(g->o_type);
  if (t->state) {
    t->state[2 * i] = t->top[i], t->state[2 * i + 1] = total;
    if (product && total != 0)
      attention_output_(CK_F32, o, sum, product, factor, 1, g->head_dim);
    else
      memset(o, 0, g->head_dim * sizeof(float));
    return;
  }
  if (t->lse) t->lse[i * g->lse_rs] = t->top[i] + logf(total);
  if (product && total != 0)
    CK_WITH_DTYPE(g->o_type, attention_output_, o, sum, product, factor, 1 / total, g->head_dim);
  else  // no key, or every one masked: zeros, whatever the values are
    memset(o, 0, g->head_dim * ck_dtype_size(g->o_type));
}

// Rows [i, i + m) of q as f32, q_rs apart: in place, or widened.
CK_INLINE const float *attention_queries_(const attention_ *t, size_t i, size_t m, size_t *q_rs) {
  const ck_attention_block *g = t->call;
  const char *q = t->q + i * g->q_rs * ck_dtype_size(g->q_type);
  *q_rs = g->q_type == CK_F32 ? g->q_rs : g->head_dim;
  if (g->q_type == CK_F32) return (const float *)q;
  for (size_t r = 0; r < m; r++)
    CK_NAME(f32_widen)(g->q_type, g->head_dim, (const uint16_t *)q + r * g->q_rs, t->query + r * g->head_dim);
  return t->query;
}

// Whether o holds nothing yet of row i, which sees keys from `first` on, at a tile: no key before it, or only masked ones.
CK_INLINE int attention_fresh_(const attention_ *t, size_t i, const attention_walk_ *w, size_t first) {
  return w->before <= first || t->top[i] == -INFINITY;
}

// S of rows [i, i + m) against keys [from, to) of the tile, from whole panels on.
CK_INLINE void attention_scores_(const attention_ *t, size_t i, size_t m, size_t from, size_t to) {
  const size_t d = t->call->head_dim, panel = from / GEMM_NR;
  float *score = t->score + panel * GEMM_NR;
  size_t q_rs = t->call->q_rs;
  if (!t->pairs) {
    const float *q = attention_queries_(t, i, m, &q_rs);
    attention_multiply_(m, 0, (to + GEMM_NR - 1) / GEMM_NR - panel, d, q, q_rs, t->keys + panel * GEMM_NR * d, GEMM_NR,
                        d * GEMM_NR, score, ATTENTION_KEYS);
    return;
  }
  const size_t depth = pair_depth_(d);
  const uint16_t *q = (const uint16_t *)t->q + i * q_rs;
  if (m < PAIR_ROWS_ || d < depth) {
    uint16_t *copy = (uint16_t *)t->query;
    for (size_t r = 0; r < m; r++) {
      memcpy(copy + r * depth, q + r * q_rs, d * sizeof *q);
      memset(copy + r * depth + d, 0, (depth - d) * sizeof *q);
    }
    q = copy, q_rs = depth;
  }
  pair_multiply_(to - panel * GEMM_NR, depth, q, q_rs, t->key_pairs + panel * GEMM_NR * depth, depth * GEMM_NR, score,
                 ATTENTION_KEYS);
}

// P v of rows that see keys [from[r], to[r]) of the tile's.
CK_INLINE void attention_mixed_(const attention_ *t, size_t m, const size_t *from, const size_t *to, size_t keys) {
  if (t->pairs) {
    const attention_range_ steps = attention_steps_(from[0], to[m - 1]);
    pair_multiply_(t->call->head_dim, steps.last - steps.first, (const uint16_t *)t->score + steps.first, 2 * ATTENTION_KEYS,
                   t->value_pairs + steps.first * CK_TILE_EDGE, pair_depth_(keys) * CK_TILE_EDGE, t->product, t->width);
    return;
  }
  // Keys every row sees, as tiles; before and after them row by row, so that no value a row may not see is touched.
  const size_t low = from[m - 1], high = to[0] < low ? low : to[0];
  for (size_t r = 0; r < m && from[0] < low; r++) {
    memset(t->product + r * t->width, 0, t->width * sizeof(float));
    attention_row_(t, t->score + r * ATTENTION_KEYS, from[r], CK_MIN(to[r], low), t->product + r * t->width);
  }
  attention_multiply_(m, from[0] < low, t->width / GEMM_NR, high - low, t->score + low, ATTENTION_KEYS,
                      t->value + low * t->value_rs, t->value_rs, t->value_panel, t->product, t->width);
  for (size_t r = 0; r < m; r++)
    if (from[r] < to[r]) attention_row_(t, t->score + r * ATTENTION_KEYS, high, to[r], t->product + r * t->width);
}

// Rows [i, i + m) against the keys of a tile.
CK_INLINE void attention_group_(const attention_ *t, size_t i, size_t m, const attention_walk_ *w) {
  const ck_attention_block *g = t->call;
  const size_t k0 = w->from, keys = w->to - k0;
  size_t from[ATTENTION_ROWS_], to[ATTENTION_ROWS_];  // keys a row sees of this block
  attention_range_ seen[ATTENTION_ROWS_];             // and of all
#pragma clang loop vectorize(disable)  // scatters, which the loads after them would wait for
  for (size_t r = 0; r < m; r++) {
    seen[r] = attention_seen_(g, i + r);
    from[r] = attention_clamp_((ptrdiff_t)seen[r].first - (ptrdiff_t)k0, keys);
    to[r] = attention_clamp_((ptrdiff_t)seen[r].last - (ptrdiff_t)k0, keys);
  }
  if (from[0] == keys || !to[m - 1]) return;
  attention_scores_(t, i, m, from[0], to[m - 1]);
  float factor[ATTENTION_ROWS_];
  int fresh[ATTENTION_ROWS_];
  for (size_t r = 0; r < m; r++) fresh[r] = attention_fresh_(t, i + r, w, seen[r].first);
  attention_softmax_(t, i, m, k0, from, to, factor);
  attention_mixed_(t, m, from, to, keys);
  for (size_t r = 0; r < m; r++) {
    if (from[r] == to[r]) continue;
    float *product = t->product + r * t->width, *sum = t->sum + (i + r) * t->sum_rs;
    if (w->after < seen[r].last)
      attention_output_(CK_F32, sum, fresh[r] ? 0 : sum, product, factor[r], 1, g->head_dim);
    else
      attention_finish_(t, i + r, fresh[r] ? 0 : sum, product, factor[r]);
  }
}

// Keys of one head fetched ahead; its values are fetched beside their keys, or as far ahead where a tile has few.
#define ATTENTION_AHEAD_ 32

CK_INLINE void attention_fetch_(const char *row, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
}

// Rows of several heads, fetched in the order in which they lie: the heads of a key, then those of the next.
typedef struct attention_ahead_ {
  const char *row;  // of the first head, of the key that is next
  size_t rs, hs, bytes;
  size_t head, heads, left;  // of which heads before `head` are fetched; keys left
} attention_ahead_;

CK_INLINE attention_ahead_ attention_ahead_of_(const void *x, ck_dtype type, size_t rs, size_t hs, const ck_attention_block *g,
                                               const attention_walk_ *tile) {
  const size_t size = ck_dtype_size(type);
  const char *row = (const char *)x + tile->from * rs * size;
  return (attention_ahead_){row, rs * size, hs * size, g->head_dim * size, 0, g->heads, tile->to - tile->from};
}

CK_INLINE void attention_fetch_next_(attention_ahead_ *f) {
  if (!f->left) return;
  attention_fetch_(f->row + f->head * f->hs, f->bytes);
  if (++f->head == f->heads) f->head = 0, f->left--, f->row += f->rs;
}

#define ATTENTION_DOTS_(m) (VL == 16 || (m) <= 2 ? 4 : 2)  // keys that so many rows are multiplied by together

// S of m rows and `count` keys; m, count and the type constants. `ahead` is of the next tile's keys, or NULL: of one head.
CK_INLINE void attention_dot_(const ck_dtype type, const size_t m, const size_t count, size_t d, const float *q, size_t q_rs,
                              const char *keys, size_t step, const char *values, size_t value_step, attention_ahead_ *ahead,
                              float *score) {
  vf acc[16];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * count; t++) acc[t] = vf_zero();
  for (size_t c = 0; ahead && c < count; c++) attention_fetch_next_(ahead);
#pragma clang loop unroll(full)
  for (size_t c = 0; !ahead && c < count; c++) {
    attention_fetch_(keys + (c + ATTENTION_AHEAD_) * step, d * ck_dtype_size(type));
    attention_fetch_(values + c * value_step, d * ck_dtype_size(type));
  }
#define STEP(j, lanes)                                                                                                        \
  vf x[4];                                                                                                                    \
  _Pragma("clang loop unroll(full)") for (size_t c = 0; c < count; c++) x[c] = row_load_as_(type, keys + c * step, j, lanes); \
  _Pragma("clang loop unroll(full)") for (size_t r = 0; r < m; r++) {                                                         \
    const vf a = row_load_(q + r * q_rs + (j), lanes);                                                                        \
    _Pragma("clang loop unroll(full)") for (size_t c = 0; c < count; c++) acc[r * count + c] =                                \
        vf_fma(a, x[c], acc[r * count + c]);                                                                                  \
  }
  ROW_COLUMNS_(d, STEP);
#undef STEP
  float sums[16];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * count; t += VL) vf_store(sums + t, attention_across_(1, CK_MIN(m * count - t, (size_t)VL), acc + t));
#pragma clang loop unroll(full)
  for (size_t r = 0; r < m; r++) memcpy(score + r * ATTENTION_KEYS, sums + r * count, count * sizeof *score);
}

// product [m, width] = P v over `keys` values, `vectors` of a row at a time from column j on, the last of them `lanes` wide.
CK_INLINE void attention_mix_(const ck_dtype type, const size_t m, const size_t vectors, size_t lanes, size_t keys, size_t width,
                              const float *score, const char *values, size_t step, size_t j, attention_ahead_ *ahead,
                              float *product) {
  vf acc[GEMM_MR * 2];
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) acc[t] = vf_zero();
  for (size_t p = 0; p < keys; p++, values += step) {
    if (ahead) attention_fetch_next_(ahead);
    vf x[2];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) x[v] = row_load_as_(type, values, j + v * VL, v + 1 < vectors ? VL : lanes);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < m; r++) {
      const vf weight = vf_broadcast(score + r * ATTENTION_KEYS + p);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < vectors; v++) acc[r * vectors + v] = vf_fma(weight, x[v], acc[r * vectors + v]);
    }
  }
#pragma clang loop unroll(full)
  for (size_t t = 0; t < m * vectors; t++) vf_store(product + t / vectors * width + j + t % vectors * VL, acc[t]);
}

CK_INLINE void attention_keys_(const ck_dtype type, const size_t m, size_t keys, size_t d, const float *q, size_t q_rs,
                               const char *k, size_t k_rs, const char *v, size_t v_step, attention_ahead_ *ahead, float *score) {
  const size_t step = k_rs * ck_dtype_size(type);
  size_t p = 0;
  for (; p + ATTENTION_DOTS_(m) <= keys; p += ATTENTION_DOTS_(m))
    attention_dot_(type, m, ATTENTION_DOTS_(m), d, q, q_rs, k + p * step, step, v + p * v_step, v_step, ahead, score + p);
  for (; p < keys; p++) attention_dot_(type, m, 1, d, q, q_rs, k + p * step, step, v + p * v_step, v_step, ahead, score + p);
}

CK_INLINE void attention_values_(const ck_dtype type, const size_t m, size_t keys, size_t d, size_t width, const float *score,
                                 const char *v, size_t v_rs, attention_ahead_ *ahead, float *product) {
  const size_t step = v_rs * ck_dtype_size(type);
  size_t j = 0;
  for (; j + 2 * VL <= d; j += 2 * VL, ahead = 0) attention_mix_(type, m, 2, VL, keys, width, score, v, step, j, ahead, product);
  for (; j < d; j += VL, ahead = 0)
    attention_mix_(type, m, 1, CK_MIN(d - j, (size_t)VL), keys, width, score, v, step, j, ahead, product);
}

// Keys and values may be codes as well.
#define ATTENTION_WITH_(type, f, ...)      \
  do {                                     \
    if (type == CK_I8)                     \
      f(CK_I8, __VA_ARGS__);               \
    else                                   \
      CK_WITH_DTYPE(type, f, __VA_ARGS__); \
  } while (0)

// Columns [from, to) of m rows of S, or of P, times the scales of their keys, or values.
CK_INLINE void attention_scale_(size_t m, const float *scales, size_t from, size_t to, float *s) {
  for (size_t j = from / VL * VL; j < to; j += VL) {
    const vf by = row_load_(scales + j, CK_MIN(to - j, (size_t)VL));
    for (size_t r = 0; r < m; r++) vf_store(s + r * ATTENTION_KEYS + j, vf_mul(vf_load(s + r * ATTENTION_KEYS + j), by));
  }
}

// Rows [i, i + m) of a single query against the keys of a tile, where they lie; `ahead` NULL: of one head.
CK_INLINE void attention_query_(const attention_ *t, size_t i, const size_t m, const attention_walk_ *w,
                                attention_ahead_ *keys_ahead, attention_ahead_ *values_ahead) {
  const ck_attention_block *g = t->call;
  const size_t k0 = w->from, from = w->first > k0 ? w->first - k0 : 0, to = w->to - k0;
  size_t q_rs;
  const float *q = attention_queries_(t, i, m, &q_rs);
  const char *k = t->k + (k0 + from) * g->k_rs * ck_dtype_size(g->k_type);
  const size_t v_step = g->v_rs * ck_dtype_size(g->v_type), further = g->tile < 2 * ATTENTION_AHEAD_ ? ATTENTION_AHEAD_ : 0;
  const char *v = t->v + (k0 + from) * v_step;
  ATTENTION_WITH_(g->k_type, attention_keys_, m, to - from, g->head_dim, q, q_rs, k, g->k_rs, v + further * v_step, v_step,
                  keys_ahead, t->score + from);
  if (g->k_type == CK_I8) attention_scale_(m, t->k_scales + k0, from, to, t->score);
  float factor[GEMM_MR];
  int fresh[GEMM_MR];
  size_t starts[GEMM_MR], ends[GEMM_MR];
  for (size_t r = 0; r < m; r++) fresh[r] = attention_fresh_(t, i + r, w, w->first), starts[r] = from, ends[r] = to;
  attention_softmax_(t, i, m, k0, starts, ends, factor);
  if (g->v_type == CK_I8) attention_scale_(m, t->v_scales + k0, from, to, t->score);
  ATTENTION_WITH_(g->v_type, attention_values_, m, to - from, g->head_dim, t->width, t->score + from, v, g->v_rs, values_ahead,
                  t->product);
  for (size_t r = 0; r < m; r++) {
    float *product = t->product + r * t->width, *sum = t->sum + (i + r) * t->sum_rs;
    if (w->after < w->last)
      attention_output_(CK_F32, sum, fresh[r] ? 0 : sum, product, factor[r], 1, g->head_dim);
    else
      attention_finish_(t, i + r, fresh[r] ? 0 : sum, product, factor[r]);
  }
}

// Rows that see no key are zeros, or what their sink leaves.
CK_INLINE void attention_start_(const attention_ *t) {
  const ck_attention_block *g = t->call;
  for (size_t i = 0; i < g->rows; i++) {
    t->top[i] = t->sink ? t->sink[i * g->head_rs] : -INFINITY;
    t->total[i] = t->sink != 0;
    if (!attention_sees_(g, attention_seen_(g, i))) attention_finish_(t, i, 0, 0, 0);
  }
}

CK_INLINE void attention_head_(attention_ *t, float *sums, float *state, size_t h) {
  const ck_attention_block *g = t->call;
  t->q = (const char *)g->q + h * g->q_hs * ck_dtype_size(g->q_type);
  t->o = (char *)g->o + h * g->o_hs * ck_dtype_size(g->o_type);
  t->k = (const char *)g->k + h * g->k_hs * ck_dtype_size(g->k_type);
  t->v = (const char *)g->v + h * g->v_hs * ck_dtype_size(g->v_type);
  t->k_scales = g->k_scales ? g->k_scales + h * g->k_scale_hs : 0;
  t->v_scales = g->v_scales ? g->v_scales + h * g->v_scale_hs : 0;
  t->sum = g->o_type == CK_F32 ? (float *)t->o : sums + h * g->rows * t->width;
  t->sum_rs = g->o_type == CK_F32 ? g->o_rs : t->width;
  t->slope = g->slope ? g->slope + h * g->head_hs : 0;
  t->sink = g->sink ? g->sink + h * g->head_hs : 0;
  t->mask = g->mask ? (const char *)g->mask + h * g->mask_hs * ck_dtype_size(g->mask_type) : 0;
  t->lse = g->lse ? g->lse + h * g->lse_hs : 0;
  t->state = g->state ? g->state + 2 * h * g->rows : 0;
  t->top = state + 2 * h * g->rows;
  t->total = t->top + g->rows;
}

// All rows of a key head of a single query: they see the same keys.
CK_INLINE void attention_key_head_(const attention_ *t, const attention_walk_ *w, attention_ahead_ *keys,
                                   attention_ahead_ *values) {
  const size_t rows = t->call->rows;
  size_t i = 0;
  for (; i + 4 <= rows; i += 4) attention_query_(t, i, 4, w, keys, values);
  if (i + 2 <= rows) attention_query_(t, i, 2, w, keys, values), i += 2;
  if (i < rows) attention_query_(t, i, 1, w, keys, values);
}

static __attribute__((noinline)) void attention_single_(attention_ *t, attention_walk_ *w, float *sums, float *state) {
  const ck_attention_block *g = t->call;
  if (g->heads == 1) {
    while (attention_next_(g, w)) attention_key_head_(t, w, 0, 0);
    return;
  }
  attention_walk_ next = *w;
  for (int more = attention_next_(g, &next); more;) {
    *w = next, more = attention_next_(g, &next);
    if (!more) next.to = next.from;
    attention_ahead_ keys = attention_ahead_of_(g->k, g->k_type, g->k_rs, g->k_hs, g, &next);
    attention_ahead_ values = attention_ahead_of_(g->v, g->v_type, g->v_rs, g->v_hs, g, &next);
    for (size_t h = 0; h < g->heads; h++) {
      attention_head_(t, sums, state, h);
      attention_key_head_(t, w, &keys, &values);
    }
  }
}

static void attention_decode_(size_t n, const int8_t *codes, float scale, float *y) {
#define STEP(j, lanes) row_store_(y + j, vf_mul(row_load_as_(CK_I8, codes, j, lanes), vf_set1(scale)), lanes);
  ROW_COLUMNS_(n, STEP);
#undef STEP
}

// Rows [first, first + n) of keys or values as f32: in place, or widened to `wide`, whose rows are head_dim apart.
CK_INLINE const float *attention_wide_(ck_dtype type, const float *x, const float *scales, size_t *x_rs, size_t first, size_t n,
                                       size_t d, float *wide) {
  if (type == CK_F32) return x + first * *x_rs;
  for (size_t p = first; p < first + n; p++) {
    if (type == CK_I8)
      attention_decode_(d, (const int8_t *)x + p * *x_rs, scales[p], wide + (p - first) * d);
    else
      CK_NAME(f32_widen)(type, d, (const uint16_t *)x + p * *x_rs, wide + (p - first) * d);
  }
  *x_rs = d;
  return wide;
}

// Values are copied to panels when enough rows read them, or where a panel is not whole.
#define ATTENTION_PACK_ROWS_ (4 * GEMM_MR)

// Whether operands are bf16 that pairs can be made of.
CK_INLINE int attention_pairs_(const ck_attention_block *g) {
  const int narrow = g->q_type == CK_BF16 && g->k_type == CK_BF16 && g->v_type == CK_BF16 && g->o_type == CK_BF16;
  return ATTENTION_PAIRS_ && narrow && g->head_dim % 2 == 0 && g->k_rs % 2 == 0 && fabsf(g->scale) <= PAIR_MOST_;
}

// Whether keys [first, last) and their values may be multiplied as pairs: values that are not finite would reach rows that do not
// see them.
static int attention_suits_pairs_(const ck_attention_block *g, size_t first, size_t last) {
  const uint16_t *k = (const uint16_t *)g->k, *v = (const uint16_t *)g->v;
  int suits = 1;
  for (size_t p = first; suits && p < last; p++)
    suits = tile_range_bf16_(g->head_dim, k + p * g->k_rs).most <= PAIR_MOST_ &&
            tile_range_bf16_(g->head_dim, v + p * g->v_rs).most < INFINITY;
  return suits;
}

// A tile as pairs, where that keeps to the bound. All of it decides, so that a row's bits do not depend on what others see.
CK_INLINE int attention_pack_pairs_(const ck_attention_block *g, const attention_walk_ *w, uint16_t *keys, uint16_t *values) {
  const size_t d = g->head_dim, tile = w->to - w->from;
  const size_t panels = (tile + CK_TILE_EDGE - 1) / CK_TILE_EDGE, columns = (d + CK_TILE_EDGE - 1) / CK_TILE_EDGE;
  if (!attention_suits_pairs_(g, w->all.first, w->from) || !attention_suits_pairs_(g, w->to, w->all.last)) return 0;
  pair_pack_keys_(tile, d, (const uint16_t *)g->k + w->from * g->k_rs, g->k_rs, keys);
  if (!(tile_range_bf16_(panels * pair_depth_(d) * CK_TILE_EDGE, keys).most <= PAIR_MOST_)) return 0;
  pair_pack_values_(tile, d, (const uint16_t *)g->v + w->from * g->v_rs, g->v_rs, values);
  return tile_range_bf16_(columns * pair_depth_(tile) * CK_TILE_EDGE, values).most < INFINITY;
}

// A tile as panels of floats.
CK_INLINE void attention_pack_(attention_ *t, const attention_walk_ *w, int pack, float *keys, float *values, float *wide) {
  const ck_attention_block *g = t->call;
  const size_t d = g->head_dim, tile = w->to - w->from;
  size_t k_rs = g->k_rs, v_rs = g->v_rs;
  const float *key = attention_wide_(g->k_type, g->k, g->k_scales, &k_rs, w->from, tile, d, wide);
  CK_NAME(f32_gemm_pack_b)(tile, d, key, 1, k_rs, keys);
  const float *value = attention_wide_(g->v_type, g->v, g->v_scales, &v_rs, w->from, tile, d, wide);
  if (pack) CK_NAME(f32_gemm_pack_b)(d, tile, value, v_rs, 1, values);
  t->value = pack ? values : value;
  t->value_rs = pack ? GEMM_NR : v_rs;
  t->value_panel = pack ? tile * GEMM_NR : GEMM_NR;
}

void CK_NAME(f32_attention_block)(const ck_attention_block *g) {
  if (!g->rows) return;
  const size_t d = g->head_dim, width = (d + GEMM_NR - 1) / GEMM_NR * GEMM_NR;
  float *keys = g->scratch, *values = keys + ATTENTION_KEYS * width;
  attention_ t = {.call = g, .width = width, .keys = keys};
  t.score = values + ATTENTION_KEYS * width;
  t.product = t.score + ATTENTION_ROWS_ * ATTENTION_KEYS;
  float *state = t.product + ATTENTION_ROWS_ * width;
  // What only operands that are not f32 need lies behind.
  float *wide = state + (2 * g->rows * g->heads + 15) / 16 * 16;
  t.query = wide + ATTENTION_KEYS * width;
  t.bias = t.query + GEMM_MR * width;
  float *sums = t.bias + ATTENTION_KEYS;
  for (size_t h = 0; h < g->heads; h++) {
    attention_head_(&t, sums, state, h);
    attention_start_(&t);
  }
  attention_walk_ w = {.tile = g->step ? ATTENTION_KEYS : g->tile};
  w.first = attention_seen_(g, 0).first, w.last = attention_seen_(g, g->rows - 1).last;
  if (!g->step) {
    attention_single_(&t, &w, sums, state);
    return;
  }
  const int pack = d != width || g->rows * g->heads >= ATTENTION_PACK_ROWS_, pairs = attention_pairs_(g);
  uint16_t *key_pairs = (uint16_t *)keys, *value_pairs = (uint16_t *)values;
  t.key_pairs = key_pairs, t.value_pairs = value_pairs;
  while (attention_next_(g, &w)) {
    t.pairs = pairs && attention_pack_pairs_(g, &w, key_pairs, value_pairs);
    if (!t.pairs) attention_pack_(&t, &w, pack, keys, values, wide);
    const size_t most = t.pairs ? PAIR_ROWS_ : GEMM_MR;
    for (size_t h = 0; h < g->heads; h++) {
      attention_head_(&t, sums, state, h);
      for (size_t i = 0; i < g->rows; i += most) attention_group_(&t, i, CK_MIN(g->rows - i, most), &w);
    }
  }
}

void CK_NAME(f32_attention_merge)(const ck_attention_merge *g) {
  float weight[CK_ATTENTION_PARTS];
  for (size_t i = 0; i < g->rows; i++) {
    const float *state = g->states + 2 * i, *sums = g->sums + i * g->head_dim;
    const size_t step = g->rows * g->head_dim;
    float top = -INFINITY, total = 0;
    for (size_t p = 0; p < g->parts; p++) top = state[2 * p * g->rows] > top ? state[2 * p * g->rows] : top;
    const float base = top == -INFINITY ? 0 : top;
    for (size_t p = 0; p < g->parts; p++) {
      vf_store_n(weight + p, vf_exp_nonpositive_(vf_set1(state[2 * p * g->rows] - base)), 1);
      total += weight[p] * state[2 * p * g->rows + 1];
    }
    if (g->lse) g->lse[i * g->lse_rs] = top + logf(total);
    char *o = (char *)g->o + i * g->o_rs * ck_dtype_size(g->o_type);
    if (total == 0) {
      memset(o, 0, g->head_dim * ck_dtype_size(g->o_type));
      continue;
    }
    const float r = 1 / total;
    for (size_t j = 0; j < g->head_dim; j += VL) {
      const size_t lanes = CK_MIN(g->head_dim - j, (size_t)VL);
      vf x = vf_zero();
      for (size_t p = 0; p < g->parts; p++) x = vf_fma(vf_set1(weight[p]), row_load_(sums + p * step + j, lanes), x);
      row_store_as_(g->o_type, o, j, vf_mul(x, vf_set1(r)), lanes);
    }
  }
}

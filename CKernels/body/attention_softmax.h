// The softmax of a group of attention's rows against a tile of keys: scores become weights, and the running m and l move on.
// Rows are taken VL at a time, so that what is one number a row is a vector of them.

// Rows of a group: those that a matrix unit takes, or a tile of GEMM.
#define ATTENTION_ROWS_ (TILES_PAY == CK_TILES_UNIT ? CK_TILE_EDGE / 2 : GEMM_MR)
#define ATTENTION_FEW_ CK_MIN((size_t)4, (size_t)VL)  // rows of a single query that are taken together
typedef struct attention_ {
  const ck_attention_block *call;
  size_t width;        // head_dim rounded up to whole panels
  int pairs;           // keys and values of this tile are as attention_pairs.h has them, and
  const uint16_t *key_pairs, *value_pairs;
  const float *keys;   // else panels of [head_dim][NR]
  const float *value;  // row p of panel j at value + p * value_rs + j * value_panel
  size_t value_rs, value_panel;
  float *score;        // [ATTENTION_ROWS_, ATTENTION_KEYS]: S, then P
  float *product;      // [ATTENTION_ROWS_, width]: P v of this block
  float *query;        // [GEMM_MR, head_dim]: q widened, where it is not f32
  float *bias;         // [ATTENTION_KEYS]: a row of the mask widened, where it is not f32
  // Of the head at hand:
  const char *k, *v;   // [kv_rows, head_dim]: where they lie
  const float *k_scales, *v_scales;
  const char *q;       // [rows, head_dim]
  char *o;             // [rows, head_dim]
  float *sum;          // [rows, head_dim], sum_rs apart: o as f32
  size_t sum_rs;
  const float *slope, *sink;  // [rows] or NULL
  const char *mask;    // [rows, kv_rows] or NULL
  float *lse;          // [rows] or NULL
  float *state;        // [rows, 2] or NULL
  float *top, *total;  // [rows]: m and l
} attention_;

// s = cap tanh(scale s / cap) - slope |key - position| in place; `distance` is that of s[0]. Whole vectors.
static __attribute__((noinline)) void attention_bias_(float scale, float cap, float slope, ptrdiff_t distance, size_t n,
                                                      float *s) {
  static const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const vf by = vf_set1(cap != 0 ? scale / cap : scale);
  for (size_t j = 0; j < n; j += VL) {
    vf x = vf_mul(by, vf_load(s + j));
    if (cap != 0) x = vf_mul(vf_set1(cap), vf_tanh_(x));
    const vf away = vf_abs(vf_add(vf_load(lanes), vf_set1((float)(distance + (ptrdiff_t)j))));
    if (slope != 0) x = vf_fnma(vf_set1(slope), away, x);
    vf_store(s + j, x);
  }
}

// One row of S over keys [hidden, seen), hidden < VL: the largest of it, spread over a vector; minus infinity for hidden keys and
// those that fill up the last vector. Others stay as they are or, where `stored`, are scaled and get their mask, if any.
// Constants: `stored`, and whether `mask` is NULL.
CK_INLINE vf attention_largest_(const int stored, float scale, float *s, const float *mask, size_t hidden, size_t seen) {
  const vf low = vf_set1(-INFINITY), by = vf_set1(scale);
  vf best[4] = {low, low, low, low};
  size_t j = 0;
#define SCORE(at, lanes)                                                  \
  (!stored ? vf_load(s + (at))                                            \
   : mask  ? vf_fma(by, vf_load(s + (at)), row_load_(mask + (at), lanes)) \
           : vf_mul(by, vf_load(s + (at))))
  if (hidden) {
    const size_t lanes = CK_MIN(seen, (size_t)VL);
    const vf x = vf_select(vf_first(hidden), low, vf_select(vf_first(lanes), SCORE(0, lanes), low));
    vf_store(s, x);
    best[0] = x;
    j = VL;
  }
  for (; j + 4 * VL <= seen; j += 4 * VL)
    for (size_t v = 0; v < 4; v++) {
      const vf x = SCORE(j + v * VL, VL);
      if (stored) vf_store(s + j + v * VL, x);
      best[v] = vf_max(best[v], x);
    }
  for (; j < seen; j += VL) {
    const size_t lanes = CK_MIN(seen - j, (size_t)VL);
    const vf x = vf_select(vf_first(lanes), SCORE(j, lanes), low);
    vf_store(s + j, x);
    best[0] = vf_max(best[0], x);
  }
#undef SCORE
  return vf_max(vf_max(best[0], best[1]), vf_max(best[2], best[3]));
}

// The keys that P v of bf16 pairs takes: whole steps around [from, to) of a tile.
CK_INLINE attention_range_ attention_steps_(size_t from, size_t to) {
  return (attention_range_){from / PAIR_STEP_ * PAIR_STEP_, pair_depth_(to)};
}

// The second pass: P = exp(scale S - base) in place of S, keys [start, to) of a row in whole vectors, and its sum, spread over a
// vector. As `pairs`, a constant, P is bf16 where the row begins. scale S less base is 0 at the top, however large both are.
CK_INLINE vf attention_powers_(const int pairs, float scale, float base, float *s, size_t start, size_t to) {
  const vf by = vf_set1(scale), low = vf_set1(base);
  vf sum[4];
  size_t j = start;
  for (size_t v = 0; v < 4; v++) sum[v] = vf_zero();
#define POWERS(count)                                                          \
  vf e[count];                                                                 \
  MATH_EACH_(count) e[v] = vf_sub(vf_mul(by, vf_load(s + j + v * VL)), low);   \
  if (pairs) {                                                                 \
    pair_exp_(count, e);                                                       \
    MATH_EACH_(count) vf_store_bf16_flushed((uint16_t *)s + j + v * VL, e[v]); \
  } else {                                                                     \
    math_exp_nonpositive_(count, e);                                           \
    MATH_EACH_(count) vf_store(s + j + v * VL, e[v]);                          \
  }                                                                            \
  MATH_EACH_(count) sum[v] = vf_add(sum[v], e[v]);
  for (; j + 4 * VL <= to; j += 4 * VL) {
    POWERS(4)
  }
  for (; j < to; j += VL) {
    POWERS(1)
  }
#undef POWERS
  return vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3]));
}

// Row i of S, keys [from, to) of the tile that begins at k0: the largest of its scores, which are `stored` or still to be scaled.
CK_INLINE vf attention_score_(const attention_ *t, size_t i, size_t k0, int stored, float *s, size_t from, size_t to) {
  const ck_attention_block *g = t->call;
  const size_t start = from / VL * VL, hidden = from - start, seen = to - start;
  const float slope = t->slope ? t->slope[i * g->head_rs] : 0;
  float scale = g->scale;
  s += start;
  if (!stored) return attention_largest_(0, scale, s, 0, hidden, seen);
  if (slope != 0 || g->cap != 0) {
    const ptrdiff_t distance = (ptrdiff_t)(k0 + start) - g->position - (ptrdiff_t)(i * g->step);
    attention_bias_(scale, g->cap, slope, distance, seen, s);
    scale = 1;
  }
  if (!t->mask) return attention_largest_(1, scale, s, 0, hidden, seen);
  const size_t at = i * g->mask_rs + k0 + start;
  const float *mask = (const float *)(t->mask + at * ck_dtype_size(g->mask_type));
  if (g->mask_type != CK_F32) {
    CK_NAME(f32_widen)(g->mask_type, seen, mask, t->bias);
    mask = t->bias;
  }
  return attention_largest_(1, scale, s, mask, hidden, seen);
}

// Lane i: the sum, or the largest, of line i of `count`, a power of two; other lanes are anything. Both arguments are constants.
CK_INLINE vf attention_across_(const int sum, size_t count, vf *lines) {
#pragma clang loop unroll(full)
  for (size_t n = VL; n > 1; n /= 2, count = (count + 1) / 2)
#pragma clang loop unroll(full)
    for (size_t i = 0; i < count; i += 2) {
      vf even, odd;
      vf_unzip(lines[i], lines[i + 1 < count ? i + 1 : i], &even, &odd);
      lines[i / 2] = sum ? vf_add(even, odd) : vf_max(even, odd);
    }
  return lines[0];
}

// The softmax of a group, `most` rows at a time; most is constant.
CK_INLINE void attention_weights_(const size_t most, const attention_ *t, size_t i, size_t m, size_t k0, const size_t *from,
                                  const size_t *to, float *factor) {
  const ck_attention_block *g = t->call;
  const attention_range_ steps = attention_steps_(from[0], to[m - 1]);
  const int stored = t->mask || t->slope || g->cap != 0 || !(g->scale > 0);
  const float scale = stored ? 1 : g->scale;
  for (size_t r = 0; r < m; r += most) {
    const size_t rows = CK_MIN(m - r, most);
    float *s = t->score + r * ATTENTION_KEYS, *tops = t->top + i + r, *totals = t->total + i + r, base[VL];
    vf lines[VL];
    for (size_t q = 0; q < most; q++) {
      lines[q] = vf_set1(-INFINITY);
      if (q < rows && from[r + q] < to[r + q])
        lines[q] = attention_score_(t, i + r + q, k0, stored, s + q * ATTENTION_KEYS, from[r + q], to[r + q]);
    }
    const vf before = row_load_(tops, rows), here = vf_mul(vf_set1(scale), attention_across_(0, most, lines));
    const vf top = vf_select(vf_lt(before, here), here, before);  // a NaN is lost here and found again by the sum
    const vf finite = vf_select(vf_lt(vf_set1(-INFINITY), top), top, vf_zero());
    const vf shrunk = vf_exp_nonpositive_(vf_sub(before, finite));
    row_store_(tops, top, rows);
    vf_store(base, finite);
    for (size_t q = 0; q < most; q++) {
      lines[q] = vf_zero();
      if (q >= rows) continue;
      const size_t start = from[r + q] / VL * VL, end = from[r + q] < to[r + q] ? to[r + q] : start;
      float *row = s + q * ATTENTION_KEYS;
      if (t->pairs) {
        pair_clear_(row, steps.first, start);
        lines[q] = attention_powers_(1, scale, base[q], row, start, end);
        pair_clear_(row, (end + VL - 1) / VL * VL, steps.last);
      } else {
        lines[q] = attention_powers_(0, scale, base[q], row, start, end);
      }
    }
    row_store_(factor + r, shrunk, rows);
    row_store_(totals, vf_fma(row_load_(totals, rows), shrunk, attention_across_(1, most, lines)), rows);
  }
}

// Rows [i, i + m) of S against the tile that begins at key k0, row r seeing keys [from[r], to[r]) of it: P in its place; as pairs
// it is bf16 where the row begins, with zeros in the rest of the steps of all rows. What was summed before is to be multiplied by
// factor[r].
static __attribute__((noinline)) void attention_softmax_(const attention_ *t, size_t i, size_t m, size_t k0, const size_t *from,
                                                         const size_t *to, float *factor) {
  if (m <= ATTENTION_FEW_)
    attention_weights_(ATTENTION_FEW_, t, i, m, k0, from, to, factor);
  else
    attention_weights_(VL, t, i, m, k0, from, to, factor);
}

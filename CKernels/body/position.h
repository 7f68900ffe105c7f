// Rotary position embedding. Loop order: tokens, heads, pairs VL at a time; a token's cosines and sines stay in L1 for its heads.
// Each element is two products and one sum: a cos - b sin rounds a cos, then the rest once (twice without FMA).

// Pairs (j, j + half).
CK_INLINE void rope_split_(const ck_dtype xt, const ck_dtype yt, const float *angle, size_t half, const void *x, void *y) {
#define STEP(j, lanes)                                                                  \
  const vf c = row_load_(angle + j, lanes), s = row_load_(angle + half + j, lanes);     \
  const vf a = row_load_as_(xt, x, j, lanes), b = row_load_as_(xt, x, half + j, lanes); \
  row_store_as_(yt, y, j, vf_fnma(b, s, vf_mul(a, c)), lanes);                          \
  row_store_as_(yt, y, half + j, vf_fma(a, s, vf_mul(b, c)), lanes);
  ROW_COLUMNS_(half, STEP);
#undef STEP
}

// Pairs (2 j, 2 j + 1): two vectors hold VL of them.
CK_INLINE void rope_interleaved_(const ck_dtype xt, const ck_dtype yt, const float *angle, size_t half, const void *x, void *y) {
#define STEP(j, lanes)                                                                           \
  const size_t front = CK_MIN(2 * (lanes), (size_t)VL), back = 2 * (lanes) - front;              \
  const vf c = row_load_(angle + j, lanes), s = row_load_(angle + half + j, lanes);              \
  vf a, b, low, high;                                                                            \
  vf_unzip(row_load_as_(xt, x, 2 * j, front), row_load_as_(xt, x, 2 * j + front, back), &a, &b); \
  vf_zip(vf_fnma(b, s, vf_mul(a, c)), vf_fma(a, s, vf_mul(b, c)), &low, &high);                  \
  row_store_as_(yt, y, 2 * j, low, front);                                                       \
  row_store_as_(yt, y, 2 * j + front, high, back);
  ROW_COLUMNS_(half, STEP);
#undef STEP
}

CK_INLINE void rope_rest_(const ck_dtype xt, const ck_dtype yt, size_t from, size_t to, const void *x, void *y) {
#define STEP(j, lanes) row_store_as_(yt, y, from + j, row_load_as_(xt, x, from + j, lanes), lanes);
  ROW_COLUMNS_(to - from, STEP);
#undef STEP
}

CK_INLINE void rope_tokens_(const ck_dtype yt, const ck_dtype xt, const ck_rope *g, size_t first, size_t last) {
  for (size_t t = first; t < last; t++) {
    const float *angle = g->table + (size_t)g->positions[t] * g->table_rs;  // [rotary]
    const char *x = (const char *)g->x + t * g->x_rs * ck_dtype_size(xt);  // [heads, size]
    char *y = (char *)g->y + t * g->y_rs * ck_dtype_size(yt);
    for (size_t h = 0; h < g->heads; h++) {
      if (g->interleaved)
        rope_interleaved_(xt, yt, angle, g->rotary / 2, x, y);
      else
        rope_split_(xt, yt, angle, g->rotary / 2, x, y);
      if (x != y) rope_rest_(xt, yt, g->rotary, g->size, x, y);
      x += g->x_hs * ck_dtype_size(xt), y += g->y_hs * ck_dtype_size(yt);
    }
  }
}

CK_INLINE void rope_from_(const ck_dtype xt, const ck_rope *g, size_t first, size_t last) {
  CK_WITH_DTYPE(g->y_type, rope_tokens_, xt, g, first, last);
}
void CK_NAME(f32_rope)(const ck_rope *call, size_t first, size_t last) {
  CK_WITH_DTYPE(call->x_type, rope_from_, call, first, last);
}

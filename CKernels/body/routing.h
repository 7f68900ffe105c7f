// The k largest elements of a row, and rows added where indices say.
//
// Top-k: a heap of the k best so far, as keys that order by value and then by lower index, so that the answer does not depend on
// the way to it. A scan compares whole vectors with the least key's value and looks closer only where something beats it.

// Orders as x does, -0 as 0, every NaN above infinity.
CK_INLINE uint64_t top_key_(float x, size_t index) {
  uint32_t bits;
  const float plain = x + 0.0f;  // -0 becomes 0
  memcpy(&bits, &plain, sizeof bits);
  bits = x != x ? UINT32_MAX : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (uint64_t)bits << 32 | (UINT32_MAX - (uint32_t)index);
}
CK_INLINE size_t top_index_(uint64_t key) { return UINT32_MAX - (uint32_t)key; }

// The least float above that of a key; NaN where none is.
CK_INLINE float top_above_(uint64_t key) {
  const uint32_t order = (uint32_t)(key >> 32);
  if (order >= 0xFF800000u) return NAN;
  const uint32_t next = order + 1, bits = next & 0x80000000u ? next & 0x7FFFFFFFu : ~next;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Puts `key` in at the root of a heap of `count` keys, the least first, and lets it sink.
CK_INLINE void top_sink_(uint64_t *heap, size_t count, size_t at, uint64_t key) {
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count) child += heap[child + 1] < heap[child];
    if (key <= heap[child]) break;
    heap[at] = heap[child];
  }
  heap[at] = key;
}

CK_INLINE float top_element_(const ck_dtype type, const void *x, size_t at) {
  float lane[VL];
  vf_store(lane, row_load_as_(type, x, at, 1));
  return lane[0];
}

// Offers elements [j, j + lanes) of x, those in `wanted`, to the heap; returns the value to beat from then on.
static __attribute__((noinline)) float top_offer_(uint64_t *heap, size_t k, vf x, uint32_t wanted, size_t j) {
  float lane[VL];
  vf_store(lane, x);
  for (; wanted; wanted &= wanted - 1) {
    const size_t l = (size_t)__builtin_ctz(wanted);
    const uint64_t key = top_key_(lane[l], j + l);
    if (key > heap[0]) top_sink_(heap, k, 0, key);
  }
  return top_above_(heap[0]);
}

CK_INLINE void top_row_(const ck_dtype type, const void *x, size_t n, uint64_t *heap, size_t k) {
  for (size_t j = 0; j < k; j++) heap[j] = top_key_(top_element_(type, x, j), j);
  for (size_t i = k / 2; i-- > 0;) top_sink_(heap, k, i, heap[i]);
  vf bar = vf_set1(top_above_(heap[0]));
  const uint32_t every = (uint32_t)((1ull << VL) - 1);
  size_t j = k;
  for (; j + 4 * VL <= n; j += 4 * VL) {
    vf v[4];
    uint32_t below[4];
    for (size_t q = 0; q < 4; q++) {
      v[q] = row_load_as_(type, x, j + q * VL, VL);
      below[q] = vf_bits(vf_lt(v[q], bar));
    }
    if ((below[0] & below[1] & below[2] & below[3]) == every) continue;
    for (size_t q = 0; q < 4; q++)
      if (below[q] != every) bar = vf_set1(top_offer_(heap, k, v[q], ~below[q] & every, j + q * VL));
  }
  for (; j < n; j += VL) {
    const size_t lanes = CK_MIN(n - j, (size_t)VL);
    const vf v = row_load_as_(type, x, j, lanes);
    const uint32_t wanted = ~vf_bits(vf_lt(v, bar)) & vf_bits(vf_first(lanes));
    if (wanted) bar = vf_set1(top_offer_(heap, k, v, wanted, j));
  }
  for (size_t count = k; count > 1; count--) {  // the least to the back: largest first
    const uint64_t least = heap[0];
    top_sink_(heap, count - 1, 0, heap[count - 1]);
    heap[count - 1] = least;
  }
}

CK_INLINE void top_rows_(const ck_dtype type, const ck_top_k *call, size_t first, size_t last, uint64_t *heap) {
  for (size_t i = first; i < last; i++) {
    const char *x = (const char *)call->x + i * call->x_rs * ck_dtype_size(type);  // [n]
    char *values = (char *)call->values + i * call->values_rs * ck_dtype_size(call->value_type);
    int32_t *indices = call->indices + i * call->k;
    top_row_(type, x, call->n, heap, call->k);
    for (size_t j = 0; j < call->k; j++) {
      indices[j] = (int32_t)top_index_(heap[j]);
      row_store_as_(call->value_type, values, j, row_load_as_(type, x, top_index_(heap[j]), 1), 1);
    }
  }
}
void CK_NAME(f32_top_k)(const ck_top_k *call, size_t first, size_t last, uint64_t *heap) {
  if (call->k) CK_WITH_DTYPE(call->x_type, top_rows_, call, first, last, heap);
}

// Rows `sources` [count] of x, weighted, onto `vectors` vectors of a row of y from `column` on, the last vector `lanes` wide.
CK_INLINE void scatter_columns_(const ck_dtype type, const size_t vectors, const ck_scatter_add *call, const int32_t *sources,
                                size_t count, void *y, size_t column, size_t lanes) {
  vf sum[4];
  for (size_t v = 0; v < vectors; v++) sum[v] = row_load_as_(call->y_type, y, column + v * VL, v + 1 < vectors ? VL : lanes);
  for (size_t s = 0; s < count; s++) {
    const size_t row = (size_t)sources[s];
    const vf weight = vf_set1(call->weights ? call->weights[row] : 1);
    for (size_t v = 0; v < vectors; v++) {
      const vf x = row_load_as_(type, call->x, row * call->x_rs + column + v * VL, v + 1 < vectors ? VL : lanes);
      sum[v] = vf_fma(weight, x, sum[v]);
    }
  }
  for (size_t v = 0; v < vectors; v++) row_store_as_(call->y_type, y, column + v * VL, sum[v], v + 1 < vectors ? VL : lanes);
}

CK_INLINE void scatter_rows_(const ck_dtype type, const ck_scatter_add *call, const ck_scatter_piece *piece) {
  const size_t end = piece->column + piece->columns;
  for (size_t i = piece->first; i < piece->last; i++) {
    const size_t count = (size_t)(piece->offsets[i + 1] - piece->offsets[i]);
    if (!count) continue;
    const int32_t *from = piece->sources + piece->offsets[i];
    char *y = (char *)call->y + i * call->y_rs * ck_dtype_size(call->y_type);
    size_t j = piece->column;
    for (; j + 4 * VL <= end; j += 4 * VL) scatter_columns_(type, 4, call, from, count, y, j, VL);
    for (; j < end; j += VL) scatter_columns_(type, 1, call, from, count, y, j, CK_MIN(end - j, (size_t)VL));
  }
}
void CK_NAME(f32_scatter_add)(const ck_scatter_add *call, const ck_scatter_piece *piece) {
  CK_WITH_DTYPE(call->x_type, scatter_rows_, call, piece);
}

// GEMM in tiles of bf16 pieces: packing, and C by 2 x 2 tiles. Loop order: columns of C 32 at a time, k, pieces.
// An element's sum depends on its K slice alone: pieces and k run in one order, in blocks of any size.

typedef struct tile_span_ {
  vf least, most, bad;
} tile_span_;

CK_INLINE void tile_see_(tile_span_ *span, vf x) {
  const vf size = vf_abs(x);
  span->least = vf_min(vf_select(vf_lt(vf_zero(), size), size, vf_set1(INFINITY)), span->least);
  span->most = vf_max(size, span->most);
  span->bad = vf_fma(x, vf_zero(), span->bad);  // 0, or NaN from the first that is not finite on
}

CK_INLINE ck_tile_range tile_seen_(const tile_span_ *span) {
  const float bad = vf_reduce_add(span->bad);
  const float least = -vf_reduce_max(vf_sub(vf_zero(), span->least));
  return (ck_tile_range){least, bad == 0 ? vf_reduce_max(span->most) : INFINITY};
}

CK_INLINE tile_span_ tile_nothing_(void) { return (tile_span_){vf_set1(INFINITY), vf_zero(), vf_zero()}; }

// VL elements as pieces so far apart: each the nearest bf16 to what the pieces before it leave.
CK_INLINE void tile_cut_(size_t pieces, size_t apart, vf x, uint16_t *to) {
  for (size_t piece = 0; piece < pieces; piece++, to += apart) {
    vf_store_bf16(to, x);
    x = vf_sub(x, vf_load_bf16(to));
  }
}

// Row r of 16, k steps of 32: elements beyond k are zeros, as is a row that is not there.
CK_INLINE void tile_pack_row_(const ck_dtype type, const ck_tile_pack *p, size_t i, tile_span_ *span) {
  const size_t steps = ck_tile_steps(p->k), row = p->pieces * CK_TILE_ELEMENTS;
  uint16_t *to = p->tiles + i / 16 * steps * row + i % 16 * CK_TILE_STEP;
  const size_t k = i < p->count ? p->k : 0;
  for (size_t step = 0; step < steps; step++, to += row)
    for (size_t v = 0; v < CK_TILE_STEP; v += VL) {
      const size_t at = step * CK_TILE_STEP + v;
      const vf x = at < k ? row_load_as_(type, p->x, i * p->rs + at, CK_MIN(k - at, (size_t)VL)) : vf_zero();
      tile_see_(span, x);
      tile_cut_(p->pieces, CK_TILE_ELEMENTS, x, to + v);
    }
}

// The range of bf16 elements by their bits, which the compiler takes a vector at a time.
CK_INLINE ck_tile_range tile_range_bf16_(size_t n, const uint16_t *x) {
  uint16_t most = 0, least = UINT16_MAX;  // the least that is not 0, less one
  for (size_t i = 0; i < n; i++) {
    const uint16_t size = x[i] & 0x7FFF, before = (uint16_t)(size - 1);
    most = size > most ? size : most, least = before < least ? before : least;
  }
  return (ck_tile_range){least < UINT16_MAX ? ck_float_((least + 1u) << 16) : INFINITY,
                         most < 0x7F80 ? ck_float_((uint32_t)most << 16) : INFINITY};
}

// The same of tiles of A as they lie: all rows of a tile are seen a vector at a time.
CK_INLINE ck_tile_range tile_range_at_(const ck_tile_pack *p) {
  typedef uint16_t words __attribute__((vector_size(CK_TILE_STEP * sizeof(uint16_t))));
  words most = {0}, least = ~most;
  for (size_t tile = 0; tile < p->count / 16 * (p->k / CK_TILE_STEP); tile++)
    for (size_t r = 0; r < 16; r++) {
      words x;
      memcpy(&x, p->at[tile] + r * p->rs, sizeof x);
      x &= 0x7FFF;
      most = __builtin_elementwise_max(most, x), least = __builtin_elementwise_min(least, (words)(x - 1));
    }
  uint16_t sizes[2 * CK_TILE_STEP];  // the least are those that are not 0
  for (size_t i = 0; i < CK_TILE_STEP; i++) sizes[i] = most[i], sizes[CK_TILE_STEP + i] = (uint16_t)(least[i] + 1);
  return tile_range_bf16_(2 * CK_TILE_STEP, sizes);
}

// A row of bf16 as it is, 64 bytes a step.
CK_INLINE void tile_copy_row_(const ck_tile_pack *p, size_t i) {
  enum { BYTES = CK_TILE_STEP * sizeof(uint16_t) };
  const size_t steps = ck_tile_steps(p->k), k = i < p->count ? p->k : 0;
  const uint16_t *from = (const uint16_t *)p->x + (k ? i * p->rs : 0);
  uint16_t *to = p->tiles + i / 16 * steps * CK_TILE_ELEMENTS + i % 16 * CK_TILE_STEP;
  size_t at = 0;
  for (; at + CK_TILE_STEP <= k; at += CK_TILE_STEP, to += CK_TILE_ELEMENTS) memcpy(to, from + at, BYTES);
  for (; at < steps * CK_TILE_STEP; at += CK_TILE_STEP, to += CK_TILE_ELEMENTS) {
    memset(to, 0, BYTES);
    if (at < k) memcpy(to, from + at, (k - at) * sizeof *to);
  }
}

CK_INLINE void tile_pack_a_(const ck_dtype type, const ck_tile_pack *p) {
  enum { HALF = CK_TILE_EDGE / 2 };
  const size_t strip = ck_tile_panel(p->k, 1) / 2;
  for (size_t i = 0; i < p->count; i += CK_TILE_EDGE) {
    const size_t rows = p->count - i > HALF ? CK_TILE_EDGE : HALF;
    tile_span_ span = tile_nothing_();
    for (size_t r = 0; r < rows; r++)
      if (type == CK_BF16 && p->pieces == 1)
        tile_copy_row_(p, i + r);
      else
        tile_pack_row_(type, p, i + r, &span);
    if (type == CK_BF16 && p->pieces == 1)
      p->ranges[i / CK_TILE_EDGE] = tile_range_bf16_(rows / HALF * strip, p->tiles + i / HALF * strip);
    else
      p->ranges[i / CK_TILE_EDGE] = tile_seen_(&span);
  }
}
void CK_NAME(bf16_tile_pack_a)(const ck_tile_pack *p) {
  if (p->at)
    *p->ranges = tile_range_at_(p);
  else
    CK_WITH_DTYPE(p->type, tile_pack_a_, p);
}

// Row q of B from column j on; zeros beyond B.
CK_INLINE vf tile_row_of_b_(const ck_dtype type, const ck_tile_pack *p, size_t q, size_t j) {
  if (q >= p->k || j >= p->count) return vf_zero();
  const size_t at = p->panel ? j / GEMM_NR * p->panel + q * GEMM_NR + j % GEMM_NR : q * p->rs + j;
  return row_load_as_(type, p->x, at, CK_MIN(p->count - j, (size_t)VL));
}

// Rows q and q + 1; q is even.
CK_INLINE void tile_pair_of_b_(const ck_dtype type, const ck_tile_pack *p, size_t q, size_t j, vf *even, vf *odd) {
  if (type == CK_BF16 && p->panel && q + 1 < p->k && j < p->count)
    vf_load_2_bf16((const uint16_t *)p->x + j / GEMM_NR * p->panel + q * GEMM_NR + j % GEMM_NR * 2, even, odd);
  else
    *even = tile_row_of_b_(type, p, q, j), *odd = tile_row_of_b_(type, p, q + 1, j);
}

#define TILE_PAIRS_ (2 * CK_TILE_ELEMENTS)  // elements of a step of B: 16 pairs of rows of CK_TILE_EDGE columns

// CK_TILE_EDGE columns from j on as tiles: pairs of rows, their elements in turn.
CK_INLINE void tile_pack_columns_(const ck_dtype type, const ck_tile_pack *p, size_t j, tile_span_ *span) {
  const size_t steps = ck_tile_steps(p->k), depth = p->pieces * TILE_PAIRS_;
  uint16_t *to = p->tiles + j / CK_TILE_EDGE * steps * depth;
  for (size_t step = 0; step < steps; step++, to += depth)
    for (size_t pair = 0; pair < CK_TILE_STEP / 2; pair++)
      for (size_t v = 0; v < CK_TILE_EDGE; v += VL) {
        uint16_t *place = to + 2 * (pair * CK_TILE_EDGE + v);
        vf even, odd, first, second;
        tile_pair_of_b_(type, p, step * CK_TILE_STEP + 2 * pair, j + v, &even, &odd);
        tile_see_(span, even), tile_see_(span, odd);
        if (!p->pieces) continue;
        vf_zip(even, odd, &first, &second);
        tile_cut_(p->pieces, TILE_PAIRS_, first, place);
        tile_cut_(p->pieces, TILE_PAIRS_, second, place + VL);
      }
}

#ifdef VI_ZIP16
// The same of bf16 as it is, in rows of one vector each.
CK_INLINE void tile_zip_columns_(const ck_tile_pack *p, size_t j) {
  const size_t depth = ck_tile_steps(p->k) * CK_TILE_STEP;
  const uint16_t *row = (const uint16_t *)p->x + j;
  uint16_t *to = p->tiles + j * depth;
  for (size_t q = 0; q < depth; q += 2, row += 2 * p->rs) {
    vi left, right;
    vi_zip16(q < p->k ? vi_load(row) : vi_set1(0), q + 1 < p->k ? vi_load(row + p->rs) : vi_set1(0), &left, &right);
    vi_store(to + q * CK_TILE_EDGE, left), vi_store(to + (q + 1) * CK_TILE_EDGE, right);
  }
  p->ranges[j / CK_TILE_EDGE] = tile_range_bf16_(depth * CK_TILE_EDGE, to);
}
#endif

CK_INLINE void tile_pack_b_(const ck_dtype type, const ck_tile_pack *p) {
  if (type == CK_BF16 && !p->pieces && p->panel && GEMM_NR == CK_TILE_EDGE) {
    for (size_t j = 0; j < p->count; j += CK_TILE_EDGE)
      p->ranges[j / CK_TILE_EDGE] = tile_range_bf16_(p->k * GEMM_NR, (const uint16_t *)p->x + j / GEMM_NR * p->panel);
    return;
  }
  for (size_t j = 0; j < p->count; j += CK_TILE_EDGE) {
#ifdef VI_ZIP16
    if (type == CK_BF16 && p->pieces == 1 && !p->panel && j + CK_TILE_EDGE <= p->count) {
      tile_zip_columns_(p, j);
      continue;
    }
#endif
    tile_span_ span = tile_nothing_();
    tile_pack_columns_(type, p, j, &span);
    p->ranges[j / CK_TILE_EDGE] = tile_seen_(&span);
  }
}
void CK_NAME(bf16_tile_pack_b)(const ck_tile_pack *p) { CK_WITH_DTYPE(p->type, tile_pack_b_, p); }

// Tiles 0 ... 3 are C, row by row; 4 and 5 A; 6 and 7 B.
#define TILE_A_ 4
#define TILE_B_ 6

// How many pieces of B meet piece i of A, and which is the c-th: rows of products follow each other with one piece of B kept
// between them, and the largest product, (0, 0), is the last.
CK_INLINE size_t tile_partners_(const size_t b_pieces, const size_t order, const size_t i) {
  return CK_MIN(b_pieces, order + 1 - i);
}
CK_INLINE size_t tile_partner_(const size_t a_pieces, const size_t b_pieces, const size_t order, const size_t i, const size_t c) {
  const size_t count = tile_partners_(b_pieces, order, i);
  if (i) return c;
  const int kept_1 = a_pieces > 1 && tile_partners_(b_pieces, order, 1) == 2;
  return c == count - 1 ? 0 : count == 3 && kept_1 ? c + 1 : count - 1 - c;
}

// One step of k: every product of pieces, for `rows` tiles of rows, a and the one below it, by two of columns.
CK_INLINE void tile_step_(tile_file *file, const size_t rows, const size_t a_pieces, const size_t b_pieces, const size_t order,
                          const uint16_t *a, const uint16_t *below, size_t a_rs, const uint16_t *b) {
  (void)file;
  size_t held = CK_TILE_MOST_PIECES;
#pragma clang loop unroll(full)
  for (size_t piece = 0; piece < a_pieces; piece++) {
    const size_t i = a_pieces - 1 - piece;
    tile_load(file, TILE_A_, a + i * CK_TILE_ELEMENTS, a_rs * sizeof *a);
    if (rows > 1) tile_load(file, TILE_A_ + 1, below + i * CK_TILE_ELEMENTS, a_rs * sizeof *a);
#pragma clang loop unroll(full)
    for (size_t c = 0; c < tile_partners_(b_pieces, order, i); c++) {
      const size_t j = tile_partner_(a_pieces, b_pieces, order, i, c);
      if (j != held) {
        tile_load(file, TILE_B_, b + j * TILE_PAIRS_, 4 * CK_TILE_EDGE);
        tile_load(file, TILE_B_ + 1, b + j * TILE_PAIRS_ + CK_TILE_EDGE, 4 * CK_TILE_EDGE);
      }
      held = j;
      tile_dot_bf16(file, 0, TILE_A_, TILE_B_);
      tile_dot_bf16(file, 1, TILE_A_, TILE_B_ + 1);
      if (rows > 1) {
        tile_dot_bf16(file, 2, TILE_A_ + 1, TILE_B_);
        tile_dot_bf16(file, 3, TILE_A_ + 1, TILE_B_ + 1);
      }
    }
  }
}

CK_INLINE void tile_clear_(tile_file *file, const size_t rows) {
  (void)file;
  tile_zero(file, 0);
  tile_zero(file, 1);
  if (rows > 1) {
    tile_zero(file, 2);
    tile_zero(file, 3);
  }
}

// C to [rows * 16, 32], rows `stride` bytes apart.
CK_INLINE void tile_spill_(tile_file *file, const size_t rows, void *to, size_t stride) {
  (void)file;
  tile_store(file, 0, to, stride);
  tile_store(file, 1, (char *)to + 64, stride);
  if (rows > 1) {
    tile_store(file, 2, (char *)to + 16 * stride, stride);
    tile_store(file, 3, (char *)to + 16 * stride + 64, stride);
  }
}

// Fetches the share of what follows in A that falls to the columns from j on.
CK_INLINE void tile_fetch_(const ck_tile_block *t, size_t j) {
  const size_t columns = (t->block->n + CK_TILE_EDGE - 1) / CK_TILE_EDGE, lines = t->next ? t->next_rows * t->next_lines : 0;
  const size_t column = j / CK_TILE_EDGE, last = (column + 1) * lines / columns;
  for (size_t line = column * lines / columns; line < last; line++)
    __builtin_prefetch((const char *)t->next + line / t->next_lines * t->next_rs + line % t->next_lines * 64, 0, 2);
}

// What is left of a panel of packed weights after its whole steps, as one more: `k` rows, at b, and zeros.
CK_INLINE void tile_rest_(size_t k, const uint16_t *b, uint16_t *rest) {
  const size_t even = k / 2 * 2 * CK_TILE_EDGE;
  memset(rest, 0, TILE_PAIRS_ * sizeof *rest);
  memcpy(rest, b, even * sizeof *rest);
  for (size_t j = 0; k % 2 && j < CK_TILE_EDGE; j++) rest[even + 2 * j] = b[even + j];
}

// Whole steps of B's columns; a short one comes after them.
CK_INLINE size_t tile_whole_(const ck_tile_block *t) {
  return t->b_packed ? t->block->k / CK_TILE_STEP : ck_tile_steps(t->block->k);
}

CK_INLINE void tile_ahead_(const uint16_t *b, const size_t bytes) {
#pragma clang loop unroll(full)
  for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch((const char *)b + GEMM_AHEAD_ + line);
}

// Tile `step` of half `half` of A's rows, and how far its rows are apart.
CK_INLINE const uint16_t *tile_of_a_(const ck_tile_block *t, const size_t pieces, size_t half, size_t step) {
  const size_t tile = half * ck_tile_steps(t->block->k) + step;
  return t->a_at ? t->a_at[tile] : t->a + tile * pieces * CK_TILE_ELEMENTS;
}
CK_INLINE size_t tile_rows_apart_(const ck_tile_block *t, const int placed) { return placed ? t->a_rs : CK_TILE_STEP; }

// `rows` tiles of rows by every column of the block; all but the block are constants.
CK_INLINE void tile_rows_(const size_t rows, const size_t a_pieces, const size_t b_pieces, const size_t order,
                          const ck_tile_block *t) {
  const ck_gemm_block *g = t->block;
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  const size_t steps = ck_tile_steps(g->k), whole = tile_whole_(t), a_rs = tile_rows_apart_(t, t->a_at != 0);
  _Alignas(64) float sums[CK_TILE_EDGE * CK_TILE_EDGE];
  _Alignas(64) uint16_t rest[TILE_PAIRS_];
  tile_file file;
  tile_begin(&file);
  for (size_t j = 0; j < g->n; j += CK_TILE_EDGE) {
    const uint16_t *b = t->b + j / CK_TILE_EDGE * t->b_panel;
    tile_clear_(&file, rows);
    tile_fetch_(t, j);
#pragma clang loop unroll(disable)
    for (size_t step = 0; step < steps; step++, b += b_pieces * TILE_PAIRS_) {
      const uint16_t *a = tile_of_a_(t, a_pieces, 0, step), *below = rows > 1 ? tile_of_a_(t, a_pieces, 1, step) : 0;
      if (t->ahead) tile_ahead_(b, TILE_PAIRS_ * sizeof *b);
      if (step == whole) tile_rest_(g->k % CK_TILE_STEP, b, rest);
      tile_step_(&file, rows, a_pieces, b_pieces, order, a, below, a_rs, step == whole ? rest : b);
    }
    if (leave == GEMM_STORE_ && g->m == rows * 16 && j + CK_TILE_EDGE <= g->n) {
      tile_spill_(&file, rows, g->c + j, g->c_rs * sizeof(float));
    } else {
      tile_spill_(&file, rows, sums, sizeof(float) * CK_TILE_EDGE);
      gemm_finish_(g, 0, j, g->m, CK_MIN(g->n - j, (size_t)CK_TILE_EDGE), sums, CK_TILE_EDGE);
    }
  }
  tile_end(&file);
}

#if TILES_PAY == CK_TILES_DOT
// One piece by one: 8 rows by 32 columns at a time. Rows beyond the block are zeros.
CK_INLINE void tile_dots_(const int ahead, const int placed, const ck_tile_block *t) {
  enum { ROWS = 8, VECTORS = CK_TILE_EDGE / VL, SUMS = ROWS * VECTORS };
  const ck_gemm_block *g = t->block;
  const enum gemm_exit_ leave = gemm_exit_of_(g);
  const size_t steps = ck_tile_steps(g->k), whole = tile_whole_(t), a_rs = tile_rows_apart_(t, placed);
  _Alignas(64) uint16_t rest[TILE_PAIRS_];
  for (size_t j = 0; j < g->n; j += CK_TILE_EDGE) {
    const uint16_t *panel = t->b + j / CK_TILE_EDGE * t->b_panel;
    if (whole < steps) tile_rest_(g->k % CK_TILE_STEP, panel + whole * TILE_PAIRS_, rest);
    tile_fetch_(t, j);
    for (size_t i = 0; i < g->m; i += ROWS) {
      vf acc[SUMS];
#pragma clang loop unroll(full)
      for (size_t s = 0; s < SUMS; s++) acc[s] = vf_zero();
      for (size_t r = i; r < CK_MIN(i + ROWS, g->m); r++) {
        __builtin_prefetch(gemm_place_(g, r, j), 1);
        __builtin_prefetch(gemm_place_(g, r, j + 16), 1);
      }
      for (size_t step = 0; step < steps; step++) {
        const uint16_t *a = tile_of_a_(t, 1, i / 16, step) + i % 16 * a_rs;
        const uint16_t *b = step < whole ? panel + step * TILE_PAIRS_ : rest;
#pragma clang loop unroll(disable)
        for (size_t q = 0; q < CK_TILE_STEP; q += 2, b += 2 * CK_TILE_EDGE) {
          if (ahead && !i) tile_ahead_(b, 4 * CK_TILE_EDGE);
          const vi left = vi_load(b), right = vi_load(b + CK_TILE_EDGE);
#pragma clang loop unroll(full)
          for (size_t r = 0; r < ROWS; r++) {
            int32_t two;
            memcpy(&two, a + r * a_rs + q, sizeof two);
            acc[2 * r] = vf_dot_bf16(acc[2 * r], left, vi_set1(two));
            acc[2 * r + 1] = vf_dot_bf16(acc[2 * r + 1], right, vi_set1(two));
          }
        }
      }
      if (i + ROWS <= g->m) {
        gemm_leave_(ROWS, VECTORS, g, i, j, leave, acc);
      } else {
        _Alignas(64) float sums[SUMS * VL];
#pragma clang loop unroll(full)
        for (size_t s = 0; s < SUMS; s++) vf_store(sums + s * VL, acc[s]);
        gemm_finish_(g, i, j, g->m - i, CK_MIN(g->n - j, (size_t)CK_TILE_EDGE), sums, CK_TILE_EDGE);
      }
    }
  }
}
#endif

// Every number of pieces has its own loop: types of 8, 11 and 24 bits at f32's accuracy, then two pieces at most, then one.
void CK_NAME(f32_tile_block)(const ck_tile_block *t) {
#if TILES_PAY == CK_TILES_DOT
  if (t->a_pieces == 1 && t->b_pieces == 1) {
    if (t->ahead && !t->a_at)
      tile_dots_(1, 0, t);
    else if (t->a_at)
      tile_dots_(0, 1, t);
    else
      tile_dots_(0, 0, t);
    return;
  }
#endif
#define TILE_CASE_(a_pieces, b_pieces, order)      \
  case (order) * 16 + (a_pieces) * 4 + (b_pieces): \
    if (t->block->m > 16)                          \
      tile_rows_(2, a_pieces, b_pieces, order, t); \
    else                                           \
      tile_rows_(1, a_pieces, b_pieces, order, t); \
    break;
  switch (t->order * 16 + t->a_pieces * 4 + t->b_pieces) {
    TILE_CASE_(1, 1, 2)
    TILE_CASE_(1, 2, 2)
    TILE_CASE_(1, 3, 2)
    TILE_CASE_(2, 1, 2)
    TILE_CASE_(2, 2, 2)
    TILE_CASE_(2, 3, 2)
    TILE_CASE_(3, 1, 2)
    TILE_CASE_(3, 2, 2)
    TILE_CASE_(3, 3, 2)
    TILE_CASE_(1, 1, 1)
    TILE_CASE_(1, 2, 1)
    TILE_CASE_(2, 1, 1)
    TILE_CASE_(2, 2, 1)
    default:
      if (t->block->m > 16)
        tile_rows_(2, 1, 1, 0, t);
      else
        tile_rows_(1, 1, 1, 0, t);
  }
#undef TILE_CASE_
}

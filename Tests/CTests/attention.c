// Attention: the block kernel and the ragged driver.
#include <stdlib.h>

#include "definitions.h"

// One head: rows of q from q0 on at column q_at, and so on for k, v and o. Row i stands at position + i * step among the keys.
typedef struct head {
  const operand *q, *k, *v, *o;
  const operand *k_scales, *v_scales;  // [1, ...] of codes, or NULL: row j at scale0 + k0 + j
  size_t scale0;
  size_t q0, q_at, k0, k_at, rows, kv_rows, d;
  double scale, cap;
  ptrdiff_t position, step;
  size_t before, after, first;
  ck_attention_pattern pattern;
  size_t pattern0;  // block row of row 0
  const operand *mask;
  size_t mask0, mask_step;  // row of the mask for row 0, and rows of it from row to row
  const operand *slopes, *sinks;  // [1, ...]
  size_t head0, head_step;        // of both: column of row 0, and columns from row to row
  const operand *lse;
  size_t lse_at;  // column; rows are those of q
} head;

static int listed(const head *h, size_t i, size_t j) {
  const ck_attention_pattern *p = &h->pattern;
  if (!p->keys) return 1;
  const int32_t *offsets = p->offsets + h->pattern0 + i / p->queries, column = (int32_t)(j / p->keys);
  int32_t low = offsets[0], high = offsets[1];
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (p->columns[middle] < column)
      low = middle + 1;
    else
      high = middle;
  }
  return low < offsets[1] && p->columns[low] == column;
}

static int sees(const head *h, size_t i, size_t j) {
  if (j < h->first || !listed(h, i, j)) return 0;
  const ptrdiff_t away = (ptrdiff_t)j - h->position - (ptrdiff_t)i * h->step;
  return (h->before == CK_EVERY_KEY || -away <= (ptrdiff_t)h->before) &&
         (h->after == CK_EVERY_KEY || away <= (ptrdiff_t)h->after);
}

static double by_scale(const head *h, const operand *scales, size_t j) {
  return scales ? element(scales, 0, h->scale0 + h->k0 + j) : 1;
}
static double key(const head *h, size_t j, size_t c) {
  return element(h->k, h->k0 + j, h->k_at + c) * by_scale(h, h->k_scales, j);
}
static double value(const head *h, size_t j, size_t c) {
  return element(h->v, h->k0 + j, h->k_at + c) * by_scale(h, h->v_scales, j);
}

// Of query i and key j; `error` becomes what it may be off by.
static double score(const head *h, size_t i, size_t j, double *error) {
  double sum = 0, magnitude = 0;
  for (size_t c = 0; c < h->d; c++) {
    const double product = element(h->q, h->q0 + i, h->q_at + c) * key(h, j, c);
    sum += h->scale * product, magnitude += fabs(h->scale * product);
  }
  const double slope = h->slopes ? element(h->slopes, 0, h->head0 + i * h->head_step) : 0;
  const double away = slope * fabs((double)((ptrdiff_t)j - h->position - (ptrdiff_t)i * h->step));
  const double mask = h->mask ? element(h->mask, h->mask0 + i * h->mask_step, j) : 0;
  *error = (gamma_of((double)h->d + 3 + (h->k_scales != 0)) + (h->cap != 0 ? 10 : 2) * U) * magnitude + 2 * U * fabs(away);
  if (isfinite(mask)) *error += 2 * U * fabs(mask);
  return (h->cap != 0 ? h->cap * tanh(sum / h->cap) : sum) - away + mask;
}

// e (1 + e) sum p |v| / sum p, e twice the error of a score and the roundings of the sums: the bounds of docs/accuracy.md.
static void compare_row(test *t, const head *h, size_t i, double *p) {
  const double sink = h->sinks ? element(h->sinks, 0, h->head0 + i * h->head_step) : -INFINITY;
  double top = sink, total = 0, score_error = 0, keys = h->sinks != 0, runs = 0;
  for (size_t j = 0; j < h->kv_rows; j++) {
    if (!sees(h, i, j)) continue;
    double error;
    runs += !j || !sees(h, i, j - 1);  // each rescales once more
    p[j] = score(h, i, j, &error);
    top = MAX(top, p[j]), score_error = MAX(score_error, error), keys++;
  }
  for (size_t j = 0; j < h->kv_rows; j++) {
    p[j] = top == -INFINITY || !sees(h, i, j) ? 0 : exp(p[j] - top);
    total += p[j];
  }
  const int weighs = total > 0;
  total += sink > -INFINITY ? exp(sink - top) : 0;
  // Weights rounded to bf16, and what is below the normal range flushed, where tables have products of bf16.
  const int narrow =
      t->table->tiles && h->q->type == CK_BF16 && h->k->type == CK_BF16 && h->v->type == CK_BF16 && h->o->type == CK_BF16;
  const double e = 2 * score_error + gamma_of(2 * keys + 3 * (keys / 32 + runs) + 12 + (h->v_scales != 0)) +
                   (narrow ? 0x1p-8 : 0),
               by = total > 0 ? 1 / total : 0, least = 0x1p-125 + (narrow ? keys * 0x1p-126 : 0);
  for (size_t c = 0; c < h->d; c++) {
    double sum = 0, magnitude = 0;
    for (size_t j = 0; total > 0 && j < h->kv_rows; j++) {
      if (!sees(h, i, j)) continue;  // what it holds has no effect, NaN included
      const double product = p[j] * value(h, j, c);
      sum += product, magnitude += fabs(product);
    }
    check_element(t, h->o, h->q0 + i, h->q_at + c, sum * by, e * (1 + e) * magnitude * by + (weighs ? least : 0));
  }
  const double lse = total > 0 ? top + log(total) : -INFINITY;
  if (h->lse) check_element(t, h->lse, h->q0 + i, h->lse_at, lse, e + 2 * U * (log(MAX(keys, 1)) + fabs(lse)));
}

static void compare(test *t, const head *h) {
  double *p = malloc((h->kv_rows + 1) * sizeof *p);
  for (size_t i = 0; i < h->rows; i++) compare_row(t, h, i, p);
  free(p);
}

static operand *rows_of(test *t, ck_dtype type, size_t rows, size_t n) { return matrix(t, type, rows, n, stride_for(t, n), 2); }

// A mask with hidden keys; in some rows all are hidden.
static operand *mask_of(test *t, ck_dtype type, size_t rows, size_t keys) {
  operand *mask = rows_of(t, type, rows, keys);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < keys; j++)
      if ((i + j) % 5 == 1 || i % 7 == 3) set_element(mask, i, j, -INFINITY);
  return mask;
}

// Sinks, of which some weigh nothing.
static operand *sinks_of(test *t, size_t count) {
  operand *sinks = vector(t, count, 2);
  for (size_t i = 0; i < count; i++)
    if (one_in(t, 4)) set_element(sinks, 0, i, -INFINITY);
  return sinks;
}

// What a case uses, bit by bit.
enum { MASK = 1, WINDOW = 2, CAP = 4, SLOPES = 8, LSE = 16, TYPED = 32, SINKS = 64, STYLES = 128, BLOCKS = 128, NARROW = 256 };

static size_t style_of(test *t, size_t style) {
  return style | (one_in(t, 2) ? BLOCKS : 0) | (style & TYPED && one_in(t, 2) ? NARROW : 0);
}

// Runs of blocks here and there, one pattern for all heads or one for each, which may cover more than there is.
static ck_attention_pattern pattern_of(test *t, size_t heads, size_t rows, size_t keys) {
  static const size_t sizes[] = {1, 3, 16, 50, 128, 200};
  ck_attention_pattern p = {.queries = sizes[random_below(t, COUNT(sizes))], .keys = sizes[random_below(t, COUNT(sizes))]};
  const size_t down = (rows + p.queries - 1) / p.queries + random_below(t, 2), all = one_in(t, 2) ? 1 : heads;
  const size_t across = (keys + p.keys - 1) / p.keys + random_below(t, 2), of = 1 + random_below(t, 5);
  p.hs = all > 1 ? down : 0;
  int32_t *offsets = indices(t, all * down + 1), count = 0;
  char *kept = malloc(all * down * across + 1);
  for (size_t k = 0; k < all * down * across; k++) {
    kept[k] = one_in(t, of) || (k % across && kept[k - 1] && one_in(t, 2));
    count += kept[k], offsets[k / across + 1] = count;
  }
  int32_t *columns = indices(t, (size_t)count), *next = columns;
  for (size_t k = 0; k < all * down * across; k++)
    if (kept[k]) *next++ = (int32_t)(k % across);
  free(kept);
  p.offsets = offsets, p.columns = columns;
  return p;
}

static ck_dtype type_of(test *t, size_t style) { return style & NARROW ? CK_BF16 : style & TYPED ? any_type(t) : CK_F32; }

// Keys or values: at times codes, whose scales then follow.
static operand *cached_of(test *t, size_t style, size_t rows, size_t n, size_t scales, operand **scale) {
  *scale = 0;
  if (!(style & TYPED) || style & NARROW || !one_in(t, 3)) return rows_of(t, type_of(t, style), rows, n);
  operand *codes = matrix(t, CK_I8, rows, n, stride_for(t, n), 127);
  *scale = vector(t, scales, 2. / 127);
  return codes;
}

// Makes row j of a head's values, or keys, something that no sum survives.
static void spoil(test *t, const operand *codes, const operand *scale, size_t j, size_t at, size_t n) {
  if (scale)
    set_element(scale, 0, at + j, NAN);
  else
    set_element(codes, j, random_below(t, n), NAN);
}

static size_t reach(test *t, size_t style, size_t keys) {
  return style & WINDOW && !one_in(t, 4) ? random_below(t, keys / 2 + 2) : CK_EVERY_KEY;
}

// Row i of head h is row h * rows + i of its operand.
static void block_case(test *t, size_t rows, size_t heads, size_t kv_rows, size_t d, size_t style, int place) {
  situation(t, place, "rows=%zu heads=%zu keys=%zu d=%zu style=%zu place=%d", rows, heads, kv_rows, d, style, place);
  // A single query: each head is a key head, whose keys follow those of the one before.
  const ptrdiff_t step = (ptrdiff_t)random_below(t, 2);
  const size_t all = rows * heads, k_hs = step ? 0 : kv_rows, keys = step ? kv_rows : heads * kv_rows;
  operand *k_scales, *v_scales, *q = rows_of(t, type_of(t, style), all, d), *k = cached_of(t, style, keys, d, keys, &k_scales);
  operand *v = cached_of(t, style, keys, d, keys, &v_scales), *o = rows_of(t, type_of(t, style), all, d);
  const size_t mask_rows = one_in(t, 3) ? 1 : one_in(t, 2) ? rows : all;  // one for all, for every head, for each head
  operand *mask = style & MASK ? mask_of(t, type_of(t, style), mask_rows, kv_rows) : 0;
  operand *slopes = style & SLOPES ? vector(t, all, 0.25) : 0, *sinks = style & SINKS ? sinks_of(t, all) : 0;
  operand *lse = style & LSE ? rows_of(t, CK_F32, all, 1) : 0;
  o->written = 1;
  if (lse) lse->written = 1;
  head h = {.q = q, .k = k, .v = v, .o = o, .rows = rows, .kv_rows = kv_rows, .d = d, .mask = mask, .mask_step = mask_rows > 1};
  h.k_scales = k_scales, h.v_scales = v_scales;
  h.scale = (float)(1 / sqrt((double)d)), h.cap = style & CAP ? 1.5 : 0;
  h.step = step;
  h.position = (ptrdiff_t)kv_rows - (ptrdiff_t)rows + (ptrdiff_t)random_below(t, 5) - 2;
  h.before = reach(t, style, kv_rows), h.after = reach(t, style, kv_rows);
  h.slopes = slopes, h.sinks = sinks, h.head_step = 1, h.lse = lse;
  const size_t tile = (size_t)4 << random_below(t, t->table->attention_keys > 128 ? 7 : 6);
  const int whole = !(style & BLOCKS) && kv_rows <= (step ? t->table->attention_keys : tile);
  // A masked key of a tile where every one is masked has no effect, of others its NaN has: told apart where there is one tile.
  if (kv_rows && one_in(t, 3) && (whole || !(style & MASK)))
    for (size_t c = 0; c < d; c++) spoil(t, v, v_scales, random_below(t, kv_rows), 0, d);
  if (style & BLOCKS) h.pattern = pattern_of(t, 1, 1, kv_rows), h.pattern.queries = rows;
  h.first = one_in(t, 3) ? random_below(t, kv_rows + 1) : 0;
  ck_attention_block block = {.rows = rows, .heads = heads, .kv_rows = kv_rows, .head_dim = d, .scale = (float)h.scale};
  block.q = floats(q), block.q_rs = q->rs, block.q_hs = rows * q->rs, block.q_type = q->type;
  block.k = floats(k), block.k_rs = k->rs, block.k_type = k->type;
  block.v = floats(v), block.v_rs = v->rs, block.v_type = v->type;
  block.k_hs = k_hs * k->rs, block.v_hs = k_hs * v->rs, block.k_scale_hs = block.v_scale_hs = k_hs;
  block.k_scales = floats(k_scales), block.v_scales = floats(v_scales);
  block.o = floats(o), block.o_rs = o->rs, block.o_hs = rows * o->rs, block.o_type = o->type;
  block.cap = (float)h.cap, block.position = h.position, block.step = (size_t)h.step;
  block.before = h.before, block.after = h.after, block.kv_first = h.first;
  block.tile = tile;
  if (style & BLOCKS) {
    block.list = h.pattern.columns, block.listed = (size_t)h.pattern.offsets[1], block.list_keys = h.pattern.keys;
  }
  block.slope = floats(slopes), block.sink = floats(sinks), block.head_rs = 1, block.head_hs = rows;
  block.mask = floats(mask), block.mask_type = mask ? mask->type : CK_F32;
  if (mask) block.mask_rs = mask_rows > 1 ? mask->rs : 0, block.mask_hs = mask_rows == all ? rows * mask->rs : 0;
  block.lse = floats(lse);
  if (lse) block.lse_rs = lse->rs, block.lse_hs = rows * lse->rs;
  // Ends at a guard page, and is still aligned to 64 bytes.
  t->place = AT_END;
  const size_t scratch = ck_attention_scratch(t->table, rows, heads, d, (style & TYPED) != 0);
  operand *room = vector(t, (scratch + 15) / 16 * 16, 1);
  room->written = 1;
  block.scratch = floats(room);
  seal(t);
  t->table->f32_attention_block(&block);
  check_untouched(t);
  for (size_t head = 0; head < heads; head++) {
    h.k0 = head * k_hs;
    h.q0 = head * rows, h.head0 = head * rows, h.mask0 = mask_rows == all ? head * rows : 0;
    compare(t, &h);
  }
}

void check_attention_block(test *t) {
  const size_t keys[] = {0, 1, 5, 31, 127, 128, 129, 300}, sizes[] = {1, 8, 17, 32, 33, 64};
  for (size_t style = 0; style < STYLES; style++) {
    for (size_t rows = 1; rows <= 2 * t->table->gemm_mr + 1; rows++) {
      const size_t kv_rows = keys[random_below(t, COUNT(keys))], d = sizes[random_below(t, COUNT(sizes))];
      block_case(t, rows, 1 + random_below(t, 3), kv_rows, d, style_of(t, style), any_place(t));
    }
    for (size_t k = 0; k < COUNT(keys); k++)
      block_case(t, 3, 1 + k % 2, keys[k], sizes[k % COUNT(sizes)], style_of(t, style), AT_END);
    block_case(t, 5 * t->table->gemm_mr + 1, 1, 140, 48, style_of(t, style), AT_END);  // enough rows to pack the values
  }
}

// Parts of random states, put together in double.
void check_attention_merge(test *t) {
  for (size_t repeat = 0; repeat < 300; repeat++) {
    const size_t parts = 1 + random_below(t, CK_ATTENTION_PARTS), rows = 1 + random_below(t, 6), d = random_below(t, 70);
    situation(t, any_place(t), "parts=%zu rows=%zu d=%zu", parts, rows, d);
    operand *sums = matrix(t, CK_F32, parts * rows, d, d, 3), *states = matrix(t, CK_F32, parts * rows, 2, 2, 9);
    operand *o = rows_of(t, any_type(t), rows, d), *lse = one_in(t, 2) ? rows_of(t, CK_F32, rows, 1) : 0;
    o->written = 1;
    if (lse) lse->written = 1;
    const size_t empty = random_below(t, 4) ? rows : random_below(t, rows);  // a row that sees no key
    for (size_t k = 0; k < parts * rows; k++) {
      const int none = k % rows == empty || (k / rows && one_in(t, 4));
      set_element(states, k, 1, none ? 0 : 1 + fabs(element(states, k, 1)));
      if (!none) continue;
      set_element(states, k, 0, -INFINITY);
      for (size_t c = 0; c < d; c++) set_element(sums, k, c, 0);
    }
    const ck_attention_merge call = {.parts = parts,
                                     .rows = rows,
                                     .head_dim = d,
                                     .sums = floats(sums),
                                     .states = floats(states),
                                     .o = o->at,
                                     .o_rs = o->rs,
                                     .o_type = o->type,
                                     .lse = floats(lse),
                                     .lse_rs = lse ? lse->rs : 0};
    seal(t);
    t->table->f32_attention_merge(&call);
    check_untouched(t);
    for (size_t i = 0; i < rows; i++) {
      double top = -INFINITY, total = 0;
      for (size_t p = 0; p < parts; p++) top = MAX(top, element(states, p * rows + i, 0));
      for (size_t p = 0; p < parts && top > -INFINITY; p++)
        total += exp(element(states, p * rows + i, 0) - top) * element(states, p * rows + i, 1);
      // exp is within 4 U, its argument rounds at the size of a state; then products, sums and the quotient.
      const double e = 2 * gamma_of(4 + 18 + 2 + (double)parts) + 2 * U;
      for (size_t c = 0; c < d; c++) {
        double sum = 0, magnitude = 0;
        for (size_t p = 0; p < parts && total > 0; p++) {
          const double x = exp(element(states, p * rows + i, 0) - top) * element(sums, p * rows + i, c) / total;
          sum += x, magnitude += fabs(x);
        }
        check_element(t, o, i, c, sum, e * magnitude);
      }
      if (lse) check_element(t, lse, i, 0, total > 0 ? top + log(total) : -INFINITY, e + 2 * U * (fabs(top) + 9));
    }
  }
}

typedef struct ragged_shape {
  size_t q_heads, kv_heads, d, longest, style, most_keys;
} ragged_shape;

static void ragged_case(test *t, const void *shape, size_t threads) {
  enum { SEQUENCES = 4 };
  const ragged_shape r = *(const ragged_shape *)shape;
  const size_t d = r.d, style = r.style, group = r.q_heads / r.kv_heads;
  situation(t, AT_END, "heads=%zu/%zu d=%zu style=%zu longest=%zu threads=%zu", r.q_heads, r.kv_heads, d, style, r.longest,
            threads);
  const int gaps = one_in(t, 2);  // the keys of a sequence do not fill its room
  int32_t *q_offsets = indices(t, SEQUENCES + 1), *kv_offsets = indices(t, SEQUENCES + 1), *counts = indices(t, SEQUENCES);
  size_t most_q = 0, most_keys = 0;
  for (size_t s = 0; s < SEQUENCES; s++) {
    const size_t rows = s == 0 ? r.longest : random_below(t, r.longest + 1), keys = random_below(t, r.longest + r.most_keys);
    q_offsets[s + 1] = q_offsets[s] + (int32_t)rows, kv_offsets[s + 1] = kv_offsets[s] + (int32_t)keys;
    counts[s] = (int32_t)(gaps ? random_below(t, keys + 1) : keys);
    most_q = MAX(most_q, rows), most_keys = MAX(most_keys, keys);
  }
  const size_t queries = (size_t)q_offsets[SEQUENCES], keys = (size_t)kv_offsets[SEQUENCES];
  operand *q = rows_of(t, type_of(t, style), queries, r.q_heads * d), *o = rows_of(t, type_of(t, style), queries, r.q_heads * d);
  operand *k_scales, *v_scales, *k = cached_of(t, style, keys, r.kv_heads * d, r.kv_heads * keys, &k_scales);
  operand *v = cached_of(t, style, keys, r.kv_heads * d, r.kv_heads * keys, &v_scales);
  const size_t mask_heads = one_in(t, 2) ? 1 : r.q_heads, mask_rows = mask_heads * most_q;  // of a sequence
  operand *mask = style & MASK ? mask_of(t, type_of(t, style), SEQUENCES * mask_rows, most_keys) : 0;
  operand *slopes = style & SLOPES ? vector(t, r.q_heads, 0.25) : 0, *sinks = style & SINKS ? sinks_of(t, r.q_heads) : 0;
  operand *lse = style & LSE ? rows_of(t, CK_F32, queries, r.q_heads) : 0;
  o->written = 1;
  if (lse) lse->written = 1;
  for (size_t s = 0; s < SEQUENCES; s++)
    for (size_t j = (size_t)(kv_offsets[s] + counts[s]); j < (size_t)kv_offsets[s + 1]; j++)
      spoil(t, k, k_scales, j, 0, d), spoil(t, v, v_scales, j, 0, d);
  const float scale = (float)(1 / sqrt((double)d));
  ck_attention call = {.sequences = SEQUENCES, .q_heads = r.q_heads, .kv_heads = r.kv_heads, .head_dim = d, .scale = scale};
  call.q_offsets = q_offsets, call.kv_offsets = kv_offsets, call.kv_counts = gaps ? counts : 0;
  call.cap = style & CAP ? 1.5f : 0, call.before = reach(t, style, r.longest), call.after = one_in(t, 2) ? 0 : CK_EVERY_KEY;
  call.q = floats(q), call.q_rs = q->rs, call.q_hs = d, call.q_type = q->type;
  call.k = floats(k), call.k_rs = k->rs, call.k_hs = d, call.k_type = k->type;
  call.v = floats(v), call.v_rs = v->rs, call.v_hs = d, call.v_type = v->type;
  call.k_scales = floats(k_scales), call.v_scales = floats(v_scales), call.k_scale_hs = call.v_scale_hs = keys;
  call.o = floats(o), call.o_rs = o->rs, call.o_hs = d, call.o_type = o->type;
  call.slopes = floats(slopes), call.sinks = floats(sinks), call.mask = floats(mask), call.lse = floats(lse);
  if (mask) call.mask_ss = mask_rows * mask->rs, call.mask_rs = mask->rs, call.mask_type = mask->type;
  if (mask && mask_heads > 1) call.mask_hs = most_q * mask->rs;
  if (lse) call.lse_rs = lse->rs, call.lse_hs = 1;
  if (style & BLOCKS) call.pattern = pattern_of(t, r.q_heads, most_q, most_keys);
  seal(t);
  if (ck_f32_attention(t->table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  head h = {.q = q, .k = k, .v = v, .o = o, .d = d, .scale = scale, .cap = call.cap, .step = 1, .before = call.before};
  h.k_scales = k_scales, h.v_scales = v_scales;
  h.after = call.after, h.pattern = call.pattern, h.mask = mask, h.mask_step = 1, h.slopes = slopes, h.sinks = sinks, h.lse = lse;
  for (size_t item = 0; threads == 1 && item < SEQUENCES * r.q_heads; item++) {
    const size_t s = item / r.q_heads, at = item % r.q_heads;
    h.q0 = (size_t)q_offsets[s], h.rows = (size_t)q_offsets[s + 1] - h.q0, h.q_at = at * d, h.head0 = h.lse_at = at;
    h.k0 = (size_t)kv_offsets[s], h.kv_rows = (size_t)counts[s], h.k_at = at / group * d, h.scale0 = at / group * keys;
    h.pattern0 = at * call.pattern.hs, h.position = (ptrdiff_t)h.kv_rows - (ptrdiff_t)h.rows;
    h.mask0 = s * mask_rows + (mask_heads > 1 ? at * most_q : 0);
    compare(t, &h);
  }
}

// Scores far beyond what exp takes, each the same: weights are too, and a row is the mean of the values.
static void equal_scores_case(test *t, ck_dtype type, double query, double key, double masked) {
  enum { ROWS = 14, KEYS = 41, D = 8 };
  situation(t, AT_END, "type=%d score=%g mask=%g", type, query * key, masked);
  operand *q = matrix(t, type, ROWS, D, D, 1), *k = matrix(t, type, KEYS, D, D, 1), *v = matrix(t, type, KEYS, D, D, 1);
  operand *o = matrix(t, type, ROWS, D, D, 1), *mask = matrix(t, CK_F32, ROWS, KEYS, KEYS, 1);
  for (size_t i = 0; i < ROWS; i++)
    for (size_t e = 0; e < D; e++) set_element(q, i, e, e ? 0 : query);
  for (size_t j = 0; j < KEYS; j++)
    for (size_t e = 0; e < D; e++) set_element(k, j, e, e ? 0 : key), set_element(v, j, e, (double)j);
  for (size_t i = 0; i < ROWS * KEYS; i++) floats(mask)[i] = (float)masked;
  const int32_t q_offsets[] = {0, ROWS}, kv_offsets[] = {0, KEYS};
  ck_attention call = {.sequences = 1, .q_heads = 1, .kv_heads = 1, .head_dim = D, .scale = 1, .q_offsets = q_offsets};
  call.kv_offsets = kv_offsets, call.before = call.after = CK_EVERY_KEY;
  call.q = floats(q), call.k = floats(k), call.v = floats(v), call.o = floats(o), call.mask = masked != 0 ? floats(mask) : 0;
  call.q_rs = call.k_rs = call.v_rs = call.o_rs = D, call.mask_rs = KEYS;
  call.q_type = call.k_type = call.v_type = call.o_type = type;
  o->written = 1;
  seal(t);
  if (ck_f32_attention(t->table, &call, 1)) fail(t, "no scratch");
  check_untouched(t);
  for (size_t i = 0; i < ROWS; i++)
    if (fabs(element(o, i, 0) - (KEYS - 1) / 2.0) > 1e-4) fail(t, "row %zu is %g", i, element(o, i, 0));
}

void check_attention(test *t) {
  for (int type = 0; type < CK_DTYPE_COUNT; type++) {
    equal_scores_case(t, (ck_dtype)type, type == CK_F16 ? 0x1.4p15 : 0x1.4p17, type == CK_F16 ? 0x1p15 : 0x1p16, 0);
    equal_scores_case(t, (ck_dtype)type, 1, 1, -1e12);
  }
  // Decoding; grouped heads; cut into several pieces.
  static const ragged_shape shapes[] = {
      {8, 2, 32, 1, 0, 30}, {1, 1, 16, 9, 0, 30}, {4, 2, 33, 61, 0, 30}, {2, 1, 40, 110, 0, 30}};
  for (size_t style = 0; style < STYLES; style++)
    for (size_t k = 0; k < COUNT(shapes) - (style % 5 != 0); k++) {
      ragged_shape shape = shapes[k];
      shape.style = style_of(t, style);
      check_threads(t, ragged_case, &shape);
    }
}

// Caches long enough to be cut into parts: of single queries alone, and beside longer ones.
void check_attention_parts(test *t) {
  // The last three, which take long, have tiles of 64, 16 and, beside longer queries, 4 keys of f32.
  static const ragged_shape shapes[] = {{4, 1, 16, 1, 0, 3000}, {2, 2, 9, 1, 0, 700},  {2, 1, 8, 2, 0, 2600},
                                        {1, 1, 8, 1, 0, 9000},  {6, 3, 64, 1, 0, 700}, {16, 16, 64, 1, 0, 600},
                                        {32, 32, 128, 2, 0, 90}};
  for (size_t style = 0; style < STYLES; style += 1 + style % 3)
    for (size_t k = 0; k < (style % 12 == 0 ? COUNT(shapes) : 3 + (style % 4 == 0)); k++) {
      ragged_shape shape = shapes[k];
      shape.style = style_of(t, style);
      check_threads(t, ragged_case, &shape);
    }
}

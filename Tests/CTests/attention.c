// Attention: the block kernel and the ragged driver.
#include <stdlib.h>

#include "definitions.h"

// One head: rows of q from q0 on at column q_at, and so on for k, v and o. scores: [kv_rows].
typedef struct head {
  const operand *q, *k, *v, *o;
  size_t q0, q_at, k0, k_at, q_rows, kv_rows, d;
  double scale;
  ptrdiff_t diagonal;
  const operand *mask;
  size_t mask0, mask_step;  // row of the mask for query 0, and rows from query to query
} head;

// e (1 + e) sum p |v| / sum p, e twice the error of a score and the roundings of the sums: the bound of docs/accuracy.md.
static void compare_row(test *t, const head *h, size_t i, double *p) {
  double top = -INFINITY, total = 0, score_error = 0;
  size_t seen = h->kv_rows;
  if (h->diagonal != CK_NO_DIAGONAL) seen = (size_t)MAX(MIN((ptrdiff_t)i + h->diagonal + 1, (ptrdiff_t)h->kv_rows), 0);
  for (size_t j = 0; j < seen; j++) {
    double sum = 0, magnitude = 0;
    for (size_t c = 0; c < h->d; c++) {
      const double product = element(h->q, h->q0 + i, h->q_at + c) * element(h->k, h->k0 + j, h->k_at + c);
      sum += product, magnitude += fabs(product);
    }
    const double mask = h->mask ? element(h->mask, h->mask0 + i * h->mask_step, j) : 0;
    p[j] = h->scale * sum + mask, top = MAX(top, p[j]);
    const double error = (gamma_of((double)h->d + 3) + 2 * U) * h->scale * magnitude + (isfinite(mask) ? 2 * U * fabs(mask) : 0);
    score_error = MAX(score_error, error);
  }
  for (size_t j = 0; j < seen; j++) p[j] = top == -INFINITY ? 0 : exp(p[j] - top), total += p[j];
  const double keys = (double)seen, e = 2 * score_error + gamma_of(2 * keys + 3 * (keys / 32 + 1) + 12);
  for (size_t c = 0; c < h->d; c++) {
    double sum = 0, magnitude = 0;
    for (size_t j = 0; j < seen; j++) {
      const double product = p[j] * element(h->v, h->k0 + j, h->k_at + c);
      sum += product, magnitude += fabs(product);
    }
    const double by = total > 0 ? 1 / total : 0;
    check_element(t, h->o, h->q0 + i, h->q_at + c, sum * by, e * (1 + e) * magnitude * by + (total > 0 ? 0x1p-125 : 0));
  }
}

static void compare(test *t, const head *h) {
  double *p = malloc((h->kv_rows + 1) * sizeof *p);
  for (size_t i = 0; i < h->q_rows; i++) compare_row(t, h, i, p);
  free(p);
}

// A mask with hidden keys; in some rows all are hidden.
static operand *mask_of(test *t, size_t rows, size_t keys) {
  operand *mask = matrix(t, CK_F32, rows, keys, stride_for(t, keys), 2);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < keys; j++)
      if ((i + j) % 5 == 1 || i % 7 == 3) set_element(mask, i, j, -INFINITY);
  return mask;
}

static void block_case(test *t, size_t q_rows, size_t kv_rows, size_t d, size_t style, int place) {
  const int masks = style & 1, one_row = style >> 1 & 1, diagonal = style >> 2 & 1;
  situation(t, place, "q=%zu kv=%zu d=%zu style=%zu place=%d", q_rows, kv_rows, d, style, place);
  operand *q = matrix(t, CK_F32, q_rows, d, stride_for(t, d), 2), *k = matrix(t, CK_F32, kv_rows, d, stride_for(t, d), 2);
  operand *v = matrix(t, CK_F32, kv_rows, d, stride_for(t, d), 2), *o = matrix(t, CK_F32, q_rows, d, stride_for(t, d), 2);
  operand *mask = masks ? mask_of(t, one_row ? 1 : q_rows, kv_rows) : 0;
  o->written = 1;
  head h = {.q = q, .k = k, .v = v, .o = o, .q_rows = q_rows, .kv_rows = kv_rows, .d = d, .mask = mask, .mask_step = !one_row};
  h.scale = (float)(1 / sqrt((double)d));
  h.diagonal = diagonal ? (ptrdiff_t)kv_rows - (ptrdiff_t)q_rows + (ptrdiff_t)random_below(t, 3) - 1 : CK_NO_DIAGONAL;
  const size_t scratch = ck_attention_scratch(t->table, q_rows, 1, d, 0);
  ck_attention_block block = {.rows = q_rows, .heads = 1, .kv_rows = kv_rows, .head_dim = d, .scale = (float)h.scale, .step = 1};
  block.q = floats(q), block.q_rs = q->rs, block.k = floats(k), block.k_rs = k->rs, block.v = floats(v), block.v_rs = v->rs;
  block.o = floats(o), block.o_rs = o->rs, block.position = diagonal ? h.diagonal : 0;
  block.before = CK_EVERY_KEY, block.after = diagonal ? 0 : CK_EVERY_KEY;
  block.mask = floats(mask), block.mask_rs = mask && !one_row ? mask->rs : 0;
  // Ends at a guard page, and is still aligned to 64 bytes.
  t->place = AT_END;
  operand *room = vector(t, (scratch + 15) / 16 * 16, 1);
  room->written = 1;
  block.scratch = floats(room);
  seal(t);
  t->table->f32_attention_block(&block);
  check_untouched(t);
  compare(t, &h);
}

void check_attention_block(test *t) {
  const size_t keys[] = {0, 1, 5, 31, 127, 128, 129, 300}, sizes[] = {1, 8, 17, 32, 33, 64};
  for (size_t style = 0; style < 8; style++) {
    for (size_t rows = 1; rows <= 2 * t->table->gemm_mr + 1; rows++) {
      const size_t kv_rows = keys[random_below(t, COUNT(keys))], d = sizes[random_below(t, COUNT(sizes))];
      block_case(t, rows, kv_rows, d, style, random_bits(t) & 1 ? AT_END : (int)random_below(t, PLACES - 1));
    }
    for (size_t k = 0; k < COUNT(keys); k++) block_case(t, 3, keys[k], sizes[k % COUNT(sizes)], style, AT_END);
    block_case(t, 5 * t->table->gemm_mr + 1, 140, 48, style, AT_END);  // enough rows to pack the values
  }
}

static void ragged_case(test *t, size_t q_heads, size_t kv_heads, size_t d, int causal, int masks, size_t longest) {
  enum { SEQUENCES = 4 };
  void *alone = 0;
  const uint64_t seed = random_bits(t);
  for (size_t r = 0; r < COUNT(thread_counts); r++) {
    t->random = seed;
    situation(t, AT_END, "heads=%zu/%zu d=%zu causal=%d mask=%d longest=%zu threads=%zu", q_heads, kv_heads, d, causal, masks,
              longest, thread_counts[r]);
    int32_t *q_offsets = indices(t, SEQUENCES + 1), *kv_offsets = indices(t, SEQUENCES + 1);
    size_t most_q = 0, most_keys = 0;
    for (size_t s = 0; s < SEQUENCES; s++) {
      const size_t rows = s == 0 ? longest : random_below(t, longest + 1), keys = random_below(t, longest + 30);
      q_offsets[s + 1] = q_offsets[s] + (int32_t)rows, kv_offsets[s + 1] = kv_offsets[s] + (int32_t)keys;
      most_q = MAX(most_q, rows), most_keys = MAX(most_keys, keys);
    }
    const size_t queries = (size_t)q_offsets[SEQUENCES], keys = (size_t)kv_offsets[SEQUENCES];
    operand *q = matrix(t, CK_F32, queries, q_heads * d, stride_for(t, q_heads * d), 2);
    operand *k = matrix(t, CK_F32, keys, kv_heads * d, stride_for(t, kv_heads * d), 2);
    operand *v = matrix(t, CK_F32, keys, kv_heads * d, stride_for(t, kv_heads * d), 2);
    operand *o = matrix(t, CK_F32, queries, q_heads * d, stride_for(t, q_heads * d), 2);
    operand *mask = masks ? mask_of(t, SEQUENCES * most_q, most_keys) : 0;  // the same for every head
    o->written = 1;
    const float scale = (float)(1 / sqrt((double)d));
    ck_attention call = {.sequences = SEQUENCES, .q_heads = q_heads, .kv_heads = kv_heads, .head_dim = d, .scale = scale};
    call.q_offsets = q_offsets, call.kv_offsets = kv_offsets;
    call.before = CK_EVERY_KEY, call.after = causal ? 0 : CK_EVERY_KEY;
    call.q = floats(q), call.q_rs = q->rs, call.q_hs = d, call.k = floats(k), call.k_rs = k->rs, call.k_hs = d;
    call.v = floats(v), call.v_rs = v->rs, call.v_hs = d, call.o = floats(o), call.o_rs = o->rs, call.o_hs = d;
    if (mask) call.mask = floats(mask), call.mask_ss = most_q * mask->rs, call.mask_rs = mask->rs;
    seal(t);
    if (ck_f32_attention(t->table, &call, thread_counts[r])) fail(t, "no scratch");
    check_untouched(t);
    if (r) check_bits(t, o, alone, "more threads");
    for (size_t item = 0; r == 0 && item < SEQUENCES * q_heads; item++) {
      const size_t s = item / q_heads, at = item % q_heads;
      head h = {.q = q, .k = k, .v = v, .o = o, .d = d, .scale = scale, .mask = mask, .mask0 = s * most_q, .mask_step = 1};
      h.q0 = (size_t)q_offsets[s], h.q_rows = (size_t)q_offsets[s + 1] - h.q0, h.q_at = at * d;
      h.k0 = (size_t)kv_offsets[s], h.kv_rows = (size_t)kv_offsets[s + 1] - h.k0, h.k_at = at / (q_heads / kv_heads) * d;
      h.diagonal = causal ? (ptrdiff_t)h.kv_rows - (ptrdiff_t)h.q_rows : CK_NO_DIAGONAL;
      compare(t, &h);
    }
    if (r == 0) alone = bits_of(o);
  }
  free(alone);
}

void check_attention(test *t) {
  for (int style = 0; style < 4; style++) {
    ragged_case(t, 1, 1, 16, style & 1, style >> 1, 9);
    ragged_case(t, 4, 2, 33, style & 1, style >> 1, 61);
    ragged_case(t, 2, 1, 64, style & 1, style >> 1, 210);  // cut into several pieces
  }
}

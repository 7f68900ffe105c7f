// Rotary embedding, and the cache of keys and values.
#include <stdlib.h>

#include "definitions.h"

// Rows of heads, tokens outside or heads outside.
typedef struct heads {
  operand *at;
  size_t rs, hs;  // elements from token to token, and from head to head
} heads;

static heads heads_of(test *t, ck_dtype type, size_t tokens, size_t count, size_t size) {
  heads h = {.at = matrix(t, type, tokens * count, size, one_in(t, 2) ? size : stride_for(t, size), 2)};
  const int outside = one_in(t, 3);
  h.rs = (outside ? 1 : count) * h.at->rs, h.hs = (outside ? tokens : 1) * h.at->rs;
  return h;
}

static size_t row_of(const heads *h, size_t token, size_t head) {
  return h->at->rs ? (token * h->rs + head * h->hs) / h->at->rs : 0;
}

enum { POSITIONS = 9 };

typedef struct rope_case {
  heads x, y;
  operand *angles;
  double *x_values;  // from before the call
  ck_rope call;
} rope_case;

static rope_case make_rope(test *t, int typed, size_t tokens, size_t count, size_t size, size_t rotary) {
  rope_case c = {.x = heads_of(t, typed ? any_type(t) : CK_F32, tokens, count, size)};
  int32_t *positions = indices(t, tokens);
  for (size_t k = 0; k < tokens; k++) positions[k] = (int32_t)random_below(t, POSITIONS);
  c.angles = matrix(t, CK_F32, POSITIONS, rotary, stride_for(t, rotary), 1);
  c.y = one_in(t, 3) ? c.x : heads_of(t, typed ? any_type(t) : CK_F32, tokens, count, size);
  c.y.at->written = 1;
  c.call = (ck_rope){.tokens = tokens, .heads = count, .size = size, .rotary = rotary, .interleaved = one_in(t, 2)};
  c.call.positions = positions, c.call.table = floats(c.angles), c.call.table_rs = c.angles->rs;
  c.call.x = floats(c.x.at), c.call.x_rs = c.x.rs, c.call.x_hs = c.x.hs, c.call.x_type = c.x.at->type;
  c.call.y = floats(c.y.at), c.call.y_rs = c.y.rs, c.call.y_hs = c.y.hs, c.call.y_type = c.y.at->type;
  c.x_values = values_of(c.x.at);
  return c;
}

// Two products and a sum; what is not turned is only converted.
static void compare_rope(test *t, const rope_case *c) {
  const ck_rope *g = &c->call;
  const size_t half = g->rotary / 2, step = g->interleaved ? 1 : half;
  for (size_t item = 0; item < g->tokens * g->heads; item++) {
    const size_t token = item / g->heads, head = item % g->heads, at = (size_t)g->positions[token];
    const double *x = c->x_values + row_of(&c->x, token, head) * g->size;
    const size_t y = row_of(&c->y, token, head);
    for (size_t p = 0; p < half; p++) {
      const size_t j = g->interleaved ? 2 * p : p;
      const double a = x[j], b = x[j + step], cosine = element(c->angles, at, p), sine = element(c->angles, at, half + p);
      check_element(t, c->y.at, y, j, a * cosine - b * sine, gamma_of(2) * (fabs(a * cosine) + fabs(b * sine)));
      check_element(t, c->y.at, y, j + step, b * cosine + a * sine, gamma_of(2) * (fabs(b * cosine) + fabs(a * sine)));
    }
    for (size_t j = g->rotary; j < g->size; j++) check_element(t, c->y.at, y, j, x[j], 0);
  }
}

void check_rope(test *t) {
  for (size_t half = 0; half <= 35; half++)
    for (int place = AT_END; place < PLACES - 1; place++) {
      const size_t tokens = random_below(t, 5), cut = random_below(t, tokens + 1), rest = random_below(t, 20);
      situation(t, place, "tokens=%zu cut at %zu rotary=%zu size=%zu place=%d", tokens, cut, 2 * half, 2 * half + rest, place);
      rope_case c = make_rope(t, place % 2, tokens, 1 + random_below(t, 3), 2 * half + rest, 2 * half);
      seal(t);
      t->table->f32_rope(&c.call, 0, cut);
      t->table->f32_rope(&c.call, cut, tokens);
      check_untouched(t);
      compare_rope(t, &c);
      free(c.x_values);
    }
}

static void rope_driver_case(test *t, const void *shape, size_t threads) {
  const size_t *s = shape;
  situation(t, AT_END, "tokens=%zu heads=%zu size=%zu rotary=%zu threads=%zu", s[0], s[1], s[2], s[3], threads);
  rope_case c = make_rope(t, 1, s[0], s[1], s[2], s[3]);
  seal(t);
  ck_f32_rope(t->table, &c.call, threads);
  check_untouched(t);
  compare_rope(t, &c);
  free(c.x_values);
}

void check_rope_driver(test *t) {
  const size_t shapes[][4] = {{0, 2, 8, 8}, {1, 1, 2, 2}, {701, 3, 20, 16}, {130, 12, 64, 64}};
  for (size_t repeat = 0; repeat < 12; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, rope_driver_case, shapes[k]);
}

// What is appended is converted; every other row of the cache stays.
static void append_case(test *t, const void *shape, size_t threads) {
  enum { SEQUENCES = 4, MOST_HELD = 6 };
  const size_t *s = shape, longest = s[0], count = s[1], size = s[2], room = longest + MOST_HELD;
  situation(t, AT_END, "longest=%zu heads=%zu size=%zu threads=%zu", longest, count, size, threads);
  int32_t *offsets = indices(t, SEQUENCES + 1), *lengths = indices(t, SEQUENCES);
  for (size_t k = 0; k < SEQUENCES; k++) {
    offsets[k + 1] = offsets[k] + (int32_t)random_below(t, longest + 1);
    lengths[k] = (int32_t)random_below(t, MOST_HELD + 1);
  }
  const heads x = heads_of(t, any_type(t), (size_t)offsets[SEQUENCES], count, size);
  const ck_dtype type = one_in(t, 3) ? x.at->type : one_in(t, 3) ? CK_I8 : any_type(t);
  const heads cache = heads_of(t, type, SEQUENCES * room, count, size);
  operand *scales = type == CK_I8 ? matrix(t, CK_F32, count, SEQUENCES * room, stride_for(t, SEQUENCES * room), 1) : 0;
  double *expected_scales = values_of(scales);
  cache.at->written = 1;
  if (scales) scales->written = 1;
  ck_append call = {.sequences = SEQUENCES, .heads = count, .size = size, .offsets = offsets, .lengths = lengths};
  call.x = floats(x.at), call.x_rs = x.rs, call.x_hs = x.hs, call.x_type = x.at->type;
  call.cache = floats(cache.at), call.cache_rs = cache.rs, call.cache_hs = cache.hs, call.cache_type = type;
  call.cache_ss = room * cache.rs, call.scales = floats(scales), call.scale_ss = room, call.scale_rs = 1;
  if (scales) call.scale_hs = scales->rs;
  double *expected = values_of(cache.at);
  for (size_t k = 0; k < SEQUENCES; k++)
    for (size_t item = 0; item < (size_t)(offsets[k + 1] - offsets[k]) * count; item++) {
      const size_t i = item / count, h = item % count, to = row_of(&cache, k * room + (size_t)lengths[k] + i, h);
      const size_t from = row_of(&x, (size_t)offsets[k] + i, h);
      float most = 0x1p-100f;
      for (size_t j = 0; j < size; j++) most = fmaxf(most, fabsf((float)element(x.at, from, j)));
      for (size_t j = 0; j < size; j++) {
        const float value = (float)element(x.at, from, j);
        expected[to * size + j] = scales ? nearbyintf(value / (most / 127)) : rounded(type, value);
      }
      if (scales) expected_scales[h * SEQUENCES * room + k * room + (size_t)lengths[k] + i] = most / 127;
    }
  seal(t);
  ck_cache_append(t->table, &call, threads);
  check_untouched(t);
  for (size_t i = 0; i < cache.at->rows; i++)
    for (size_t j = 0; j < size; j++) check_element(t, cache.at, i, j, expected[i * size + j], 0);
  for (size_t h = 0; scales && h < count; h++)
    for (size_t k = 0; k < SEQUENCES * room; k++) check_element(t, scales, h, k, expected_scales[h * SEQUENCES * room + k], 0);
  free(expected), free(expected_scales);
}

void check_cache_append(test *t) {
  const size_t shapes[][3] = {{1, 2, 8}, {3, 1, 1}, {5, 3, 33}, {9, 5, 120}, {200, 2, 64}};
  for (size_t repeat = 0; repeat < 15; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, append_case, shapes[k]);
  situation(t, AT_END, "no sequences");
  ck_cache_append(t->table, &(ck_append){.heads = 1, .size = 1}, 2);
}

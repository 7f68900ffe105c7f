// Products of int8 codes: codes, panels, and sums that are exact, so that every instruction set has the same bits.
#include <stdlib.h>
#include <string.h>

#include "definitions.h"
#include "products.h"

enum { COLUMNS = CK_INT8_COLUMNS, STEP = CK_INT8_STEP };
static const size_t edges[] = {0, 1, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 131};

// A value's code and the scale of its row, as ck_int8.h states them; the scale is NaN where x is not finite throughout.
static float scale_of(const operand *x, size_t i) {
  float most = 0x1p-100f;
  int finite = 1;
  for (size_t p = 0; p < x->n; p++) {
    const float size = fabsf((float)element(x, i, p));
    finite &= isfinite(size) != 0;
    if (size > most) most = size;
  }
  return finite ? most / 127 : NAN;
}
static int32_t code_of(float value, float scale) { return isnan(scale) ? 0 : (int32_t)nearbyintf(value / scale); }

static int same_float(float a, float b) { return isnan(a) ? isnan(b) : !memcmp(&a, &b, sizeof a); }

// One row among 16: what lies between its steps belongs to others.
static void quantize_case(test *t, ck_dtype type, size_t k, double size, int place) {
  situation(t, place, "type=%d k=%zu size=%g place=%d", type, k, size, place);
  operand *x = matrix(t, type, 1, k, k, size), *scale = vector(t, 1, 1);
  const size_t steps = ck_int8_steps(k);
  if (k && one_in(t, 6)) set_element(x, 0, random_below(t, k), one_in(t, 2) ? NAN : INFINITY);
  operand *codes = matrix(t, CK_BF16, steps ? steps : 1, steps ? STEP / 2 : 0, 16 * STEP / 2, 1);  // pairs of codes
  codes->written = scale->written = 1;
  seal(t);
  t->table->i8_quantize(type, k, x->at, codes->at, floats(scale));
  check_untouched(t);
  const float expected = scale_of(x, 0);
  if (!same_float(*floats(scale), expected)) fail(t, "the scale is %a, not %a", *floats(scale), expected);
  for (size_t p = 0; p < steps * STEP && !isnan(expected); p++) {
    const int32_t code = p < k ? code_of((float)element(x, 0, p), expected) : 0,
                  got = ((int8_t *)codes->at)[p / STEP * 16 * STEP + p % STEP];
    if (got != code) fail(t, "code %zu is %d, not %d", p, got, code);
  }
}

void check_int8_quantize(test *t) {
  for (size_t d = 0; d < COUNT(edges); d++)
    for (size_t type = 0; type < CK_DTYPE_COUNT; type++)
      for (int place = AT_END; place < PLACES - 1; place += 3) {
        quantize_case(t, (ck_dtype)type, edges[d], 2, place);
        quantize_case(t, (ck_dtype)type, edges[d], one_in(t, 2) ? 1e-38 : 6e4, place);
      }
}

static void quantize_vector_case(test *t, ck_dtype type, size_t n, double size, int place) {
  situation(t, place, "type=%d n=%zu size=%g place=%d", type, n, size, place);
  operand *x = matrix(t, type, 1, n, n, size), *scale = vector(t, 1, 1), *codes = matrix(t, CK_I8, 1, n, n, 127);
  if (n && one_in(t, 6)) set_element(x, 0, random_below(t, n), one_in(t, 2) ? NAN : INFINITY);
  codes->written = scale->written = 1;
  seal(t);
  t->table->i8_quantize_vector(type, n, x->at, codes->at, floats(scale));
  check_untouched(t);
  const float expected = scale_of(x, 0);
  if (!same_float(*floats(scale), expected)) fail(t, "the scale is %a, not %a", *floats(scale), expected);
  for (size_t p = 0; p < n && !isnan(expected); p++) {
    check_element(t, codes, 0, p, code_of((float)element(x, 0, p), expected), 0);
    // Half a step, and the roundings of the quotient and of the scale itself.
    const double error = fabs(element(codes, 0, p) * expected - element(x, 0, p)), bound = expected * (0.5 + 256 * U);
    if (error > bound) fail(t, "element %zu is off by %g, more than %g", p, error, bound);
  }
}

void check_int8_quantize_vector(test *t) {
  for (size_t n = 0; n < 140; n += n < 40 ? 1 : 11)
    for (size_t type = 0; type < CK_DTYPE_COUNT; type++)
      for (int place = AT_END; place < PLACES - 1; place += 3)
        quantize_vector_case(t, (ck_dtype)type, n, one_in(t, 2) ? 2 : 6e4, place);
}

// Random codes of W [k, n] as panels, and what they are in `at` [k, n].
static operand *random_panels(test *t, size_t n, size_t k, int8_t *at) {
  const size_t bytes = ck_int8_packed_bytes(n, k);
  operand *panels = matrix(t, CK_BF16, 1, bytes / 2, 0, 0);
  memset(panels->at, 0, bytes);
  for (size_t p = 0; p < k; p++)
    for (size_t j = 0; j < n; j++) {
      const int8_t code = (int8_t)(random_below(t, 255) - 127);
      at[p * n + j] = code;
      ((int8_t *)panels->at)[(j / COLUMNS * ck_int8_steps(k) * STEP + p / 4 * 4) * COLUMNS + j % COLUMNS * 4 + p % 4] = code;
    }
  return panels;
}

// Checks c against the sums of codes, scaled, then finished in double; to the bit where the epilogue is plain.
static void check_codes(test *t, const operand *c, size_t k, const int8_t *a, const int8_t *b, const float *a_scales,
                        const float *b_scales, const finish *f) {
  const size_t n = c->n;
  const int plain = f->alpha == 1 && !f->bias && !f->residual && f->activation == CK_IDENTITY && c->type == CK_F32;
  for (size_t i = 0; i < c->rows; i++)
    for (size_t j = 0; j < n; j++) {
      int32_t sum = 0;
      for (size_t p = 0; p < k; p++) sum += a[i * k + p] * b[p * n + j];
      const float scale = a_scales[i] * b_scales[j], x = (float)sum * scale;
      if (plain && !same_float((float)element(c, i, j), x)) {
        fail(t, "[%zu, %zu] is %a, not %a", i, j, element(c, i, j), x);
        return;
      }
      if (!plain) check_finished(t, c, i, j, x, fabsf(x), 3, f);
    }
}

static void int8_block_case(test *t, int tiles, size_t m, size_t n, size_t k, int place) {
  situation(t, place, "m=%zu n=%zu k=%zu place=%d", m, n, k, place);
  const size_t steps = ck_int8_steps(k);
  int8_t *a = malloc(m * k + 1), *b = malloc(n * k + 1);
  operand *codes = matrix(t, CK_BF16, 1, padded_to(m, 32) * steps * STEP / 2, 0, 1);
  operand *a_scales = vector(t, m, 2), *b_scales = vector(t, n, 2), *panels = random_panels(t, n, k, b);
  for (size_t i = 0; i < m; i++) {
    int8_t *row = ck_int8_row(codes->at, steps, i);
    for (size_t p = 0; p < steps * STEP; p++) row[p / STEP * 16 * STEP + p % STEP] = 0;
    for (size_t p = 0; p < k; p++)
      row[p / STEP * 16 * STEP + p % STEP] = a[i * k + p] = one_in(t, 9) ? -127 : (int8_t)(random_below(t, 255) - 127);
  }
  operand *c = values(t, 0, m, n, 0);
  c->written = 1;
  finish f = any_finish(t, 0, c, 1, n, 0);
  const ck_gemm_block block = block_of(c, m, n, 0, &f);
  const ck_int8_block call = {&block, steps, codes->at, floats(a_scales), panels->at, floats(b_scales)};
  seal(t);
  (tiles ? t->table->f32_i8_tile_block : t->table->f32_i8_block)(&call);
  check_untouched(t);
  check_codes(t, c, k, a, b, floats(a_scales), floats(b_scales), &f);
  free((void *)f.held), free(a), free(b);
}

static void int8_block_cases(test *t, int tiles) {
  for (size_t m = 1; m <= 32; m += m < 8 ? 1 : 3)
    for (size_t n = 1; n < COUNT(edges); n++)
      int8_block_case(t, tiles, m, edges[n], edges[random_below(t, COUNT(edges))], any_place(t));
  int8_block_case(t, tiles, 32, 96, 700, AT_END);
}
void check_int8_block(test *t) { int8_block_cases(t, 0); }
void check_int8_tile_block(test *t) { int8_block_cases(t, 1); }

typedef struct int8_shape {
  size_t m, n, k, style, typed;
} int8_shape;

static void int8_pack_case(test *t, const void *shape, size_t threads) {
  const int8_shape s = *(const int8_shape *)shape;
  situation(t, AT_END, "n=%zu k=%zu typed=%zu threads=%zu", s.n, s.k, s.typed, threads);
  operand *w = values(t, s.typed, s.n, s.k, 0), *scales = vector(t, s.n, 1);
  operand *codes = matrix(t, CK_BF16, 1, ck_int8_packed_bytes(s.n, s.k) / 2, 0, 1);
  codes->written = scales->written = 1;
  seal(t);
  if (ck_int8_pack(t->table, s.n, s.k, w->type, w->at, w->rs, codes->at, floats(scales), threads)) fail(t, "no scratch");
  check_untouched(t);
  for (size_t j = 0; j < padded_to(s.n, COLUMNS); j++) {
    const float scale = j < s.n ? scale_of(w, j) : 1;
    if (j < s.n && !same_float(floats(scales)[j], scale)) fail(t, "scale %zu", j);
    for (size_t p = 0; p < ck_int8_steps(s.k) * STEP; p++) {
      const int8_t got =
          ((int8_t *)codes->at)[(j / COLUMNS * ck_int8_steps(s.k) * STEP + p / 4 * 4) * COLUMNS + j % COLUMNS * 4 + p % 4];
      if (got != (j < s.n && p < s.k ? code_of((float)element(w, j, p), scale) : 0)) fail(t, "code [%zu, %zu] is %d", p, j, got);
    }
  }
}

void check_int8_pack(test *t) {
  for (size_t n = 1; n < COUNT(edges); n++)
    for (size_t k = 0; k < COUNT(edges); k += 2) check_threads(t, int8_pack_case, &(int8_shape){1, edges[n], edges[k], 0, n % 2});
}

// Style: the epilogue; 3 leaves rows of A that are not finite.
static void int8_gemm_case(test *t, const void *shape, size_t threads) {
  const int8_shape s = *(const int8_shape *)shape;
  const size_t m = s.m, n = s.n, k = s.k;
  situation(t, AT_END, "m=%zu n=%zu k=%zu style=%zu typed=%zu threads=%zu", m, n, k, s.style, s.typed, threads);
  int8_t *a_codes = malloc(m * k + 1), *b_codes = malloc(n * k + 1);
  operand *a = values(t, s.typed, m, k, 0), *scales = vector(t, n, 2), *c = values(t, s.typed, m, n, 0);
  if (s.style == 3 && k) set_element(a, m / 2, k / 2, INFINITY), set_element(a, 0, 0, NAN);
  operand *panels = random_panels(t, n, k, b_codes);
  c->written = 1;
  finish f = {.alpha = 1};
  if (s.style % 3) {
    f.alpha = 0.5, f.activation = CK_GELU_TANH, f.bias = values(t, 0, 1, n, 0);
    f.residual = s.style == 2 ? c : values(t, s.typed, m, n, 0);
  }
  ck_int8 call = {
      .m = m, .n = n, .k = k, .a = a->at, .a_rs = a->rs, .a_type = a->type, .codes = panels->at, .scales = floats(scales)};
  call.c = c->at, call.c_rs = c->rs, call.c_type = c->type, call.alpha = (float)f.alpha, call.bias = floats(f.bias);
  call.activation = f.activation;
  if (f.residual) call.residual = f.residual->at, call.residual_rs = f.residual->rs, call.residual_type = f.residual->type;
  f.held = values_of(c);
  float *a_scales = malloc(m * sizeof *a_scales);
  for (size_t i = 0; i < m; i++) {
    a_scales[i] = scale_of(a, i);
    for (size_t p = 0; p < k; p++) a_codes[i * k + p] = (int8_t)code_of((float)element(a, i, p), a_scales[i]);
  }
  // Every other style goes through tiles, imitated where there are none.
  ck_kernels table = *t->table;
  table.tiles = (int32_t)(s.style / 2 % 2);
  seal(t);
  if (ck_int8_gemm(&table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  if (threads == 1) check_codes(t, c, k, a_codes, b_codes, a_scales, floats(scales), &f);
  free((void *)f.held), free(a_codes), free(b_codes), free(a_scales);
}

void check_int8_gemm(test *t) {
  static const size_t shapes[][3] = {{1, 1, 1},     {1, 33, 65},    {17, 31, 0},   {33, 32, 64},
                                     {40, 70, 131}, {129, 47, 200}, {7, 1100, 37}, {67, 300, 260}};
  check_threads(t, int8_gemm_case, &(int8_shape){260, 3, 4096, 2, 0});  // rows some at a time
  for (size_t k = 0; k < COUNT(shapes); k++)
    for (size_t style = 0; style < 4; style++)
      for (size_t typed = 0; typed < 2; typed++)
        check_threads(t, int8_gemm_case, &(int8_shape){shapes[k][0], shapes[k][1], shapes[k][2], style, typed});
}

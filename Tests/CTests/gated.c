// Products of one A by two Bs, the first activated and multiplied by the second: the bits of two products, f32_gated and what
// follows them.
#include <stdlib.h>
#include <string.h>

#include "definitions.h"
#include "products.h"

// Bits of the style: packed weights of 16 bits, operands of any type, the biases, a residual; tiles.
typedef struct gated_shape {
  size_t m, n, k, style;
  ck_dtype b_type;  // of quantised weights, else CK_F32
} gated_shape;

enum { NARROW = 1, TYPED = 2, BIASED = 4, RESIDUAL = 8, TILES = 16, STYLES = 32 };

// c = gate value + residual of [m, n] floats; value is overwritten.
static void check_gated_bits(test *t, const operand *c, const float *gate, float *value, ck_activation kind,
                             const double *residual) {
  const size_t m = c->rows, n = c->n;
  const ck_rows call = {.rows = m,
                        .n = n,
                        .x_n = n,
                        .x = gate,
                        .x_rs = n,
                        .other = value,
                        .other_rs = n,
                        .y = value,
                        .y_rs = n,
                        .activation = kind};
  t->table->f32_gated(&call, 0, m);
  for (size_t i = 0; residual && i < m * n; i++) value[i] += (float)residual[i];
  void *expected = malloc(m * n * sizeof(float) + 1);
  t->table->f32_narrow(c->type, m * n, value, expected);
  check_bits(t, c, expected, "gated");
  free(expected);
}

static void gated_gemm_case(test *t, const void *of, size_t threads,
                            int32_t (*run)(const ck_kernels *, const ck_gemm *, size_t)) {
  const gated_shape s = *(const gated_shape *)of;
  const size_t m = s.m, n = s.n, k = s.k, typed = s.style & TYPED, nr = t->table->gemm_nr;
  situation(t, AT_END, "m=%zu n=%zu k=%zu type=%d style=%zu threads=%zu", m, n, k, s.b_type, s.style, threads);
  ck_kernels table = *t->table;
  table.tiles = !(s.style & TILES) ? 0 : table.tiles == CK_TILES_DOT ? CK_TILES_DOT : CK_TILES_UNIT;
  const operand *a = values(t, typed, m, k, 0), *panels[2];
  const ck_dtype type = s.b_type != CK_F32 ? s.b_type : s.style & NARROW ? (one_in(t, 2) ? CK_BF16 : CK_F16) : CK_F32;
  for (size_t i = 0; i < 2; i++)
    panels[i] = s.b_type != CK_F32 ? quantized_panels(t, type, n, k) : matrix(t, type, 1, padded_to(n, nr) * k, 0, 1);
  const operand *bias = s.style & BIASED ? values(t, 0, 1, n, 0) : 0, *value_bias = s.style & BIASED ? values(t, 0, 1, n, 0) : 0;
  operand *c = values(t, typed, m, n, 0);
  const operand *residual = !(s.style & RESIDUAL) ? 0 : one_in(t, 2) ? c : values(t, typed, m, n, 0);
  c->written = 1;
  ck_gemm call = {
      .batch = 1, .m = m, .n = n, .k = k, .alpha = 1, .activation = (ck_activation)random_below(t, CK_ACTIVATION_COUNT)};
  call.a = floats(a), call.a_rs = a->rs, call.a_cs = 1, call.a_type = a->type;
  call.packed = panels[0]->at, call.value = panels[1]->at, call.b_type = type, call.split = CK_SPLIT_THREE;
  call.bias = floats(bias), call.value_bias = floats(value_bias);
  call.c = floats(c), call.c_rs = c->rs, call.c_type = c->type;
  if (residual) call.residual = floats(residual), call.residual_rs = residual->rs, call.residual_type = residual->type;
  // Products alone, below, are not told the ranges: the bits are the same.
  if (type == CK_BF16 && n && k && one_in(t, 2)) call.packed_range = ck_packed_range(&table, n, k, call.packed, 1);
  if (call.packed_range.least > 0 && !one_in(t, 4)) call.value_range = ck_packed_range(&table, n, k, call.value, 1);
  double *added = values_of(residual);
  seal(t);
  if (run(&table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  float *products[2];
  for (size_t i = 0; i < 2; i++) {
    ck_gemm plain = call;
    products[i] = malloc(m * n * sizeof(float) + 1);
    plain.packed = panels[i]->at, plain.bias = floats(i ? value_bias : bias), plain.activation = CK_IDENTITY;
    plain.value = plain.value_bias = plain.residual = 0;
    plain.packed_range = plain.value_range = (ck_tile_range){0, 0};
    plain.c = products[i], plain.c_rs = n, plain.c_type = CK_F32;
    if (run(&table, &plain, 1)) fail(t, "no scratch");
  }
  check_gated_bits(t, c, products[0], products[1], call.activation, added);
  free(products[0]), free(products[1]), free(added);
}

static void driver_case(test *t, const void *of, size_t threads) { gated_gemm_case(t, of, threads, ck_f32_gemm); }
static void tile_case(test *t, const void *of, size_t threads) { gated_gemm_case(t, of, threads, ck_tile_gemm); }

// One row, rows that are streamed, edges, K in slices, A packed, and blocks for several threads.
static const size_t sizes[][3] = {{1, 1, 1},     {1, 70, 395}, {7, 48, 19},  {13, 31, 0},   {3, 1100, 17},
                                  {19, 37, 800}, {345, 9, 7},  {25, 780, 6}, {40, 100, 530}};

void check_gated_gemm(test *t) {
  for (size_t i = 0; i < COUNT(sizes); i++)
    for (size_t style = 0; style < STYLES; style++)
      check_threads(t, driver_case, &(gated_shape){sizes[i][0], sizes[i][1], sizes[i][2], style, CK_F32});
  for (size_t style = 0; style < STYLES; style++)  // K in pieces
    check_threads(t, driver_case, &(gated_shape){style % 3 * 17 + 2, 40, 8300, style, CK_F32});
  static const ck_dtype formats[] = {CK_Q8_0, CK_Q4_0, CK_Q4_K, CK_Q6_K, CK_MXFP4, CK_Q5_1, CK_Q5_K};
  static const size_t blocks[][3] = {{1, 70, 9}, {5, 33, 2}, {70, 130, 1}, {20, 600, 1}};
  for (size_t f = 0; f < COUNT(formats); f++)
    for (size_t i = 0; i < COUNT(blocks); i++)
      for (size_t style = 0; style < TILES; style += 2) {
        const size_t k = blocks[i][2] * ck_quant_unit(formats[f]);
        check_threads(t, driver_case, &(gated_shape){blocks[i][0], blocks[i][1], k, style, formats[f]});
      }
  for (size_t f = 0; f < COUNT(formats); f++)
    check_threads(t, driver_case, &(gated_shape){3, 40, 8448, BIASED | RESIDUAL, formats[f]});
}

void check_gated_tiles(test *t) {
  for (size_t i = 0; i < COUNT(sizes); i++)
    for (size_t style = 0; style < TILES; style++)
      check_threads(t, tile_case, &(gated_shape){sizes[i][0], sizes[i][1], sizes[i][2], style, CK_F32});
  check_threads(t, tile_case, &(gated_shape){3, 400, 4000, TYPED, CK_F32});  // columns of B and V some at a time
}

static void int8_case(test *t, const void *of, size_t threads) {
  const gated_shape s = *(const gated_shape *)of;
  const size_t m = s.m, n = s.n, k = s.k, typed = s.style & TYPED;
  situation(t, AT_END, "int8 m=%zu n=%zu k=%zu style=%zu threads=%zu", m, n, k, s.style, threads);
  ck_kernels table = *t->table;
  table.tiles = s.style & TILES ? 1 : 0;
  const operand *a = values(t, typed, m, k, 0), *codes[2], *scales[2];
  for (size_t i = 0; i < 2; i++) {
    const operand *w = values(t, 0, n, k, 0);
    codes[i] = matrix(t, CK_BF16, 1, ck_int8_packed_bytes(n, k) / 2, 0, 1), scales[i] = vector(t, n, 1);
    if (ck_int8_pack(t->table, n, k, CK_F32, w->at, w->rs, codes[i]->at, floats(scales[i]), 1)) fail(t, "no scratch");
  }
  const operand *bias = s.style & BIASED ? values(t, 0, 1, n, 0) : 0, *value_bias = s.style & BIASED ? values(t, 0, 1, n, 0) : 0;
  operand *c = values(t, typed, m, n, 0);
  const operand *residual = !(s.style & RESIDUAL) ? 0 : one_in(t, 2) ? c : values(t, typed, m, n, 0);
  c->written = 1;
  ck_int8 call = {.m = m, .n = n, .k = k, .alpha = 1, .activation = (ck_activation)random_below(t, CK_ACTIVATION_COUNT)};
  call.a = a->at, call.a_rs = a->rs, call.a_type = a->type;
  call.codes = codes[0]->at, call.scales = floats(scales[0]), call.bias = floats(bias);
  call.value = codes[1]->at, call.value_scales = floats(scales[1]), call.value_bias = floats(value_bias);
  call.c = c->at, call.c_rs = c->rs, call.c_type = c->type;
  if (residual) call.residual = residual->at, call.residual_rs = residual->rs, call.residual_type = residual->type;
  double *added = values_of(residual);
  seal(t);
  if (ck_int8_gemm(&table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  float *products[2];
  for (size_t i = 0; i < 2; i++) {
    ck_int8 plain = call;
    products[i] = malloc(m * n * sizeof(float) + 1);
    plain.codes = codes[i]->at, plain.scales = floats(scales[i]), plain.bias = floats(i ? value_bias : bias);
    plain.activation = CK_IDENTITY, plain.value = 0, plain.residual = 0;
    plain.c = products[i], plain.c_rs = n, plain.c_type = CK_F32;
    if (ck_int8_gemm(&table, &plain, 1)) fail(t, "no scratch");
  }
  check_gated_bits(t, c, products[0], products[1], call.activation, added);
  free(products[0]), free(products[1]), free(added);
}

void check_gated_int8(test *t) {
  for (size_t i = 0; i < COUNT(sizes); i++)
    for (size_t style = 0; style < STYLES; style += 2)
      check_threads(t, int8_case, &(gated_shape){sizes[i][0], sizes[i][1], sizes[i][2], style, CK_F32});
}

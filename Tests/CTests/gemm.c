// GEMM: the block kernel, the packing kernels and the driver.
#include <stdlib.h>
#include <string.h>

#include "activations.h"
#include "definitions.h"

// An operand seen as a matrix of the product, which may lie transposed in memory.
typedef struct side {
  operand *at;
  int transposed;
  size_t first;  // its rows in the operand start here: one entry of a batch
} side;

static double value(const side *s, size_t i, size_t j) {
  return s->transposed ? element(s->at, s->first + j, i) : element(s->at, s->first + i, j);
}

// What a product adds to A B: C before the call, bias, activation and residual.
typedef struct finish {
  double alpha, beta;
  const double *held;  // [m, n]
  const operand *bias, *residual;  // the residual may be C
  ck_activation activation;
  int exact;  // operands are small integers
} finish;

static const double *held_in(const operand *c) {
  double *values = malloc((c->rows * c->n + 1) * sizeof *values);
  for (size_t i = 0; i < c->rows; i++)
    for (size_t j = 0; j < c->n; j++) values[i * c->n + j] = element(c, i, j);
  return values;
}

// gamma(k + 3) of the magnitudes through the activation's slope, the activation's own error, and one rounding.
static void compare(test *t, const side *a, const side *b, const operand *c, size_t row, size_t m, size_t k, const finish *f) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < c->n; j++) {
      double sum = 0, magnitude = 0;
      for (size_t p = 0; p < k; p++) {
        const double product = value(a, i, p) * value(b, p, j);
        sum += product, magnitude += fabs(product);
      }
      const double old = f->beta == 0 ? 0 : f->beta * f->held[(row + i) * c->n + j], bias = f->bias ? element(f->bias, 0, j) : 0;
      const double x = f->alpha * sum + old + bias, y = activation_of(f->activation, x);
      magnitude = fabs(f->alpha) * magnitude + fabs(old) + fabs(bias);
      const double residual = f->residual == c ? f->held[(row + i) * c->n + j]
                              : f->residual    ? element(f->residual, row + i, j)
                                               : 0;
      const double expected = y + residual;
      const double shift = activation_slope(f->activation) * gamma_of((double)k + 3) * magnitude;
      const double own = activation_error(f->activation, fabs(x) + shift, fabs(y) + shift);
      check_element(t, c, row + i, j, expected, f->exact ? 0 : shift + own + 2 * U * fabs(expected));
    }
}

static operand *values(test *t, size_t rows, size_t n, size_t rs, int exact) {
  return exact ? integers(t, rows, n, rs) : matrix(t, CK_F32, rows, n, rs, 2);
}

// A panel of `unit` rows or columns, [k][unit], zero-padded, as gemm kernels read it.
static void pack(const side *from, int rows, size_t count, size_t k, size_t unit, operand *to) {
  float *packed = to->at;
  for (size_t q = 0; q < count; q += unit)
    for (size_t p = 0; p < k; p++)
      for (size_t r = 0; r < unit; r++) {
        const size_t i = q + r;
        *packed++ = i < count ? (float)(rows ? value(from, i, p) : value(from, p, i)) : 0;
      }
}

static size_t padded(size_t count, size_t unit) { return (count + unit - 1) / unit * unit; }

static void gemm_block_case(test *t, size_t m, size_t n, size_t k, int place) {
  const size_t mr = t->table->gemm_mr, nr = t->table->gemm_nr;
  const int exact = random_bits(t) & 1, b_in_place = n % nr == 0 && random_bits(t) & 1,
            a_packed = !b_in_place && random_bits(t) & 1;
  situation(t, place, "m=%zu n=%zu k=%zu exact=%d A packed=%d B in place=%d place=%d", m, n, k, exact, a_packed, b_in_place,
            place);
  // The packed operands are whole; the plain ones only feed the packing.
  side a = {.at = values(t, m, k, stride_for(t, k), exact)}, b = {.at = values(t, k, n, stride_for(t, n), exact)};
  operand *c = values(t, m, n, stride_for(t, n), exact);
  c->written = 1;
  finish f = {.alpha = 1, .exact = exact};
  const size_t style = random_below(t, 4);  // the straight stores, then the whole epilogue
  if (style == 1) f.beta = 1;
  if (style >= 2) {
    f.alpha = exact ? 2 : random_in(t, -2, 2), f.beta = exact ? -1 : random_in(t, -2, 2);
    f.alpha = (float)f.alpha, f.beta = (float)f.beta;
    f.bias = random_bits(t) & 1 ? values(t, 1, n, n, exact) : 0;
    f.residual = random_bits(t) & 1 ? values(t, m, n, stride_for(t, n), exact) : 0;
    f.activation = exact ? (random_bits(t) & 1 ? CK_RELU : CK_IDENTITY) : (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  }
  ck_gemm_block block = {.m = m, .n = n, .k = k, .c = floats(c), .c_rs = c->rs, .alpha = (float)f.alpha, .beta = (float)f.beta};
  block.a = floats(a.at), block.a_rs = a.at->rs, block.a_packed = a_packed;
  if (a_packed) {
    operand *packed = vector(t, padded(m, mr) * k, 1);
    pack(&a, 1, m, k, mr, packed);
    block.a = floats(packed);
  }
  if (b_in_place) {
    block.b = floats(b.at), block.b_ks = b.at->rs, block.b_panel = nr;
  } else {
    operand *packed = vector(t, padded(n, nr) * k, 1);
    pack(&b, 0, n, k, nr, packed);
    block.b = floats(packed), block.b_panel = nr * k;
  }
  block.bias = floats(f.bias), block.residual = floats(f.residual), block.activation = f.activation;
  block.residual_rs = f.residual ? f.residual->rs : 0;
  f.held = held_in(c);
  seal(t);
  t->table->f32_gemm_block(&block);
  check_untouched(t);
  compare(t, &a, &b, c, 0, m, k, &f);
  free((void *)f.held);
}

void check_gemm_block(test *t) {
  const size_t mr = t->table->gemm_mr, nr = t->table->gemm_nr, depths[] = {0, 1, 2, 3, 4, 5, 17};
  for (size_t m = 1; m <= 2 * mr + 1; m++)
    for (size_t n = 1; n <= 2 * nr + 1; n++) {
      const size_t k = depths[random_below(t, COUNT(depths))];
      gemm_block_case(t, m, n, k, random_bits(t) & 1 ? AT_END : (int)random_below(t, PLACES - 1));
      if (n % nr == 0) gemm_block_case(t, m, n, k, AT_END);
    }
  gemm_block_case(t, 2 * mr + 3, 5 * nr + 3, 131, AT_END);
  gemm_block_case(t, 1, 7 * nr, 259, AT_END);
}

static void pack_case(test *t, int rows, size_t count, size_t k, int transposed, int place) {
  const size_t unit = rows ? t->table->gemm_mr : t->table->gemm_nr;
  situation(t, place, "%s=%zu k=%zu transposed=%d place=%d", rows ? "m" : "n", count, k, transposed, place);
  const int tall = rows != transposed;  // memory rows run along `count`
  operand *source =
      tall ? matrix(t, CK_F32, count, k, stride_for(t, k), 2) : matrix(t, CK_F32, k, count, stride_for(t, count), 2);
  operand *packed = vector(t, padded(count, unit) * k, 1), *expected = vector(t, padded(count, unit) * k, 1);
  pack(&(side){.at = source, .transposed = transposed}, rows, count, k, unit, expected);
  packed->written = 1;
  seal(t);
  const size_t along = tall ? source->rs : 1, deep = tall ? 1 : source->rs;
  if (rows)
    t->table->f32_gemm_pack_a(count, k, floats(source), along, deep, floats(packed));
  else
    t->table->f32_gemm_pack_b(count, k, floats(source), deep, along, floats(packed));
  check_untouched(t);
  check_bits(t, packed, expected->at, "packed");
}

static void pack_cases(test *t, int rows) {
  const size_t unit = rows ? t->table->gemm_mr : t->table->gemm_nr;
  for (size_t count = 1; count <= 2 * unit + 1; count++)
    for (size_t k = 0; k <= 19; k++)
      for (int transposed = 0; transposed < 2; transposed++) {
        pack_case(t, rows, count, k, transposed, AT_END);
        pack_case(t, rows, count, k, transposed, (int)random_below(t, PLACES - 1));
      }
}
void check_pack_a(test *t) { pack_cases(t, 1); }
void check_pack_b(test *t) { pack_cases(t, 0); }

void check_pack_b_driver(test *t) {
  for (size_t n = 1; n < 300; n += 97)
    for (size_t r = 0; r < COUNT(thread_counts); r++) {
      const size_t k = 301, nr = t->table->gemm_nr;
      situation(t, AT_END, "n=%zu k=%zu threads=%zu", n, k, thread_counts[r]);
      side b = {.at = matrix(t, CK_F32, k, n, stride_for(t, n), 2)};
      operand *packed = vector(t, ck_f32_packed_size(t->table, n, k), 1), *expected = vector(t, padded(n, nr) * k, 1);
      pack(&b, 0, n, k, nr, expected);
      packed->written = 1;
      seal(t);
      ck_f32_pack_b(t->table, n, k, floats(b.at), b.at->rs, 1, floats(packed), thread_counts[r]);
      check_untouched(t);
      if (packed->n != expected->n) fail(t, "%zu floats instead of %zu", packed->n, expected->n);
      check_bits(t, packed, expected->at, "packed");
    }
}

// Entries of a batch lie below one another. Bits of the style: A, B transposed, B packed, integers; then the epilogue: none, with
// a residual of its own, with C as the residual.
static void gemm_case(test *t, size_t batch, size_t m, size_t n, size_t k, size_t style) {
  const int ta = style & 1, tb = style >> 1 & 1, packs = style >> 2 & 1, exact = style >> 3 & 1, finishes = style >> 4;
  void *alone = 0;
  const uint64_t seed = random_bits(t);
  for (size_t r = 0; r < COUNT(thread_counts); r++) {
    t->random = seed;
    situation(t, AT_END, "batch=%zu m=%zu n=%zu k=%zu style=%zu threads=%zu", batch, m, n, k, style, thread_counts[r]);
    side a = {.transposed = ta}, b = {.transposed = tb};
    a.at = values(t, batch * (ta ? k : m), ta ? m : k, stride_for(t, ta ? m : k), exact);
    b.at = values(t, (packs ? 1 : batch) * (tb ? n : k), tb ? k : n, stride_for(t, tb ? k : n), exact);
    operand *c = values(t, batch * m, n, stride_for(t, n), exact), *packed = 0;
    c->written = 1;
    finish f = {.alpha = 1, .exact = exact};
    if (finishes) {
      f.alpha = exact ? 2 : 0.5, f.beta = exact ? -1 : 0.25, f.activation = exact ? CK_RELU : CK_GELU_TANH;
      f.bias = values(t, 1, n, n, exact), f.residual = finishes == 2 ? c : values(t, batch * m, n, stride_for(t, n), exact);
    }
    const size_t a_rows = ta ? k : m, b_rows = tb ? n : k;
    ck_gemm call = {.batch = batch, .m = m, .n = n, .k = k, .alpha = (float)f.alpha, .beta = (float)f.beta};
    call.a = floats(a.at), call.a_bs = a_rows * a.at->rs, call.a_rs = ta ? 1 : a.at->rs, call.a_cs = ta ? a.at->rs : 1;
    call.b = floats(b.at), call.b_bs = b_rows * b.at->rs, call.b_rs = tb ? 1 : b.at->rs, call.b_cs = tb ? b.at->rs : 1;
    call.c = floats(c), call.c_bs = m * c->rs, call.c_rs = c->rs;
    call.bias = floats(f.bias), call.residual = floats(f.residual), call.activation = f.activation;
    if (f.residual) call.residual_bs = m * f.residual->rs, call.residual_rs = f.residual->rs;
    if (packs) {
      packed = vector(t, ck_f32_packed_size(t->table, n, k), 1);
      pack(&b, 0, n, k, t->table->gemm_nr, packed);
      call.packed = floats(packed), call.b = 0;
    }
    f.held = held_in(c);
    seal(t);
    if (ck_f32_gemm(t->table, &call, thread_counts[r])) fail(t, "no scratch");
    check_untouched(t);
    if (r) check_bits(t, c, alone, "more threads");
    for (size_t z = 0; r == 0 && z < batch; z++) {
      a.first = z * a_rows, b.first = packs ? 0 : z * b_rows;
      compare(t, &a, &b, c, z * m, m, k, &f);
    }
    if (r == 0) alone = bits_of(c);
    free((void *)f.held);
  }
  free(alone);
}

void check_gemm(test *t) {
  // Batches; one row; B in place; K in slices; A in several blocks; A packed.
  static const size_t sizes[][4] = {{1, 1, 1, 1},    {1, 1, 33, 65},   {2, 3, 5, 0},    {1, 7, 48, 19}, {3, 13, 31, 17},
                                    {1, 3, 70, 395}, {1, 19, 37, 800}, {9, 24, 40, 33}, {1, 345, 9, 7}, {1, 25, 780, 6}};
  for (size_t k = 0; k < COUNT(sizes); k++)
    for (size_t style = 0; style < 48; style++) gemm_case(t, sizes[k][0], sizes[k][1], sizes[k][2], sizes[k][3], style);
}

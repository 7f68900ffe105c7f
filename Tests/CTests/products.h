// Matrix products in double, and what follows them: shared by the checks of everything that multiplies.
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "check.h"

// An operand seen as a matrix of a product: a part of it that starts at (first, left), and may lie transposed in memory.
typedef struct side {
  operand *at;
  int transposed;
  size_t first, left;
} side;

static inline double value(const side *s, size_t i, size_t j) {
  return s->transposed ? element(s->at, s->first + j, s->left + i) : element(s->at, s->first + i, s->left + j);
}

// What a product adds to A B: C before the call, bias, activation and residual.
typedef struct finish {
  double alpha, beta;
  const double *held;              // C before the call, all of it
  const operand *bias, *residual;  // the residual may be C
  size_t bias_row, bias_left;      // row of the bias, and column of C that its first element belongs to
  ck_activation activation;
  int exact;  // operands are small integers
} finish;

// What an activation is given: off by gamma(roundings) of its magnitude, or exact.
typedef struct argument {
  double value, magnitude, roundings;
  int exact;
} argument;
// c[i, j] = act(x) + residual, within the error of x through the activation, the activation's own, and one rounding.
void check_activated(test *t, const operand *c, size_t i, size_t j, const argument *x, ck_activation kind, double residual);

// c[i, j] = act(alpha sum + beta C + bias) + residual, where alpha sum went through so many roundings of this magnitude.
void check_finished(test *t, const operand *c, size_t i, size_t j, double sum, double magnitude, double roundings,
                    const finish *f);
// The product of two sides, [m, k] and [k, n], in c from (row, column) on.
typedef struct product {
  side a, b;
  const operand *c;
  size_t row, column, m, n, k;
} product;
void check_product(test *t, const product *p, const finish *f);

// An operand of f32, or of any type; small integers where sums are to be exact.
operand *values(test *t, size_t typed, size_t rows, size_t n, int exact);
// A bias and an activation in some cases; a residual of its own in some, C itself in others. `held` is C, to be freed.
finish any_finish(test *t, size_t typed, const operand *c, size_t bias_rows, size_t bias_n, int exact);
// None; or, with 1, all of it with a residual of its own, and with 2 with C as the residual.
finish fixed_finish(test *t, size_t kind, size_t typed, const operand *c, int exact);
// The call C [batch m, n] = A [m, k] B [k, n] with this finish; the entries of an operand lie below one another. B may be packed.
ck_gemm gemm_call(test *t, const side *a, const side *b, const operand *c, size_t batch, size_t k, int packs, const finish *f);
// A block of C [m, n] with this finish, f32 throughout; its A and B are the caller's to fill in.
ck_gemm_block block_of(const operand *c, size_t m, size_t n, size_t k, const finish *f);
// Panels of `unit` rows or columns, [k][unit] or in pairs, zero-padded, as gemm kernels read them: row `row` of `to`.
void pack(const side *from, int rows, size_t count, size_t k, size_t unit, operand *to, size_t row);
// Panels of [k, n] in a quantised format: random codes; scales below 2, denormals and zeros too.
operand *quantized_panels(test *t, ck_dtype type, size_t n, size_t k);
// What a number of pieces may drop, as roundings: one, two or three pieces an operand (docs/adr/0012-f32-split.md).
static inline double pieces_drop(size_t order, size_t k) { return order == 0 ? 131600 : order == 1 ? 516 : k < 32 ? 2 : 0; }
static inline size_t padded_to(size_t count, size_t unit) { return (count + unit - 1) / unit * unit; }

#endif

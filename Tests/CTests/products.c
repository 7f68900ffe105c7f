#include "products.h"

#include "activations.h"

void check_activated(test *t, const operand *c, size_t i, size_t j, const argument *x, ck_activation kind, double residual) {
  const double y = activation_of(kind, x->value), expected = y + residual;
  const double error = activated_error(kind, x->value, y, gamma_of(x->roundings) * x->magnitude);
  check_element(t, c, i, j, expected, x->exact ? 0 : error + 2 * U * fabs(expected));
}

void check_finished(test *t, const operand *c, size_t i, size_t j, double sum, double magnitude, double roundings,
                    const finish *f) {
  const double held = f->held[i * c->n + j], old = f->beta == 0 ? 0 : f->beta * held;
  const double bias = f->bias ? element(f->bias, f->bias_row, j - f->bias_left) : 0;
  const argument x = {f->alpha * sum + old + bias, fabs(f->alpha) * magnitude + fabs(old) + fabs(bias), roundings, f->exact};
  const double residual = !f->residual ? 0 : f->residual == c ? held : element(f->residual, i, j);
  check_activated(t, c, i, j, &x, f->activation, residual);
}

void check_product(test *t, const product *p, const finish *f) {
  for (size_t i = 0; i < p->m; i++)
    for (size_t j = 0; j < p->n; j++) {
      double sum = 0, magnitude = 0;
      for (size_t k = 0; k < p->k; k++) {
        const double term = value(&p->a, i, k) * value(&p->b, k, j);
        sum += term, magnitude += fabs(term);
      }
      check_finished(t, p->c, p->row + i, p->column + j, sum, magnitude, (double)p->k + 3, f);
    }
}

operand *values(test *t, size_t typed, size_t rows, size_t n, int exact) {
  const ck_dtype type = typed ? any_type(t) : CK_F32;
  const size_t rs = rows > 1 ? stride_for(t, n) : n;
  return exact ? integers(t, type, rows, n, rs) : matrix(t, type, rows, n, rs, 2);
}

finish any_finish(test *t, size_t typed, const operand *c, size_t bias_rows, size_t bias_n, int exact) {
  finish f = {.alpha = 1, .held = values_of(c), .exact = exact};
  if (one_in(t, 3)) return f;
  f.alpha = exact ? 2 : (float)random_in(t, -2, 2);
  f.bias = one_in(t, 2) ? values(t, 0, bias_rows, bias_n, exact) : 0;
  f.residual = one_in(t, 2) ? (one_in(t, 2) ? c : values(t, typed, c->rows, c->n, exact)) : 0;
  f.activation = exact ? (one_in(t, 2) ? CK_RELU : CK_IDENTITY) : (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  return f;
}

finish fixed_finish(test *t, size_t kind, size_t typed, const operand *c, int exact) {
  finish f = {.alpha = 1, .exact = exact};
  if (!kind) return f;
  f.alpha = exact ? 2 : 0.5, f.beta = exact ? -1 : 0.25, f.activation = exact ? CK_RELU : CK_GELU_TANH;
  f.bias = values(t, 0, 1, c->n, exact), f.residual = kind == 2 ? c : values(t, typed, c->rows, c->n, exact);
  return f;
}

ck_gemm gemm_call(test *t, const side *a, const side *b, const operand *c, size_t batch, size_t k, int packs, const finish *f) {
  const size_t m = c->rows / batch, n = c->n, a_rows = a->transposed ? k : m, b_rows = b->transposed ? n : k;
  const size_t a_rs = a->at->rs, b_rs = b->at->rs;
  ck_gemm call = {.batch = batch, .m = m, .n = n, .k = k, .alpha = (float)f->alpha, .beta = (float)f->beta};
  call.a = floats(a->at), call.a_bs = a_rows * a_rs, call.a_rs = a->transposed ? 1 : a_rs, call.a_cs = a->transposed ? a_rs : 1;
  call.b = floats(b->at), call.b_bs = b_rows * b_rs, call.b_rs = b->transposed ? 1 : b_rs, call.b_cs = b->transposed ? b_rs : 1;
  call.c = floats(c), call.c_bs = m * c->rs, call.c_rs = c->rs;
  call.a_type = a->at->type, call.b_type = b->at->type, call.c_type = c->type;
  call.bias = floats(f->bias), call.residual = floats(f->residual), call.activation = f->activation;
  if (f->residual)
    call.residual_bs = m * f->residual->rs, call.residual_rs = f->residual->rs, call.residual_type = f->residual->type;
  if (packs) {
    operand *packed = matrix(t, b->at->type, 1, ck_f32_packed_size(t->table, n, k), 0, 1);
    pack(b, 0, n, k, t->table->gemm_nr, packed, 0);
    call.packed = floats(packed), call.b = 0;
  }
  return call;
}

ck_gemm_block block_of(const operand *c, size_t m, size_t n, size_t k, const finish *f) {
  return (ck_gemm_block){.m = m,
                         .n = n,
                         .k = k,
                         .c = floats(c),
                         .c_rs = c->rs,
                         .alpha = (float)f->alpha,
                         .beta = (float)f->beta,
                         .bias = floats(f->bias),
                         .residual = floats(f->residual),
                         .residual_rs = f->residual ? f->residual->rs : 0,
                         .activation = f->activation};
}

void pack(const side *from, int rows, size_t count, size_t k, size_t unit, operand *to, size_t row) {
  const size_t paired = !rows && to->type == CK_BF16 ? k / 2 * 2 : 0;
  for (size_t q = 0; q < count; q += unit)
    for (size_t p = 0; p < k; p++)
      for (size_t r = 0; r < unit; r++) {
        const size_t i = q + r, at = p < paired ? p / 2 * 2 * unit + 2 * r + p % 2 : p * unit + r;
        set_element(to, row, q * k + at, i >= count ? 0 : rows ? value(from, i, p) : value(from, p, i));
      }
}

// Element-wise functions at every bfloat16 value: all exponents, denormals, infinities and NaN.
#include "activations.h"
#include "definitions.h"

enum { PATTERNS = 1 << 16 };

// y = kernel(x) for every pattern, x in row 0 and y in row 1 of what comes back.
static operand *at_every_bfloat16(test *t, ck_rows_kernel kernel, ck_activation kind) {
  operand *both = matrix(t, CK_F32, 2, PATTERNS, PATTERNS, 0);
  for (uint32_t bits = 0; bits < PATTERNS; bits++) floats(both)[bits] = (float)decoded(CK_BF16, bits);
  const ck_rows call = {.rows = 1, .n = PATTERNS, .x = floats(both), .y = floats(both) + PATTERNS, .activation = kind};
  kernel(&call, 0, 1);
  return both;
}

void check_special_activations(test *t) {
  for (int k = 0; k < CK_ACTIVATION_COUNT; k++) {
    const ck_activation kind = (ck_activation)k;
    situation(t, AT_END, "activation %d at every bfloat16", k);
    const operand *both = at_every_bfloat16(t, t->table->f32_activation, kind);
    const int gates = kind == CK_SILU || kind == CK_GELU_ERF || kind == CK_GELU_TANH || kind == CK_QUICK_GELU;
    for (size_t j = 0; j < PATTERNS; j++) {
      const double at = element(both, 0, j), exact = activation_of(kind, at);
      check_element(t, both, 1, j, gates && at == -INFINITY ? NAN : exact, activation_error(kind, at, exact));
    }
  }
}

static void check_function(test *t, ck_rows_kernel kernel, double (*exact)(double), double (*error)(double)) {
  situation(t, AT_END, "at every bfloat16");
  const operand *both = at_every_bfloat16(t, kernel, CK_IDENTITY);
  for (size_t j = 0; j < PATTERNS; j++) {
    const double y = exact(element(both, 0, j));
    check_element(t, both, 1, j, y, error(y));
  }
}
void check_special_exp(test *t) { check_function(t, t->table->f32_exp, exp, exp_error); }
void check_special_erf(test *t) { check_function(t, t->table->f32_erf, erf, erf_error); }
void check_special_softplus(test *t) { check_function(t, t->table->f32_softplus, softplus_of, softplus_error); }

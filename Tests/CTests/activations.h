// The activations in double, and the errors that CKernels/body/math.h allows them.
#ifndef ACTIVATIONS_H
#define ACTIVATIONS_H

#include "check.h"

static inline double gelu_tanh_argument(double x) { return 2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x); }

// The exact value, as near as double has it. At -inf the products x * 0 are NaN, as in the kernels.
static inline double activation_of(ck_activation kind, double x) {
  switch (kind) {
    case CK_RELU:
      return x < 0 ? 0 : x;
    case CK_GELU_ERF:
      return x * 0.5 * erfc(-x * 0.70710678118654752440);
    case CK_GELU_TANH:
      return x / (1 + exp(-gelu_tanh_argument(x)));
    case CK_SILU:
      return x / (1 + exp(-x));
    case CK_TANH:
      return tanh(x);
    case CK_SIGMOID:
      return 1 / (1 + exp(-x));
    case CK_QUICK_GELU:
      return x / (1 + exp(-1.702 * x));
    default:
      return x;
  }
}

static inline double activation_error(ck_activation kind, double x, double y) {
  switch (kind) {
    case CK_TANH:
    case CK_SIGMOID:
      return 4 * U * fabs(y) + 0x1p-149;
    case CK_SILU:
      return 5 * U * fabs(y) + 0x1p-147 * fabs(x);
    case CK_GELU_TANH:
      return MIN((4 + 5 * fabs(gelu_tanh_argument(x))) * U * fabs(y), 3 * U * fabs(x)) + 0x1p-122;
    case CK_GELU_ERF:
      return 4.5 * U * fabs(x);
    case CK_QUICK_GELU:
      return MIN((4 + 5 * 1.702 * fabs(x)) * U * fabs(y), 3 * U * fabs(x)) + 0x1p-118;
    default:
      return 0;
  }
}

// The functions that are no activation, and their errors.
static inline double exp_error(double y) { return 2 * U * fabs(y) + 0x1p-149; }
static inline double erf_error(double y) { return 2 * U * fabs(y) + 0x1p-149; }
static inline double softplus_of(double x) { return MAX(x, 0) + log1p(exp(-fabs(x))); }
static inline double softplus_error(double y) { return 5 * U * fabs(y) + 0x1p-149; }

// The largest slope of the function, by which it can magnify an error of its argument.
static inline double activation_slope(ck_activation kind) {
  if (kind == CK_GELU_ERF || kind == CK_GELU_TANH) return 1.13;
  return kind == CK_SILU || kind == CK_QUICK_GELU ? 1.1 : kind == CK_SIGMOID ? 0.25 : 1;
}

// The error of y = f(x) where x itself is off by `error`.
static inline double activated_error(ck_activation kind, double x, double y, double error) {
  const double shift = activation_slope(kind) * error;
  return shift + activation_error(kind, fabs(x) + error, fabs(y) + shift);
}

#endif

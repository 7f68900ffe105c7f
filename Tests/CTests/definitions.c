// What each row kernel means, in double, and how far from it a kernel may be. Where a type is not f32 its storage comes on top.
#include "definitions.h"

#include "activations.h"

void define_f32_epilogue(const row *r) {
  const ck_activation kind = r->call->activation;
  for (size_t j = 0; j < r->n; j++) {
    const double scaled = r->call->scale * r->x[j], bias = r->bias ? r->bias[j] : 0, y = activation_of(kind, scaled + bias);
    r->y[j] = y + (r->other ? r->other[j] : 0);
    r->y_error[j] = activated_error(kind, scaled + bias, y, gamma_of(2) * (fabs(scaled) + fabs(bias))) + 2 * U * fabs(r->y[j]);
  }
}

void define_f32_activation(const row *r) {
  for (size_t j = 0; j < r->n; j++) {
    r->y[j] = activation_of(r->call->activation, r->x[j]);
    r->y_error[j] = activation_error(r->call->activation, r->x[j], r->y[j]);
  }
}

void define_f32_gated(const row *r) {
  for (size_t j = 0; j < r->n; j++) {
    const double y = activation_of(r->call->activation, r->x[j]);
    r->y[j] = y * r->other[j];
    r->y_error[j] = activation_error(r->call->activation, r->x[j], y) * fabs(r->other[j]) + U * fabs(r->y[j]);
  }
}

void define_f32_exp(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = exp(r->x[j]), r->y_error[j] = exp_error(r->y[j]);
}
void define_f32_erf(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = erf(r->x[j]), r->y_error[j] = erf_error(r->y[j]);
}
void define_f32_softplus(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = softplus_of(r->x[j]), r->y_error[j] = softplus_error(r->y[j]);
}

void define_f32_repu(const row *r) {
  const double power = (double)r->call->power;
  for (size_t j = 0; j < r->n; j++) {
    r->y[j] = pow(MAX(r->x[j], 0), power);
    r->y_error[j] = gamma_of(power - 1) * r->y[j] + power * 0x1p-149;
  }
}

void define_f32_softmax(const row *r) {
  const ptrdiff_t diagonal = r->call->diagonal;
  double top = -INFINITY, range = 0, sum = 0;
  size_t seen = 0;
  for (size_t j = 0; j < r->n; j++) {
    if (diagonal < (ptrdiff_t)r->n && (ptrdiff_t)j > (ptrdiff_t)r->i + diagonal) break;
    const double other = r->other ? r->other[j] : 0, s = r->call->scale * r->x[j] + other;
    r->y[j] = s, top = MAX(top, s), range = MAX(range, fabs(r->call->scale * r->x[j]) + fabs(other));
    seen++;
  }
  for (size_t j = 0; j < seen; j++) sum += exp(r->y[j] - top);
  for (size_t j = 0; j < r->n; j++) {
    r->y[j] = j < seen ? exp(r->y[j] - top) / sum : 0;
    r->y_error[j] = j < seen ? (12 * U * range + gamma_of((double)r->n + 12)) * r->y[j] + 0x1p-125 : 0;
  }
}

// The three norms: x + other less its mean (layer norm), over a spread, times weight, plus bias. normBound in RowWorkloads.swift.
static void define_norm(const row *r, int centred, int by_length) {
  const double n = (double)MAX(r->n, 1), epsilon = r->call->epsilon;
  double mean = 0, size = 0, squares = 0, largest = 0;
  for (size_t j = 0; j < r->n; j++) {
    r->y[j] = r->z[j] = r->x[j] + (r->other ? r->other[j] : 0);
    r->z_error[j] = U * fabs(r->z[j]);
    mean += centred ? r->y[j] / n : 0, size += fabs(r->y[j]) / n, largest = MAX(largest, fabs(r->y[j]));
  }
  for (size_t j = 0; j < r->n; j++) squares += (r->y[j] - mean) * (r->y[j] - mean);
  const double spread = by_length ? MAX(sqrt(squares), epsilon) : sqrt(squares / n + epsilon);
  const double typical = by_length ? spread / sqrt(n) : spread;
  const double added = r->other ? U * largest : 0, shift = centred ? gamma_of(n + 1) * size + added : 0;
  const double factor = gamma_of(n / 2 + 8) + (added + shift + 2 * U * largest) / typical;
  for (size_t j = 0; j < r->n; j++) {
    const double distance = r->y[j] - mean, scale = (r->weight ? r->weight[j] : 1) / spread, value = distance * scale;
    const double bias = r->bias ? r->bias[j] : 0, deviation = added + shift + (centred ? U * fabs(distance) : 0);
    r->y[j] = value + bias;
    r->y_error[j] = fabs(scale) * deviation + fabs(value) * factor * (1 + factor) + 4 * U * (fabs(value) + fabs(bias));
  }
}
void define_f32_layernorm(const row *r) { define_norm(r, 1, 0); }
void define_f32_rmsnorm(const row *r) { define_norm(r, 0, 0); }
void define_f32_l2norm(const row *r) { define_norm(r, 0, 1); }

// One rounding of an exact value.
static void rounded_once(const row *r, size_t j, double y) { r->y[j] = y, r->y_error[j] = U * fabs(y); }

void define_f32_add(const row *r) {
  for (size_t j = 0; j < r->n; j++) rounded_once(r, j, r->x[j] + r->other[j]);
}
void define_f32_mul(const row *r) {
  for (size_t j = 0; j < r->n; j++) rounded_once(r, j, r->x[j] * r->other[j]);
}
void define_f32_scale(const row *r) {
  for (size_t j = 0; j < r->n; j++) rounded_once(r, j, r->call->scale * r->x[j]);
}

void define_f32_binary(const row *r) {
  for (size_t j = 0; j < r->n; j++) {
    const double a = r->x[j], b = r->other[j];
    const double results[] = {[CK_SUBTRACT] = a - b, [CK_DIVIDE] = a / b, [CK_MAXIMUM] = MAX(a, b), [CK_MINIMUM] = MIN(a, b)};
    rounded_once(r, j, results[r->call->variant]);
  }
}
void define_f32_clamp(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = MIN(MAX(r->x[j], r->call->low), r->call->high), r->y_error[j] = 0;
}
void define_f32_masked_copy(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = r->other[j] != 0 ? r->x[j] : r->held[j], r->y_error[j] = 0;
}

// From the nearer end, whose weight is rounded once; a difference, a product and a sum.
void define_f32_lerp(const row *r) {
  const double t = r->call->scale;
  for (size_t j = 0; j < r->n; j++) {
    const double distance = r->other[j] - r->x[j];
    r->y[j] = r->x[j] + t * distance;
    r->y_error[j] = gamma_of(3) * (fabs(t) < 0.5 ? fabs(t) : fabs(1 - t)) * fabs(distance) + U * fabs(r->y[j]);
  }
}

// What CKernels/body/reduce.h says of a sum's depth, and two roundings of a term.
static double reduction_error(size_t n) { return gamma_of(22 + ceil(log2((double)MAX(n, 1)))); }

// The cosine is off by the errors of its sums; weights by that over the sine, once for the angle and once for the quotient.
void define_f32_slerp(const row *r) {
  const double t = r->call->scale;
  double product = 0, magnitude = 0, a = 0, b = 0;
  for (size_t j = 0; j < r->n; j++) {
    product += r->x[j] * r->other[j], magnitude += fabs(r->x[j] * r->other[j]);
    a += r->x[j] * r->x[j], b += r->other[j] * r->other[j];
  }
  const double length = sqrt(a * b), cosine = product / length, angle = acos(cosine), sine = sin(angle);
  const double shift = reduction_error(r->n) * (magnitude / length + fabs(cosine));
  if (!(fabs(cosine) <= 0.9995)) {
    define_f32_lerp(r);
  } else {
    const double from = sin((1 - t) * angle) / sine, to = sin(t * angle) / sine, turn = shift / sine;
    const double from_error = turn * (fabs(1 - t) + fabs(from)) / sine + U * fabs(from);
    const double to_error = turn * (fabs(t) + fabs(to)) / sine + U * fabs(to);
    for (size_t j = 0; j < r->n; j++) {
      r->y[j] = from * r->x[j] + to * r->other[j];
      r->y_error[j] = from_error * fabs(r->x[j]) + to_error * fabs(r->other[j]);
      r->y_error[j] += gamma_of(2) * (fabs(from * r->x[j]) + fabs(to * r->other[j]));
    }
  }
  // At the border of the two either is right.
  for (size_t j = 0; j < r->n && fabs(fabs(cosine) - 0.9995) < 2 * shift; j++) r->y_error[j] = INFINITY;
}

// No sum is deeper than 2 + 63 + 63 + n / 4096.
void define_f32_cumsum(const row *r) {
  double sum = 0, magnitude = 0;
  for (size_t j = 0; j < r->n; j++) {
    sum += r->x[j], magnitude += fabs(r->x[j]);
    r->y[j] = sum, r->y_error[j] = gamma_of(MIN((double)j + 2, 129 + (double)j / 4096)) * magnitude;
  }
}

double reduced(ck_reduction kind, const double *x, size_t n, double *error) {
  double sum = 0, magnitude = 0, squares = 0, top = -INFINITY, least = INFINITY, exps = 0;
  for (size_t j = 0; j < n; j++) {
    sum += x[j], magnitude += fabs(x[j]), squares += x[j] * x[j];
    top = MAX(top, x[j]), least = MIN(least, x[j]);
  }
  for (size_t j = 0; j < n; j++) exps += exp(x[j] - top);
  const double y[] = {[CK_SUM] = sum,
                      [CK_MEAN] = sum / (double)n,
                      [CK_SUM_SQUARES] = squares,
                      [CK_MAX] = top,
                      [CK_MIN] = least,
                      [CK_LOG_SUM_EXP] = n ? top + log(exps) : -INFINITY};
  *error = reduction_error(n) * (kind == CK_SUM ? magnitude : kind == CK_MEAN ? magnitude / (double)n : squares);
  if (kind == CK_MAX || kind == CK_MIN || !n) *error = 0;
  // A relative error of the sum, and of each term that of its argument and of exp.
  if (kind == CK_LOG_SUM_EXP && n) *error = reduction_error(n) + U * (top - least) + 2 * U + U * fabs(y[kind]);
  return y[kind];
}
void define_f32_reduce(const row *r) { r->y[0] = reduced((ck_reduction)r->call->variant, r->x, r->x_n, r->y_error); }

void define_f32_gather(const row *r) {
  const double *x = r->x + (size_t)r->call->index[r->i] * r->x_n;
  for (size_t j = 0; j < r->n; j++) rounded_once(r, j, x[j] + (r->call->accumulate ? r->held[j] : 0));
}

void define_f32_mean_pool(const row *r) {
  const size_t first = (size_t)r->call->index[r->i], last = (size_t)r->call->index[r->i + 1];
  const double count = (double)MAX(last - first, 1);
  for (size_t j = 0; j < r->n; j++) {
    double sum = 0, magnitude = 0;
    for (size_t p = first; p < last; p++) sum += r->x[p * r->x_n + j], magnitude += fabs(r->x[p * r->x_n + j]);
    r->y[j] = sum / count;
    r->y_error[j] = gamma_of(count + 2) * magnitude / count;
  }
}

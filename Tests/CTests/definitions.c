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

// GroupNorm: the sums of a block, the affine step, and the driver.
#include <stdlib.h>

#include "activations.h"
#include "definitions.h"
#include "image.h"

// Sums around the value that the kernel chose, which must be near the mean.
static void moments_case(test *t, size_t rows, size_t width, size_t groups, int place) {
  situation(t, place, "rows=%zu n=%zu groups=%zu place=%d", rows, width * groups, groups, place);
  const size_t n = width * groups;
  const int alone = rows == 1 && groups == 1;
  operand *x = matrix(t, any_type(t), rows, n, stride_for(t, n), 2), *out = matrix(t, CK_F32, groups, 3, 3, 1);
  operand *scratch = alone ? 0 : vector(t, CK_GROUP_ARRAYS * n, 1);
  const double offset = one_in(t, 2) ? 0 : 100;  // far from 0, as squares of the elements would not stand
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < n; j++) set_element(x, i, j, element(x, i, j) + offset);
  out->written = 1;
  if (scratch) scratch->written = 1;
  ck_group_moments call = {.rows = rows, .n = n, .groups = groups, .x = x->at, .x_rs = x->rs, .x_type = x->type};
  call.out = floats(out), call.scratch = floats(scratch);
  seal(t);
  t->table->f32_group_moments(&call);
  check_untouched(t);
  const double count = (double)(rows * width);
  for (size_t group = 0; group < groups; group++) {
    const double near = element(out, group, 0);
    double mean = 0, size = 0, sum = 0, magnitude = 0, squares = 0;
    for (size_t item = 0; item < rows * width; item++) {
      const double value = element(x, item / width, group * width + item % width), d = value - near;
      mean += value / count, size += fabs(value) / count;
      sum += d, magnitude += fabs(d), squares += d * d;
    }
    check_element(t, out, group, 0, mean, gamma_of(count + 1) * size);
    check_element(t, out, group, 1, sum, gamma_of(count + 1) * magnitude);
    check_element(t, out, group, 2, squares, gamma_of(count + 3) * squares);
  }
}

void check_group_moments(test *t) {
  for (size_t width = 1; width <= 67; width++)
    for (int place = AT_END; place < PLACES - 1; place++)
      moments_case(t, one_in(t, 3) ? 1 : 1 + random_below(t, 10), width, one_in(t, 2) ? 1 : 1 + random_below(t, 4), place);
  moments_case(t, 1, 8192, 1, AT_END);
  moments_case(t, 130, 10, 32, AT_END);
}

static void affine_case(test *t, size_t n, int place) {
  const size_t rows = random_below(t, 5);
  const int uniform = one_in(t, 2);
  const ck_activation kind = (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  situation(t, place, "rows=%zu n=%zu uniform=%d activation=%d place=%d", rows, n, uniform, kind, place);
  operand *x = matrix(t, CK_F32, rows, n, stride_for(t, n), 4), *values[3];
  for (size_t k = 0; k < COUNT(values); k++) values[k] = vector(t, uniform ? 1 : n, 2);
  operand *y = one_in(t, 2) ? x : matrix(t, CK_F32, rows, n, stride_for(t, n), 2);
  double *held = values_of(x);
  y->written = 1;
  ck_group_affine call = {.rows = rows, .n = n, .x = floats(x), .x_rs = x->rs, .y = floats(y), .y_rs = y->rs};
  call.mean = floats(values[0]), call.scale = floats(values[1]), call.bias = floats(values[2]);
  call.uniform = uniform, call.activation = kind;
  seal(t);
  t->table->f32_group_affine(&call);
  check_untouched(t);
  for (size_t item = 0; item < rows * n; item++) {
    const size_t j = uniform ? 0 : item % n;
    const double product = (held[item] - element(values[0], 0, j)) * element(values[1], 0, j), bias = element(values[2], 0, j);
    const double expected = activation_of(kind, product + bias);
    const double error = activated_error(kind, product + bias, expected, gamma_of(3) * (fabs(product) + fabs(bias)));
    check_element(t, y, item / n, item % n, expected, error);
  }
  free(held);
}

void check_group_affine(test *t) {
  for (size_t n = 0; n <= 67; n++)
    for (int place = AT_END; place < PLACES - 1; place++) affine_case(t, n, place);
}

typedef struct group_shape {
  size_t batch, channels, h, w, groups;
  int channels_last;
} group_shape;

typedef struct group_operands {
  const image *x, *y;
  const double *held;  // x before the call, as laid out in its operand
  const operand *weight, *bias;
  double epsilon;
  ck_activation activation;
} group_operands;

static double held_pixel(const group_operands *o, size_t b, size_t c, size_t i, size_t j) {
  const size_t offset = offset_of(o->x, b, c, i, j), rs = o->x->at->rs;
  return o->held[offset / rs * o->x->at->n + offset % rs];
}

// The errors of the mean, deviation, factor and affine step added up: groupNormBound in GroupNorm.swift.
static void compare_group(test *t, const group_operands *o, size_t b, size_t first, size_t last) {
  const image *x = o->x;
  const size_t pixels = x->h * x->w, count = (last - first) * pixels;
  double mean = 0, size = 0, squares = 0;
  for (size_t item = 0; item < count; item++) {
    const double value = held_pixel(o, b, first + item / pixels, item % pixels / x->w, item % x->w);
    mean += value / (double)count, size += fabs(value) / (double)count;
  }
  for (size_t item = 0; item < count; item++) {
    const double d = held_pixel(o, b, first + item / pixels, item % pixels / x->w, item % x->w) - mean;
    squares += d * d;
  }
  const double n = (double)count, spread = sqrt(squares / n + o->epsilon), shift = gamma_of(n + 1) * size + U * fabs(mean);
  const double factor = gamma_of(n / 2 + 8) + shift / spread;
  for (size_t item = 0; item < count; item++) {
    const size_t c = first + item / pixels, i = item % pixels / x->w, j = item % x->w;
    const double scale = (o->weight ? element(o->weight, 0, c) : 1) / spread, bias = o->bias ? element(o->bias, 0, c) : 0;
    const double distance = held_pixel(o, b, c, i, j) - mean, value = distance * scale;
    const double error =
        fabs(scale) * (shift + U * fabs(distance)) + fabs(value) * factor * (1 + factor) + 4 * U * (fabs(value) + fabs(bias));
    const double expected = activation_of(o->activation, value + bias);
    check_pixel(t, o->y, b, c, i, j, expected, activated_error(o->activation, value + bias, expected, error));
  }
}

static void group_norm_case(test *t, const void *shape, size_t threads) {
  const group_shape s = *(const group_shape *)shape;
  situation(t, AT_END, "%zux%zux%zux%zu groups=%zu last=%d threads=%zu", s.batch, s.channels, s.h, s.w, s.groups, s.channels_last,
            threads);
  const image x = image_of(t, any_type(t), s.channels_last, s.batch, s.channels, s.h, s.w);
  const image y = one_in(t, 3) ? x : image_of(t, any_type(t), s.channels_last, s.batch, s.channels, s.h, s.w);
  operand *weight = one_in(t, 2) ? vector(t, s.channels, 2) : 0, *bias = one_in(t, 2) ? vector(t, s.channels, 2) : 0;
  y.at->written = 1;
  ck_group_norm g = {.batch = s.batch, .channels = s.channels, .h = s.h, .w = s.w, .groups = s.groups};
  g.channels_last = s.channels_last, g.weight = floats(weight), g.bias = floats(bias), g.epsilon = 1e-5f;
  g.activation = (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  g.x = x.at->at, g.x_bs = x.bs, g.x_cs = x.cs, g.x_hs = x.hs, g.x_ws = x.ws, g.x_type = x.at->type;
  g.y = y.at->at, g.y_bs = y.bs, g.y_cs = y.cs, g.y_hs = y.hs, g.y_ws = y.ws, g.y_type = y.at->type;
  double *held = values_of(x.at);
  seal(t);
  if (ck_f32_group_norm(t->table, &g, threads)) fail(t, "no scratch");
  check_untouched(t);
  check_spare(t, &y);
  const group_operands o = {&x, &y, held, weight, bias, g.epsilon, g.activation};
  const size_t width = s.channels / s.groups;
  for (size_t k = 0; threads == 1 && s.h * s.w && k < s.batch * s.groups; k++)
    compare_group(t, &o, k / s.groups, k % s.groups * width, (k % s.groups + 1) * width);
  free(held);
}

void check_group_norm(test *t) {
  // Small; a whole group a task; several blocks; lines of several pieces.
  static const size_t sizes[][5] = {{0, 4, 2, 2, 2},    {1, 4, 0, 3, 2},      {2, 6, 1, 1, 3},
                                    {1, 7, 3, 5, 7},    {2, 30, 4, 4, 3},     {1, 64, 7, 3, 32},
                                    {2, 64, 40, 40, 8}, {1, 128, 20, 30, 16}, {1, 2, 3, 9000, 1}};
  for (size_t repeat = 0; repeat < 8; repeat++)
    for (size_t k = 0; k < 2 * COUNT(sizes); k++) {
      const size_t *size = sizes[k / 2];
      const group_shape shape = {size[0], size[1], size[2], size[3], size[4], k % 2};
      check_threads(t, group_norm_case, &shape);
    }
}

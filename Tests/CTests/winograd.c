// Winograd's F(4, 3), and the differences of repeated pixels: their transforms beside their matrices, and the driver beside the
// direct sum.
#include <stdlib.h>

#include "definitions.h"
#include "image.h"
#include "products.h"

#define A 0.70710678118654752440
#define B 1.41421356237309504880

static const double input_matrix[6][6] = {{1, 0, -2.5, 0, 1, 0},      {0, -2 * A, -2, A, 1, 0},   {0, 2 * A, -2, -A, 1, 0},
                                          {0, -B / 2, -0.5, B, 1, 0}, {0, B / 2, -0.5, -B, 1, 0}, {0, 1, 0, -2.5, 0, 1}};
static const double weights_matrix[6][3] = {{1, 0, 0},
                                            {-2 / 3.0, -2 / 3.0 * A, -1 / 3.0},
                                            {-2 / 3.0, 2 / 3.0 * A, -1 / 3.0},
                                            {1 / 6.0, B / 6, 1 / 3.0},
                                            {1 / 6.0, -B / 6, 1 / 3.0},
                                            {0, 0, 1}};
static const double output_matrix[4][6] = {
    {1, 1, 1, 1, 1, 0}, {0, A, -A, B, -B, 0}, {0, 0.5, 0.5, 2, 2, 0}, {0, A / 2, -A / 2, 2 * B, -2 * B, 1}};
static const double doubled_input_matrix[3][3] = {{1, -1, 0}, {0, 1, 0}, {0, -1, 1}};
static const double doubled_weights_matrix[3][3] = {{1, 0, 0}, {1, 1, 1}, {0, 0, 1}};
// The first pixel of two, the second, and the first alone at the end of an odd image.
static const double doubled_output_matrix[3][3] = {{1, 1, 0}, {0, 1, 1}, {1, 1, 1}};

// Element (i, j) of S x Tᵀ for rows S[i] and T[j], [n], and x [n][n], and the same of absolute values.
static argument transformed_by(const double *s_row, const double *t_row, size_t n, const double *x, double roundings) {
  argument to = {0, 0, roundings, 0};
  for (size_t r = 0; r < n; r++)
    for (size_t s = 0; s < n; s++) {
      const double term = s_row[r] * t_row[s] * x[r * n + s];
      to.value += term, to.magnitude += fabs(term);
    }
  return to;
}

static argument transformed(const double *matrix, size_t n, size_t i, size_t j, const double *x, double roundings) {
  return transformed_by(matrix + i * n, matrix + j * n, n, x, roundings);
}

// to [places places][n] beside T x Tᵀ of every column of `from` [side side][n].
static void check_transformed(test *t, const operand *from, size_t side, const double *matrix, size_t places, double roundings,
                              const operand *to) {
  for (size_t item = 0; item < to->rows * to->n; item++) {
    const size_t place = item / to->n, column = item % to->n;
    double square[36];
    for (size_t i = 0; i < side * side; i++) square[i] = element(from, i, column);
    const argument x = transformed(matrix, side, place / places, place % places, square, roundings);
    check_activated(t, to, place, column, &x, CK_IDENTITY, 0);
  }
}

static void check_input(test *t, size_t side, const double *matrix_of_side, double roundings,
                        void (*kernel)(ck_dtype, size_t, const void *const *, float *, size_t)) {
  for (size_t n = 0; n <= 67; n++) {
    const int place = any_place(t);
    situation(t, place, "n=%zu place=%d", n, place);
    const operand *x = matrix(t, any_type(t), side * side, n, stride_for(t, n), 2);
    operand *v = matrix(t, CK_F32, side * side, n, stride_for(t, n), 1);
    v->written = 1;
    const void *rows[36];
    for (size_t i = 0; i < side * side; i++) rows[i] = (const char *)x->at + i * x->rs * ck_dtype_size(x->type);
    seal(t);
    kernel(x->type, n, rows, floats(v), v->rs);
    check_untouched(t);
    check_transformed(t, x, side, matrix_of_side, side, roundings, v);
  }
}

void check_winograd_input(test *t) { check_input(t, 6, &input_matrix[0][0], 8, t->table->f32_winograd_input); }
void check_doubled_input(test *t) { check_input(t, 3, &doubled_input_matrix[0][0], 2, t->table->f32_doubled_input); }

static void check_weights(test *t, size_t side, const double *matrix_of_side, double roundings,
                          void (*kernel)(size_t, const float *, size_t, float *, size_t)) {
  const size_t nr = t->table->gemm_nr;
  for (size_t k = 0; k <= 9; k++) {
    situation(t, AT_END, "k=%zu", k);
    const size_t n = k * nr;
    const operand *w = matrix(t, CK_F32, 9, n, stride_for(t, n), 2);
    operand *u = matrix(t, CK_F32, side * side, n, stride_for(t, n), 1);
    u->written = 1;
    seal(t);
    kernel(k, floats(w), w->rs, floats(u), u->rs);
    check_untouched(t);
    check_transformed(t, w, 3, matrix_of_side, side, roundings, u);
  }
}

void check_winograd_weights(test *t) { check_weights(t, 6, &weights_matrix[0][0], 10, t->table->f32_winograd_weights); }
void check_doubled_weights(test *t) { check_weights(t, 3, &doubled_weights_matrix[0][0], 4, t->table->f32_doubled_weights); }

// Squares of y of `side` pixels, from `places` a side of products; some are cut by the end of the image.
static void check_output(test *t, size_t side, size_t places, void (*kernel)(const ck_winograd_tile *)) {
  for (size_t n = 0; n <= 67; n++) {
    const int place = any_place(t);
    situation(t, place, "n=%zu place=%d", n, place);
    const int odd_h = side == 2 && one_in(t, 2), odd_w = side == 2 && one_in(t, 2);
    const operand *m = matrix(t, CK_F32, places * places, n, stride_for(t, n), 2);
    operand *y = matrix(t, any_type(t), side * side, n, stride_for(t, n), 1);
    const finish f = any_finish(t, 1, y, 1, n, 0);
    y->written = 1;
    ck_winograd_tile tile = {.n = n, .m = floats(m), .m_fs = m->rs, .scale = (float)f.alpha, .bias = floats(f.bias)};
    tile.activation = f.activation, tile.y_type = y->type, tile.residual_type = f.residual ? f.residual->type : CK_F32;
    for (size_t i = 0; i < side * side; i++) {
      if (side == 2 ? i / 2 <= (size_t)!odd_h && i % 2 <= (size_t)!odd_w : i % 4 != 3 || n % 2)
        tile.y[i] = (char *)y->at + i * y->rs * ck_dtype_size(y->type);
      if (f.residual) tile.residual[i] = (const char *)f.residual->at + i * f.residual->rs * ck_dtype_size(f.residual->type);
    }
    seal(t);
    kernel(&tile);
    check_untouched(t);
    for (size_t item = 0; item < side * side * n; item++) {
      if (!tile.y[item / n]) continue;
      const size_t i = item / n / side, j = item / n % side;
      double products[36];
      for (size_t q = 0; q < places * places; q++) products[q] = element(m, q, item % n);
      const double *down = side == 2 ? doubled_output_matrix[odd_h ? 2 : i] : output_matrix[i];
      const double *across = side == 2 ? doubled_output_matrix[odd_w ? 2 : j] : output_matrix[j];
      const argument to = transformed_by(down, across, places, products, 0);
      check_finished(t, y, item / n, item % n, to.value, to.magnitude, 12, &f);
    }
    free((void *)f.held);
  }
}

void check_winograd_output(test *t) { check_output(t, 4, 6, t->table->f32_winograd_output); }
void check_doubled_output(test *t) { check_output(t, 2, 3, t->table->f32_doubled_output); }

typedef struct winograd_shape {
  size_t batch, channels, outputs, h, w;
  int doubled;
} winograd_shape;

// The direct sum of one output, and Winograd's of absolute values.
static argument winograd_sum(const ck_conv *g, const image *x, const operand *weights, size_t b, size_t out, size_t i, size_t j) {
  argument to = {0, 0, (double)g->channels + 34, 0};
  for (size_t c = 0; c < g->channels; c++) {
    double places[36] = {0}, square[36] = {0};
    for (size_t s = 0; s < 36; s++) {
      const size_t row = i / 4 * 4 + s / 6 - g->h.padding, column = j / 4 * 4 + s % 6 - g->w.padding;
      if (row < g->h.input && column < g->w.input) square[s] = pixel(x, b, c, row, column);
    }
    double taps[9];
    for (size_t s = 0; s < 9; s++) taps[s] = element(weights, s * g->channels + c, out);
    for (size_t s = 0; s < 9; s++) to.value += g->scale * taps[s] * square[(i % 4 + s / 3) * 6 + j % 4 + s % 3];
    for (size_t f = 0; f < 36; f++)
      places[f] = transformed(&input_matrix[0][0], 6, f / 6, f % 6, square, 0).magnitude *
                  transformed(&weights_matrix[0][0], 3, f / 6, f % 6, taps, 0).magnitude;
    to.magnitude += fabs(g->scale) * transformed(&output_matrix[0][0], 6, i % 4, j % 4, places, 0).magnitude;
  }
  return to;
}

// The direct sum of one output of a doubled image, and that of absolute values with what differences add to the middle tap.
static argument doubled_sum(const ck_conv *g, const image *x, const operand *weights, size_t b, size_t out, size_t i, size_t j) {
  static const double apart[3][3] = {{1, 0, 0}, {2, 1, 2}, {0, 0, 1}};
  argument to = {0, 0, (double)g->channels + 14, 0};
  for (size_t c = 0; c < g->channels; c++) {
    double taps[9], magnitudes[9];
    for (size_t s = 0; s < 9; s++) taps[s] = element(weights, s * g->channels + c, out), magnitudes[s] = fabs(taps[s]);
    for (size_t s = 0; s < 9; s++) {
      const size_t row = i + s / 3 - 1, column = j + s % 3 - 1;
      if (row >= g->h.input || column >= g->w.input) continue;
      const double value = g->scale * pixel(x, b, c, row / 2, column / 2);
      to.value += taps[s] * value;
      to.magnitude += transformed_by(apart[s / 3], apart[s % 3], 3, magnitudes, 0).magnitude * fabs(value);
    }
  }
  return to;
}

static void winograd_case(test *t, const void *shape, size_t threads) {
  const winograd_shape s = *(const winograd_shape *)shape;
  ck_conv g = {.batch = s.batch, .channels = s.channels, .outputs = s.outputs, .channels_last = 1, .scale = 0.75f};
  g.doubled = s.doubled;
  g.h = (ck_conv_axis){.input = s.h, .kernel = 3, .stride = 1, .dilation = 1, .padding = s.doubled ? 1 : random_below(t, 3)};
  g.w = (ck_conv_axis){.input = s.w, .kernel = 3, .stride = 1, .dilation = 1, .padding = s.doubled ? 1 : random_below(t, 3)};
  g.h.output = s.h + g.h.padding - 1, g.w.output = s.w + g.w.padding - 1;
  situation(t, any_place(t), "%zux%zux%zux%zu to %zux%zux%zu doubled=%d threads=%zu", s.batch, s.channels, s.h, s.w, s.outputs,
            g.h.output, g.w.output, s.doubled, threads);
  const size_t apart = s.doubled ? 2 : 1;
  const int typed = one_in(t, 2);
  const image x =
      image_of(t, typed ? any_type(t) : CK_F32, 1, s.batch, s.channels, (s.h + apart - 1) / apart, (s.w + apart - 1) / apart);
  const image y = image_of(t, typed ? any_type(t) : CK_F32, 1, s.batch, s.outputs, g.h.output, g.w.output);
  const image other = image_of(t, typed ? any_type(t) : CK_F32, 1, s.batch, s.outputs, g.h.output, g.w.output);
  const image *residual = one_in(t, 3) ? 0 : one_in(t, 2) ? &y : &other;
  operand *weights = values(t, 1, 9 * s.channels, s.outputs, 0);
  operand *const panels = matrix(t, weights->type, 1, ck_f32_packed_size(t->table, s.outputs, weights->rows), 0, 1);
  pack(&(side){.at = weights}, 0, s.outputs, weights->rows, t->table->gemm_nr, panels, 0);
  const operand *bias = one_in(t, 2) ? values(t, 0, 1, s.outputs, 0) : 0;
  const operand *add = one_in(t, 2) ? values(t, 1, s.batch, s.outputs, 0) : 0;
  const double *held = values_of(residual ? residual->at : 0);
  y.at->written = 1;
  g.x_type = x.at->type, g.y_type = y.at->type, g.residual_type = residual ? residual->at->type : CK_F32;
  g.x = x.at->at, g.x_s = (ck_conv_strides){x.bs, x.hs, x.ws, x.cs};
  g.y = y.at->at, g.y_s = (ck_conv_strides){y.bs, y.hs, y.ws, y.cs};
  g.weights = panels->at, g.weights_type = panels->type, g.bias = floats(bias);
  if (add) g.add = add->at, g.add_rs = add->rs, g.add_type = add->type;
  if (residual)
    g.residual = residual->at->at, g.residual_s = (ck_conv_strides){residual->bs, residual->hs, residual->ws, residual->cs};
  g.activation = (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  seal(t);
  if (!ck_winograd_can(&g)) fail(t, "cannot");
  if (ck_f32_winograd(t->table, &g, threads)) fail(t, "no scratch");
  check_untouched(t);
  check_spare(t, &y);
  for (size_t item = 0; threads == 1 && item < s.batch * s.outputs * g.h.output * g.w.output; item++) {
    const size_t j = item % g.w.output, i = item / g.w.output % g.h.output;
    const size_t out = item / g.w.output / g.h.output % s.outputs, b = item / g.w.output / g.h.output / s.outputs;
    argument sum = (s.doubled ? doubled_sum : winograd_sum)(&g, &x, weights, b, out, i, j);
    const double added = (bias ? element(bias, 0, out) : 0) + (add ? element(add, b, out) : 0);
    sum.value += added, sum.magnitude += fabs(added);
    const size_t offset = residual ? offset_of(residual, b, out, i, j) : 0, rs = residual ? residual->at->rs : 1;
    check_activated(t, y.at, 0, offset_of(&y, b, out, i, j), &sum, g.activation,
                    residual ? held[offset / rs * residual->at->n + offset % rs] : 0);
  }
  free((void *)held);
}

void check_winograd(test *t) {
  // Every place of a square's edge; channels in slices; several blocks of squares, and chunks of outputs.
  static const winograd_shape shapes[] = {{1, 1, 1, 2, 2, 0},  {2, 3, 5, 6, 7, 0}, {1, 17, 33, 9, 11, 0}, {3, 8, 20, 4, 5, 0},
                                          {1, 5, 7, 13, 3, 0}, {1, 1, 1, 1, 2, 1}, {2, 17, 33, 10, 7, 1}, {3, 8, 20, 5, 9, 1},
                                          {1, 5, 7, 12, 4, 1}, {0, 3, 3, 4, 4, 1}};
  static const winograd_shape large[] = {{1, 400, 6, 5, 5, 0},  {2, 4, 6, 40, 33, 0},  {1, 3, 600, 7, 6, 0},
                                         {1, 400, 40, 9, 6, 1}, {2, 20, 6, 43, 40, 1}, {1, 300, 600, 8, 7, 1}};
  for (size_t repeat = 0; repeat < 12; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, winograd_case, &shapes[k]);
  for (size_t k = 0; k < COUNT(large); k++) check_threads(t, winograd_case, &large[k]);
}

void check_winograd_can(test *t) {
  situation(t, AT_END, "what it can");
  const ck_conv_axis axis = {.input = 8, .output = 8, .kernel = 3, .stride = 1, .dilation = 1, .padding = 1};
  const ck_conv can = {.batch = 1, .channels = 4, .outputs = 4, .h = axis, .w = axis, .channels_last = 1};
  if (!ck_winograd_can(&can)) fail(t, "cannot");
  ck_conv twice = can;
  twice.doubled = 1;
  if (!ck_winograd_can(&twice)) fail(t, "cannot double");
  ck_conv not[] = {can, can, can, can, can, twice, twice};
  not[0].h.stride = 2, not[1].w.kernel = 1, not[2].w.dilation = 2, not[3].transposed = 1, not[4].channels_last = 0;
  not[5].h.padding = 0, not[6].w.output = 6;
  for (size_t i = 0; i < COUNT(not); i++)
    if (ck_winograd_can(&not[i])) fail(t, "can %zu", i);
}

// ck_f32_conv gives the bits of tiles, or of Winograd's sums.
static void choice_case(test *t, ck_dtype type, size_t side_of_y, int doubled, int tiles) {
  enum { CHANNELS = 32, OUTPUTS = 48 };
  situation(t, AT_END, "type=%d %zux%zu doubled=%d tiles=%d", type, side_of_y, side_of_y, doubled, tiles);
  const ck_conv_axis axis = {.input = side_of_y, .output = side_of_y, .kernel = 3, .stride = 1, .dilation = 1, .padding = 1};
  ck_conv g = {.batch = 1, .channels = CHANNELS, .outputs = OUTPUTS, .h = axis, .w = axis, .channels_last = 1, .scale = 1};
  const size_t pixels = side_of_y * side_of_y, side_of_x = doubled ? side_of_y / 2 : side_of_y;
  operand *x = matrix(t, type, side_of_x * side_of_x, CHANNELS, CHANNELS, 1),
          *weights = matrix(t, type, 9 * CHANNELS, OUTPUTS, OUTPUTS, 1);
  operand *panels = matrix(t, type, 1, ck_f32_packed_size(t->table, OUTPUTS, 9 * CHANNELS), 0, 1);
  operand *chosen = matrix(t, type, pixels, OUTPUTS, OUTPUTS, 1), *expected = matrix(t, type, pixels, OUTPUTS, OUTPUTS, 1);
  pack(&(side){.at = weights}, 0, OUTPUTS, 9 * CHANNELS, t->table->gemm_nr, panels, 0);
  chosen->written = expected->written = 1;
  g.x = x->at, g.x_s = (ck_conv_strides){0, side_of_x * CHANNELS, CHANNELS, 1}, g.doubled = doubled;
  g.y = chosen->at, g.y_s = (ck_conv_strides){0, side_of_y * OUTPUTS, OUTPUTS, 1};
  g.weights = panels->at, g.x_type = g.weights_type = g.y_type = type, g.winograd = 1;
  seal(t);
  if (ck_f32_conv(t->table, &g, 1)) fail(t, "no scratch");
  g.y = expected->at;
  if ((tiles ? ck_tile_conv : ck_f32_winograd)(t->table, &g, 1)) fail(t, "no scratch");
  check_untouched(t);
  check_bits(t, chosen, expected->at, "chosen");
}

void check_winograd_choice(test *t) {
  const int matrix_unit = t->table->tiles == CK_TILES_UNIT, has_tiles = t->table->tiles != 0;
  for (size_t squares = 4; squares <= 8; squares += 2) {
    choice_case(t, CK_F32, 4 * squares, 0, 0);
    choice_case(t, CK_BF16, 4 * squares, 0, has_tiles && (matrix_unit || squares * squares < 48));
    choice_case(t, CK_F32, squares, 1, 0);
    choice_case(t, CK_BF16, 2 * squares, 1, has_tiles && (matrix_unit || squares * squares < 32));
  }
}

// Convolution: its gather, the depthwise sum, and both drivers.
#include <stdlib.h>

#include "definitions.h"
#include "image.h"
#include "products.h"

// Lines, one for each k, become strips [m/MR][k][MR]; what lies beyond m comes from the lines as well.
void check_conv_strips(test *t) {
  const size_t mr = t->table->gemm_mr;
  for (size_t m = 1; m <= 4 * mr + 1; m++)
    for (size_t k = 1; k <= 20; k++) {
      const int place = any_place(t);
      situation(t, place, "m=%zu k=%zu place=%d", m, k, place);
      const size_t whole = padded_to(m, mr), room = whole + 16;  // a vector is read beyond
      const operand *lines = matrix(t, CK_F32, k, room, stride_for(t, room), 2);
      operand *packed = vector(t, whole * k, 1);
      packed->written = 1;
      seal(t);
      for (size_t p = 0, count; p < k; p += count) {
        count = 1 + random_below(t, k - p);
        t->table->f32_conv_strips(m, k, p, count, floats(lines) + p * lines->rs, lines->rs, floats(packed));
      }
      check_untouched(t);
      for (size_t i = 0; i < whole * k; i++)
        check_element(t, packed, 0, i, element(lines, i / mr % k, i / mr / k * mr + i % mr), 0);
    }
}

// Pixels of a row; taps lie at strides of their own.
static void depthwise_run_case(test *t, size_t n, int place) {
  const size_t pixels = random_below(t, 10), taps_h = random_below(t, 4), taps_w = random_below(t, 4),
               step = 1 + random_below(t, 2);
  const size_t columns = pixels * step + taps_w;
  situation(t, place, "pixels=%zu n=%zu taps=%zux%zu place=%d", pixels, n, taps_h, taps_w, place);
  const operand *x = matrix(t, CK_F32, taps_h * columns, n, stride_for(t, n), 2);
  const operand *weights = matrix(t, CK_F32, taps_h * (taps_w + 1), n, stride_for(t, n), 2);
  operand *y = matrix(t, CK_F32, pixels, n, stride_for(t, n), 2);
  const finish f = any_finish(t, 0, y, 1, n, 0);
  y->written = 1;
  ck_depthwise_run run = {.pixels = pixels, .n = n, .taps_h = taps_h, .taps_w = taps_w, .x = floats(x), .x_ps = step * x->rs};
  run.x_ths = columns * x->rs, run.x_tws = x->rs, run.weights = floats(weights), run.w_tws = weights->rs;
  run.w_ths = (taps_w + 1) * weights->rs, run.y = floats(y), run.y_ps = y->rs, run.scale = (float)f.alpha;
  run.bias = floats(f.bias), run.activation = f.activation, run.residual = floats(f.residual);
  run.residual_ps = f.residual ? f.residual->rs : 0;
  seal(t);
  t->table->f32_depthwise(&run);
  check_untouched(t);
  for (size_t item = 0; item < pixels * n; item++) {
    double sum = 0, magnitude = 0;
    for (size_t tap = 0; tap < taps_h * taps_w; tap++) {
      const size_t row = tap / taps_w, column = tap % taps_w;
      const double weight = element(weights, row * (taps_w + 1) + column, item % n);
      const double term = weight * element(x, row * columns + item / n * step + column, item % n);
      sum += term, magnitude += fabs(term);
    }
    check_finished(t, y, item / n, item % n, sum, magnitude, (double)(taps_h * taps_w) + 3, &f);
  }
  free((void *)f.held);
}

void check_depthwise_run(test *t) {
  for (size_t n = 0; n <= 67; n++)
    for (int place = AT_END; place < PLACES - 1; place += 2) depthwise_run_case(t, n, place);
}

typedef struct conv_shape {
  size_t batch, channels, outputs, h, w, kernel;  // kernel: most rows and columns of it
  int depthwise, tiles;
} conv_shape;

// The image row or column that a tap of an output reads; 0 where there is none.
static int reads(const ck_conv_axis *a, int transposed, size_t output, size_t tap, size_t *input) {
  const size_t ahead = tap * a->dilation, at = transposed ? output + a->padding : output * a->stride + ahead;
  if (at < (transposed ? ahead : a->padding)) return 0;
  *input = at - (transposed ? ahead : a->padding);
  if (transposed && *input % a->stride) return 0;
  *input /= transposed ? a->stride : 1;
  return *input < a->input;
}

static ck_conv_axis axis_of(test *t, size_t input, size_t most, int transposed) {
  ck_conv_axis a = {.input = input, .kernel = 1 + random_below(t, most), .stride = 1 + random_below(t, 3)};
  a.dilation = 1 + random_below(t, 2), a.padding = random_below(t, a.kernel);
  const size_t reach = (a.kernel - 1) * a.dilation + 1,
               whole = transposed ? (input - 1) * a.stride + reach : input + 2 * a.padding;
  if (transposed)
    a.output = whole > 2 * a.padding ? whole - 2 * a.padding : 1;
  else
    a.output = (whole > reach ? (whole - reach) / a.stride : 0) + 1;
  return a;
}

// Where a tap lies along K: by classes of its position modulo the stride, when transposed.
static size_t class_of(const ck_conv *g, size_t tap) {
  if (!g->transposed) return 0;
  return tap / g->w.kernel * g->h.dilation % g->h.stride * g->w.stride + tap % g->w.kernel * g->w.dilation % g->w.stride;
}
static size_t place_of(const ck_conv *g, size_t tap) {
  size_t before = 0;
  for (size_t other = 0; other < g->h.kernel * g->w.kernel; other++)
    before += class_of(g, other) < class_of(g, tap) || (class_of(g, other) == class_of(g, tap) && other < tap);
  return before;
}

static ck_conv_strides strides_of(const image *m) { return (ck_conv_strides){m->bs, m->hs, m->ws, m->cs}; }

typedef struct conv_operands {
  image x, y, residual;  // residual.at NULL: none
  operand *weights;      // [K, outputs], K over taps in order, then channels; depthwise [taps, outputs]
  operand *bias, *add;
  const double *held;    // the residual before the call, as its operand is laid out
  int exact, depthwise, tiles;
} conv_operands;

// Weights as the drivers want them.
static operand *packed_weights(test *t, const ck_conv *g, const conv_operands *o) {
  if (o->depthwise) {
    operand *flat = matrix(t, o->weights->type, o->weights->rows, g->outputs, g->outputs, 1);
    for (size_t i = 0; i < flat->rows * g->outputs; i++)
      set_element(flat, i / g->outputs, i % g->outputs, element(o->weights, i / g->outputs, i % g->outputs));
    return flat;
  }
  operand *ordered = matrix(t, o->weights->type, o->weights->rows, g->outputs, g->outputs, 1);
  for (size_t k = 0; k < ordered->rows; k++)
    for (size_t j = 0; j < g->outputs; j++)
      set_element(ordered, place_of(g, k / g->channels) * g->channels + k % g->channels, j, element(o->weights, k, j));
  operand *panels = matrix(t, o->weights->type, 1, ck_f32_packed_size(t->table, g->outputs, ordered->rows), 0, 1);
  pack(&(side){.at = ordered}, 0, g->outputs, ordered->rows, t->table->gemm_nr, panels, 0);
  return panels;
}

static void compare_conv(test *t, const ck_conv *g, const conv_operands *o) {
  const size_t each = o->depthwise ? g->outputs / g->channels : 1, channels = o->depthwise ? 1 : g->channels;
  for (size_t item = 0; item < g->batch * g->outputs * g->h.output * g->w.output; item++) {
    const size_t j = item % g->w.output, i = item / g->w.output % g->h.output;
    const size_t out = item / g->w.output / g->h.output % g->outputs, b = item / g->w.output / g->h.output / g->outputs;
    const double bias = o->bias ? element(o->bias, 0, out) : 0, add = o->add ? element(o->add, b, out) : 0;
    double sum = 0, magnitude = 0, count = 0;
    size_t row, column;
    for (size_t tap = 0; tap < g->h.kernel * g->w.kernel; tap++) {
      if (!reads(&g->h, g->transposed, i, tap / g->w.kernel, &row)) continue;
      if (!reads(&g->w, g->transposed, j, tap % g->w.kernel, &column)) continue;
      if (g->doubled) row /= 2, column /= 2;
      for (size_t c = 0; c < channels; c++) {
        const double weight = element(o->weights, tap * channels + c, out);
        const double term = g->scale * weight * pixel(&o->x, b, o->depthwise ? out / each : c, row, column);
        sum += term, magnitude += fabs(term), count++;
      }
    }
    const double dropped = o->tiles ? pieces_drop(ck_tile_order(g->split), (size_t)count) : 0;
    const argument x = {sum + bias + add, magnitude + fabs(bias) + fabs(add), count + 4 + dropped, o->exact};
    double residual = 0;
    if (o->residual.at) {
      const size_t offset = offset_of(&o->residual, b, out, i, j), rs = o->residual.at->rs;
      residual = o->held[offset / rs * o->residual.at->n + offset % rs];
    }
    check_activated(t, o->y.at, 0, offset_of(&o->y, b, out, i, j), &x, g->activation, residual);
  }
}

static image conv_image(test *t, int typed, int exact, int last, size_t batch, size_t channels, size_t h, size_t w) {
  const image m = image_of(t, typed ? any_type(t) : CK_F32, last, batch, channels, h, w);
  for (size_t row = 0; exact && row < m.at->rows; row++)
    for (size_t c = 0; c < m.at->n; c++)
      if (!isnan(element(m.at, row, c))) set_element(m.at, row, c, (double)random_below(t, 9) - 4);
  return m;
}

static int is_even(const image *m) { return m->h <= 1 || m->hs == m->w * m->ws; }

static void check_tile_conv_can(test *t, const ck_conv *g, int can) {
  ck_conv first = *g, transposed = *g;
  first.channels_last = 0, transposed.transposed = 1;
  if (ck_tile_conv_can(g) != can || ck_tile_conv_can(&first) || ck_tile_conv_can(&transposed)) fail(t, "not what tiles can do");
}

static void conv_case(test *t, const void *shape, size_t threads) {
  const conv_shape s = *(const conv_shape *)shape;
  const int exact = one_in(t, 3), typed = one_in(t, 2), last = s.tiles || one_in(t, 2);
  ck_conv g = {.batch = s.batch, .channels = s.channels, .outputs = s.outputs, .channels_last = last};
  g.transposed = !s.depthwise && !s.tiles && one_in(t, 3);
  g.doubled = !s.depthwise && one_in(t, 3);
  g.split = (ck_split)random_below(t, s.tiles ? 4 : 1);
  g.h = axis_of(t, s.h, s.kernel, g.transposed), g.w = axis_of(t, s.w, s.kernel, g.transposed);
  situation(t, any_place(t),
            "%zux%zux%zux%zu to %zux%zux%zu kernel %zux%zu stride %zux%zu dilation %zux%zu last=%d transposed=%d "
            "doubled=%d threads=%zu",
            s.batch, s.channels, s.h, s.w, s.outputs, g.h.output, g.w.output, g.h.kernel, g.w.kernel, g.h.stride, g.w.stride,
            g.h.dilation, g.w.dilation, last, g.transposed, g.doubled, threads);
  conv_operands o = {.exact = exact, .depthwise = s.depthwise, .tiles = s.tiles};
  const size_t apart = g.doubled ? 2 : 1;
  o.x = conv_image(t, typed, exact, last, s.batch, s.channels, (s.h + apart - 1) / apart, (s.w + apart - 1) / apart);
  o.y = conv_image(t, typed, exact, last, s.batch, s.outputs, g.h.output, g.w.output);
  o.weights = values(t, typed, g.h.kernel * g.w.kernel * (s.depthwise ? 1 : s.channels), s.outputs, exact);
  o.bias = one_in(t, 2) ? values(t, 0, 1, s.outputs, exact) : 0;
  o.add = one_in(t, 3) ? values(t, typed, s.batch, s.outputs, exact) : 0;
  if (one_in(t, 2))
    o.residual = one_in(t, 2) ? o.y : conv_image(t, typed, exact, last, s.batch, s.outputs, g.h.output, g.w.output);
  o.held = values_of(o.residual.at);
  o.y.at->written = 1;
  const operand *packed = packed_weights(t, &g, &o);
  g.x = o.x.at->at, g.x_s = strides_of(&o.x), g.x_type = o.x.at->type;
  g.y = o.y.at->at, g.y_s = strides_of(&o.y), g.y_type = o.y.at->type;
  g.weights = packed->at, g.weights_type = packed->type, g.bias = floats(o.bias), g.scale = exact ? 2 : 0.75f;
  if (packed->type == CK_BF16 && !s.depthwise && one_in(t, 2))
    g.weights_range = ck_packed_range(t->table, s.outputs, o.weights->rows, packed->at, 1);
  if (o.add) g.add = o.add->at, g.add_rs = o.add->rs, g.add_type = o.add->type;
  if (o.residual.at)
    g.residual = o.residual.at->at, g.residual_s = strides_of(&o.residual), g.residual_type = o.residual.at->type;
  g.activation = exact ? (one_in(t, 2) ? CK_RELU : CK_IDENTITY) : (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  if (s.tiles) check_tile_conv_can(t, &g, is_even(&o.y) && (!o.residual.at || is_even(&o.residual)));
  seal(t);
  const int tiles = s.tiles && ck_tile_conv_can(&g);
  if ((s.depthwise ? ck_f32_depthwise : tiles ? ck_tile_conv : ck_f32_conv)(t->table, &g, threads)) fail(t, "no scratch");
  check_untouched(t);
  check_spare(t, &o.y);
  if (threads == 1) compare_conv(t, &g, &o);
  free((void *)o.held);
}

static void check_shapes(test *t, const conv_shape *shapes, size_t count, size_t repeats) {
  for (size_t repeat = 0; repeat < repeats; repeat++)
    for (size_t k = 0; k < count; k++) check_threads(t, conv_case, &shapes[k]);
}

void check_conv(test *t) {
  // Pointwise; rows of 512 channels; K in slices; several blocks of channels and of pixels.
  static const conv_shape shapes[] = {{0, 2, 3, 4, 4, 2, 0, 0},   {1, 1, 1, 1, 1, 1, 0, 0},    {2, 3, 5, 6, 7, 3, 0, 0},
                                      {1, 4, 33, 9, 11, 4, 0, 0}, {2, 7, 20, 10, 10, 1, 0, 0}, {1, 512, 9, 5, 5, 1, 0, 0},
                                      {1, 60, 12, 6, 7, 3, 0, 0}, {1, 5, 70, 3, 40, 5, 0, 0}};
  static const conv_shape large[] = {{1, 8, 600, 9, 9, 3, 0, 0}, {2, 6, 24, 40, 33, 3, 0, 0}};
  check_shapes(t, shapes, COUNT(shapes), 30);
  check_shapes(t, large, COUNT(large), 6);
}

// Pixels as they lie, `pixel` elements apart, and gathered, where they are not whole cache lines apart: the same bits.
static void place_case(test *t, ck_conv g, size_t pixel) {
  const size_t taps = g.h.kernel * g.w.kernel, n = g.outputs, c = g.channels, pixels = g.h.output * g.w.output;
  situation(t, AT_END, "places %zux%zux%zux%zu, pixels %zu apart, to %zux%zux%zu kernel %zu stride %zu dilation %zu", g.batch, c,
            g.h.input, g.w.input, pixel, n, g.h.output, g.w.output, g.w.kernel, g.w.stride, g.w.dilation);
  // One line holds pixels that may overlap.
  const size_t count = g.batch * g.h.input * g.w.input;
  operand *x = matrix(t, CK_BF16, 1, padded_to((count - 1) * pixel + c, 32), 0, 1);
  operand *apart = matrix(t, CK_BF16, count, c, c + 1, 1), *weights = matrix(t, CK_BF16, taps * c, n, n, 1);
  for (size_t i = 0; i < count * c; i++) set_element(apart, i / c, i % c, element(x, 0, i / c * pixel + i % c));
  operand *panels = matrix(t, CK_BF16, 1, ck_f32_packed_size(t->table, n, taps * c), 0, 1);
  pack(&(side){.at = weights}, 0, n, taps * c, t->table->gemm_nr, panels, 0);
  operand *y = matrix(t, CK_F32, g.batch * pixels, n, n, 1), *expected = matrix(t, CK_F32, y->rows, n, n, 1);
  y->written = expected->written = 1;
  g.channels_last = 1, g.scale = 1, g.weights = panels->at, g.x_type = g.weights_type = CK_BF16;
  g.y_s = (ck_conv_strides){pixels * n, g.w.output * n, n, 1};
  seal(t);
  int32_t failed = 0;
  for (int gathered = 0; gathered < 2; gathered++) {
    const size_t rs = gathered ? apart->rs : pixel;
    g.x = gathered ? apart->at : x->at, g.x_s = (ck_conv_strides){g.h.input * g.w.input * rs, g.w.input * rs, rs, 1};
    g.y = gathered ? expected->at : y->at;
    failed |= ck_tile_conv(t->table, &g, 2);
  }
  if (failed) fail(t, "no scratch");
  check_untouched(t);
  check_bits(t, y, expected->at, "gathered pixels");
}

// Taps of 32 and of 96 channels, of which a slice of K holds 16 and five and a third; rows of 16 pixels, of more and of fewer.
static void place_cases(test *t) {
  static const size_t sizes[] = {8, 16, 37};
  for (size_t k = 0; k < COUNT(sizes) * 2; k++)
    for (size_t kernel = 1; kernel <= 3; kernel++) {
      const size_t stride = 1 + random_below(t, 2), dilation = 1 + random_below(t, 2), padding = random_below(t, kernel + 1);
      const size_t input = sizes[k / 2], reach = dilation * (kernel - 1) + 1;
      const ck_conv_axis axis = {.input = input,
                                 .kernel = kernel,
                                 .stride = stride,
                                 .dilation = dilation,
                                 .padding = padding,
                                 .output = (input + 2 * padding - reach) / stride + 1};
      const ck_conv g = {.batch = 2, .channels = k % 2 ? 96 : 32, .outputs = 35, .h = axis, .w = axis};
      place_case(t, g, g.channels);
      place_case(t, g, k % 2 ? 32 : 96 + 32 * random_below(t, 3));
    }
}

void check_tile_conv(test *t) {
  place_cases(t);
  // One pixel and one channel; images of 32 pixels, which follow each other; K in slices; several blocks of channels.
  static const conv_shape shapes[] = {{0, 2, 3, 4, 4, 2, 0, 1},   {1, 1, 1, 1, 1, 1, 0, 1},     {2, 3, 5, 6, 7, 3, 0, 1},
                                      {3, 40, 33, 8, 8, 1, 0, 1}, {2, 70, 48, 16, 16, 3, 0, 1}, {1, 300, 20, 5, 7, 3, 0, 1}};
  static const conv_shape large[] = {{1, 8, 1100, 9, 9, 3, 0, 1}, {2, 40, 24, 32, 24, 3, 0, 1}};
  check_shapes(t, shapes, COUNT(shapes), 40);
  check_shapes(t, large, COUNT(large), 6);
}

void check_depthwise(test *t) {
  static const conv_shape shapes[] = {{0, 2, 2, 4, 4, 2, 1, 0},    {1, 1, 1, 1, 1, 1, 1, 0},   {2, 3, 6, 6, 7, 3, 1, 0},
                                      {1, 33, 33, 9, 11, 4, 1, 0}, {2, 20, 60, 5, 9, 5, 1, 0}, {1, 130, 130, 6, 5, 3, 1, 0}};
  static const conv_shape large[] = {{1, 40, 40, 40, 30, 3, 1, 0}, {2, 70, 70, 30, 20, 5, 1, 0}};
  check_shapes(t, shapes, COUNT(shapes), 30);
  check_shapes(t, large, COUNT(large), 6);
}

void check_conv_biases(test *t) {
  situation(t, AT_END, "an image's row and the bias");
  const operand *add = matrix(t, CK_BF16, 3, 37, 40, 2), *bias = vector(t, 37, 2);
  operand *to = matrix(t, CK_F32, 3, 37, 37, 1);
  to->written = 1;
  ck_conv call = {.batch = 3, .outputs = 37, .add = add->at, .add_rs = add->rs, .add_type = CK_BF16, .bias = floats(bias)};
  seal(t);
  ck_conv_biases(t->table, &call, floats(to));
  check_untouched(t);
  for (size_t i = 0; i < 3 * 37; i++) {
    const double sum = element(add, i / 37, i % 37) + element(bias, 0, i % 37);
    check_element(t, to, i / 37, i % 37, sum, U * fabs(sum));
  }
}

// Convolution as a GEMM: pixels are the rows, taps times channels the sum, packed weights B. A block of pixels is gathered a K
// slice at a time into scratch that stays in L2 and serves all its output channels; the whole image is never unrolled.
//
// Transposed convolution runs one such product for each class of output positions modulo the stride: no tap meets a zero
// that the stride inserts. Slices depend on K alone and threads cut pixels and channels, so bits depend on neither.
//
// Where the table has tiles and they pay, the tile driver of products asks for 32 pixels at a time instead, or where they lie.
#include <string.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "gemm_tile.h"
#include "staging.h"

enum {
  MOST_COLUMNS = 2048,      // of a block that goes straight to y
  MOST_COLUMNS_KEPT = 512,  // and of one that is kept as floats and turned or narrowed after its last slice
  WIDENED_FLOATS = 1 << 22,  // weights that are not f32 are widened this much at a time (16 MiB)
  CALLER_WORK = 1 << 19,    // multiply-adds worth handing to another thread, as in gemm.c
  BLOCK_WORK = 1 << 18,
  BLOCKS_A_THREAD = 4,
  LINES = 16,  // channels of y, or K steps of a gather, turned at a time
  SLACK = 32,  // floats that kernels may read beyond a line
  MOST_COLUMNS_IN_PLACE = 767,  // beyond, and where pixels lie a multiple of 2 KiB apart, a copy of x pays
  ALIASING_STRIDE = 512,
  FEWEST_SQUARES = 16,  // of 4 x 4 pixels of an image, for Winograd's sums to repay transformed weights; and beside vdpbf16ps
  FEWEST_SQUARES_OVER_DOT = 48,
  MOST_APART = 4,  // lengths of a pixel, from one to the next that tiles read where they lie
  FEWEST_DOUBLED = 4,  // pixels of x, whose weights cost little more than a copy
  FEWEST_DOUBLED_OVER_DOT = 32,
};

// One axis for one class of output positions: q-th at first + q * step, tap t of it reads start + q * move + t * tap.
typedef struct axis {
  size_t count, first, step, taps;
  size_t earlier;  // taps of the classes before this one
  ptrdiff_t start, move, tap;
} axis;

typedef struct plan {
  const ck_kernels *table;
  const ck_conv *call;
  axis h, w;
  size_t pixels, k, slice;
  size_t image;          // tiles: the first of the product
  size_t rows, columns;  // of a block
  int in_place;          // x is read as A where it lies
  int direct;            // f32_gemm_block writes y
  int merged;            // the taps of a row are one run of memory
  size_t first, n;       // output channels of this pass
  const float *panels;   // their weights, from the class's first K on
  size_t b_panel;
  const float *bias;  // [n] for each image, bias_bs apart, or NULL
  size_t bias_bs;
  size_t line_rs;
  size_t a_floats, c_floats, line_floats, piece;  // of scratch a participant needs
  float *pieces;
} plan;

static size_t clamp(ptrdiff_t x, size_t low, size_t high) { return x < (ptrdiff_t)low ? low : MIN((size_t)x, high); }

static size_t offset_of(const ck_conv_strides *s, size_t image, size_t row, size_t pixel, size_t channel) {
  return image * s->image + row * s->row + pixel * s->pixel + channel * s->channel;
}

// From an output pixel's input to that of the next.
static size_t pixels_apart(const plan *g) { return (size_t)g->w.move * g->call->x_s.pixel; }

static axis axis_of(const ck_conv_axis *a, int32_t transposed, size_t first) {
  if (!transposed)
    return (axis){a->output, 0, 1, a->kernel, 0, -(ptrdiff_t)a->padding, (ptrdiff_t)a->stride, (ptrdiff_t)a->dilation};
  axis class = {.count = pieces_of(a->output - first, a->stride), .first = first, .step = a->stride, .move = 1};
  const size_t position = first + a->padding;
  for (size_t tap = 0; tap < a->kernel; tap++) {
    const size_t ahead = tap * a->dilation, rest = ahead % a->stride;
    if (rest < position % a->stride) class.earlier++;
    if (rest != position % a->stride) continue;
    const ptrdiff_t input = ((ptrdiff_t)position - (ptrdiff_t)ahead) / (ptrdiff_t)a->stride;
    if (class.taps == 0) class.start = input;
    if (class.taps == 1) class.tap = input - class.start;
    class.taps++;
  }
  return class;
}

// n elements `step` apart as floats. `raw` holds n elements.
static void widen_run(const ck_kernels *table, ck_dtype type, size_t n, const void *from, size_t step, void *raw, float *to) {
  if (step != 1 && type == CK_F32) {
    for (size_t i = 0; i < n; i++) to[i] = ((const float *)from)[i * step];
    return;
  }
  if (step != 1)
    for (size_t i = 0; i < n; i++) ((uint16_t *)raw)[i] = ((const uint16_t *)from)[i * step];
  table->f32_widen(type, n, step == 1 ? from : raw, to);
}

// Elements (first + i step) / 2 for i < n: a row whose pixels are repeated.
static void widen_repeated(const ck_kernels *table, ck_dtype type, size_t n, const void *from, size_t first, size_t step,
                           void *raw, float *to) {
  if (type == CK_F32) {
    for (size_t i = 0; i < n; i++) to[i] = ((const float *)from)[(first + i * step) / 2];
    return;
  }
  for (size_t i = 0; i < n; i++) ((uint16_t *)raw)[i] = ((const uint16_t *)from)[(first + i * step) / 2];
  table->f32_widen(type, n, raw, to);
}

static void narrow_run(const ck_kernels *table, ck_dtype type, size_t n, const float *from, void *raw, void *to, size_t step) {
  if (step == 1) {
    table->f32_narrow(type, n, from, to);
  } else if (type == CK_F32) {
    for (size_t i = 0; i < n; i++) ((float *)to)[i * step] = from[i];
  } else {
    table->f32_narrow(type, n, from, raw);
    for (size_t i = 0; i < n; i++) ((uint16_t *)to)[i * step] = ((const uint16_t *)raw)[i];
  }
}

// K steps [k, k + depth) of pixels [p, p + m), channels last: rows [m, depth] of a type, x's or floats, rs elements apart.
static void gather_rows(const plan *g, size_t image, size_t p, size_t m, size_t k, size_t depth, ck_dtype type, void *rows,
                        size_t rs) {
  if (!depth) return;
  const ck_conv *call = g->call;
  const size_t size = ck_dtype_size(type), channels = call->channels, unit = g->merged ? g->w.taps * channels : channels;
  const int half = call->doubled != 0;
  const ck_conv_strides *s = &call->x_s;
  for (size_t r = p; r < p + m; r++) {
    const ptrdiff_t y = g->h.start + (ptrdiff_t)(r / g->w.count) * g->h.move;
    const ptrdiff_t x = g->w.start + (ptrdiff_t)(r % g->w.count) * g->w.move;
    char *to = (char *)rows + (r - p) * rs * size;
    for (size_t left = depth, u = k / unit, from = k % unit; left; u++, from = 0) {
      const size_t end = MIN(unit, from + left);
      const ptrdiff_t iy = y + (ptrdiff_t)(g->merged ? u : u / g->w.taps) * g->h.tap;
      const ptrdiff_t ix = x + (ptrdiff_t)(g->merged ? 0 : u % g->w.taps) * g->w.tap;
      const ptrdiff_t width = (ptrdiff_t)call->w.input, wide = g->merged ? (ptrdiff_t)g->w.taps : 1;
      size_t low = end, high = end;  // what lies inside the image
      if (iy >= 0 && iy < (ptrdiff_t)call->h.input && ix < width && ix + wide > 0) {
        low = clamp(ix < 0 ? -ix * (ptrdiff_t)channels : 0, from, end);
        high = clamp(MIN(wide, width - ix) * (ptrdiff_t)channels, low, end);
      }
      memset(to, 0, (low - from) * size);
      if (high > low) {
        const ptrdiff_t first = (iy >> half) * (ptrdiff_t)s->row + (ix >> half) * (ptrdiff_t)s->pixel + (ptrdiff_t)low;
        const void *run = staging_element(call->x_type, call->x, image * s->image + (size_t)first);
        char *inside = to + (low - from) * size;
        if (type == call->x_type)
          memcpy(inside, run, (high - low) * size);
        else
          g->table->f32_widen(call->x_type, high - low, run, (float *)(void *)inside);
      }
      memset(to + (high - from) * size, 0, (end - high) * size);
      to += (end - from) * size, left -= end - from;
    }
  }
}

// One K step of pixels [p, p + m), channels first: a line of m floats.
static void gather_line(const plan *g, size_t image, size_t p, size_t m, size_t k, void *raw, float *to) {
  const ck_conv *call = g->call;
  const size_t tap = k / call->channels, channel = k % call->channels;
  const ptrdiff_t move = g->w.move, width = (ptrdiff_t)call->w.input;
  const int half = call->doubled != 0;
  for (size_t left = m; left;) {
    const size_t q = p % g->w.count, run = MIN(g->w.count - q, left);
    const ptrdiff_t iy = g->h.start + (ptrdiff_t)(p / g->w.count) * g->h.move + (ptrdiff_t)(tap / g->w.taps) * g->h.tap;
    const ptrdiff_t ix = g->w.start + (ptrdiff_t)q * move + (ptrdiff_t)(tap % g->w.taps) * g->w.tap;
    size_t low = run, high = run;
    if (iy >= 0 && iy < (ptrdiff_t)call->h.input) {
      low = ix >= 0 ? 0 : clamp((move - 1 - ix) / move, 0, run);
      high = ix >= width ? low : clamp((width - ix + move - 1) / move, low, run);
    }
    memset(to, 0, low * sizeof *to);
    if (high > low) {
      const size_t row = (size_t)iy >> half, pixel = (size_t)(ix + (ptrdiff_t)low * move);
      const size_t first = offset_of(&call->x_s, image, row, pixel >> half, channel);
      const void *from = staging_element(call->x_type, call->x, first);
      if (half)
        widen_repeated(g->table, call->x_type, high - low, from, pixel % 2, (size_t)move, raw, to + low);
      else
        widen_run(g->table, call->x_type, high - low, from, (size_t)move, raw, to + low);
    }
    memset(to + high, 0, (run - high) * sizeof *to);
    to += run, p += run, left -= run;
  }
}

static void gather_strips(const plan *g, size_t image, size_t p, size_t m, size_t k, size_t depth, float *lines, void *raw,
                          float *to) {
  memset(lines, 0, LINES * g->line_rs * sizeof *lines);
  for (size_t q = 0; q < depth; q += LINES) {
    const size_t count = MIN(LINES, depth - q);
    for (size_t l = 0; l < count; l++) gather_line(g, image, p, m, k + q + l, raw, lines + l * g->line_rs);
    g->table->f32_conv_strips(m, depth, q, count, lines, g->line_rs, to);
  }
}

// A run of results to y, `step` elements apart, with the residual.
static void finish_run(const plan *g, size_t n, float *values, size_t y_at, size_t residual_at, size_t y_step,
                       size_t residual_step, void *raw, float *added) {
  const ck_conv *call = g->call;
  if (call->residual) {
    widen_run(g->table, call->residual_type, n, staging_element(call->residual_type, call->residual, residual_at), residual_step,
              raw, added);
    for (size_t i = 0; i < n; i++) values[i] += added[i];
  }
  narrow_run(g->table, call->y_type, n, values, raw, (char *)call->y + y_at * ck_dtype_size(call->y_type), y_step);
}

// A kept block [m, n] of pixels [p, p + m) and channels [j, j + n) to y.
static void finish_block(const plan *g, size_t image, size_t p, size_t m, size_t j, size_t n, float *c, float *lines, void *raw,
                         float *added) {
  const ck_conv *call = g->call;
  const ck_conv_strides *s = &call->y_s, *r = &call->residual_s;
  const size_t channels = call->channels_last ? n : LINES, step = g->w.step;
  for (size_t first = 0; first < n; first += channels) {
    const size_t here = MIN(channels, n - first);
    if (!call->channels_last) g->table->f32_transpose(m, here, c + first, n, lines, g->line_rs);
    for (size_t i = 0; i < m;) {
      const size_t q = (p + i) % g->w.count, x = g->w.first + q * step, y = g->h.first + (p + i) / g->w.count * g->h.step;
      const size_t run = call->channels_last ? 1 : MIN(g->w.count - q, m - i);
      for (size_t l = 0; l < (call->channels_last ? 1 : here); l++) {
        float *values = call->channels_last ? c + i * n : lines + l * g->line_rs + i;
        const size_t channel = j + first + l, count = call->channels_last ? n : run;
        finish_run(g, count, values, offset_of(s, image, y, x, channel), offset_of(r, image, y, x, channel),
                   call->channels_last ? 1 : step, call->channels_last ? 1 : step, raw, added);
      }
      i += run;
    }
  }
}

static void run_block(const plan *g, size_t index) {
  const ck_conv *call = g->call;
  const ck_kernels *table = g->table;
  const size_t blocks = pieces_of(g->pixels, g->rows), image = index / blocks % call->batch;
  const size_t p = index % blocks * g->rows, j = index / blocks / call->batch * g->columns;
  float *a = g->pieces + ck_participant() * g->piece, *c = a + g->a_floats, *lines = c + g->c_floats;
  float *added = lines + LINES * g->line_rs, *raw = added + g->line_floats;
  ck_gemm_block block = {.m = MIN(g->rows, g->pixels - p), .n = MIN(g->columns, g->n - j), .b_panel = g->b_panel};
  const size_t channel = g->first + j, nr = table->gemm_nr, m = block.m;
  block.alpha = g->k ? call->scale : 0;
  block.a_packed = !g->in_place && !call->channels_last;
  block.c = g->direct ? (float *)call->y + image * call->y_s.image + p * call->y_s.pixel + channel : c;
  block.c_rs = g->direct ? call->y_s.pixel : block.n;
  for (size_t k = 0; k == 0 || k < g->k; k += g->slice) {
    block.k = MIN(g->slice, g->k - k);
    if (g->in_place) {
      const size_t first = offset_of(&call->x_s, image, (size_t)g->h.start, (size_t)g->w.start, k);
      block.a_rs = pixels_apart(g);
      block.a = (const float *)call->x + first + p * block.a_rs;
    } else {
      block.a = a, block.a_rs = block.k;
      if (call->channels_last)
        gather_rows(g, image, p, m, k, block.k, CK_F32, a, block.k);
      else
        gather_strips(g, image, p, m, k, block.k, lines, raw, a);
    }
    block.b = g->panels + j / nr * g->b_panel + k * nr;
    if (k + block.k == g->k) {
      block.activation = call->activation;
      if (g->bias) block.bias = g->bias + image * g->bias_bs + channel;
      if (g->direct && call->residual) {
        block.residual = (const float *)call->residual + image * call->residual_s.image + p * call->residual_s.pixel + channel;
        block.residual_rs = call->residual_s.pixel;
      }
    }
    table->f32_gemm_block(&block);
    block.beta = 1;
  }
  if (!g->direct) finish_block(g, image, p, m, channel, block.n, c, lines, raw, added);
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

// Pixels of the class at one distance, as a GEMM has rows.
static int is_even(const plan *g, const ck_conv_strides *s, size_t move_h, size_t move_w) {
  return g->h.count <= 1 || move_h * s->row == g->w.count * move_w * s->pixel;
}

static int is_merged(const plan *g) { return g->w.tap == 1 && g->call->x_s.pixel == g->call->channels && !g->call->doubled; }

static int is_inside(const axis *a, size_t input) {
  return a->start >= 0 && a->start + ((ptrdiff_t)a->count - 1) * a->move < (ptrdiff_t)input;
}

// Whether one tap of pixels at one distance is all there is.
static int is_in_place(const plan *g) {
  const ck_conv *call = g->call;
  return call->channels_last && !call->doubled && g->h.taps == 1 && g->w.taps == 1 &&
         is_even(g, &call->x_s, (size_t)g->h.move, (size_t)g->w.move) && is_inside(&g->h, call->h.input) &&
         is_inside(&g->w, call->w.input);
}

// How y and x are reached, then blocks: halved, the side with more tiles first, until every thread has some.
static void lay_out(plan *g, size_t threads) {
  const ck_conv *call = g->call;
  const size_t mr = g->table->gemm_mr, nr = g->table->gemm_nr, n = call->outputs;
  g->pixels = g->h.count * g->w.count;
  g->k = g->h.taps * g->w.taps * call->channels;
  g->slice = balanced(g->k, g->table->gemm_kc, 4);
  g->merged = is_merged(g);
  const int overwritten = call->residual == call->y && g->k > g->slice;
  g->direct = call->channels_last && call->y_type == CK_F32 && is_even(g, &call->y_s, 1, 1) && g->h.step * g->w.step == 1 &&
              !(call->residual && (overwritten || call->residual_type != CK_F32 || !is_even(g, &call->residual_s, 1, 1)));
  g->in_place = is_in_place(g) && call->x_type == CK_F32 && pixels_apart(g) % ALIASING_STRIDE && n <= MOST_COLUMNS_IN_PLACE;
  g->rows = balanced(g->pixels, g->table->gemm_mc, mr);
  g->columns = balanced(n, g->direct ? MOST_COLUMNS : MOST_COLUMNS_KEPT, nr);
  const size_t work = call->batch * g->pixels * n * g->k;
  const size_t wanted = threads > 1 && work >= CALLER_WORK ? MIN(threads * BLOCKS_A_THREAD, work / BLOCK_WORK) : 1;
  while (call->batch * pieces_of(g->pixels, g->rows) * pieces_of(n, g->columns) < wanted) {
    const size_t tall = g->rows / mr, wide = g->columns / nr;
    if (tall < 8 && wide < 2) break;
    if (tall >= 8 && tall >= wide)
      g->rows = round_up(g->rows / 2, mr);
    else
      g->columns = round_up(g->columns / 2, nr);
  }
  const int through_lines = !call->channels_last;
  g->line_rs = through_lines ? round_up(g->rows, 16) + SLACK : 0;
  g->a_floats = g->in_place ? 0 : round_up(g->rows * g->slice, 16);
  g->c_floats = g->direct ? 0 : round_up(g->rows * g->columns, 16);
  g->line_floats = g->direct && call->channels_last ? 0 : round_up(MAX(g->rows, g->columns), 16);
  g->piece = g->a_floats + g->c_floats + LINES * g->line_rs + 2 * g->line_floats;
}

typedef struct widening {
  const plan *plan;
  const void *from;
  float *to;
} widening;

static void widen_panels(const void *context, size_t first, size_t last) {
  const widening *w = context;
  const ck_conv *call = w->plan->call;
  const size_t panel = w->plan->b_panel, k = panel / w->plan->table->gemm_nr;
  for (size_t at = first * panel; at < last * panel; at += panel)
    w->plan->table->f32_gemm_unpack_b(call->weights_type, k, staging_element(call->weights_type, w->from, at), w->to + at);
}

void ck_conv_biases(const ck_kernels *table, const ck_conv *call, float *to) {
  for (size_t image = 0; image < call->batch; image++) {
    float *row = to + image * call->outputs;
    table->f32_widen(call->add_type, call->outputs, staging_element(call->add_type, call->add, image * call->add_rs), row);
    for (size_t j = 0; call->bias && j < call->outputs; j++) row[j] += call->bias[j];
  }
}

// Transforming the weights costs what some squares save; squares that reach far beyond the image save little. One image decides,
// so that its bits are the same in any batch.
static int winograd_pays(const ck_conv *call, int over_dot) {
  if (!call->winograd || call->channels < 16 || call->outputs < 16 || !ck_winograd_can(call)) return 0;
  const size_t side = call->doubled ? 2 : 4, squares = pieces_of(call->h.output, side) * pieces_of(call->w.output, side);
  if (call->doubled) return squares >= (over_dot ? FEWEST_DOUBLED_OVER_DOT : FEWEST_DOUBLED);
  return squares >= (over_dot ? FEWEST_SQUARES_OVER_DOT : FEWEST_SQUARES) && call->h.output * call->w.output >= 8 * squares;
}

int ck_tile_conv_can(const ck_conv *call) {
  const plan g = {.h = axis_of(&call->h, 0, 0), .w = axis_of(&call->w, 0, 0)};
  return !call->transposed && call->channels_last && is_even(&g, &call->y_s, 1, 1) &&
         (!call->residual || is_even(&g, &call->residual_s, 1, 1));
}

// The product of image 0's pixels.
static ck_gemm product_of(const ck_conv *call) {
  return (ck_gemm){
      .batch = 1,
      .m = call->h.output * call->w.output,
      .n = call->outputs,
      .k = call->h.kernel * call->w.kernel * call->channels,
      .a_cs = 1,
      .packed = call->weights,
      .packed_range = call->weights_range,
      .c = call->y,
      .c_rs = call->y_s.pixel,
      .alpha = call->scale,
      .bias = call->bias,
      .residual = call->residual,
      .residual_rs = call->residual_s.pixel,
      .activation = call->activation,
      .a_type = call->x_type,
      .b_type = call->weights_type,
      .c_type = call->y_type,
      .residual_type = call->residual_type,
      .split = call->split,
  };
}

static void make_pixels(const void *context, size_t i, size_t m, size_t k, size_t depth, void *to) {
  const plan *g = context;
  gather_rows(g, g->image + i / g->pixels, i % g->pixels, m, k, depth, g->call->x_type, to, depth);
}

// 16 pixels of y are as many of x at one distance where they are in a row of y and a tap leaves them inside the image.
// Others are gathered.
static void place_pixels(const void *context, size_t i, size_t k, size_t steps, uint16_t *scratch, const uint16_t **at) {
  enum { COUNT = CK_TILE_EDGE / 2 };
  const plan *g = context;
  const ck_conv *call = g->call;
  const ck_conv_strides *s = &call->x_s;
  const size_t rs = pixels_apart(g), image = g->image + i / g->pixels, p = i % g->pixels, first = p % g->w.count;
  for (size_t step = 0, run; step < steps; step += run) {
    const size_t at_k = k + step * CK_TILE_STEP, tap = at_k / call->channels, channel = at_k % call->channels;
    const ptrdiff_t iy = g->h.start + (ptrdiff_t)(p / g->w.count) * g->h.move + (ptrdiff_t)(tap / g->w.taps) * g->h.tap;
    const ptrdiff_t ix = g->w.start + (ptrdiff_t)first * g->w.move + (ptrdiff_t)(tap % g->w.taps) * g->w.tap;
    const int inside = first + COUNT <= g->w.count && iy >= 0 && iy < (ptrdiff_t)call->h.input && ix >= 0 &&
                       ix + (COUNT - 1) * g->w.move < (ptrdiff_t)call->w.input;
    const uint16_t *from = scratch + channel;
    run = MIN(steps - step, (call->channels - channel) / CK_TILE_STEP);
    if (inside || g->in_place)
      from = staging_element(CK_BF16, call->x, offset_of(s, image, (size_t)iy, (size_t)ix, channel));
    else
      gather_rows(g, image, p, COUNT, at_k, run * CK_TILE_STEP, CK_BF16, scratch + channel, rs), scratch += COUNT * rs;
    for (size_t q = 0; q < run; q++) at[step + q] = from + q * CK_TILE_STEP;
  }
}

// Whether steps of tiles are channels of one tap, in cache lines of their own, and pixels neither overlap, as gathered ones could
// not, nor lie so far apart that those would need more room than a copy.
static int can_place(const plan *g) {
  const ck_conv *call = g->call;
  const ck_conv_strides *s = &call->x_s;
  const size_t apart = pixels_apart(g);
  return call->x_type == CK_BF16 && !call->doubled && call->channels && call->channels % CK_TILE_STEP == 0 &&
         (uintptr_t)call->x % GEMM_TILE_LINE == 0 && (s->image | s->row | s->pixel) * sizeof(uint16_t) % GEMM_TILE_LINE == 0 &&
         apart >= call->channels && apart <= MOST_APART * call->channels;
}

// Images follow each other in one product where no EDGE rows are of two, so that an image has the same bits in any batch.
int32_t ck_tile_conv(const ck_kernels *table, const ck_conv *call, size_t threads) {
  plan g = {.table = table, .call = call, .h = axis_of(&call->h, 0, 0), .w = axis_of(&call->w, 0, 0)};
  ck_gemm product = product_of(call);
  const ck_conv_strides *y = &call->y_s, *residual = &call->residual_s;
  g.pixels = product.m, g.merged = is_merged(&g), g.in_place = is_in_place(&g);
  ck_tile_rows rows = {.make = make_pixels, .context = &g};
  if (can_place(&g)) rows.place = place_pixels, rows.place_rs = pixels_apart(&g), rows.place_run = call->channels;
  if (call->add) {
    float *biases = ck_scratch(CK_SCRATCH_OPERATION, call->batch * call->outputs);
    if (!biases) return -1;
    ck_conv_biases(table, call, biases);
    product.bias = biases;
  }
  const int follow = y->image == g.pixels * y->pixel && (!call->residual || residual->image == g.pixels * residual->pixel);
  if (follow && g.pixels % CK_TILE_EDGE == 0) {
    rows.bias_rows = call->add ? g.pixels : 0, product.m *= call->batch;
    return ck_tile_gemm_rows(table, &product, &rows, threads);
  }
  for (; g.image < call->batch; g.image++) {
    if (ck_tile_gemm_rows(table, &product, &rows, threads)) return -1;
    product.c = (float *)staging_element(call->y_type, product.c, y->image);
    if (call->residual) product.residual = staging_element(call->residual_type, product.residual, residual->image);
    if (call->add) product.bias += call->outputs;
  }
  return 0;
}

// One image decides. Winograd's sums take a quarter of the products, by FMA: fewer than operands cut into several pieces do, and
// faster than vdpbf16ps, of twice the rate, where weights are transformed for enough squares. A matrix unit is faster than both.
static int tiles_pay(const ck_kernels *table, const ck_conv *call) {
  if (!ck_tile_conv_can(call)) return 0;
  const ck_gemm product = product_of(call);
  if (!gemm_tile_pays(table, &product)) return 0;
  if (gemm_tile_products(&product) > 1) return !winograd_pays(call, 0);
  return table->tiles != CK_TILES_DOT || !winograd_pays(call, 1);
}

int32_t ck_f32_conv(const ck_kernels *table, const ck_conv *call, size_t threads) {
  if (!call->batch || !call->outputs || !call->h.output || !call->w.output) return 0;
  if (tiles_pay(table, call)) return ck_tile_conv(table, call, threads);
  if (winograd_pays(call, 0)) return ck_f32_winograd(table, call, threads);
  const size_t nr = table->gemm_nr, taps = call->h.kernel * call->w.kernel, panel = nr * taps * call->channels;
  const size_t classes_h = call->transposed ? MIN(call->h.stride, call->h.output) : 1;
  const size_t classes_w = call->transposed ? MIN(call->w.stride, call->w.output) : 1;
  const int widens = call->weights_type != CK_F32 && panel;
  const size_t chunk = widens ? MIN(pieces_of(call->outputs, nr), MAX(WIDENED_FLOATS / panel, 1)) : 0;
  plan g = {.table = table, .call = call, .b_panel = panel, .bias = call->bias};

  // Scratch first: what the hungriest class needs.
  size_t most = 0;
  for (size_t z = 0; z < classes_h * classes_w; z++) {
    g.h = axis_of(&call->h, call->transposed, z / classes_w), g.w = axis_of(&call->w, call->transposed, z % classes_w);
    lay_out(&g, threads);
    most = MAX(most, g.piece);
  }
  if (most && !(g.pieces = ck_scratch(CK_SCRATCH_A, most * MAX(threads, 1)))) return -1;
  const size_t biases = call->add ? round_up(call->batch * call->outputs, 16) : 0;
  float *shared = 0;
  if (chunk * panel + biases && !(shared = ck_scratch(CK_SCRATCH_B, chunk * panel + biases))) return -1;
  if (call->add) ck_conv_biases(table, call, shared), g.bias = shared, g.bias_bs = call->outputs;

  const size_t step = chunk ? chunk * nr : round_up(call->outputs, nr);
  for (g.first = 0; g.first < call->outputs; g.first += step) {
    g.n = MIN(step, call->outputs - g.first);
    const float *panels = staging_element(call->weights_type, call->weights, g.first / nr * panel);
    if (chunk) {
      const widening w = {&g, panels, shared + biases};
      ck_parallel(pieces_of(g.n, nr), (1 << 15) / panel + 1, threads, widen_panels, &w);
      panels = w.to;
    }
    for (size_t z = 0; z < classes_h * classes_w; z++) {
      g.h = axis_of(&call->h, call->transposed, z / classes_w), g.w = axis_of(&call->w, call->transposed, z % classes_w);
      lay_out(&g, threads);
      g.panels = panels + (g.h.earlier * call->w.kernel + g.h.taps * g.w.earlier) * call->channels * nr;
      const size_t blocks = call->batch * pieces_of(g.pixels, g.rows) * pieces_of(g.n, g.columns);
      const int alone = call->batch * g.pixels * g.n * g.k < CALLER_WORK;
      ck_parallel(blocks, 1, alone ? 1 : threads, run_blocks, &g);
    }
  }
  return 0;
}

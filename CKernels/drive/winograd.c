// Convolution by Winograd's F(4, 3), body/winograd.h: 36 products [squares, channels] x [channels, outputs], one for each of the
// places of a transformed square, instead of nine times as many channels. A chunk of the outputs at a time has its weights
// transformed by all threads; then blocks of squares are transformed a K slice at a time, multiplied, and transformed back.
//
// An image of repeated pixels has squares of its own, of 9 products: docs/adr/0019-repeated-pixels.md.
#include <string.h>

#include "../include/ck_conv.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  MOST_PLACES = 36,
  FEWEST_COLUMNS = 64,
  MOST_COLUMNS = 512,
  BLOCKS_A_THREAD = 2,
  WIDENED_ROWS = 32,  // channels of weights that are not f32, widened at a time: whole pairs, with a row before and after
  ALIASING_STRIDE = 512,
  LINE = 16,  // floats
};

// What is done with a square.
typedef struct form {
  size_t places, side, patch;  // products; pixels of y a side, and of x
  size_t step;                 // pixels of y beside each other for one of x
  size_t weights_floats;       // transformed at a time, part of L3: x is transformed for each
  size_t most_squares;         // of a block
} form;

static const form plain = {MOST_PLACES, 4, 6, 1, 3 << 20, 48}, doubled = {9, 2, 3, 2, 1 << 20, 96};

typedef struct plan {
  form form;
  const ck_kernels *table;
  const ck_conv *call;
  size_t across, squares;  // in a row of an image; in all
  size_t rows, slice;      // squares of a block; channels of a K slice
  size_t a_rs, a_fs;       // floats from square to square of V, and from place to place
  size_t first, n;         // outputs of this chunk
  size_t w_fs, c_fs;       // floats from place to place of its weights, and of a block's products
  float *weights;          // [places][n / NR][channels][NR]
  const float *zeros;      // [slice], for pixels beyond the image, of any type
  const float *bias;       // [outputs] for each image, bias_bs apart, or NULL
  size_t bias_bs;
  size_t piece;  // floats of a participant's V and of its products
  float *pieces;
} plan;

int ck_winograd_can(const ck_conv *call) {
  const ck_conv_axis *h = &call->h, *w = &call->w;
  const int same = h->padding == 1 && w->padding == 1 && h->output == h->input && w->output == w->input;
  return h->kernel == 3 && w->kernel == 3 && h->stride == 1 && w->stride == 1 && h->dilation == 1 && w->dilation == 1 &&
         !call->transposed && call->channels_last && (!call->doubled || same);
}

// Floats from place to place of at least `floats`: an odd number of cache lines, so that places do not share sets.
static size_t place_apart(size_t floats) { return round_up(floats, 2 * LINE) + LINE; }

static size_t weights_apart(const plan *g, size_t n) { return place_apart(round_up(n, g->table->gemm_nr) * g->call->channels); }

// Strips of WIDENED_ROWS channels of the chunk's panels.
static void transform_weights(const void *context, size_t first, size_t last) {
  const plan *g = context;
  const ck_conv *call = g->call;
  const size_t nr = g->table->gemm_nr, k = call->channels, strips = pieces_of(k, WIDENED_ROWS);
  for (size_t item = first; item < last; item++) {
    const size_t panel = item / strips, c = item % strips * WIDENED_ROWS, count = MIN(WIDENED_ROWS, k - c);
    const size_t from = (g->first / nr + panel) * 9 * k * nr;
    float *to = g->weights + (panel * k + c) * nr;
    const float *taps;
    size_t apart = k * nr;
    if (call->weights_type == CK_F32) {
      taps = (const float *)call->weights + from + c * nr;
    } else {
      float *widened = g->pieces + ck_participant() * g->piece + nr;
      apart = (WIDENED_ROWS + 2) * nr;
      for (size_t tap = 0; tap < 9; tap++) {
        const size_t row = tap * k + c, even = row / 2 * 2, end = MIN(round_up(row + count, 2), 9 * k);
        g->table->f32_gemm_unpack_b(call->weights_type, end - even,
                                    staging_element(call->weights_type, call->weights, from + even * nr),
                                    widened + tap * apart - (row - even) * nr);
      }
      taps = widened;
    }
    (call->doubled ? g->table->f32_doubled_weights : g->table->f32_winograd_weights)(count, taps, apart, to, g->w_fs);
  }
}

// Where square `index` begins in y, and the image it is in.
typedef struct place {
  size_t image, y, x;
} place;

static place place_of(const plan *g, size_t index) {
  const size_t image = g->squares / g->call->batch, at = index % image;
  return (place){index / image, at / g->across * g->form.side, at % g->across * g->form.side};
}

// Channels [c, c + n) of a square of x to v.
static void transform_square(const plan *g, size_t index, size_t c, size_t n, float *v) {
  const ck_conv *call = g->call;
  const ck_conv_strides *s = &call->x_s;
  const place p = place_of(g, index);
  const size_t patch = g->form.patch, step = g->form.step;
  const size_t height = pieces_of(call->h.input, step), width = pieces_of(call->w.input, step);
  const void *x[MOST_PLACES];
  for (size_t i = 0; i < patch * patch; i++) {
    const size_t y_at = p.y / step + i / patch - call->h.padding;  // wraps above the image
    const size_t x_at = p.x / step + i % patch - call->w.padding;
    const int inside = y_at < height && x_at < width;
    const size_t at = p.image * s->image + y_at * s->row + x_at * s->pixel + c;
    x[i] = inside ? staging_element(call->x_type, call->x, at) : g->zeros;
  }
  (call->doubled ? g->table->f32_doubled_input : g->table->f32_winograd_input)(call->x_type, n, x, v, g->a_fs);
}

static void finish_square(const plan *g, size_t index, const float *m) {
  const ck_conv *call = g->call;
  const place p = place_of(g, index);
  ck_winograd_tile tile = {.n = g->n, .m = m, .m_fs = g->c_fs, .scale = call->channels ? call->scale : 0};
  tile.activation = call->activation, tile.y_type = call->y_type, tile.residual_type = call->residual_type;
  if (g->bias) tile.bias = g->bias + p.image * g->bias_bs + g->first;
  const size_t side = g->form.side;
  for (size_t i = 0; i < side * side; i++) {
    const size_t y = p.y + i / side, x = p.x + i % side;
    if (y >= call->h.output || x >= call->w.output) continue;
    const ck_conv_strides *s = &call->y_s, *r = &call->residual_s;
    tile.y[i] = (char *)call->y + (p.image * s->image + y * s->row + x * s->pixel + g->first) * ck_dtype_size(call->y_type);
    if (!call->residual) continue;
    const size_t residual = p.image * r->image + y * r->row + x * r->pixel + g->first;
    tile.residual[i] = staging_element(call->residual_type, call->residual, residual);
  }
  (call->doubled ? g->table->f32_doubled_output : g->table->f32_winograd_output)(&tile);
}

static void run_block(const plan *g, size_t index) {
  const size_t first = index * g->rows, m = MIN(g->rows, g->squares - first), channels = g->call->channels;
  const size_t nr = g->table->gemm_nr, places = g->form.places;
  float *v = g->pieces + ck_participant() * g->piece, *c = v + places * g->a_fs;
  for (size_t k = 0; k < channels; k += g->slice) {
    const size_t depth = MIN(g->slice, channels - k);
    for (size_t i = 0; i < m; i++) transform_square(g, first + i, k, depth, v + i * g->a_rs);
    for (size_t f = 0; f < places; f++) {
      const ck_gemm_block block = {
          .m = m,
          .n = g->n,
          .k = depth,
          .a = v + f * g->a_fs,
          .a_rs = g->a_rs,
          .b = g->weights + f * g->w_fs + k * nr,
          .b_panel = channels * nr,
          .c = c + f * g->c_fs,
          .c_rs = g->n,
          .alpha = 1,
          .beta = k ? 1 : 0,
      };
      g->table->f32_gemm_block(&block);
    }
  }
  for (size_t i = 0; i < m; i++) finish_square(g, first + i, c + i * g->n);
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

int32_t ck_f32_winograd(const ck_kernels *table, const ck_conv *call, size_t threads) {
  const size_t nr = table->gemm_nr, k = call->channels, n = call->outputs;
  plan g = {.form = call->doubled ? doubled : plain, .table = table, .call = call, .bias = call->bias};
  const size_t places = g.form.places;
  g.across = pieces_of(call->w.output, g.form.side);
  g.squares = call->batch * pieces_of(call->h.output, g.form.side) * g.across;
  g.slice = balanced(k, table->gemm_kc, 4);
  g.a_rs = round_up(MIN(g.slice, k), 16);
  if (g.a_rs % ALIASING_STRIDE == 0) g.a_rs += 16;
  // Blocks of equal size, so many that every thread has its share.
  const size_t fewest = threads > 1 ? threads * BLOCKS_A_THREAD : 1;
  g.rows = balanced(g.squares, MIN(MAX(g.squares / fewest, table->gemm_mr), g.form.most_squares), table->gemm_mr);
  const size_t most = MAX(MIN(g.form.weights_floats / places / MAX(k, 1) / nr * nr, MOST_COLUMNS), FEWEST_COLUMNS);
  const size_t columns = balanced(n, most, nr), blocks = pieces_of(g.squares, g.rows);
  g.a_fs = place_apart(g.rows * g.a_rs);
  g.piece = MAX(places * (g.a_fs + place_apart(g.rows * columns)), 9 * (WIDENED_ROWS + 2) * nr);
  const size_t biases = call->add ? round_up(call->batch * n, 16) : 0;
  const size_t zeros = round_up(g.slice, 16);
  float *shared = ck_scratch(CK_SCRATCH_B, zeros + biases + places * weights_apart(&g, columns));
  if (!shared || !(g.pieces = ck_scratch(CK_SCRATCH_A, g.piece * MAX(threads, 1)))) return -1;
  memset(shared, 0, zeros * sizeof *shared);
  g.zeros = shared;
  if (call->add) ck_conv_biases(table, call, shared + zeros), g.bias = shared + zeros, g.bias_bs = n;
  g.weights = shared + zeros + biases;
  for (g.first = 0; g.first < n; g.first += columns) {
    g.n = MIN(columns, n - g.first), g.w_fs = weights_apart(&g, g.n), g.c_fs = place_apart(g.rows * g.n);
    ck_parallel(pieces_of(g.n, nr) * pieces_of(k, WIDENED_ROWS), 1, threads, transform_weights, &g);
    ck_parallel(blocks, 1, threads, run_blocks, &g);
  }
  return 0;
}

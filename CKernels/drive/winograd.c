// Convolution by Winograd's F(4, 3), body/winograd.h: 36 products [squares, channels] x [channels, outputs], one for each of the
// places of a transformed square, instead of nine times as many channels. A chunk of the outputs at a time has its weights
// transformed by all threads; then blocks of squares are transformed a K slice at a time, multiplied, and transformed back.
#include <string.h>

#include "../include/ck_conv.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  PLACES = 36,
  SQUARE = 4,              // pixels of y a side; 6 of x
  PATCH = 6,
  WEIGHTS_FLOATS = 1 << 23,  // transformed at a time (32 MiB)
  MOST_COLUMNS = 512,
  MOST_SQUARES = 48,  // of a block
  BLOCKS_A_THREAD = 2,
  WIDENED_ROWS = 32,  // channels of weights that are not f32, widened at a time
  ALIASING_STRIDE = 512,
};

typedef struct plan {
  const ck_kernels *table;
  const ck_conv *call;
  size_t across, squares;  // in a row of an image; in all
  size_t rows, slice;      // squares of a block; channels of a K slice
  size_t a_rs;
  size_t first, n;         // outputs of this chunk
  float *weights;          // [36][n / NR][channels][NR]
  const float *zeros;      // [slice], for pixels beyond the image
  const float *bias;       // [outputs] for each image, bias_bs apart, or NULL
  size_t bias_bs;
  int widens, narrows;       // x is not f32; y or the residual is not
  size_t a_floats, c_floats;  // floats of a participant's V and of its products
  size_t x_floats, piece;     // of widened pixels of x, or of those of y and the residual; of all its scratch
  float *pieces;
} plan;

int ck_winograd_can(const ck_conv *call) {
  const ck_conv_axis *h = &call->h, *w = &call->w;
  return h->kernel == 3 && w->kernel == 3 && h->stride == 1 && w->stride == 1 && h->dilation == 1 && w->dilation == 1 &&
         !call->transposed && call->channels_last;
}

static size_t weights_place(const plan *g) { return round_up(g->n, g->table->gemm_nr) * g->call->channels; }

// Strips of WIDENED_ROWS channels of the chunk's panels.
static void transform_weights(const void *context, size_t first, size_t last) {
  const plan *g = context;
  const ck_conv *call = g->call;
  const size_t nr = g->table->gemm_nr, k = call->channels, strips = pieces_of(k, WIDENED_ROWS);
  for (size_t item = first; item < last; item++) {
    const size_t panel = item / strips, c = item % strips * WIDENED_ROWS, count = MIN(WIDENED_ROWS, k - c);
    const size_t from = (g->first / nr + panel) * 9 * k * nr + c * nr;
    float *to = g->weights + (panel * k + c) * nr;
    const float *taps = staging_element(call->weights_type, call->weights, from);
    size_t apart = k * nr;
    if (call->weights_type != CK_F32) {
      float *widened = g->pieces + ck_participant() * g->piece;
      apart = WIDENED_ROWS * nr;
      for (size_t tap = 0; tap < 9; tap++)
        g->table->f32_widen(call->weights_type, count * nr, staging_element(call->weights_type, taps, tap * k * nr),
                            widened + tap * apart);
      taps = widened;
    }
    g->table->f32_winograd_weights(count, taps, apart, to, weights_place(g));
  }
}

// Where square `index` begins in y, and the image it is in.
typedef struct place {
  size_t image, y, x;
} place;

static place place_of(const plan *g, size_t index) {
  const size_t image = g->squares / g->call->batch, at = index % image;
  return (place){index / image, at / g->across * SQUARE, at % g->across * SQUARE};
}

// Channels [c, c + n) of a square of x to v; `widened` holds [36][n].
static void transform_square(const plan *g, size_t index, size_t c, size_t n, float *widened, float *v) {
  const ck_conv *call = g->call;
  const ck_conv_strides *s = &call->x_s;
  const place p = place_of(g, index);
  const float *x[PLACES];
  for (size_t i = 0; i < PLACES; i++) {
    const size_t y_at = p.y + i / PATCH - call->h.padding, x_at = p.x + i % PATCH - call->w.padding;  // wraps above the image
    const int inside = y_at < call->h.input && x_at < call->w.input;
    const size_t at = p.image * s->image + y_at * s->row + x_at * s->pixel + c;
    if (inside && g->widens) g->table->f32_widen(call->x_type, n, staging_element(call->x_type, call->x, at), widened + i * n);
    x[i] = !inside ? g->zeros : g->widens ? widened + i * n : (const float *)call->x + at;
  }
  g->table->f32_winograd_input(n, x, v, g->rows * g->a_rs);
}

// `kept` holds [32][n]: pixels of y, then of the residual.
static void finish_square(const plan *g, size_t index, const float *m, float *kept) {
  const ck_conv *call = g->call;
  const place p = place_of(g, index);
  ck_winograd_tile tile = {.n = g->n, .m = m, .m_fs = g->rows * g->n, .scale = call->channels ? call->scale : 0};
  tile.activation = call->activation;
  if (g->bias) tile.bias = g->bias + p.image * g->bias_bs + g->first;
  void *to[SQUARE * SQUARE] = {0};
  for (size_t i = 0; i < SQUARE * SQUARE; i++) {
    const size_t y = p.y + i / SQUARE, x = p.x + i % SQUARE;
    if (y >= call->h.output || x >= call->w.output) continue;
    const ck_conv_strides *s = &call->y_s, *r = &call->residual_s;
    to[i] = (char *)call->y + (p.image * s->image + y * s->row + x * s->pixel + g->first) * ck_dtype_size(call->y_type);
    tile.y[i] = g->narrows ? kept + i * g->n : to[i];
    if (!call->residual) continue;
    const size_t residual = p.image * r->image + y * r->row + x * r->pixel + g->first;
    const void *added = staging_element(call->residual_type, call->residual, residual);
    tile.residual[i] = g->narrows ? kept + (SQUARE * SQUARE + i) * g->n : added;
    if (g->narrows) g->table->f32_widen(call->residual_type, g->n, added, (float *)tile.residual[i]);
  }
  g->table->f32_winograd_output(&tile);
  for (size_t i = 0; g->narrows && i < SQUARE * SQUARE; i++)
    if (to[i]) g->table->f32_narrow(call->y_type, g->n, tile.y[i], to[i]);
}

static void run_block(const plan *g, size_t index) {
  const size_t first = index * g->rows, m = MIN(g->rows, g->squares - first), channels = g->call->channels;
  float *v = g->pieces + ck_participant() * g->piece, *c = v + g->a_floats, *kept = c + g->c_floats;
  const size_t nr = g->table->gemm_nr;
  for (size_t k = 0; k < channels; k += g->slice) {
    const size_t depth = MIN(g->slice, channels - k);
    for (size_t i = 0; i < m; i++) transform_square(g, first + i, k, depth, kept, v + i * g->a_rs);
    for (size_t f = 0; f < PLACES; f++) {
      const ck_gemm_block block = {
          .m = m,
          .n = g->n,
          .k = depth,
          .a = v + f * g->rows * g->a_rs,
          .a_rs = g->a_rs,
          .b = g->weights + f * weights_place(g) + k * nr,
          .b_panel = channels * nr,
          .c = c + f * g->rows * g->n,
          .c_rs = g->n,
          .alpha = 1,
          .beta = k ? 1 : 0,
      };
      g->table->f32_gemm_block(&block);
    }
  }
  for (size_t i = 0; i < m; i++) finish_square(g, first + i, c + i * g->n, kept);
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

int32_t ck_f32_winograd(const ck_kernels *table, const ck_conv *call, size_t threads) {
  const size_t nr = table->gemm_nr, k = call->channels, n = call->outputs;
  plan g = {.table = table, .call = call, .bias = call->bias};
  g.across = pieces_of(call->w.output, SQUARE);
  g.squares = call->batch * pieces_of(call->h.output, SQUARE) * g.across;
  g.slice = balanced(k, table->gemm_kc, 4);
  g.a_rs = round_up(MIN(g.slice, k), 16);
  if (g.a_rs % ALIASING_STRIDE == 0) g.a_rs += 16;
  // Blocks of equal size, so many that every thread has its share.
  const size_t fewest = threads > 1 ? threads * BLOCKS_A_THREAD : 1;
  g.rows = balanced(g.squares, MIN(MAX(g.squares / fewest, table->gemm_mr), MOST_SQUARES), table->gemm_mr);
  const size_t most = MAX(MIN(WEIGHTS_FLOATS / PLACES / MAX(k, 1) / nr * nr, MOST_COLUMNS), nr);
  const size_t columns = balanced(n, most, nr), blocks = pieces_of(g.squares, g.rows);
  g.widens = call->x_type != CK_F32;
  g.narrows = call->y_type != CK_F32 || (call->residual && call->residual_type != CK_F32);
  g.a_floats = PLACES * g.rows * g.a_rs, g.c_floats = PLACES * g.rows * columns;
  g.x_floats = MAX(g.widens ? PLACES * g.slice : 0, g.narrows ? 2 * SQUARE * SQUARE * columns : 0);
  g.piece = MAX(g.a_floats + g.c_floats + g.x_floats, 9 * WIDENED_ROWS * nr);
  const size_t biases = call->add ? round_up(call->batch * n, 16) : 0;
  const size_t zeros = round_up(g.slice, 16);
  float *shared = ck_scratch(CK_SCRATCH_B, zeros + biases + PLACES * columns * k);
  if (!shared || !(g.pieces = ck_scratch(CK_SCRATCH_A, g.piece * MAX(threads, 1)))) return -1;
  memset(shared, 0, zeros * sizeof *shared);
  g.zeros = shared;
  if (call->add) ck_conv_biases(table, call, shared + zeros), g.bias = shared + zeros, g.bias_bs = n;
  g.weights = shared + zeros + biases;
  for (g.first = 0; g.first < n; g.first += columns) {
    g.n = MIN(columns, n - g.first);
    ck_parallel(pieces_of(g.n, nr) * pieces_of(k, WIDENED_ROWS), 1, threads, transform_weights, &g);
    ck_parallel(blocks, 1, threads, run_blocks, &g);
  }
  return 0;
}

// Depthwise convolution: channels are the lanes. f32 with channels last and one output a channel is read where it lies;
// anything else goes through scratch, a band of input rows of some channels at a time, turned, widened and repeated there.
#include <string.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  CALLER_WORK = 1 << 15,  // multiply-adds worth handing to another thread
  BLOCKS_A_THREAD = 4,
  BAND_CHANNELS = 64,       // of a band in scratch
  BAND_FLOATS = 1 << 15,    // of its input rows, where that holds one output row
};

typedef struct plan {
  const ck_kernels *table;
  const ck_conv *call;
  int in_place, direct;       // x is read, y written where it lies
  size_t channels, rows;      // output channels and rows of a piece of work
  size_t taken;               // input rows of a band
  const float *weights;       // [taps][outputs]
  const float *bias;          // [outputs] for each image, bias_bs apart, or NULL
  size_t bias_bs;
  size_t band, line, lines;   // floats of scratch: input rows; one row [pixels, channels]; the same turned
  size_t piece;
  float *pieces;
} plan;

// Taps [*first, returned) of output position q that meet the image.
static size_t taps_of(const ck_conv_axis *a, size_t q, size_t *first) {
  const size_t start = q * a->stride, low = start < a->padding ? (a->padding - start - 1) / a->dilation + 1 : 0;
  const size_t reach = a->input + a->padding;  // the first position beyond
  const size_t high = reach > start ? (reach - start - 1) / a->dilation + 1 : 0;
  *first = MIN(low, a->kernel);
  return MAX(MIN(high, a->kernel), *first);
}

// Input row iy, channels for outputs [o, o + n), as [w.input, n] floats.
static void load_row(const plan *g, size_t image, size_t iy, size_t o, size_t n, float *line, float *lines, float *to) {
  const ck_conv *call = g->call;
  const size_t each = call->outputs / call->channels, width = call->w.input, low = o / each, high = (o + n - 1) / each + 1;
  const size_t row = image * call->x_s.image + iy * call->x_s.row;
  if (call->channels_last) {
    for (size_t x = 0; x < width; x++) {
      const void *pixel = staging_element(call->x_type, call->x, row + x * call->x_s.pixel + low);
      float *widened = each == 1 ? to + x * n : line;
      g->table->f32_widen(call->x_type, high - low, pixel, widened);
      for (size_t c = 0; each != 1 && c < n; c++) to[x * n + c] = line[(o + c) / each - low];
    }
    return;
  }
  for (size_t c = 0; c < n; c++)
    g->table->f32_widen(call->x_type, width, staging_element(call->x_type, call->x, row + (o + c) / each * call->x_s.channel),
                        lines + c * width);
  g->table->f32_transpose(n, width, lines, width, to, n);
}

// A row of results [w.output, n] to y, with the residual.
static void store_row(const plan *g, size_t image, size_t oy, size_t o, size_t n, float *values, float *lines) {
  const ck_conv *call = g->call;
  const ck_conv_strides *s = &call->y_s, *r = &call->residual_s;
  const int last = call->channels_last != 0;
  const size_t width = call->w.output, runs = last ? width : n, length = last ? n : width;
  const size_t y_at = image * s->image + oy * s->row + o * s->channel, y_step = last ? s->pixel : s->channel;
  const size_t r_at = image * r->image + oy * r->row + o * r->channel, r_step = last ? r->pixel : r->channel;
  float *from = values, *added = last ? lines : values;
  if (!last) g->table->f32_transpose(width, n, values, n, lines, width), from = lines;
  for (size_t i = 0; i < runs; i++) {
    float *run = from + i * length;
    if (call->residual) {
      g->table->f32_widen(call->residual_type, length, staging_element(call->residual_type, call->residual, r_at + i * r_step),
                          added);
      for (size_t e = 0; e < length; e++) run[e] += added[e];
    }
    g->table->f32_narrow(call->y_type, length, run, (char *)call->y + (y_at + i * y_step) * ck_dtype_size(call->y_type));
  }
}

// Output row oy of channels [o, o + n): first the pixels at the left border one by one, then those that see every tap at once.
static void run_row(const plan *g, size_t image, size_t oy, size_t o, size_t n, const float *x, size_t x_row, size_t x_pixel,
                    size_t first_row, float *y, size_t y_pixel) {
  const ck_conv *call = g->call;
  const ck_conv_axis *h = &call->h, *w = &call->w;
  size_t top, left;
  const size_t bottom = taps_of(h, oy, &top);
  ck_depthwise_run run = {.n = n, .taps_h = bottom - top, .x_ps = w->stride * x_pixel, .x_ths = h->dilation * x_row};
  run.x_tws = w->dilation * x_pixel, run.w_tws = call->outputs, run.w_ths = w->kernel * call->outputs;
  run.y_ps = y_pixel, run.scale = call->scale, run.activation = call->activation;
  run.bias = g->bias ? g->bias + image * g->bias_bs + o : 0;
  const float *residual = 0;
  if (g->direct && call->residual) {
    residual = (const float *)call->residual + image * call->residual_s.image + oy * call->residual_s.row + o;
    run.residual_ps = call->residual_s.pixel;
  }
  for (size_t q = 0; q < w->output; q += run.pixels) {
    const size_t right = taps_of(w, q, &left);
    run.pixels = 1, run.taps_w = right - left;
    for (size_t next; left == 0 && right == w->kernel && q + run.pixels < w->output; run.pixels++)
      if (taps_of(w, q + run.pixels, &next) != right || next != 0) break;
    // Where no tap meets the image nothing is read: x stays the base.
    const int meets = run.taps_h && run.taps_w;
    const size_t iy = meets ? oy * h->stride + top * h->dilation - h->padding - first_row : 0;
    const size_t ix = meets ? q * w->stride + left * w->dilation - w->padding : 0;
    run.x = x + iy * x_row + ix * x_pixel;
    run.weights = g->weights + (top * w->kernel + left) * call->outputs + o;
    if (!meets) run.weights = g->weights, run.taps_h = 0;
    run.y = y + q * y_pixel;
    run.residual = residual ? residual + q * run.residual_ps : 0;
    g->table->f32_depthwise(&run);
    run.taps_h = bottom - top;
  }
}

static void run_piece(const plan *g, size_t index) {
  const ck_conv *call = g->call;
  const size_t bands = pieces_of(call->h.output, g->rows), chunks = pieces_of(call->outputs, g->channels);
  const size_t image = index / bands / chunks, o = index / bands % chunks * g->channels, first = index % bands * g->rows;
  const size_t n = MIN(g->channels, call->outputs - o), end = MIN(first + g->rows, call->h.output);
  float *band = g->pieces + ck_participant() * g->piece, *line = band + g->band, *lines = line + g->line;
  const float *x = (const float *)call->x + image * call->x_s.image + o;
  size_t row = call->x_s.row, pixel = call->x_s.pixel, low = 0;
  if (!g->in_place) {
    const size_t start = first * call->h.stride, reach = (end - 1) * call->h.stride + (call->h.kernel - 1) * call->h.dilation + 1;
    low = MIN(start > call->h.padding ? start - call->h.padding : 0, call->h.input);
    const size_t high = MIN(reach > call->h.padding ? reach - call->h.padding : 0, call->h.input);
    x = band, pixel = n, row = call->w.input * n;
    for (size_t iy = low; iy < high; iy++) load_row(g, image, iy, o, n, line, lines, band + (iy - low) * row);
  }
  for (size_t oy = first; oy < end; oy++) {
    float *y = g->direct ? (float *)call->y + image * call->y_s.image + oy * call->y_s.row + o : line;
    run_row(g, image, oy, o, n, x, row, pixel, low, y, g->direct ? call->y_s.pixel : n);
    if (!g->direct) store_row(g, image, oy, o, n, line, lines);
  }
}

static void run_pieces(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_piece(context, index);
}

int32_t ck_f32_depthwise(const ck_kernels *table, const ck_conv *call, size_t threads) {
  if (!call->batch || !call->outputs || !call->h.output || !call->w.output) return 0;
  const size_t taps = call->h.kernel * call->w.kernel, outputs = call->outputs, rows = call->h.output;
  plan g = {.table = table, .call = call, .weights = call->weights, .bias = call->bias, .rows = rows, .channels = outputs};
  const int floats = call->channels_last && call->y_type == CK_F32 && (!call->residual || call->residual_type == CK_F32);
  g.in_place = floats && call->x_type == CK_F32 && outputs == call->channels;
  g.direct = floats;
  if (!g.in_place || !g.direct) {
    g.channels = MIN(outputs, BAND_CHANNELS);
    const size_t width = call->w.input * g.channels, span = (call->h.kernel - 1) * call->h.dilation;
    const size_t held = MAX(BAND_FLOATS / MAX(width, 1), span + 1);
    g.rows = MIN((held - span - 1) / call->h.stride + 1, rows);
    g.taken = MIN((g.rows - 1) * call->h.stride + span + 1, call->h.input);
    g.band = round_up(g.taken * width, 16);
    g.line = g.lines = round_up(MAX(call->w.input, call->w.output) * g.channels, 16);
  }
  const size_t work = call->batch * outputs * rows * call->w.output * taps;
  if (work < CALLER_WORK) threads = 1;
  const size_t across = call->batch * pieces_of(outputs, g.channels), wanted = threads > 1 ? threads * BLOCKS_A_THREAD : 1;
  g.rows = MIN(g.rows, MAX(pieces_of(rows * across, wanted), 1));
  g.piece = g.band + g.line + g.lines;
  if (g.piece && !(g.pieces = ck_scratch(CK_SCRATCH_A, g.piece * MAX(threads, 1)))) return -1;

  const size_t widened = call->weights_type == CK_F32 ? 0 : round_up(taps * outputs, 16);
  const size_t biases = call->add ? call->batch * outputs : 0;
  float *shared = 0;
  if (widened + biases && !(shared = ck_scratch(CK_SCRATCH_B, widened + biases))) return -1;
  if (widened) table->f32_widen(call->weights_type, taps * outputs, call->weights, shared), g.weights = shared;
  if (call->add) ck_conv_biases(table, call, shared + widened), g.bias = shared + widened, g.bias_bs = outputs;
  ck_parallel(across * pieces_of(rows, g.rows), 1, threads, run_pieces, &g);
  return 0;
}

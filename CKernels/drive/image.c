// Image kernels on many threads: output rows in pieces. Where a few rows are all there is, as in global pooling, channels are
// cut.
#include <math.h>

#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  CALLER_ELEMENTS = 1 << 15,  // about 20 microseconds
  PIECE_ELEMENTS = 1 << 13,
  PIECES_A_THREAD = 4,
  CHANNEL_BLOCK = 64,  // of a row that is cut: whole cache lines
  LINE_SLACK = 64,     // a vector may be read past a line's end
};

typedef struct job {
  ck_image_kernel kernel;
  ck_image call;
} job;

static void run_rows(const void *context, size_t first, size_t last) {
  const job *j = context;
  j->kernel(&j->call, first, last);
}

static size_t rounded(size_t x) { return (x + 15) / 16 * 16; }

// Output i of `to` lies at i (from - 1) / (to - 1), or with its centre where it was: (i + 1/2) from / to - 1/2, not below 0.
static void bilinear_taps(const ck_taps *taps, size_t from, size_t to, int align_corners) {
  for (size_t i = 0; i < to; i++) {
    const double corner = to > 1 ? (double)i * (double)(from - 1) / (double)(to - 1) : 0;
    const double centre = ((double)i + 0.5) * (double)from / (double)to - 0.5;
    const double at = align_corners ? corner : MAX(centre, 0);
    const size_t first = MIN((size_t)at, from - 1);
    const double weight = MIN(at - (double)first, 1);
    taps->first[i] = (int32_t)first, taps->second[i] = (int32_t)MIN(first + 1, from - 1);
    taps->first_weight[i] = (float)(1 - weight), taps->second_weight[i] = (float)weight;
  }
}

static void nearest_taps(const ck_taps *taps, size_t from, size_t to) {
  for (size_t i = 0; i < to; i++) taps->first[i] = (int32_t)(i * from / to);
}

static void border_taps(const ck_taps *taps, ck_border border, size_t pad, size_t from, size_t to) {
  for (size_t i = 0; i < to; i++) {
    const int64_t at = (int64_t)i - (int64_t)pad, last = (int64_t)from - 1;
    const int64_t reflected = at < 0 ? -at : 2 * last - at, nearest = at < 0 ? 0 : last;
    const int64_t beyond = border == CK_BORDER_REFLECT ? reflected : border == CK_BORDER_REPLICATE ? nearest : -1;
    taps->first[i] = (int32_t)(at >= 0 && at <= last ? at : beyond);
  }
}

// The columns of x in each window, or of the whole window.
static void window_counts(const ck_image *c, float *counts) {
  for (size_t j = 0; j < c->y_w; j++) {
    const size_t first = j * c->stride_w, last = MIN(first + c->kernel_w, c->pad_w + c->x_w);
    counts[j] = (float)(c->include_pad ? c->kernel_w : last - MIN(MAX(first, c->pad_w), last));
  }
}

static void fill_taps(const ck_kernels *table, ck_image_kernel kernel, ck_image *c) {
  if (kernel == table->f32_resize_bilinear) {
    bilinear_taps(&c->row_taps, c->x_h, c->y_h, c->align_corners);
    bilinear_taps(&c->column_taps, c->x_w, c->y_w, c->align_corners);
  } else if (kernel == table->f32_resize_nearest) {
    nearest_taps(&c->row_taps, c->x_h, c->y_h);
    nearest_taps(&c->column_taps, c->x_w, c->y_w);
  } else if (kernel == table->f32_pad) {
    border_taps(&c->row_taps, c->border, c->pad_h, c->x_h, c->y_h);
    border_taps(&c->column_taps, c->border, c->pad_w, c->x_w, c->y_w);
  } else if (kernel == table->f32_avg_pool) {
    window_counts(c, c->column_taps.first_weight);
  }
}

static ck_taps taps_at(float *p, size_t count) {
  return (ck_taps){(int32_t *)p, (int32_t *)(p + count), p + 2 * count, p + 3 * count};
}

int32_t ck_image_run(const ck_kernels *table, ck_image_kernel kernel, const ck_image *call, size_t threads) {
  job j = {.kernel = kernel, .call = *call};
  ck_image *c = &j.call;
  const int pools = kernel == table->f32_avg_pool || kernel == table->f32_max_pool;
  const size_t rows = c->batch * c->y_h * (c->channels_last ? 1 : c->channels);
  if (!rows || !c->channels || !c->y_w) return 0;
  const size_t reads = pools ? c->kernel_h * c->kernel_w : 1;
  const size_t row = c->y_w * (c->channels_last ? c->channels : 1) * MAX(reads, 1);  // elements read for a row
  if (rows <= CALLER_ELEMENTS / row || !threads) threads = 1;

  size_t items = rows, item = row;
  c->channel_block = c->channels;
  if (pools && c->channels_last && rows < threads * PIECES_A_THREAD && c->channels > CHANNEL_BLOCK) {
    const size_t parts = (c->channels - 1) / CHANNEL_BLOCK + 1;
    c->channel_block = CHANNEL_BLOCK, items = rows * parts, item = row / parts + 1;
  }
  const size_t row_count = rounded(c->y_h), column_count = rounded(c->y_w), taps = 4 * (row_count + column_count);
  const size_t line = MAX(c->x_w + c->pad_w, pools ? (c->y_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1 : 0);
  const size_t reach = c->channels_last ? 0 : rounded(line + LINE_SLACK * MAX(pools ? MIN(c->stride_w, 2) : 1, 1));
  float *scratch = ck_scratch(CK_SCRATCH_OPERATION, taps + reach * threads);
  if (!scratch) return -1;
  c->row_taps = taps_at(scratch, row_count), c->column_taps = taps_at(scratch + 4 * row_count, column_count);
  c->scratch = scratch + taps, c->scratch_size = reach;
  for (size_t k = c->y_w; k < column_count; k++) c->column_taps.first[k] = c->column_taps.second[k] = 0;
  fill_taps(table, kernel, c);

  const size_t even = items / (threads * PIECES_A_THREAD) + 1, least = PIECE_ELEMENTS / item + 1;
  ck_parallel(items, MAX(even, least), threads, run_rows, &j);
  return 0;
}

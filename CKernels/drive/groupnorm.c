// GroupNorm on many threads: sums of blocks that fit L2, merged in double; then every block's affine step and activation.
//
// Blocks depend on the shape alone, so the bits do not depend on threads. Where channels come first and a group fits L2, one task
// does a whole group and memory is read once.
#include <math.h>

#include "../include/ck_parallel.h"
#include "staging.h"

enum {
  BLOCK_ELEMENTS = 1 << 15,  // of a block read twice: a quarter of a small L2
  ROW_ELEMENTS = 1 << 13,  // of a block of one row
  GROUP_ELEMENTS = 1 << 16,  // of a group done by one task
  CALLER_ELEMENTS = 1 << 15,  // about 20 microseconds
  CHUNK_ELEMENTS = 1 << 11,  // of operands that are not f32
};

// A line is what runs along memory: an image row (all of the image where rows adjoin) of one channel, or of all channels.
typedef struct plan {
  const ck_kernels *table;
  const ck_group_norm *call;
  size_t lines, width;  // lines of `width` pixels a channel
  size_t block, pieces;  // pixels of a block, blocks of a line
  size_t group_channels, blocks;  // blocks of a batch entry (channels last) or of a group
  size_t own_size;  // floats of a participant
  float *sums;  // channels last [batch, blocks, groups, 3], else [batch, groups, blocks, 3]
  float *mean, *scale, *bias;  // [batch, channels]
  float *own;
} plan;

// Block `index` of a batch entry (channels last), or of a group from channel c on: where it starts and how many pixels it has.
typedef struct place {
  size_t c, x, y, pixels;
} place;
static place block_place(const plan *p, size_t b, size_t c, size_t index) {
  const ck_group_norm *g = p->call;
  const size_t piece = index % p->pieces, line = index / p->pieces % p->lines, first = piece * p->block;
  c += index / p->pieces / p->lines;
  return (place){c, b * g->x_bs + c * g->x_cs + line * g->x_hs + first * g->x_ws,
                 b * g->y_bs + c * g->y_cs + line * g->y_hs + first * g->y_ws, MIN(p->block, p->width - first)};
}

static void sum_block(const plan *p, size_t b, size_t group, size_t index) {
  const ck_group_norm *g = p->call;
  const place s = block_place(p, b, group * p->group_channels, index);
  ck_group_moments m = {.x = staging_element(g->x_type, g->x, s.x), .x_rs = g->x_ws, .x_type = g->x_type};
  if (g->channels_last) {
    m.rows = s.pixels, m.n = g->channels, m.groups = g->groups;
    m.out = p->sums + (b * p->blocks + index) * g->groups * 3;
    m.scratch = p->own + ck_participant() * p->own_size;
  } else {
    m.rows = 1, m.n = s.pixels, m.groups = 1;
    m.out = p->sums + ((b * g->groups + group) * p->blocks + index) * 3;
  }
  p->table->f32_group_moments(&m);
}

// Merges the blocks of a group. The rounding of the mean to a float is made good in the bias.
static void finish_group(const plan *p, size_t b, size_t group) {
  const ck_group_norm *g = p->call;
  const size_t step = g->channels_last ? g->groups * 3 : 3;
  const float *sums = p->sums + (g->channels_last ? b * p->blocks * step + group * 3 : (b * g->groups + group) * p->blocks * 3);
  const size_t a_pixel = g->channels_last ? p->group_channels : 1;
  const double count = (double)p->group_channels * (double)p->lines * (double)p->width;
  double mean = 0, square = 0;
  for (size_t i = 0; i < p->blocks; i++) {
    const double n = (double)(MIN(p->block, p->width - i % p->pieces * p->block) * a_pixel);
    mean += n * (double)sums[i * step] + (double)sums[i * step + 1];
  }
  mean /= count;
  for (size_t i = 0; i < p->blocks; i++) {
    const double n = (double)(MIN(p->block, p->width - i % p->pieces * p->block) * a_pixel);
    const double d = (double)sums[i * step] - mean;
    square += (double)sums[i * step + 2] + 2 * d * (double)sums[i * step + 1] + n * d * d;
  }
  const double factor = 1 / sqrt(square / count + (double)g->epsilon);
  const float near = (float)mean;
  for (size_t c = group * p->group_channels; c < (group + 1) * p->group_channels; c++) {
    const double scale = factor * (g->weight ? (double)g->weight[c] : 1);
    p->mean[b * g->channels + c] = near;
    p->scale[b * g->channels + c] = (float)scale;
    const double rest = ((double)near - mean) * scale;
    p->bias[b * g->channels + c] = (float)((g->bias ? (double)g->bias[c] : 0) + (isfinite(rest) ? rest : 0));
  }
}

// An affine step whose operands are not both floats, a chunk of columns or rows at a time.
static void affine_through(const plan *p, const ck_group_affine *a, const void *x, void *y) {
  const ck_dtype x_type = p->call->x_type, y_type = p->call->y_type;
  const size_t columns = MIN(a->n, (size_t)CHUNK_ELEMENTS);
  float *own = p->own + ck_participant() * p->own_size;
  for (size_t i = 0; i < a->rows; i++)
    for (size_t j = 0; j < a->n; j += columns) {
      ck_group_affine part = *a;
      const size_t shared = a->uniform ? 0 : j;
      part.rows = 1, part.n = MIN(columns, a->n - j), part.x = own, part.y = own;
      part.mean += shared, part.scale += shared, part.bias += shared;
      p->table->f32_widen(x_type, part.n, staging_element(x_type, x, i * a->x_rs + j), own);
      p->table->f32_group_affine(&part);
      p->table->f32_narrow(y_type, part.n, own, (char *)y + (i * a->y_rs + j) * ck_dtype_size(y_type));
    }
}

static void write_block(const plan *p, size_t b, size_t group, size_t index) {
  const ck_group_norm *g = p->call;
  const place s = block_place(p, b, group * p->group_channels, index);
  const size_t c = b * g->channels + s.c;
  ck_group_affine a = {.rows = g->channels_last ? s.pixels : 1,
                       .n = g->channels_last ? g->channels : s.pixels,
                       .x_rs = g->x_ws,
                       .y_rs = g->y_ws,
                       .mean = p->mean + c,
                       .scale = p->scale + c,
                       .bias = p->bias + c,
                       .uniform = !g->channels_last,
                       .activation = g->activation};
  const void *x = staging_element(g->x_type, g->x, s.x);
  void *y = (char *)g->y + s.y * ck_dtype_size(g->y_type);
  if (g->x_type != CK_F32 || g->y_type != CK_F32) {
    affine_through(p, &a, x, y);
    return;
  }
  a.x = x, a.y = y;
  p->table->f32_group_affine(&a);
}

// Items of the three phases: blocks of every entry (channels last) or of every group, and groups.
typedef void (*block_step)(const plan *p, size_t b, size_t group, size_t index);
static void run_item(const plan *p, block_step step, size_t item) {
  const size_t entry = item / p->blocks, groups = p->call->channels_last ? 1 : p->call->groups;
  step(p, entry / groups, entry % groups, item % p->blocks);
}
static size_t block_items(const plan *p) { return p->call->batch * p->blocks * (p->call->channels_last ? 1 : p->call->groups); }

static void sum_blocks(const void *context, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) run_item(context, sum_block, i);
}
static void finish_groups(const void *context, size_t first, size_t last) {
  const plan *p = context;
  for (size_t i = first; i < last; i++) finish_group(p, i / p->call->groups, i % p->call->groups);
}
// From the last block back: that one was summed last and is still in a cache.
static void write_blocks(const void *context, size_t first, size_t last) {
  const size_t items = block_items(context);
  for (size_t i = first; i < last; i++) run_item(context, write_block, items - 1 - i);
}
static void whole_groups(const void *context, size_t first, size_t last) {
  const plan *p = context;
  for (size_t i = first; i < last; i++) {
    const size_t b = i / p->call->groups, group = i % p->call->groups;
    for (size_t index = 0; index < p->blocks; index++) sum_block(p, b, group, index);
    finish_group(p, b, group);
    for (size_t index = p->blocks; index-- > 0;) write_block(p, b, group, index);
  }
}

int32_t ck_f32_group_norm(const ck_kernels *table, const ck_group_norm *call, size_t threads) {
  const size_t pixels = call->h * call->w, elements = call->batch * call->channels * pixels;
  if (!elements) return 0;
  plan p = {.table = table, .call = call, .lines = call->h, .width = call->w};
  if (call->h == 1 || (call->x_hs == call->w * call->x_ws && call->y_hs == call->w * call->y_ws)) p.lines = 1, p.width = pixels;
  p.group_channels = call->channels / call->groups;
  p.block = MIN(p.width, call->channels_last ? MAX(BLOCK_ELEMENTS / call->channels, 1) : (size_t)ROW_ELEMENTS);
  p.pieces = pieces_of(p.width, p.block);
  p.blocks = p.pieces * p.lines * (call->channels_last ? 1 : p.group_channels);

  const size_t groups = call->batch * call->groups, group_elements = p.group_channels * pixels;
  const size_t sums = groups * p.blocks * 3, values = call->batch * call->channels;
  if (elements <= CALLER_ELEMENTS || !threads) threads = 1;
  const int typed = call->x_type != CK_F32 || call->y_type != CK_F32;
  p.own_size = MAX(call->channels_last ? CK_GROUP_ARRAYS * call->channels : 0, typed ? (size_t)CHUNK_ELEMENTS : 0);
  p.own_size = (p.own_size + 15) / 16 * 16;
  p.own = ck_scratch(CK_SCRATCH_OPERATION, p.own_size * threads + sums + 3 * values);
  if (!p.own) return -1;
  p.sums = p.own + p.own_size * threads;
  p.mean = p.sums + sums, p.scale = p.mean + values, p.bias = p.scale + values;

  if (!call->channels_last && group_elements <= GROUP_ELEMENTS && groups >= 4 * threads) {
    ck_parallel(groups, MAX(groups / (4 * threads), 1), threads, whole_groups, &p);
    return 0;
  }
  const size_t items = block_items(&p), block = elements / items + 1;
  const size_t grain = MAX(MIN(items / (4 * threads), BLOCK_ELEMENTS / block), 1);
  ck_parallel(items, grain, threads, sum_blocks, &p);
  ck_parallel(groups, groups * p.blocks <= 4096 ? groups : MAX(groups / (2 * threads), 1), threads, finish_groups, &p);
  ck_parallel(items, grain, threads, write_blocks, &p);
  return 0;
}
